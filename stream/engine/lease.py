"""Lease: how long this worker may take its partitions for its own.

The group's coordinator gives a silent member's partitions to another after the session timeout. A
process that stood still for longer (SIGSTOP, a suspended machine, a cut network) does not learn of
it before its next heartbeat is answered, and would go on with what it had begun. So the right to
write ends by this worker's own clock, before the coordinator's can.

It also ends, for good, with the first failure that nothing in the worker can make good: what comes
behind a batch that failed must not be committed, or the batch would be passed over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

#: The broker counts from when it got a heartbeat; we from when it was sent, and a little less.
SHARE_OF_SESSION = 0.9
#: Between two looks at whether the coordinator has answered.
LOOK_S = 0.05
_RENEWING = ("HeartbeatRequest", "SyncGroupRequest")
#: No error; and a rebalance that has begun, in which a member is still one.
_STILL_MEMBER = (0, 27)
#: Illegal generation, unknown member, fenced instance.
_NO_MEMBER = (22, 25, 82)

Send = Callable[..., Awaitable[Any]]


class Lease:
    """Held from an answered heartbeat's sending until most of the session timeout has passed.

    When it has run out the coordinator's next answer decides: a broker that was away for longer has
    given nothing to anybody. ``n_refused`` counts the times that it did not know this worker.
    ``given_up`` is set when the worker is to end.
    """

    def __init__(self, session_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds and must go on while the process is stopped."""
        self._lasts_s = SHARE_OF_SESSION * session_s
        self._clock = clock
        self._renewed_s: float | None = None
        self.n_refused = 0
        self.given_up = False

    def held(self) -> bool:
        renewed_s = self._renewed_s
        return renewed_s is not None and self._clock() - renewed_s < self._lasts_s

    async def confirmed(self, n_refused: int) -> bool:
        """Return once it is held: False when there was a refusal since ``n_refused`` was read."""
        while self.n_refused == n_refused:
            if self.held():
                return True
            # Set by the consumer's thread, so there is nothing to wait on.
            await asyncio.sleep(LOOK_S)
        return False

    def watching(self, send: Send) -> Send:
        """Wrap an aiokafka client's ``send``, so that what the coordinator answers is known."""

        async def watched(node_id: int, request: Any, **options: Any) -> Any:
            sent_s = self._clock()
            response = await send(node_id, request, **options)
            if type(request).__name__.startswith(_RENEWING):
                if response.error_code in _STILL_MEMBER:
                    self._renewed_s = sent_s
                elif response.error_code in _NO_MEMBER:
                    self.n_refused += 1
            return response

        return watched

"""Lease: how long this worker may take its partitions for its own.

The group's coordinator gives a silent member's partitions to another after the session timeout. A
process that stood still for longer (SIGSTOP, a suspended machine, a cut network) does not learn of
it before its next heartbeat is answered, and would go on with what it had begun. So the right to
write ends by this worker's own clock, before the coordinator's can.

A *term* is one membership of the group: it ends when the coordinator does not know this worker any
more, and when it has joined anew. What was begun in one term must not be written in the next, in
between the partitions may have been another's.

The right ends for good with the first failure that nothing in the worker can make good: what comes
behind a batch that failed must not be committed, or the batch would be passed over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka.errors import IllegalGenerationError, NodeNotReadyError

#: The broker counts from when it got a heartbeat; we from when it was sent, and a little less.
SHARE_OF_SESSION = 0.9
#: Between two looks at whether the coordinator has answered.
LOOK_S = 0.05
#: No error; and a rebalance that has begun, in which a member is still one.
_STILL_MEMBER = (0, 27)
#: Illegal generation, unknown member, fenced instance.
_NO_MEMBER = (22, 25, 82)

_SYNCED = "SyncGroupRequest"
_RENEWING = ("HeartbeatRequest", _SYNCED)
_WRITING = "ProduceRequest"

Send = Callable[..., Awaitable[Any]]


class Lease:
    """Held from an answered heartbeat's sending until most of the session timeout has passed.

    When it has run out the coordinator's next answer decides: a broker that was away for longer has
    given nothing to anybody. ``term`` counts. ``given_up`` is set when the worker is to end.
    """

    def __init__(self, session_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds and must go on while the process is stopped."""
        self._lasts_s = SHARE_OF_SESSION * session_s
        self._clock = clock
        self._renewed_s: float | None = None
        self._assigned_term = 0
        self._is_leaving = True
        self.term = 0
        self.given_up = False

    # Told by the group --------------------------------------------------------------------------

    def assigned(self) -> None:
        """Note that the partitions of this term are assigned; before any of them is taken over."""
        self._assigned_term, self._is_leaving = self.term, False

    def leaving(self) -> None:
        """Note that partitions are being taken away: what is in hand may be finished, no more."""
        self._is_leaving = True

    # Asked before writing -----------------------------------------------------------------------

    def held(self) -> bool:
        renewed_s = self._renewed_s
        return renewed_s is not None and self._clock() - renewed_s < self._lasts_s

    def may_take_over(self, term: int) -> bool:
        """True as long as the partitions of a term are assigned and not being taken away."""
        return not self._is_leaving and term == self.term == self._assigned_term

    async def confirmed(self, term: int, taking_over: bool = False) -> bool:
        """Return once it is held; False when the term is over, or nothing may be taken over."""
        while self.term == term and (not taking_over or self.may_take_over(term)):
            if self.held():
                return True
            # Set by the consumer's thread, so there is nothing to wait on.
            await asyncio.sleep(LOOK_S)
        return False

    # Put around the clients ---------------------------------------------------------------------

    def watching(self, send: Send) -> Send:
        """Wrap an aiokafka consumer's ``send``, so that what the coordinator answers is known."""

        async def watched(node_id: int, request: Any, **options: Any) -> Any:
            sent_s = self._clock()
            response = await send(node_id, request, **options)
            name = type(request).__name__
            if name.startswith(_RENEWING):
                if response.error_code in _NO_MEMBER:
                    self.term += 1
                elif response.error_code in _STILL_MEMBER:
                    self._renewed_s = sent_s
                    self.term += name.startswith(_SYNCED) and not response.error_code
            return response

        return watched

    def guarding(self, send: Send) -> Send:
        """Wrap an aiokafka producer's ``send``, so that nothing is written without the lease.

        The producer tries a batch for longer than a session lasts. Sent when a broker is back that
        was away, it would lie behind what the partitions' next owner has written.
        """

        async def guarded(node_id: int, request: Any, **options: Any) -> Any:
            if type(request).__name__.startswith(_WRITING):
                if self.term != self._assigned_term:
                    raise IllegalGenerationError(
                        "the partitions were assigned in a term that is over"
                    )
                if not self.held():
                    # The producer tries again, as it does when a broker is not there.
                    raise NodeNotReadyError("the lease has run out")
            return await send(node_id, request, **options)

        return guarded

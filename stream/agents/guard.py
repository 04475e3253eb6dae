"""Guard: the one place that catches everything, so that one bad event costs one dead letter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from models.encoder import EncoderUnavailable
from stream.agents.failures import Failures
from stream.core.user_rows import NewerRow
from stream.dead_letters import StormGauge
from stream.delivery import DeliveryFailed, SourceMessage
from stream.engine.commits import CommitFailed
from stream.engine.table import StoreFailed

Process = Callable[[Sequence[SourceMessage]], Awaitable[None]]
Reject = Callable[[SourceMessage, Exception], Awaitable[None]]

#: Here the worker is in trouble, not an event.
TROUBLE = (
    EncoderUnavailable,
    StoreFailed,
    CommitFailed,
    DeliveryFailed,
    NewerRow,
    MemoryError,
    OSError,
)


class Guard:
    """Runs a stage; a batch that fails is halved until the event that makes it fail is alone.

    A stage commits nothing before everything is computed, so what fails may be done again.
    """

    def __init__(
        self, process: Process, reject: Reject, failures: Failures, storm: StormGauge
    ) -> None:
        self._process = process
        self._reject = reject
        self._failures = failures
        self._storm = storm

    async def __call__(self, batch: Sequence[SourceMessage]) -> None:
        """Process a batch; raises when the worker itself is in trouble, or fails too often."""
        before = self._failures.n_failed
        await self._run(batch)
        self._storm.record(len(batch), min(self._failures.n_failed - before, len(batch)))
        self._storm.check()

    async def _run(self, batch: Sequence[SourceMessage]) -> None:
        n_failed = self._failures.n_failed
        try:
            await self._process(batch)
        except TROUBLE:
            raise
        except Exception as error:  # noqa: BLE001 - a bug for one event must not lose the others
            # What failed beside it is met again in the halves.
            self._failures.n_failed = n_failed
            if len(batch) == 1:
                await self._reject(batch[0], error)
                return
            middle = len(batch) // 2
            await self._run(batch[:middle])
            await self._run(batch[middle:])

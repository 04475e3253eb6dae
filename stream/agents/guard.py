"""Guard: the one place that catches everything, so that one bad event costs one dead letter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from stream.dead_letters import DeadLetterStorm, StormGauge
from stream.delivery import DeliveryFailed, SourceMessage
from stream.engine.table import StoreFailed

Process = Callable[[Sequence[SourceMessage]], Awaitable[None]]
Reject = Callable[[SourceMessage, Exception], Awaitable[None]]


class NotNow(RuntimeError):
    """A failure that says nothing of the event: the worker stops, and the event is read again."""


class Guard:
    """Runs a stage; a batch that fails is halved until the event that makes it fail is alone.

    A stage commits nothing before everything is computed, so what fails may be done again.
    """

    def __init__(self, process: Process, reject: Reject, storm: StormGauge) -> None:
        self._process = process
        self._reject = reject
        self._storm = storm

    async def __call__(self, batch: Sequence[SourceMessage]) -> None:
        """Process a batch; raises NotNow and the like when the worker itself is in trouble."""
        n_failed = await self._run(batch)
        self._storm.record(len(batch), n_failed)
        self._storm.check()

    async def _run(self, batch: Sequence[SourceMessage]) -> int:
        try:
            await self._process(batch)
        except (NotNow, StoreFailed, DeliveryFailed, DeadLetterStorm, MemoryError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - a bug for one event must not lose the others
            if len(batch) == 1:
                await self._reject(batch[0], error)
                return 1
            middle = len(batch) // 2
            return await self._run(batch[:middle]) + await self._run(batch[middle:])
        return 0

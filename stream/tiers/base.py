"""What every tier is to the worker, and what all tiers are built from."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

from stream.agents.reports import Report
from stream.dead_letters import DeadLetters
from stream.engine.app import EngineApp
from stream.health import Readiness
from stream.kafka_client import KafkaSender
from stream.metrics import Metrics
from stream.observe import reporter
from stream.settings import Settings
from stream.tracing import Export, Tracing

log = logging.getLogger(__name__)


def wall_clock_ms() -> int:
    """Return the time, epoch milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Parts:
    """What the worker has made before it builds a tier."""

    settings: Settings
    metrics: Metrics
    readiness: Readiness
    sender: KafkaSender
    dead_letters: DeadLetters
    #: Where spans go; None without tracing.
    export: Export | None = None

    @classmethod
    def make(
        cls,
        settings: Settings,
        metrics: Metrics,
        readiness: Readiness,
        sender: KafkaSender,
        export: Export | None = None,
    ) -> Parts:
        dead_letters = DeadLetters(sender, version("prefstream"), metrics.count_dead_letters)
        return cls(settings, metrics, readiness, sender, dead_letters, export)

    def watched(self, stage: str) -> tuple[Tracing | None, Report]:
        """Return what a stage traces with, if at all, and what it reports its batches to."""
        report = reporter(self.metrics, self.dead_letters, wall_clock_ms)
        if self.export is None:
            return None, report
        tracing = Tracing(self.export, stage)
        return tracing, tracing.reporting(report)


class Tier(Protocol):
    """One consumer group's worth of work."""

    @property
    def app(self) -> EngineApp: ...

    @property
    def topics(self) -> Sequence[str]:
        """Return the topics whose lag is this tier's."""

    async def start(self) -> None:
        """Load models and catch up with what every worker reads; before the app starts."""

    async def stop(self) -> None:
        """Let go of everything; after the app has stopped."""


class Background:
    """Tasks beside the agents; one that fails takes the app down with it, in plain sight."""

    def __init__(self, app: EngineApp) -> None:
        self._app = app
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._run(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except Exception as error:  # noqa: BLE001 - told, and the app ends with it
            await self._app.crash(error)

    async def stop(self) -> None:
        """Cancel what still runs and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

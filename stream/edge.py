"""What `prefstream pseudonymise` tells of itself: metrics and health, as a worker's."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import numpy as np
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from stream.connection import AccessRefused, refusal
from stream.dead_letters import Failure
from stream.delivery import SourceMessage
from stream.health import NOT_READY_AFTER_S, Condition, Progress, Readiness, serving
from stream.lag import KafkaOffsets, LagProbe, PartitionLag, Place
from stream.metrics import Metrics
from stream.settings import Settings

log = logging.getLogger(__name__)

NAME = "pseudonymise"
#: Behind the ports of a worker's three processes, which may run on the same machine.
PORT_OFFSET = 3
CONDITIONS: tuple[Condition, ...] = (
    "broker",
    "topics",
    "deliveries",
    "users_known",
    "partitions_assigned",
)
LAG_EVERY_S, TOPICS_EVERY_S = 2.0, 10.0


def edge_port(settings: Settings) -> int:
    """Return the port of the edge's metrics and health; 0 when they are switched off."""
    return settings.metrics_port + PORT_OFFSET if settings.metrics_port else 0


class EdgeWatch:
    """Counts what is copied, and watches the groups that copy."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.metrics = Metrics(NAME)
        self._progress = Progress(time.monotonic, NOT_READY_AFTER_S, settings.stall_timeout_s)
        self.readiness = Readiness(CONDITIONS, self._progress)
        self.metrics.watch_readiness(self.readiness)
        self._assignments: list[Callable[[], Collection[TopicPartition]]] = []
        self._readings: dict[str, Sequence[PartitionLag]] = {}
        self._places: list[Place] = []

    def serving(self) -> AbstractAsyncContextManager[None]:
        """Serve metrics and health as long as this is open; raises CannotListen."""
        host, port = self._settings.metrics_host, edge_port(self._settings)
        return serving(self.metrics.registry, self.readiness, host, port)

    def no_broker(self, reason: str) -> None:
        self.readiness.set("broker", False, reason)

    def delivered(self, problem: str) -> None:
        """Take what was wrong with a send, or an empty text."""
        self.readiness.set("deliveries", not problem, problem)

    def copied(
        self, messages: Sequence[SourceMessage], failures: Sequence[Failure], now_ms: int
    ) -> None:
        """Count a batch whose copies, and whose dead letters, have arrived."""
        refused = Counter(failure.message.topic for failure in failures)
        by_topic: dict[str, list[int]] = {}
        for message in messages:
            by_topic.setdefault(message.topic, []).append(message.timestamp_ms)
        for topic, times_ms in by_topic.items():
            self.metrics.count_pseudonymised(topic, "refused", refused[topic])
            self.metrics.count_pseudonymised(topic, "copied", len(times_ms) - refused[topic])
            seconds = np.maximum(now_ms - np.asarray(times_ms, np.int64), 0) / 1000
            self.metrics.pseudonymise_seconds.labels(topic).observe_many(seconds)

    async def watch_group(
        self,
        raw: Settings,
        group: str,
        places: Sequence[Place],
        assignment: Callable[[], Collection[TopicPartition]],
        stack: AsyncExitStack,
    ) -> None:
        """Show how far a group is behind on raw topics, until the stack is left."""
        self._assignments.append(assignment)
        offsets = KafkaOffsets(raw)
        await offsets.start()
        stack.push_async_callback(offsets.stop)

        def on_reading(reading: Sequence[PartitionLag]) -> None:
            self.metrics.observe_lag(group, reading)
            self._readings[group] = reading
            mine = self._mine(raw.topic_prefix)
            self._progress.working_on(mine if self.readiness.settled else [])
            self._progress.update([lag for some in self._readings.values() for lag in some])

        probe = LagProbe(offsets, group, lambda: places, on_reading, time.monotonic)
        task = asyncio.get_running_loop().create_task(probe.run(LAG_EVERY_S))
        stack.callback(task.cancel)

    def _mine(self, prefix: str) -> list[Place]:
        """Return the partitions that are copied here, and tell of them when they have changed."""
        places = sorted(
            (place.topic.removeprefix(prefix), place.partition)
            for assignment in self._assignments
            for place in assignment()
        )
        if places != self._places:
            self._places = places
            self.metrics.assigned.set(len(places))
            self.metrics.rebalances.inc()
        self.readiness.set("partitions_assigned", True, f"{len(places)} partitions")
        return places

    async def watch_topics(self, check: Callable[[], Awaitable[object]]) -> None:
        """Have /ready tell of a topic that was deleted, or of a broker that is away, for ever.

        ``check`` raises LookupError or KafkaError.
        """
        while True:
            await asyncio.sleep(TOPICS_EVERY_S)
            try:
                await check()
            except LookupError as error:
                self.readiness.set("topics", False, str(error))
                continue
            except AccessRefused as error:  # a file that is being replaced: our clients live on
                self.no_broker(str(error))
                continue
            except (KafkaError, OSError, asyncio.TimeoutError) as error:
                reason = await refusal(self._settings)
                self.no_broker(str(reason or f"no answer: {error!r}"))
                continue
            self.readiness.set("broker", True)
            self.readiness.set("topics", True)

"""The preference stage as a worker builds it, in this process and without a broker."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import monotonic, process_time
from types import SimpleNamespace
from typing import Any, cast

from aiokafka.protocol.group import HeartbeatRequest

from stream.bench.load import wall_ms
from stream.catalog import FOLLOWED
from stream.catalog_writer import CatalogWriter
from stream.delivery import Output, SourceMessage
from stream.engine.table import PartitionTable
from stream.health import Progress, Readiness
from stream.kafka_client import KafkaSender
from stream.metrics import Metrics
from stream.partitioner import partition_of
from stream.settings import Settings
from stream.tiers.base import Parts
from stream.tiers.preference import PreferenceTier
from stream.topics import USER_STATE
from stream.worker import CONDITIONS

#: Longer than any micro-batch takes, on however busy a machine: the lease is renewed before each.
_SESSION_S = 300.0
_LOOK_S = 0.01
#: Catalogue messages applied at once.
_CATALOGUE_BATCH = 3_000


class CountingSender:
    """A Sender whose broker takes everything at once, and keeps nothing but the count."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self.n_sent: Counter[str] = Counter()

    async def send(self, outputs: Sequence[Output]) -> Sequence[int]:
        first = self.n_sent.total()
        self.n_sent.update(output.topic for output in outputs)
        return range(first, first + len(outputs))

    def partition_of(self, topic: str, key: bytes) -> int:
        return partition_of(key, self._partitions)


class Stage:
    """One worker's preference stage that holds every partition; its store is in ``folder``."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Build it; raises ModelError when the settings' encoder is not there."""
        own = {"state_dir": folder, "store": "rocksdb", "session_timeout_s": _SESSION_S}
        self.settings = settings.model_copy(update=own)
        self.sender = CountingSender(settings.partitions)
        readiness = Readiness(CONDITIONS["preference"], Progress(monotonic, 30, 300))
        sender = cast(KafkaSender, self.sender)
        # The tier's own parts are taken out of it: what is measured is what runs.
        self._tier = PreferenceTier(
            Parts.make(self.settings, Metrics("preference"), readiness, sender)
        )
        self.encoder_id, self.dim = self._tier._encoder_id, self._tier._catalogue.dim
        self._offsets: Counter[tuple[str, int]] = Counter()

    @property
    def table(self) -> PartitionTable:
        return self._tier._tables[USER_STATE.name]

    async def start(self, catalogue: Sequence[Output]) -> None:
        """Take over every partition, with a catalogue that is indexed."""
        writer = CatalogWriter(
            self._tier._catalogue, self.encoder_id, {name: name for name in FOLLOWED}
        )
        for start in range(0, len(catalogue), _CATALOGUE_BATCH):
            writer.apply(self.messages(catalogue[start : start + _CATALOGUE_BATCH]))
        self._tier._catalogue.rebuild()
        await self._renew_lease()
        self._tier.app.lease.assigned()
        await self._tier._users.hold(set(range(self.settings.partitions)))

    def messages(self, outputs: Iterable[Output]) -> list[SourceMessage]:
        """Return messages as the broker would hand them over, each at its topic's next offset."""
        now_ms, found = wall_ms(), list[SourceMessage]()
        for output in outputs:
            partition = self.sender.partition_of(output.topic, output.key or b"")
            offset = self._offsets[output.topic, partition]
            self._offsets[output.topic, partition] += 1
            found.append(
                SourceMessage(output.topic, partition, offset, now_ms, output.key, output.value)
            )
        return found

    async def process(self, messages: Sequence[SourceMessage]) -> float:
        """Process messages in full micro-batches; return the CPU seconds that it took.

        Lists are made by ``answer``, but for those of a batch too small for a backlog.
        """
        n_batch = self.settings.batch_max
        spent_s = 0.0
        for start in range(0, len(messages), n_batch):
            await self._renew_lease()
            started_s = process_time()
            await self._tier._preferences.process(messages[start : start + n_batch])
            spent_s += process_time() - started_s
        return spent_s

    async def answer(self) -> float:
        """Make the lists that are put off; return the CPU seconds that it took."""
        preferences = self._tier._preferences
        spent_s = 0.0
        while preferences.n_put_off:
            await self._renew_lease()
            started_s = process_time()
            is_done = not await preferences.publish_due()
            spent_s += process_time() - started_s
            if is_done:  # put off by the interval between two lists of a shopper
                await asyncio.sleep(_LOOK_S)
        return spent_s

    async def _renew_lease(self) -> None:
        """Have the worker know that it is in its group, as an answered heartbeat would."""

        async def answer(node_id: int, request: Any, **_: Any) -> Any:
            return SimpleNamespace(error_code=0)

        heartbeat = HeartbeatRequest("bench", 0, "bench")
        await self._tier.app.lease.watching(answer)(0, heartbeat)

"""Apache Kafka for the faults: brokers that are killed and come back, and the topics' admin."""

from __future__ import annotations

import importlib.util
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)
from faults.proxy import Proxy
from faults.secured import Guard

ROOT = Path(__file__).resolve().parents[2]
Place = tuple[str, int]


def kafka_script() -> ModuleType:
    """Return ``deploy/kafka/kafka.py`` as a module."""
    name = "kafka_script"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "deploy/kafka/kafka.py")
        assert spec
        assert spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


class Brokers:
    """One or three brokers, each to be killed and started by itself.

    ``proxy`` makes what stands between the workers and the (only) broker: see ``worker_address``.
    Behind it, ``guard`` lets in only whom it knows.
    """

    def __init__(
        self,
        folder: Path,
        brokers: int,
        proxy: Callable[[int], Proxy] | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.folder = folder
        self._cluster: Any = kafka_script().Cluster.create(folder, brokers, die_with_parent=True)
        self.n = brokers
        self.proxy: Proxy | None = None
        if proxy:
            self.proxy = self._behind(proxy, guard, self._cluster.nodes[0])
        self._cluster.start()

    @staticmethod
    def _behind(proxy: Callable[[int], Proxy], guard: Guard | None, node: Any) -> Proxy:
        """Add a listener whose clients are told to come back to the proxy."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        made = proxy(port)
        lines = node.config.read_text().splitlines()
        changed = {
            "listeners=": f",PROXIED://127.0.0.1:{port}",
            "advertised.listeners=": f",PROXIED://127.0.0.1:{made.port}",
        }
        for name, more in changed.items():
            lines = [line + more if line.startswith(name) else line for line in lines]
        protocol = guard.protocol if guard else "PLAINTEXT"
        protocols = f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:{protocol}"
        lines.append(f"listener.security.protocol.map={protocols}")
        lines += guard.lines("PROXIED") if guard else []
        node.config.write_text("\n".join(lines) + "\n")
        return made

    @property
    def worker_address(self) -> str:
        """Return the address for the workers: the proxy's, where there is one."""
        return f"127.0.0.1:{self.proxy.port}" if self.proxy else self.address

    @property
    def address(self) -> str:
        return str(self._cluster.bootstrap_servers)

    def kill(self, node_id: int) -> None:
        """SIGKILL one broker (from 1 on)."""
        self._cluster.kill(node_id)

    def kill_all(self) -> None:
        for node in self._cluster.nodes:
            self._cluster.kill(node.node_id)

    def start(self) -> None:
        """Start whichever does not run; return once all answer."""
        self._cluster.start()

    def stop(self) -> None:
        self._cluster.stop()
        self._cluster.delete()
        if self.proxy:
            self.proxy.close()


class Admin:
    """Topics, offsets and groups of one run, as an operator sees them; names without prefix."""

    def __init__(self, broker: str, prefix: str) -> None:
        self._client = AdminClient({"bootstrap.servers": broker, "socket.timeout.ms": 10_000})
        self._broker, self._prefix = broker, prefix

    def partitions(self) -> dict[str, int]:
        """Return the partition count of every topic of this run."""
        topics = self._client.list_topics(timeout=10).topics
        return {
            name.removeprefix(self._prefix): len(topic.partitions)
            for name, topic in topics.items()
            if name.startswith(self._prefix)
        }

    def ends(self, topics: Sequence[str], earliest: bool = False) -> dict[Place, int]:
        """Return the next (or the first) offset of every partition of some topics."""
        counts = self.partitions()
        spec = OffsetSpec.earliest() if earliest else OffsetSpec.latest()
        wanted = {
            TopicPartition(self._prefix + topic, number): spec
            for topic in topics
            for number in range(counts[topic])
        }
        found = self._client.list_offsets(wanted, request_timeout=10)
        return {
            (place.topic.removeprefix(self._prefix), place.partition): future.result().offset
            for place, future in found.items()
        }

    def committed(self, group: str) -> dict[Place, int]:
        """Return the committed offsets of a group (its name without the topics' prefix)."""
        request = ConsumerGroupTopicPartitions(self._prefix + group)
        futures = self._client.list_consumer_group_offsets([request], request_timeout=10)
        places = next(iter(futures.values())).result().topic_partitions
        return {
            (place.topic.removeprefix(self._prefix), place.partition): place.offset
            for place in places
        }

    def rewind(self, group: str, topics: Sequence[str]) -> None:
        """Have a group that nobody is in read some topics from their beginning again."""
        until(lambda: not self.members(group), f"{group} is empty", 40)
        places = [
            TopicPartition(self._prefix + topic, number, 0)
            for topic in topics
            for number in range(self.partitions()[topic])
        ]
        request = ConsumerGroupTopicPartitions(self._prefix + group, places)
        _finish(self._client.alter_consumer_group_offsets([request]))

    def members(self, group: str) -> list[tuple[str, frozenset[Place]]]:
        """Return the members of a group and the source partitions each was assigned."""
        futures = self._client.describe_consumer_groups([self._prefix + group])
        described = next(iter(futures.values())).result(10)
        return [
            (
                member.client_id,
                frozenset(
                    (place.topic.removeprefix(self._prefix), place.partition)
                    for place in (member.assignment.topic_partitions if member.assignment else [])
                ),
            )
            for member in described.members
        ]

    def configure(self, topic: str, config: Mapping[str, str]) -> None:
        """Set some of a topic's settings."""
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in config.items()
        ]
        resource = ConfigResource(
            ConfigResource.Type.TOPIC, self._prefix + topic, incremental_configs=entries
        )
        _finish(self._client.incremental_alter_configs([resource]))

    def trim(self, before: Mapping[Place, int]) -> None:
        """Delete the records in front of some offsets."""
        places = [TopicPartition(self._prefix + t, p, offset) for (t, p), offset in before.items()]
        _finish(self._client.delete_records(places))

    def delete(self, topics: Sequence[str]) -> None:
        _finish(self._client.delete_topics([self._prefix + topic for topic in topics]))
        until(lambda: not set(topics) & set(self.partitions()), "topics deleted")

    def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        new = NewTopic(self._prefix + topic, partitions, 1, config=dict(config))
        _finish(self._client.create_topics([new]))
        until(lambda: self.partitions().get(topic) == partitions, "topic made")

    def grow(self, topic: str, partitions: int) -> None:
        """Give a topic more partitions."""
        _finish(self._client.create_partitions([NewPartitions(self._prefix + topic, partitions)]))
        until(lambda: self.partitions().get(topic) == partitions, "partitions added")

    def read(self, *topics: str) -> dict[str, list[Any]]:
        """Return every record of some topics, from the first to the present end, by partition."""
        records: dict[Place, list[Any]] = defaultdict(list)
        for topic, record in self.each(*topics):
            records[topic, record.partition()].append(record)
        return {
            topic: [r for place in sorted(records) if place[0] == topic for r in records[place]]
            for topic in topics
        }

    def each(self, *topics: str) -> Iterator[tuple[str, Any]]:
        """Yield what ``read`` returns, with its topic, as it comes; a partition's in its order."""
        ends, starts = self.ends(topics), self.ends(topics, earliest=True)
        waiting = {place for place, end in ends.items() if starts[place] < end}
        consumer = Consumer(
            {"bootstrap.servers": self._broker, "group.id": "reader", "enable.auto.commit": False}
        )
        consumer.assign([TopicPartition(self._prefix + t, p, starts[t, p]) for t, p in waiting])
        heard = time.monotonic()
        try:
            while waiting:
                assert time.monotonic() < heard + 60, f"not read to the end: {sorted(waiting)}"
                for record in consumer.consume(2_000, 0.05):
                    if record.error():
                        raise KafkaException(record.error())
                    yield record.topic().removeprefix(self._prefix), record
                    heard = time.monotonic()
                # Compaction and control records leave gaps: positions tell the end.
                at = consumer.position([TopicPartition(self._prefix + t, p) for t, p in waiting])
                for place in at:
                    name = place.topic.removeprefix(self._prefix), place.partition
                    if place.offset >= ends[name]:
                        waiting.discard(name)
        finally:
            consumer.close()


def _finish(futures: Mapping[Any, Any]) -> None:
    for future in futures.values():
        future.result(20)


def until(condition: Any, what: str, timeout_s: float = 20.0) -> None:
    """Wait for a condition; fails naming it."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.1)

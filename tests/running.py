"""Workers as processes and a client from outside: confluent-kafka, none of our own code."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from stream.broker import die_with_parent

READY_S = 120.0
#: Below those that the kernel gives to whoever connects: a worker that is away for a while must
#: find its port free again, and nobody else may answer there meanwhile.
PORTS = range(20_000, 32_000)
#: In the order of their ports.
PROCESSES = ("encode", "preference", "neighbours")
#: Theirs, and that of `prefstream pseudonymise` behind them.
N_PORTS = len(PROCESSES) + 1
LEADERLESS = {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}
NEVER = 2**63
#: The workers look at their lag every two seconds.
DRAINED_S = 6.0


def free_ports() -> int:
    """Return a port that is free, and so are those after it that the workers need."""
    for _ in range(100):
        port = secrets.choice(PORTS)
        with contextlib.ExitStack() as taken, contextlib.suppress(OSError):
            for number in range(N_PORTS):
                taken.enter_context(socket.socket()).bind(("127.0.0.1", port + number))
            return port
    raise RuntimeError("no free ports in a row")


@dataclass
class Workers:
    """Both tiers as ``prefstream worker`` runs them, on a broker, with settings of their own."""

    broker: str
    prefix: str
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_ports)
    process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        own = {
            "PREFSTREAM_BROKER": self.broker,
            "PREFSTREAM_TOPIC_PREFIX": self.prefix,
            "PREFSTREAM_STATE_DIR": str(self.folder / "state"),
            "PREFSTREAM_METRICS_PORT": str(self.port),
            "PREFSTREAM_PARTITIONS": "2",
            **self.settings,
        }
        return {**os.environ, **own}

    @property
    def log(self) -> Path:
        return self.folder / "worker.log"

    def command(self, *args: str) -> str:
        """Run a command of ours to its end and return what it prints; fails as it does."""
        done = subprocess.run(
            [sys.executable, "-m", "stream.cli", *args],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stream.cli", "worker"],
                env=self.env,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A run that is cut off leaves nobody behind.
                preexec_fn=die_with_parent,
            )
        self.until(self.ready, "ready", READY_S)

    def stop(self) -> int:
        assert self.process
        self.process.terminate()
        return self.process.wait(40)

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
        """Wait for a condition; a worker that ends meanwhile fails the test with its log."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            ended = self.process is not None and self.process.poll() is not None
            assert not ended, f"the worker ended:\n{self.tail()}"
            assert time.monotonic() < deadline, f"not {what} in time:\n{self.tail()}"
            time.sleep(0.1)

    def drain(self, timeout_s: float) -> None:
        """Wait until neither tier has had any lag for longer than the lag is read apart."""
        since = time.monotonic()

        def still() -> bool:
            nonlocal since
            lag = [self.metric(name, "prefstream_consumer_lag") for name in PROCESSES]
            if not self.ready() or any(lag):
                since = time.monotonic()
            return time.monotonic() - since > DRAINED_S

        self.until(still, "drained", timeout_s)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]

    def get(self, tier: str, path: str) -> tuple[int, str]:
        port = self.port + PROCESSES.index(tier)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def ready(self) -> bool:
        return all(self.get(tier, "/ready")[0] == 200 for tier in PROCESSES)

    def metric(self, tier: str, name: str) -> float:
        """Return the sum of a metric over its labels."""
        lines = self.get(tier, "/metrics")[1].splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith((name + " ", name + "{"))
        )


@contextlib.contextmanager
def workers(broker: str, prefix: str, folder: Path, **settings: str) -> Iterator[Workers]:
    """Topics made, both tiers running and ready; stopped afterwards, whatever happens."""
    running = Workers(broker, prefix, folder, settings)
    running.command("topics", "create")
    try:
        running.start()
        yield running
    finally:
        if running.process and running.process.poll() is None:
            running.stop()


class Outside:
    """A producer and a consumer as a shop's own programs would use them."""

    def __init__(self, broker: str, prefix: str) -> None:
        self.broker, self.prefix = broker, prefix
        self._producer = Producer(
            {"bootstrap.servers": broker, "partitioner": "murmur2_random", "linger.ms": 0}
        )

    def send(self, topic: str, key: str, value: dict[str, Any] | bytes | None) -> None:
        raw = json.dumps(value).encode() if isinstance(value, dict) else value
        self._producer.produce(self.prefix + topic, key=key.encode(), value=raw)
        self._producer.poll(0)

    def flush(self) -> None:
        assert self._producer.flush(30) == 0

    def read(self, topic: str) -> list[Any]:
        """Return what a topic holds now, from its beginning on."""
        consumer = self._consumer([topic], "earliest")
        ends = {
            place.partition: end
            for place in consumer.assignment()
            for first, end in [watermarks(consumer, place)]
            if first < end
        }
        messages: list[Any] = []
        heard = time.monotonic()
        while ends:
            assert time.monotonic() < heard + 30, f"{topic} not read to its end: {ends}"
            for message in consumer.consume(1_000, 0.05):
                if not message.error():
                    messages.append(message)
                    heard = time.monotonic()
            # Not by the last message's offset: compaction may have taken it.
            for place in consumer.position(consumer.assignment()):
                if place.offset >= ends.get(place.partition, NEVER):
                    del ends[place.partition]
        consumer.close()
        return messages

    def follow(self, topics: Sequence[str]) -> Consumer:
        """Return a consumer that gets what comes from now on."""
        return self._consumer(topics, "latest")

    def _consumer(self, topics: Sequence[str], start: str) -> Consumer:
        consumer = Consumer(
            {
                "bootstrap.servers": self.broker,
                "group.id": f"{self.prefix}outside",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
            }
        )
        places: list[TopicPartition] = []
        for topic in topics:
            metadata = consumer.list_topics(self.prefix + topic, timeout=10)
            for number in metadata.topics[self.prefix + topic].partitions:
                place = TopicPartition(self.prefix + topic, number)
                low, high = watermarks(consumer, place)
                place.offset = low if start == "earliest" else high
                places.append(place)
        consumer.assign(places)
        return consumer


def watermarks(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    """Return a partition's first and next offset; a topic just made may not have a leader yet."""
    for _ in range(50):
        try:
            return consumer.get_watermark_offsets(place, timeout=10)
        except KafkaException as error:
            if error.args[0].code() not in LEADERLESS:
                raise
            time.sleep(0.1)
    raise AssertionError(f"no leader for {place}")


def next_of(consumer: Consumer, timeout_s: float = 20.0) -> Any:
    """Return the next message of any topic followed."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is None:
            continue
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            continue
        return message
    raise AssertionError(f"no message within {timeout_s:g} s")

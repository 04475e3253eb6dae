"""Fault 31: whoever is erased is gone from the brokers' disks too, once compaction has come."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, takewhile
from pathlib import Path
from threading import Event

import pytest
from faults.cluster import Brokers
from faults.generator import Mix
from faults.trial import Trial

from stream.topics import TOPICS

pytestmark = [pytest.mark.faults, pytest.mark.kafka, pytest.mark.timeout(600)]

ERASABLE = [spec.name for spec in TOPICS if spec.is_erasable]
KEPT = [spec.name for spec in TOPICS if spec.personal and not spec.is_erasable]
#: What takes a day, in seconds. How dirty a log must be stays as Kafka has it.
SOON = {
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "2000",
    "delete.retention.ms": "1000",
    "file.delete.delay.ms": "500",
}


@contextmanager
def others_come(trial: Trial) -> Iterator[None]:
    """Have ever new shoppers come, about whom all is told: Kafka closes a segment when it gets the
    next message."""
    over = Event()

    def messages():
        for number in takewhile(lambda _: not over.is_set(), count()):
            user_id = f"new{number // 6:05d}"
            yield trial.shoppers.record(user_id)
            yield from trial.shoppers.events(5, Mix(texts=0.5), [user_id])

    sending = trial.shop.in_background(messages(), per_s=40)
    try:
        yield
    finally:
        over.set()
        sending.join()


def on_disk(brokers: Brokers, trial: Trial, user_id: str) -> set[str]:
    """Return the topics in whose files the user is named."""
    found = set()
    for path in brokers.folder.glob(f"broker-*/data/{trial.prefix}*/*"):
        if path.is_file() and user_id.encode() in _bytes(path):
            found.add(path.parent.name.removeprefix(trial.prefix).rpartition("-")[0])
    return found


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # deleted while we look
        return b""


def forget(trial: Trial, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stream.cli", "forget", *words]
    return subprocess.run(command, env=trial.worker.env, capture_output=True, text=True)


def told(said: str) -> dict[str, str]:
    """Return what a command says of each topic."""
    return {line[:18].strip(): line[19:] for line in said.splitlines() if len(line) > 19}


def test_31_an_erased_user_is_gone_from_the_brokers_disks_after_compaction(arena):
    user_id = "u001"
    with arena.trial("31 erased from disks") as trial:
        brokers = arena.one()
        trial.load_and_drain(1000)
        asked = forget(trial, user_id, "--timeout", "60")
        assert asked.returncode == 0, asked.stdout + asked.stderr
        left = told(asked.stdout)
        assert "older values; compacted away by" in left["user-state"]
        assert left["local store"] == "gone"
        assert {topic: left[topic].split()[0] for topic in KEPT if left[topic] != "gone"} == {
            topic: "kept" for topic in KEPT if left[topic] != "gone"
        }
        # In a day or two, by the topics' settings; and now it has not come yet.
        late = forget(trial, user_id, "--gone", "--timeout", "1")
        assert late.returncode == 1
        assert "not compacted away in" in late.stderr
        assert on_disk(brokers, trial, user_id) >= {"user-state", "recommendations", "clickstream"}
        for topic in ERASABLE:
            trial.admin.configure(topic, SOON)
        with others_come(trial):
            asked = forget(trial, user_id, "--gone", "--timeout", "240")
            assert asked.returncode == 0, asked.stdout + asked.stderr
            assert {told(asked.stdout)[topic] for topic in ERASABLE} == {"gone"}
            trial.worker.until(
                lambda: not on_disk(brokers, trial, user_id) & set(ERASABLE), "off the disks", 60
            )
        trial.note = f"still in {', '.join(sorted(on_disk(brokers, trial, user_id)))}"
        assert not on_disk(brokers, trial, user_id) - set(KEPT)
        # Without a worker nothing is proven.
        assert trial.worker.stop() == 0
        asked = forget(trial, "u002", "--timeout", "3")
        assert asked.returncode == 1
        assert "no worker has said that u002 is erased (still in" in asked.stderr
        assert forget(trial, "u002", "--no-wait").returncode == 0
        trial.verdict = []

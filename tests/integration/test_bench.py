"""``prefstream bench``: every figure once, small, on Apache Kafka."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

BENCH = [sys.executable, "-m", "stream.cli", "bench"]
VALUES = {
    "ingest": {
        "ours_eps",
        "ours_eps_with_lists",
        "faust_eps",
        "floor_eps",
        "ratio_vs_faust",
        "share_of_floor",
    },
    "catch_up": {
        "events",
        "users",
        "ours_eps",
        "read_eps",
        "lists",
        "share_of_floor",
        "memory_mib",
        "imports_mib",
    },
    "mix": {"ours_eps", "plain_eps", "ratio_vs_plain"},
    "latency": {"events_per_s", "p50_ms", "p99_ms", "searches_p50_ms", "searches_p99_ms"},
    "retrieval": {
        "n",
        "dim",
        "threads",
        "recall_at_100",
        "qps",
        "p50_ms",
        "titles_recall_at_100",
        "titles_qps",
        "titles_p50_ms",
    },
    "encoder": {"short_ratio", "long_ratio", "min_cosine", "single_ms"},
    "state": {"bytes_per_user"},
    "growth": {
        f"{axis}_{what}"
        for axis in ("users", "items", "partitions")
        for what in ("event_us", "list_us")
    },
    "workers": {"two_over_one"},
}
VERSIONS = {"python", "faust", "aiokafka", "torch", "faiss", "numpy", "kafka"}


def numbers(found: Any) -> Iterator[float]:
    if isinstance(found, dict):
        for each in found.values():
            yield from numbers(each)
    else:
        yield found


def topics_of(broker: str) -> list[str]:
    topics = AdminClient({"bootstrap.servers": broker}).list_topics(timeout=10).topics
    return [topic for topic in topics if topic.startswith("bench-")]


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_figure_is_measured_and_nothing_is_left_behind(
    apache_kafka: str, tmp_path: Path
) -> None:
    file = tmp_path / "bench.json"
    options = ["--quick", "--broker", apache_kafka, "--kafka-version", "4.x", "--json", str(file)]
    done = subprocess.run([*BENCH, "all", *options], capture_output=True, text=True, timeout=590)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    assert set(found) == {*VALUES, "machine", "versions", "command"}
    for name, values in VALUES.items():
        assert set(found[name]) == values, name
        assert all(number > 0 for number in numbers(found[name])), found[name]
        assert f"\n{name} " in f"\n{done.stdout}"
    assert found["retrieval"]["recall_at_100"] <= 1
    assert found["machine"]["cores"] > 0
    assert found["machine"]["cpu"]
    assert found["machine"]["memory_gib"] > 0
    assert set(found["versions"]) >= VERSIONS
    assert found["versions"]["kafka"] == "4.x"
    assert found["command"].startswith("prefstream bench all --quick --broker")
    # Its controller is done before its broker.
    deadline = time.monotonic() + 10
    while left := topics_of(apache_kafka):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.broker
def test_the_embedded_broker_is_refused(embedded_broker: str) -> None:
    done = subprocess.run(
        [*BENCH, "ingest", "--quick", "--broker", embedded_broker],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "answers an empty fetch at once" in done.stderr
    assert topics_of(embedded_broker) == []

"""The demo as a person runs it: a process, its output, and what is left of it afterwards."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from churn_shops import END_MS, simulated_acts
from confluent_kafka.admin import AdminClient

from models.trained_churn import save_churn
from stream.training.churn import train_on
from stream.validation import validate

pytestmark = [pytest.mark.broker, pytest.mark.slow]

ACTS = ("clickstream", "searches", "reviews")
DEMO = [sys.executable, "-m", "stream.cli", "demo"]
LINE = re.compile(r"^\w+ .+ → .+, .+, .+  because .+  \d+ ms", re.MULTILINE)
BROKER = re.compile(r"broker (127\.0\.0\.1):(\d+)")


def environment(**settings: str) -> dict[str, str]:
    return {**os.environ, "PREFSTREAM_PARTITIONS": "2", "COLUMNS": "100", **settings}


def listens(host: str, port: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def topics_of(address: str) -> set[str]:
    return set(AdminClient({"bootstrap.servers": address}).list_topics(timeout=10).topics)


def row(shown: str, name: str) -> str:
    """Return the value beside a name in the summary table."""
    found = re.search(rf"^│ +{re.escape(name)} +│ +(.+?) +│$", shown, re.MULTILINE)
    assert found, f"no row {name!r} in:\n{shown}"
    return found[1]


def test_the_demo_shows_acts_lists_and_a_score_and_leaves_nothing_behind(tmp_path):
    log, model = tmp_path / "shop.jsonl", tmp_path / "churn"
    name = save_churn(model, train_on(simulated_acts(), END_MS)[0], {})
    done = subprocess.run(
        [*DEMO, "--seconds", "10", "--rate", "15", "--log", str(log)],
        env=environment(PREFSTREAM_CHURN_MODEL=str(model)),
        capture_output=True,
        text=True,
        timeout=280,
    )
    shown = done.stdout
    assert done.returncode == 0, shown + done.stderr
    assert len(LINE.findall(shown)) >= 5
    assert row(shown, "events sent") == "150"
    assert row(shown, "acts without an answer") == "0"
    assert row(shown, "dead letters (poison messages sent)") == "3 (3)"
    fits = float(row(shown, "first 10 that fit the shopper's taste").rstrip("%"))
    popular = float(row(shown, "the 10 most popular that would have fit").rstrip("%"))
    assert fits > 2 * popular
    assert row(shown, "first recommendation after").endswith(" s")
    broker = BROKER.search(shown)
    assert broker
    assert not listens(*broker.groups())
    # Trained models that the settings name are used, and more can be trained on what was sent.
    assert row(shown, "lists made by") == "hybrid-1"
    assert row(shown, "churn risks made by") == name
    sent = validate(log, "jsonl", max_errors=0)
    assert sent.ok
    assert {topic for topic, _ in sent.counts} == {"items", "users", *ACTS}


@pytest.mark.kafka
def test_the_demo_on_a_broker_of_one_s_own_leaves_no_topic_there(apache_kafka):
    done = subprocess.run(
        [*DEMO, "--seconds", "4", "--rate", "10", "--items", "64", "--broker", apache_kafka],
        env=environment(PREFSTREAM_TOPIC_PREFIX="shop-"),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"broker {apache_kafka}" in done.stdout
    assert row(done.stdout, "acts without an answer") == "0"
    [prefix] = re.findall(r"topics (demo-\w+-)", done.stdout)
    # Its controller is done before its broker.
    deadline = time.monotonic() + 10
    while left := [t for t in topics_of(apache_kafka) if t.startswith((prefix, "shop-"))]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_a_demo_on_a_broker_that_does_not_answer_says_so_in_one_line():
    done = subprocess.run(
        [*DEMO, "--broker", "127.0.0.1:1"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("prefstream: no Kafka broker at 127.0.0.1:1")
    assert "Traceback" not in done.stderr


def test_a_demo_whose_workers_cannot_start_says_why_in_one_line():
    done = subprocess.run(
        DEMO,
        env=environment(PREFSTREAM_ENCODER="/no/such/model"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "'/no/such/model'" in done.stderr


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def playing(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*DEMO, *arguments],
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    watchdog = threading.Timer(240, process.kill)
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    shown = ""
    for line in process.stdout or ():
        shown += line
        if words in line:
            return shown
    raise AssertionError(f"{words!r} did not come:\n{shown}")


def test_a_demo_that_stays_up_can_be_reached_and_ends_on_ctrl_c_with_all_it_started():
    with playing("--serve", "--seconds", "2", "--rate", "5") as process:
        shown = read_until(process, "prefstream explain me")
        broker = BROKER.search(shown)
        metrics = re.search(r"http://(127\.0\.0\.1):(\d+)/metrics", shown)
        assert broker, shown
        assert metrics, shown
        assert listens(*broker.groups())
        assert listens(*metrics.groups())
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, process.stdout.read()
        assert not listens(*broker.groups())
        assert not listens(*metrics.groups())


def test_a_demo_that_is_terminated_while_it_starts_stops_the_children_at_once():
    with playing() as process:
        broker = BROKER.search(read_until(process, "shop open"))
        assert broker
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130, process.stdout.read()
        assert not listens(*broker.groups())


def test_a_demo_in_the_background_of_a_script_stops_on_a_termination_too():
    with playing(preexec_fn=ignore_interrupts) as process:
        broker = BROKER.search(read_until(process, "shop open"))
        assert broker
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130, process.stdout.read()
        assert not listens(*broker.groups())

"""The edge on both brokers: raw topics in, pseudonyms in ours, and nobody's id behind it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from running import Outside, Workers, workers

from stream.edge import PORT_OFFSET
from stream.pseudonyms import Pseudonymiser

pytestmark = pytest.mark.slow

OLD, NEW = f"old {'0a' * 32}\n", f"new {'0b' * 32}\n"
OURS = ("clickstream", "searches", "reviews", "users", "user-state", "recommendations")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Edge:
    """`prefstream pseudonymise` as a process, its keys, and the raw topics."""

    def __init__(self, ours: Workers) -> None:
        self._ours = ours
        self.prefix = f"{ours.prefix}raw-"
        self.keys = ours.folder / "keys"
        self.keys.write_text(OLD)
        self.settings = {
            "PREFSTREAM_PSEUDONYM_KEY_FILE": str(self.keys),
            "PREFSTREAM_PSEUDONYM_RAW_PREFIX": self.prefix,
        }
        ours.settings.update(self.settings)
        new = [NewTopic(f"{self.prefix}{topic}", 3, 1) for topic in OURS[:4]]
        new.append(NewTopic(f"{self.prefix}dead-letters", 1, 1))
        admin = AdminClient({"bootstrap.servers": ours.broker})
        for made in admin.create_topics(new).values():
            made.result(20)
        self.raw = Outside(ours.broker, self.prefix)

    @property
    def names(self) -> Pseudonymiser:
        return Pseudonymiser.read(self.keys)

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        with (self._ours.folder / "edge.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "stream.cli", "pseudonymise"],
                env=self._ours.env,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process
        finally:
            process.terminate()
            # Told to end while it still imports, it ends as anything does.
            assert process.wait(30) in (0, -signal.SIGKILL, -signal.SIGTERM), self.log()

    def get(self, path: str) -> str:
        """Return what the edge's port says; empty while nobody listens there."""
        url = f"http://127.0.0.1:{self._ours.port + PORT_OFFSET}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError:
            return ""

    def n_refused(self) -> float:
        counter = 'prefstream_pseudonymised_total{outcome="refused"'
        lines = [n for n in self.get("/metrics").splitlines() if n.startswith(counter)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def log(self) -> str:
        return (self._ours.folder / "edge.log").read_text()

    def click(self, number: int, user_id: str, item_id: str = "i1") -> None:
        event = {"event_id": f"e{number}", "user_id": user_id, "item_id": item_id, "type": "click"}
        self.raw.send("clickstream", user_id, {**event, "event_time_ms": now_ms()})


def until(condition, what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.2)


@pytest.fixture
def edge(broker: str, topic_prefix: str, tmp_path: Path) -> Edge:
    ours = Workers(broker, topic_prefix, tmp_path)
    ours.command("topics", "create")
    return Edge(ours)


def arrived(broker: str, prefix: str) -> list[tuple[bytes, str]]:
    found = Outside(broker, prefix).read("clickstream")
    return [(m.key(), json.loads(m.value())["event_id"]) for m in found]


def order_of_each(messages: Iterable[tuple[bytes, str]]) -> dict[bytes, list[str]]:
    """Return each key's event ids in the order in which they first came."""
    found: dict[bytes, dict[str, None]] = {}
    for key, event_id in messages:
        found.setdefault(key, {})[event_id] = None
    return {key: list(event_ids) for key, event_ids in found.items()}


def test_a_killed_edge_loses_nothing_and_keeps_each_users_order(edge, broker, topic_prefix):
    for number in range(3000):
        edge.click(number, f"anna-{number % 7}@example.com")
    edge.raw.send("clickstream", "anna-0@example.com", b"{")
    edge.raw.flush()
    with edge.running() as process:
        until(lambda: len(arrived(broker, topic_prefix)) > 0, "begun")
        os.kill(process.pid, signal.SIGKILL)
    with edge.running():
        until(lambda: len({e for _, e in arrived(broker, topic_prefix)}) == 3000, "all copied")
        until(lambda: len(edge.raw.read("dead-letters")) > 0, "the bad one beside")
    copied = order_of_each((key, event_id) for key, event_id in arrived(broker, topic_prefix))
    # As they lie in the raw topic: a producer that tries again may have put them there otherwise.
    raw = order_of_each(
        (edge.names.of(m.key().decode()).encode(), json.loads(m.value())["event_id"])
        for m in edge.raw.read("clickstream")
        if m.value() != b"{"
    )
    assert len(copied) == 7
    assert copied == raw
    assert all(key.startswith(b"old.") for key in copied)
    assert "@example.com" not in edge.log()


def test_under_a_new_key_who_declined_is_known_before_any_act(edge, broker, topic_prefix):
    declined = {"user_id": "anna", "updated_ms": now_ms(), "personalize": False}
    edge.raw.send("users", "anna", declined)
    edge.click(1, "anna")
    edge.raw.flush()
    with edge.running():
        until(lambda: len(arrived(broker, topic_prefix)) == 1, "the first act")
    edge.keys.write_text(NEW + OLD)
    edge.click(2, "anna")
    edge.raw.flush()
    with edge.running():
        until(lambda: len(arrived(broker, topic_prefix)) == 2, "the second act")
        edge.raw.send("clickstream", "anna", b"{")
        edge.raw.flush()
        until(lambda: edge.n_refused() == 1, "the bad one counted")
        until(lambda: '"ready": true' in edge.get("/ready"), "ready")
    users = Outside(broker, topic_prefix).read("users")
    assert {m.key().decode() for m in users} == set(edge.names.all_of("anna"))
    assert not any(json.loads(m.value())["personalize"] for m in users)
    acts = {event_id: key for key, event_id in arrived(broker, topic_prefix)}
    assert acts == {
        "e1": edge.names.all_of("anna")[1].encode(),
        "e2": edge.names.of("anna").encode(),
    }


def test_behind_the_edge_nobody_has_a_name_and_whoever_asks_is_forgotten(
    broker, topic_prefix, tmp_path
):
    with workers(broker, topic_prefix, tmp_path) as running:
        edge = Edge(running)
        ours = Outside(broker, topic_prefix)
        ours.send("items", "i1", {"item_id": "i1", "title": "Socks", "updated_ms": now_ms()})
        ours.send("items", "i2", {"item_id": "i2", "title": "Shoes", "updated_ms": now_ms()})
        ours.flush()
        running.until(
            lambda: running.metric("preference", "prefstream_index_items") == 2, "indexed"
        )
        with edge.running():
            for number, user_id in enumerate(("anna-katz", "ben-katz")):
                edge.click(number, user_id)
            edge.raw.flush()
            until(lambda: len(ours.read("recommendations")) >= 2, "recommended")
            for topic in OURS:
                for record in ours.read(topic):
                    assert b"katz" not in (record.key() or b"") + (record.value() or b"")
            assert "anna-katz is forgotten" in running.command("forget", "anna-katz")
            assert "nothing" in running.command("explain", "anna-katz").lower()
            # A new key, and all that was under the old one erased.
            edge.keys.write_text(NEW + OLD)
        assert "users of key old are forgotten" in running.command("forget", "--key", "old")
        last = {r.key(): r.value() for r in ours.read("user-state")}
        assert [key for key, row in last.items() if key.startswith(b"old.") and row] == []
        assert "katz" not in running.log.read_text()

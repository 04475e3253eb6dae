"""A shop on workers and an edge as processes, scraped by a real Prometheus with our alerts."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import yaml
from confluent_kafka.admin import AdminClient, NewTopic
from running import PROCESSES, Outside, Workers, workers

from models.ngrams import ngram_rows
from models.trained_sentiment import SentimentParts, save_sentiment
from models.weights import encoder_id, resolve
from stream.edge import NAME, PORT_OFFSET

ALERTS = Path(__file__).resolve().parents[1] / "deploy/prometheus/alerts.yml"
RAW = "raw-"
DAY_MS = 86_400_000
TITLES = ("Trail running shoes", "Running socks", "Espresso cup", "Coffee beans", "Knitting yarn")
PRAISE, BLAME = "love it, works very well", "waste of money, broke at once"
KINDS = ("view", "click", "add_to_cart", "purchase", "dislike")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@contextmanager
def prometheus(targets: Mapping[str, int], folder: Path, scrape_s: int = 1) -> Iterator[str]:
    """Prometheus as a child process that scrapes ports of this machine; yields its address."""
    statics = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"tier": tier}}
        for tier, port in targets.items()
    ]
    interval = f"{scrape_s}s"
    config = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [{"job_name": "prefstream", "static_configs": statics}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    ]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield f"http://{address}"
        finally:
            process.kill()
            process.wait()


def sentiment_model(folder: Path) -> Path:
    """Return a model that knows two phrases, for the encoder that workers use by default."""
    buckets, pointers = ngram_rows((PRAISE, BLAME), 1 << 12)
    weights = np.zeros(1 << 12, np.float32)
    weights[buckets[: pointers[1]]] += 1
    weights[buckets[pointers[1] :]] -= 1
    of_vector = np.zeros(384, np.float32)
    parts = SentimentParts(np.ones_like(weights), weights, of_vector, slope=2.0, intercept=0.0)
    save_sentiment(folder, parts, encoder_id(resolve("all-MiniLM-L6-v2")), {})
    return folder


class WatchedShop:
    """Sends, a round at a time, something of everything that is counted."""

    def __init__(self, running: Workers) -> None:
        self.running = running
        self.ours = Outside(running.broker, running.prefix)
        self.raw = Outside(running.broker, running.prefix + RAW)
        self._n = self._n_rounds = 0

    def open(self) -> None:
        """Put items on sale, and wait until they are indexed."""
        for n, title in enumerate(TITLES):
            item = {"item_id": f"i{n}", "title": title, "updated_ms": now_ms()}
            self.ours.send("items", f"i{n}", item)
        self.ours.send("items", "i0", b"no item")
        self.ours.flush()
        self.running.until(
            lambda: self.running.metric("preference", "prefstream_index_items") == len(TITLES),
            "indexed",
        )

    def round(self) -> None:
        """Shoppers act on lists and otherwise, search and review; producers err."""
        for n, kind in enumerate(KINDS):
            self.act(f"u{n}", "impression", n, recommendation_id="a-list", position=n)
            self.act(f"u{n}", kind, n, recommendation_id="a-list")
            self.act(f"u{n}", kind, n + 1)
        # Silent for long, and back: a change of band.
        self._n_rounds += 1
        long_ago_ms = now_ms() - 200 * DAY_MS
        self.act(f"late-{self._n_rounds}", "purchase", 1, at_ms=long_ago_ms, price=9.5)
        self.act(f"late-{self._n_rounds - 1}", "purchase", 2, price=9.5)
        for query in ("coffee", f"nothing like it {self._n}"):
            self._said("searches", "u1", query=query)
        for text in (PRAISE, BLAME):
            self._said("reviews", "u2", item_id="i1", text=text)
        self.ours.send("clickstream", "u1", b"{")
        self.raw_round()
        self.ours.flush()
        self.raw.flush()

    def raw_round(self) -> None:
        """The same at the edge, a bad message with it."""
        stated = {"user_id": "anna", "updated_ms": now_ms(), "interests": ["coffee"]}
        self.raw.send("users", "anna", stated)
        self.raw.send("clickstream", "anna", self._event(item_id="i1", type="click"))
        self.raw.send("clickstream", "anna", b"{")
        for topic, fields in (("searches", {"query": "socks"}), ("reviews", {"item_id": "i1"})):
            text = {"text": "worth it"} if topic == "reviews" else {}
            self.raw.send(topic, "anna", self._event(**fields, **text))

    def act(self, user_id: str, kind: str, item: int, at_ms: int = 0, **fields: object) -> None:
        event = self._event(user_id, at_ms, item_id=f"i{item % len(TITLES)}", type=kind, **fields)
        self.ours.send("clickstream", user_id, event)

    def _said(self, topic: str, user_id: str, **fields: object) -> None:
        self.ours.send(topic, user_id, self._event(user_id, **fields))

    def _event(self, user_id: str = "anna", at_ms: int = 0, **fields: object) -> dict[str, object]:
        self._n += 1
        at = at_ms or now_ms()
        return {"event_id": f"e{self._n}", "user_id": user_id, "event_time_ms": at, **fields}


@contextmanager
def edge(running: Workers) -> Iterator[None]:
    """Raw topics, and `prefstream pseudonymise` between them and ours."""
    names = ("clickstream", "searches", "reviews", "users", "dead-letters")
    new = [NewTopic(f"{running.prefix}{RAW}{name}", 1, 1) for name in names]
    admin = AdminClient({"bootstrap.servers": running.broker})
    for made in admin.create_topics(new).values():
        made.result(20)
    keys = running.folder / "keys"
    keys.write_text(f"old {'0a' * 32}\n")
    own = {
        "PREFSTREAM_PSEUDONYM_KEY_FILE": str(keys),
        "PREFSTREAM_PSEUDONYM_RAW_PREFIX": running.prefix + RAW,
    }
    with (running.folder / "edge.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "stream.cli", "pseudonymise"],
            env={**running.env, **own},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(30) in (0, -signal.SIGTERM), (running.folder / "edge.log").read_text()


@contextmanager
def watched_shop(
    broker: str, prefix: str, folder: Path, **own: str
) -> Iterator[tuple[WatchedShop, str]]:
    """Yield a shop that is open, and the address of the Prometheus that watches it."""
    settings = {
        "PREFSTREAM_MODEL_CHECK_S": "1",
        "PREFSTREAM_SENTIMENT_MODEL": str(sentiment_model(folder / "sentiment")),
        "PREFSTREAM_MIN_INTERVAL_MS": "0",
        "PREFSTREAM_CHURN_ASSESS_S": "5",
        # Whoever has bought once is above this, until they buy again.
        "PREFSTREAM_CHURN_HIGH": "0.97",
        "PREFSTREAM_CHURN_HYSTERESIS": "0",
        **own,
    }
    with workers(broker, prefix, folder, **settings) as running, edge(running):
        targets = {name: running.port + n for n, name in enumerate(PROCESSES)}
        targets[NAME] = running.port + PORT_OFFSET
        shop = WatchedShop(running)
        with prometheus(targets, folder) as url:
            shop.open()
            yield shop, url

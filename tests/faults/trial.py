"""Trial: one run of one fault, from empty topics to the verdict."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from faults.cluster import Admin
from faults.generator import HOSTILE, Message, Mix, Shop, Shoppers
from faults.model import tiny_model
from faults.oracle import Evidence, Finding, judge
from faults.outputs import Outputs
from faults.reference import ID_MEMORY, Place, Read, Sources
from faults.rows import replayed, state_of
from faults.supervisor import Supervised

from stream.engine.stores import unstamp
from stream.engine.table import CONTROL
from stream.messages import read_embedded_text, read_item_embedding

SOURCE_TOPICS = ("clickstream", "searches", "reviews", "users", "items")
JUDGED_TOPICS = (
    "item-embeddings",
    "embedded-texts",
    "recommendations",
    "churn-risk",
    "search-results",
    "dead-letters",
)
GROUPS = {
    "prefstream-encode": ("items", "searches", "reviews", "users"),
    "prefstream-preference": ("clickstream", "embedded-texts", "users"),
    "prefstream-neighbours": ("item-pairs",),
}
MIN_INTERVAL_MS = 250
NO_END = 10**9
HELD_WITHIN_S = 30.0
ROOMY_BYTES = 4096
#: Small lists and short waits: a run is to be judged in seconds on two cores.
SETTINGS = {
    "PREFSTREAM_MIN_INTERVAL_MS": str(MIN_INTERVAL_MS),
    "PREFSTREAM_NEIGHBOURS_INTERVAL_MS": "300",
    "PREFSTREAM_SESSION_TIMEOUT_S": "6",
    "PREFSTREAM_TOP_K": "5",
    "PREFSTREAM_N_CANDIDATES": "20",
    "PREFSTREAM_BATCH_MAX": "200",
    # Room for all that the counts allow: what gives way in a shorter row depends on its length
    # after each batch, which the reference does not know.
    "PREFSTREAM_MAX_STATE_BYTES": str(ROOMY_BYTES),
    "PREFSTREAM_EVENT_ID_MEMORY": str(ID_MEMORY),
}


@dataclass
class Trial:
    """Topics, a shop and workers of one run; its parts are there for the fault to use."""

    broker: str
    folder: Path
    store: str = "rocksdb"
    seed: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    inject: Mapping[str, str] = field(default_factory=dict)
    n_users: int = 120
    replicas: int = 1
    #: Where the workers find the broker, if it is another address than the shop's.
    worker_broker: str = ""
    prefix: str = field(default_factory=lambda: f"f{uuid.uuid4().hex[:8]}-")
    #: What the judge must know: see Evidence.
    erased: set[str] = field(default_factory=set)
    overfull: set[str] = field(default_factory=set)
    #: Users for whom a bug was put in: everything of theirs must become a dead letter.
    failing: set[str] = field(default_factory=set)
    recoveries_s: list[float] = field(default_factory=list)
    verdict: list[Finding] | None = None
    note: str = ""

    def __post_init__(self) -> None:
        self.shoppers = Shoppers(self.seed, self.n_users)
        self.admin = Admin(self.broker, self.prefix)
        self.shop = Shop(self.broker, self.prefix)
        self.workers: list[Supervised] = []
        self.worker = self.another_worker("w1")
        self.outputs: Outputs | None = None

    def another_worker(self, name: str, **settings: str) -> Supervised:
        """Return a worker of this run that is not started yet, with a state folder of its own."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        own = {
            **SETTINGS,
            "PREFSTREAM_INSTANCE_ID": name,
            "PREFSTREAM_STORE": self.store,
            "PREFSTREAM_ENCODER": str(tiny_model(self.folder)),
            "PREFSTREAM_REPLICATION_FACTOR": str(self.replicas),
            **self.settings,
            **settings,
        }
        worker = Supervised(
            self.worker_broker or self.broker,
            self.prefix,
            folder,
            own,
            inject=dict(self.inject),
        )
        self.workers.append(worker)
        return worker

    # What happens -------------------------------------------------------------------------------

    def open(self) -> Trial:
        """Make the topics, start the worker, load the catalogue and wait until it is served."""
        self.worker.command("topics", "create")
        self.worker.start()
        self.load_catalogue()
        self.outputs = Outputs(self.broker, self.prefix)
        return self

    def load_catalogue(self) -> None:
        self.shop.send(self.shoppers.catalogue())
        self.shop.send(self.shoppers.records())
        self.shop.flush()
        self.until_served()

    def until_served(self) -> None:
        def served() -> bool:
            indexed = self.worker.metric("preference", "prefstream_index_items")
            return indexed == len(self.shoppers.items)

        self.worker.until(served, "the catalogue served")

    def load(
        self, n: int, mix: Mix = HOSTILE, per_s: float = 0.0, users: Sequence[str] = ()
    ) -> None:
        """Send ``n`` events and wait until the broker has them."""
        self.shop.send(self.shoppers.events(n, mix, users), per_s)
        self.shop.flush()

    def load_and_drain(self, n: int, users: Sequence[str] = ()) -> None:
        """Send ``n`` events and wait until they are processed."""
        self.load(n, users=users)
        assert self.drained(60) is not None

    def load_in_background(self, n: int, per_s: float, mix: Mix = HOSTILE) -> threading.Thread:
        return self.shop.in_background(self.shoppers.events(n, mix), per_s)

    @contextmanager
    def under_load(self, per_s: float) -> Iterator[None]:
        """Send events for as long as it takes."""
        over = threading.Event()
        events = takewhile(lambda _: not over.is_set(), self.shoppers.events(NO_END, HOSTILE))
        sending = self.shop.in_background(events, per_s)
        try:
            yield
        finally:
            over.set()
            sending.join()

    def recovered_s(self, worker: Supervised, since: int, timeout_s: float = 60) -> float:
        """Return seconds from a worker's start number ``since`` to the first output after it."""
        assert self.outputs
        worker.until(lambda: len(worker.starts) > since, "started again", timeout_s)
        started = worker.starts[since]
        at = self.outputs.first_after(started, timeout_s)
        self.recoveries_s.append(at - started)
        return at - started

    def one_owner_each(self) -> None:
        """Wait until each group has given every partition to exactly one member."""
        for group, topics in GROUPS.items():
            wanted = sorted((topic, number) for topic in topics for number in range(2))

            def settled(group: str = group, wanted: list[Any] = wanted) -> bool:
                owned = [p for _, places in self.admin.members(group) for p in places]
                return sorted(p for p in owned if p in wanted) == wanted

            self.worker.until(settled, f"one owner of each partition in {group}", 40)

    # What is judged -----------------------------------------------------------------------------

    def finish(self, deadline_s: float = 60, live: bool = True) -> list[Finding]:
        """Send what is still to be sent, let the stream drain, and judge."""
        self.shop.flush()
        if live:
            # Who takes over from a worker that left sends its last outputs again: only then is
            # there an end to drain to.
            self.live_rows()
        drained_s = self.drained(deadline_s)
        if self.outputs:
            self.outputs.stop()
        evidence = self.evidence(drained_s, deadline_s, live)
        return judge(evidence)

    def finish_now(self, deadline_s: float = 60, live: bool = True) -> None:
        """Judge now, with the workers as they are; the arena judges what was not judged."""
        self.verdict = self.finish(deadline_s, live)

    def drained(self, deadline_s: float) -> float | None:
        """Return after how many seconds every group had committed all there is; None: never."""
        started = time.monotonic()
        before: Any = None
        while time.monotonic() - started < deadline_s:
            offsets = self.offsets()
            done = all(committed == end or not end for committed, end in offsets.values())
            if done and offsets == before and not self.n_put_off():
                # Lists that were put off by the interval come out within it.
                time.sleep(2 * MIN_INTERVAL_MS / 1000)
                if self.offsets() == offsets:
                    return time.monotonic() - started
            before = offsets if done else None
            time.sleep(0.4)
        return None

    def n_put_off(self) -> int:
        """Return how many lists a backlog has put off, and nobody has got yet."""
        name = "prefstream_recommendations_put_off"
        return round(
            sum(w.metric("preference", name) for w in self.workers if w.listens("preference"))
        )

    def offsets(self) -> dict[tuple[str, str, int], tuple[int, int]]:
        """Return committed offset and log end of each partition that a group reads."""
        ends = self.admin.ends([topic for topics in GROUPS.values() for topic in topics])
        found = {}
        for group, topics in GROUPS.items():
            committed = self.admin.committed(group)
            for place, end in ends.items():
                if place[0] in topics:
                    found[(group, *place)] = (committed.get(place, -1), end)
        return found

    def to_be_read_again(self) -> int:
        """Return how many acts the rows reflect already, but no commit covers."""
        reflected: dict[int, int] = {}
        for record in self.admin.read("user-state")["user-state"]:
            if record.value() is not None and not record.key().startswith(CONTROL):
                offset = state_of(unstamp(record.value())[1])["offsets"].get("clickstream", -1)
                partition = record.partition()
                reflected[partition] = max(offset, reflected.get(partition, -1))
        committed = self.admin.committed("prefstream-preference")
        return sum(
            max(0, offset + 1 - max(0, committed.get(("clickstream", partition), 0)))
            for partition, offset in reflected.items()
        )

    def sources(self, read: Mapping[str, list[Any]]) -> Sources:
        """Return the source topics and the vectors that the encoder published."""
        records = [
            Read(
                (topic, record.partition(), record.offset()),
                record.timestamp()[1],
                record.key() or b"",
                record.value(),
            )
            for topic in SOURCE_TOPICS
            for record in read[topic]
        ]
        items: dict[str, Any] = {}
        for record in read["item-embeddings"]:
            if record.value() is None:
                items.pop(record.key().decode(), None)
                continue
            embedding = read_item_embedding(record.value())
            items[embedding.item_id] = np.frombuffer(embedding.vector, "<f2").astype(np.float64)
        texts: dict[Place, bytes] = {}
        for record in read["embedded-texts"]:
            text = read_embedded_text(record.value())
            place = text.source.topic, text.source.partition, text.source.offset
            texts.setdefault(place, text.vector)
        keys = {user_id.encode() for user_id in self.failing}
        dead = {
            sent.place
            for sent in self.shop.log
            if sent.message.fate == "dead" or sent.message.key in keys
        }
        return Sources(records, items, texts, frozenset(dead))

    def _failing(self, read: Mapping[str, list[Any]]) -> frozenset[Place]:
        """Return where the messages lie that the preference tier is to fail on."""
        keys = {user_id.encode() for user_id in self.failing}
        return frozenset(
            (topic, record.partition(), record.offset())
            for topic in GROUPS["prefstream-preference"]
            for record in read[topic]
            if record.key() in keys
        )

    def evidence(self, drained_s: float | None, deadline_s: float, live: bool) -> Evidence:
        rows = self.live_rows() if live else None
        read = self.admin.read(*SOURCE_TOPICS, *JUDGED_TOPICS)
        return Evidence(
            sent=self.shop.log,
            sources=self.sources(read),
            live=rows,
            # Row by row: of a long run the changelog is larger than all the rest together.
            replayed=replayed(record for _, record in self.admin.each("user-state")),
            recommendations=read["recommendations"],
            churn_risks=read["churn-risk"],
            search_results=read["search-results"],
            dead_letters=read["dead-letters"],
            offsets=self.offsets(),
            drained_s=drained_s,
            deadline_s=deadline_s,
            min_interval_ms=MIN_INTERVAL_MS,
            erased=frozenset(self.erased),
            overfull=frozenset(self.overfull),
            failing=self._failing(read),
        )

    def live_rows(self) -> dict[str, bytes]:
        """Return the user rows that the running workers hold; each partition has one owner."""
        wanted = set(range(self.admin.partitions()["user-state"]))
        deadline = time.monotonic() + HELD_WITHIN_S
        while True:
            rows, owners = self._held_rows()
            # Those of a worker that has left are nobody's until its session is over.
            if set(owners) == wanted or time.monotonic() > deadline:
                return rows
            time.sleep(0.5)

    def _held_rows(self) -> tuple[dict[str, bytes], dict[int, str]]:
        rows: dict[str, bytes] = {}
        owners: dict[int, str] = {}
        for worker in self.workers:
            # One that has ended itself, or begins again, holds nothing and must not be signalled.
            if not worker.listens("preference"):
                continue
            for partition, of_it in worker.rows()["user-state"].items():
                assert partition not in owners, f"partition {partition} has two owners"
                owners[partition] = worker.folder.name
                rows |= {key.decode(): row for key, row in of_it.items()}
        return rows, owners

    def index_versions(self) -> set[str]:
        """Return the versions of the index that the lists name."""
        records = self.admin.read("recommendations")["recommendations"]
        lists = [json.loads(record.value()) for record in records if record.value()]
        return {one["model"]["index_version"] for one in lists}

    def close(self) -> None:
        if self.outputs:
            self.outputs.stop()
        for worker in self.workers:
            worker.end()

    def send(self, messages: Iterable[Message]) -> None:
        self.shop.send(messages)
        self.shop.flush()

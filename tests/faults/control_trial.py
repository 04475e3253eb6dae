"""ControlTrial: one run of a control, with the same shop, the same topics and the same judge."""

from __future__ import annotations

import json
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from faults.cluster import Admin
from faults.generator import Mix, Shop, Shoppers
from faults.oracle import Finding, answered_once, compare
from faults.reference import Read, Sources, State, expected_states
from faults.supervisor import Supervised

ACTS_ONLY = Mix(texts=0.0)
QUIET_S = 8.0


@dataclass
class ControlTrial:
    """A control on topics of its own; ``counts`` says whether it keeps a table."""

    broker: str
    folder: Path
    control: str
    counts: bool
    store: str = "rocksdb"
    prefix: str = field(default_factory=lambda: f"c{uuid.uuid4().hex[:8]}-")
    recoveries_s: list[float] = field(default_factory=list)
    verdict: list[Finding] | None = None
    note: str = ""

    def __post_init__(self) -> None:
        self.admin = Admin(self.broker, self.prefix)
        self.shop = Shop(self.broker, self.prefix)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.worker = Supervised(
            self.broker,
            self.prefix,
            self.folder,
            command_line=("faults.controls", self.control),
        )

    def open(self) -> ControlTrial:
        for topic in ("clickstream", "recommendations"):
            self.admin.create(topic, 2, {})
        self.worker.launch()
        return self

    def load_in_background(self, n: int, per_s: float) -> threading.Thread:
        return self.shop.in_background(Shoppers(seed=3).events(n, ACTS_ONLY), per_s)

    def answers(self) -> int:
        """Return how many answers there are, repeats included."""
        return sum(self.admin.ends(["recommendations"]).values())

    def answers_more(self, n: int, timeout_s: float = 60) -> None:
        """Wait for ``n`` more answers."""
        before = self.answers()
        self.worker.until(lambda: self.answers() >= before + n, "answering", timeout_s)

    def finish(self, deadline_s: float = 60) -> list[Finding]:
        """Wait until nothing comes any more, and judge."""
        self.shop.flush()
        deadline = time.monotonic() + deadline_s
        n, since = -1, time.monotonic()
        while time.monotonic() < min(deadline, since + QUIET_S):
            if (now := self.answers()) != n:
                n, since = now, time.monotonic()
            time.sleep(0.3)
        read = self.admin.read("clickstream", "recommendations")
        findings = answered_once(self.shop.log, read["recommendations"])
        if self.counts:
            acts = [
                Read(
                    ("clickstream", r.partition(), r.offset()), r.timestamp()[1], r.key(), r.value()
                )
                for r in read["clickstream"]
            ]
            states = expected_states(Sources(acts, {}, {}, frozenset()))
            wanted: dict[str, State] = {
                user: {"n_acts": state["n_acts"]}
                for user, state in states.items()
                if state["n_acts"]
            }
            findings += compare("the control's table", wanted, self._table())
        return findings

    def _table(self) -> dict[str, State]:
        name = f"{self.control}-counts-changelog"
        last = {record.key(): record.value() for record in self.admin.read(name)[name]}
        return {json.loads(user): {"n_acts": json.loads(n)} for user, n in last.items() if n}

    def close(self) -> None:
        self.worker.end()

"""The preference stage with everything real but Kafka, the encoder and the clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from builders import NOW_MS, interaction, message, review, search
from fakes import HashEncoder, Outbox

from models.catalogue import Catalogue
from models.churn import BaselineChurn
from models.items import ItemFacts
from models.recommender import Recommender
from models.reranking import PairScorer, Reranking, RerankRule
from models.search import ItemSearch, SearchRule
from models.text_index import TextIndex
from stream.agents.churn import Churn, ChurnRules
from stream.agents.failures import Failures
from stream.agents.guard import Guard
from stream.agents.interests import Interests
from stream.agents.pace import Pace
from stream.agents.preferences import Preferences
from stream.agents.recommending import Publishing, Recommending
from stream.agents.reports import BatchReport
from stream.agents.searching import Searching
from stream.core.churn import Thresholds
from stream.core.events import parse_review
from stream.core.user_rows import from_row
from stream.core.user_state import Rules, UserState
from stream.dead_letters import DeadLetters, StormGauge
from stream.delivery import Output, SourceMessage
from stream.engine.app import add_table, new_app
from stream.engine.commits import Committer
from stream.engine.table import PartitionTable
from stream.messages import (
    ChurnRisk,
    EmbeddedText,
    ItemPairs,
    Recommendation,
    SearchResults,
    SourcePlace,
    TextSentiment,
    read_embedded_text,
    read_item_pairs,
    to_fp16,
    to_message,
)
from stream.settings import load_settings
from stream.topics import USER_STATE
from stream.tracing import Tracing

TITLES = {
    "boots": "red leather boots",
    "shoes": "red leather shoes",
    "sandals": "brown leather sandals",
    "laces": "red laces boots",
    "tea": "green tea leaves",
    "coffee": "dark coffee beans",
    "cup": "white tea cup",
    "lamp": "desk lamp light",
}
INTERVAL_MS = 100


def new_table(folder: Path, name: str = USER_STATE.name) -> PartitionTable:
    settings = load_settings(store="memory", state_dir=folder)
    return add_table(new_app(settings, "preference"), settings, name)


class PreferenceStage:
    """One worker's stage behind its guard, holding partitions 0 and 1."""

    def __init__(
        self,
        table: PartitionTable,
        outbox: Outbox,
        *,
        scorer: PairScorer | None = None,
        **settings: Any,
    ) -> None:
        self.scorer = scorer
        fields = {"top_k": 5, "min_interval_ms": INTERVAL_MS, "n_candidates": 20}
        self.settings = load_settings(**{**fields, **settings})
        self.table, self.outbox = table, outbox
        self.encoder = HashEncoder()
        self.texts = TextIndex()
        self.catalogue = Catalogue(self.encoder.dim, texts=self.texts)
        self.now_ms = NOW_MS + 1000
        self.monotonic_s = 0.0
        self.reports: list[BatchReport] = []
        self.n_offsets: dict[str, int] = {}
        self.tracing: Tracing | None = None
        self.build()

    def build(self) -> None:
        """Make what a worker that starts makes; the store and the clock stay."""
        s = self.settings
        self.committer = Committer(self.table, self.outbox, USER_STATE.name)
        self.failures = Failures(DeadLetters(self.outbox, "0", lambda *_: None), "preferences")
        rules = Rules.of(s)
        thresholds = Thresholds(s.churn_low, s.churn_high, s.churn_hysteresis)
        churn_rules = ChurnRules(thresholds, s.churn_horizon_days, s.churn_assess_s, s.clock)
        self.recommending = Recommending(
            self.catalogue,
            Recommender(self.catalogue, n_candidates=s.n_candidates),
            self.committer,
            rules,
            Publishing(self.encoder.encoder_id, s.top_k, s.min_interval_ms, 86_400_000),
        )
        self.churn = Churn(BaselineChurn(), self.committer, churn_rules, lambda: self.monotonic_s)
        self.stage = Preferences(
            table=self.table,
            committer=self.committer,
            sender=self.outbox,
            catalogue=self.catalogue,
            recommending=self.recommending,
            searching=self.searching(rules),
            churn=self.churn,
            rules=rules,
            encoder_id=self.encoder.encoder_id,
            failures=self.failures,
            pace=Pace(s.batch_max, lambda: self.monotonic_s),
            clock=lambda: self.now_ms,
            report=self.report,
            tracing=self.tracing,
        )
        self.guard = Guard(self.stage.process, self.stage.reject, self.failures, StormGauge())

    def report(self, batch: BatchReport) -> None:
        self.reports.append(batch)
        if self.tracing is not None:
            self.tracing.reporting(lambda _: None)(batch)

    def searching(self, rules: Rules) -> Searching | None:
        s = self.settings
        rule = SearchRule(s.search_words, s.search_feedback, interest=s.search_personalisation)
        rerank = RerankRule(s.search_reranker_weight, s.search_reranker_k)
        return (
            None
            if not s.search_results
            else Searching(
                self.catalogue,
                ItemSearch(self.catalogue, self.texts, rule, s.n_candidates),
                self.committer,
                Interests(self.catalogue, rules) if s.search_personalisation else None,
                encoder_id=self.encoder.encoder_id,
                k=s.search_k,
                reranking=None
                if self.scorer is None
                else Reranking(self.scorer, self.title_of, rerank, lambda: self.monotonic_s),
            )
        )

    def title_of(self, item_id: str) -> str:
        facts = self.catalogue.facts(item_id)
        return "" if facts is None else facts.title

    def restore(self) -> None:
        """Read the changelog into the table, as it is read before a partition is held."""
        for partition in (0, 1):
            rows = {
                output.key or b"": output.value
                for output in self.outbox.of("user-state")
                if output.partition == partition
            }
            self.table.write(partition, rows)

    async def start(self) -> None:
        """Take partitions 0 and 1 over."""
        await self.committer.hold({0, 1})
        for partition in (0, 1):
            await self.stage.take_over(partition)

    def stock(self, *item_ids: str) -> None:
        """Put items of TITLES into the catalogue, all of them by default."""
        for item_id in item_ids or TITLES:
            self.catalogue.put_item(ItemFacts(item_id, TITLES[item_id], NOW_MS))
            self.catalogue.put_vectors([item_id], self.encoder.encode([TITLES[item_id]]))
        self.texts.refresh()

    async def __call__(self, *batch: SourceMessage) -> list[Output]:
        """Return what one micro-batch sends."""
        before = len(self.outbox.sent)
        await self.guard(batch)
        return self.outbox.sent[before:]

    async def due(self, after_ms: int) -> list[Output]:
        """Return what is sent once ``after_ms`` more have passed."""
        self.now_ms += after_ms
        before = len(self.outbox.sent)
        while await self.stage.publish_due():
            pass
        return self.outbox.sent[before:]

    def state(self, user_id: str = "u1", partition: int = 0) -> UserState | None:
        row = self.table.rows(partition, [user_id.encode()])[0]
        return None if row is None else from_row(row)

    # Messages, each at the next offset of its topic.

    def _next(self, topic: str) -> int:
        self.n_offsets[topic] = self.n_offsets.get(topic, -1) + 1
        return self.n_offsets[topic]

    def act(self, item_id: str, kind: str = "click", **fields: Any) -> SourceMessage:
        offset = self._next("clickstream")
        place = {k: fields.pop(k) for k in ("partition",) if k in fields}
        base = {"event_id": f"e{offset}", "item_id": item_id, "type": kind}
        event = interaction(**{**base, "event_time_ms": NOW_MS + offset, **fields})
        return message("clickstream", event, offset, **place)

    def searched(self, query: str, encoder: str | None = None, **fields: Any) -> SourceMessage:
        offset = self._next("embedded-texts")
        event = search(**{"event_id": f"s{offset}", "query": query, **fields})
        return self.embedded("search", event, query, offset, encoder)

    def reviewed(
        self, item_id: str, text: str, rating: float | None = None, content: float | None = None
    ) -> SourceMessage:
        """``content`` is what the encode tier's model says of the text, if it has one."""
        offset = self._next("embedded-texts")
        event = review(event_id=f"r{offset}", item_id=item_id, text=text, rating=rating)
        return self.embedded("review", event, text, offset, content=content)

    @staticmethod
    def event_of(embedded: SourceMessage) -> Any:
        """Return the review that a message carries."""
        return parse_review(read_embedded_text(embedded.value or b"").event)

    def embedded(
        self,
        kind: Any,
        event: Any,
        text: str,
        offset: int,
        encoder: str | None = None,
        content: float | None = None,
    ) -> SourceMessage:
        source = {"search": "searches", "review": "reviews", "user": "users"}[kind]
        vector: np.ndarray[Any, Any] = self.encoder.encode([text])[0]
        value = EmbeddedText(
            kind=kind,
            source=SourcePlace(source, 0, offset, NOW_MS),
            event=msgspec.json.encode(event),
            encoder=encoder or self.encoder.encoder_id,
            dim=self.encoder.dim,
            vector=to_fp16(vector),
            sentiment=None if content is None else TextSentiment(content, "sentiment-test"),
        )
        key = event.user_id.encode()
        return message("embedded-texts", to_message(value), offset, key=key)

    def stated(self, event: Any) -> SourceMessage:
        """A record of ``users``: a User, raw bytes, or None for u1's tombstone."""
        return message("users", event, self._next("users"))


def recommendations(outputs: list[Output]) -> list[Recommendation]:
    return [
        msgspec.json.decode(o.value or b"", type=Recommendation)
        for o in outputs
        if o.topic == "recommendations" and o.value is not None
    ]


def results(outputs: list[Output]) -> list[SearchResults]:
    return [
        msgspec.json.decode(o.value or b"", type=SearchResults)
        for o in outputs
        if o.topic == "search-results" and o.value is not None
    ]


def risks(outputs: list[Output]) -> list[ChurnRisk]:
    return [
        msgspec.json.decode(o.value or b"", type=ChurnRisk)
        for o in outputs
        if o.topic == "churn-risk" and o.value is not None
    ]


def pairs(outputs: list[Output]) -> dict[int, list[ItemPairs]]:
    found: dict[int, list[ItemPairs]] = {}
    for output in outputs:
        if output.topic == "item-pairs" and output.partition is not None:
            found.setdefault(output.partition, []).append(read_item_pairs(output.value or b""))
    return found


def dead(outputs: list[Output]) -> list[Output]:
    return [output for output in outputs if output.topic == "dead-letters"]


def outcomes(stage: PreferenceStage) -> dict[str, int]:
    """What became of the events of the last batch, over all topics."""
    counts: dict[str, int] = {}
    for (_, outcome), n in stage.reports[-1].events.items():
        counts[outcome] = counts.get(outcome, 0) + n
    return counts


def again(batch: SourceMessage, offset: int) -> SourceMessage:
    """The same event, sent once more by its producer."""
    return msgspec.structs.replace(batch, offset=offset)

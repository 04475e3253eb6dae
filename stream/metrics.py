"""Every Prometheus metric, with its unit and its labels. Labels come from closed sets only.

``Metrics`` is constructed once per process and passed down. Observe per micro-batch, not per event.
"""

from __future__ import annotations

import collections
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from itertools import product
from typing import Any, Literal, NamedTuple, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from models.encoder import Fallback
from models.matches import FoundBy
from models.profile import Source
from models.sentiment import Polarity
from stream.core.events import InteractionType
from stream.delivery import Output
from stream.health import Readiness
from stream.histogram import BatchHistogram
from stream.lag import PartitionLag, Place
from stream.listed_items import ListedItems
from stream.messages import Band
from stream.topics import TOPICS

PREFIX = "prefstream_"
OTHER = "other"

Outcome = Literal[
    "folded",  # entered a user's state
    "encoded",  # its text was sent on as a vector
    "unchanged",  # an item whose text has its vector already
    "removed",  # a tombstone took effect
    "repeat",  # seen before: same offset or event id
    "late",  # too old to count for anything
    "unknown_item",  # kept in counters only
    "erased",  # of a user who is erased
    "not_personalized",  # of a user who wants no profile
    "dead_letter",
    "other",
]
DeadLetterReason = Literal["bad_event", "bad_derived", "too_large", "refused", "bug", "other"]
Stage = Literal[
    "parse",
    "tokenize",
    "encode",
    "sentiment",
    "fold",
    "recommend",
    "search",
    "churn",
    "pairs",
    "neighbours",
    "catalogue",
    "publish",
    "batch",  # a whole micro-batch, from poll to acknowledged outputs
    "other",
]
TextKind = Literal["item", "search", "review", "user", "other"]
Refusal = Literal["encoder", "dimension", "not_finite", "other"]
ModelKind = Literal["user", "ranker", "churn", "sentiment", "encoder", "other"]
ModelRefusal = Literal[
    "damaged",  # not as its manifest says, not of the kind, or it does not work
    "encoder",  # made for the vectors of another encoder, or another encoder itself
    "failed",  # loading it failed in a way that nobody foresaw
    "other",
]
Cause = Literal["event", "timer", "other"]
BandBefore = Literal["none", "low", "medium", "high", "other"]
Answer = Literal[FoundBy, "nothing", "other"]
Act = Literal[InteractionType, "other"]
Copied = Literal["copied", "refused"]
#: What the collector took, and what it did not and is gone.
Delivered = Literal["sent", "failed"]

# fmt: off
_LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75,
              1, 2.5, 5, 10, 30, 60, 300)
_STAGE_S = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
# fmt: on
_ROW_BYTES = (64, 128, 256, 384, 512, 640, 768, 896, 1024, 1536, 2048, 4096, 8192)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_TOPICS = frozenset(topic.name for topic in TOPICS)


class Described(NamedTuple):
    """One metric as it is exposed; a histogram's series add _bucket, _sum and _count."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


class _Counter(Counter):
    """The client's counter; it makes texts of label values and takes a lock whenever it is asked
    for ``labels``, which takes longer than counting."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._by_labels: dict[tuple[str, ...], _Counter] = {}
        super().__init__(*args, **kwargs)

    def labels(self, *values: str) -> _Counter:  # type: ignore[override]
        found = self._by_labels.get(values)
        if found is None:
            found = self._by_labels[values] = super().labels(*values)
        return found


class Metrics:
    """The process's metrics on a registry of their own."""

    def __init__(self, tier: str = "all") -> None:
        """``tier`` names the process in build_info, as the worker does, or pseudonymise."""
        self.registry = CollectorRegistry()
        self.described: list[Described] = []
        self._lag_places: dict[str, set[Place]] = {}
        self._index_version = ""
        self._models: dict[ModelKind, tuple[str, ...]] = {}
        self._flow()
        self._latency()
        self._encoder()
        self._index()
        self._trained()
        self._state()
        self._progress()
        self._edge()
        self._start_at_zero()
        self.build_info.labels(version("prefstream"), tier, platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)

    # --- the table -------------------------------------------------------------------------------

    def _flow(self) -> None:
        self.events = self._counter(
            "events_total", "Events consumed, by what became of them.", "topic", "outcome"
        )
        self.outputs = self._counter("outputs_total", "Messages acknowledged.", "topic")
        self.sent_bytes = self._counter(
            "sent_bytes_total",
            "Bytes of keys and values acknowledged; of changelogs, their ledgers included.",
            "topic",
        )
        self.dead_letters = self._counter(
            "dead_letters_total", "Events given up on.", "topic", "reason"
        )
        self.events_lost = self._counter(
            "events_lost_total", "Events that the broker deleted before they were read.", "topic"
        )
        self.coalesced = self._counter(
            "recommendations_coalesced_total", "Recommendations left out for a later one's sake."
        )
        self.put_off = self._gauge(
            "recommendations_put_off", "Users whose next recommendation is put off."
        )
        self.cold_starts = self._counter(
            "recommendations_cold_start_total", "Recommendations for users without history."
        )
        self.recommended_items = self._counter(
            "recommended_items_total", "Items recommended, by what found them.", "source"
        )
        self.listed = ListedItems(time.monotonic)
        self._gauge(
            "recommended_distinct_items", "Different items in the lists of the last hour."
        ).set_function(lambda: float(len(self.listed)))
        self.acts = self._counter(
            "acts_total",
            "Acts folded, by type and by whether they name their list.",
            "type",
            "list",
        )
        self.search_answers = self._counter(
            "search_answers_total", "Searches answered, by what found the best item.", "found_by"
        )
        self.churn_risks = self._counter(
            "churn_risks_total",
            "Churn risks published, by band, the band before and cause.",
            "band",
            "previous",
            "cause",
        )
        # As below: the first wave into a band is the one that matters.
        for labels in product(get_args(Band), ("none", *get_args(Band)), ("event", "timer")):
            if labels[0] != labels[1]:
                self.churn_risks.labels(*labels)
        self.churn_assessments = self._counter(
            "churn_assessments_total", "Churn assessments, published or not.", "cause"
        )

    def _latency(self) -> None:
        self.end_to_end = self._histogram(
            "end_to_end_seconds",
            "From event time to the acknowledged output.",
            _LATENCY_S,
            "topic",
        )
        self.broker_to_publish = self._histogram(
            "broker_to_publish_seconds",
            "From the event's arrival at the broker to the acknowledged output.",
            _LATENCY_S,
            "topic",
        )
        self.clock_skew = self._counter(
            "clock_skew_events_total",
            "Outputs whose event lies in the future; their latency counts as 0.",
            "clock",
        )
        self.stage_seconds = self._histogram(
            "stage_seconds", "Time of one stage for one micro-batch.", _STAGE_S, "stage"
        )
        self.batch_size = self._histogram(
            "batch_size", "Events in one micro-batch.", _SIZES, "stage"
        )

    def _encoder(self) -> None:
        self.encoder_info = self._gauge(
            "encoder_info", "1 for the encoder in use.", "encoder", "device"
        )
        self.encoder_seconds = self._histogram(
            "encoder_seconds", "Encoder time for one micro-batch.", _STAGE_S
        )
        self.encoder_texts = self._counter("encoder_texts_total", "Texts encoded.", "kind")
        self.review_sentiments = self._counter(
            "review_sentiments_total", "Reviews read, by what their text says.", "sentiment"
        )
        self.encoder_truncated = self._counter(
            "encoder_truncated_total", "Texts longer than the model takes, cut by the tokenizer."
        )
        self.encoder_fallbacks = self._counter(
            "encoder_fallbacks_total",
            "Batches halved and texts sent to the CPU for want of memory, devices given up (cpu).",
            "to",
        )
        self.encoder_cache = self._counter(
            "encoder_cache_total", "Texts looked up in the vector cache.", "result"
        )
        self.refused_vectors = self._counter(
            "refused_vectors_total", "Vectors not used: another encoder's, or broken.", "reason"
        )

    def _index(self) -> None:
        self.index_items = self._gauge("index_items", "Items that can be recommended now.")
        self.index_vectors = self._gauge("index_vectors", "Item vectors held, of any status.")
        self.index_info = self._gauge(
            "index_info", "1 for the kind of index in use.", "kind", "encoder"
        )
        self.index_updates = self._counter(
            "index_updates_total",
            "New index versions seen; several may have passed between two looks.",
        )
        self.index_updated = self._gauge(
            "index_updated_timestamp_seconds", "When the index last changed, unix time."
        )
        self.follower_lag = self._gauge(
            "follower_lag", "Offsets of a catalogue topic not yet applied here.", "topic"
        )

    def _trained(self) -> None:
        self.model_info = self._gauge(
            "model_info", "1 for the trained model in use.", "kind", "name", "version"
        )
        self.model_taken = self._gauge(
            "model_taken_timestamp_seconds", "Since when the model is in use, unix time.", "kind"
        )
        self.model_swaps = self._counter(
            "model_swaps_total", "Models that took another's place without a restart.", "kind"
        )
        self.model_refusals = self._counter(
            "model_refusals_total", "Models that were not taken.", "kind", "reason"
        )
        self.model_pending = self._gauge(
            "model_pending_seconds",
            "For how long a folder has held another model than the one in use.",
            "kind",
        )

    def _state(self) -> None:
        self.state_rows = self._gauge("state_rows", "Rows in a local table.", "table")
        self.state_bytes = self._gauge("state_bytes", "Bytes on disk of a local table.", "table")
        self.row_bytes = self._histogram(
            "user_row_bytes", "Length of a user's row as it was written.", _ROW_BYTES
        )
        self.rows_trimmed = self._counter(
            "user_rows_trimmed_total", "User rows cut because they exceeded max_state_bytes."
        )
        self.rows_expired = self._counter(
            "user_rows_expired_total", "User rows removed after state_ttl_days without a touch."
        )
        self.recovery_seconds = self._gauge(
            "recovery_seconds", "How long the last recovery of local state took."
        )
        self.rebalances = self._counter("rebalances_total", "Rebalances seen by this worker.")
        self.assigned = self._gauge("assigned_partitions", "Partitions held by this worker.")

    def _progress(self) -> None:
        self.spans = self._counter(
            "spans_total", "Spans for the collector, by what became of them.", "outcome"
        )
        labels = ("group", "topic", "partition")
        self.lag = self._gauge("consumer_lag", "End offset less committed offset.", *labels)
        self.commit_age = self._gauge(
            "commit_age_seconds", "Time for which there has been lag and no commit.", *labels
        )
        self.trimmed = self._gauge(
            "consumer_trimmed",
            "Offsets deleted by the broker before the group committed them.",
            *labels,
        )
        self.ready = self._gauge("ready", "1 when every condition of /ready holds.")
        self.condition = self._gauge("ready_condition", "1 when the condition holds.", "condition")
        self.build_info = self._gauge(
            "build_info", "1 for the running version.", "version", "tier", "python"
        )

    def _edge(self) -> None:
        self.pseudonymised = self._counter(
            "pseudonymised_total", "Raw messages read, by what became of them.", "topic", "outcome"
        )
        self.pseudonymise_seconds = self._histogram(
            "pseudonymise_seconds",
            "From the raw message's time to its copy under a pseudonym.",
            _LATENCY_S,
            "topic",
        )
        for topic in TOPICS:
            if topic.role == "in" and topic.key == "user_id":
                for outcome in get_args(Copied):
                    self.pseudonymised.labels(topic.name, outcome)

    # --- what stages call ------------------------------------------------------------------------

    def count_events(self, topic: str, outcome: Outcome, n: int = 1) -> None:
        """Add n events of a topic."""
        if n:
            self.events.labels(_topic(topic), _closed(outcome, Outcome)).inc(n)

    def count_outputs(self, topics: Iterable[str]) -> None:
        """Add one acknowledged output per topic name given; a Counter says how many of each."""
        for name, n in collections.Counter(topics).items():
            self.outputs.labels(_topic(name)).inc(n)

    def count_dead_letters(self, topic: str, reason: DeadLetterReason, n: int = 1) -> None:
        """Add n events that were given up on, to both counters that show them."""
        self.dead_letters.labels(_topic(topic), _closed(reason, DeadLetterReason)).inc(n)
        self.count_events(topic, "dead_letter", n)

    def count_lost(self, topic: str, n: int) -> None:
        """Add n events that were deleted before they were read."""
        self.events_lost.labels(_topic(topic)).inc(n)

    def count_texts(self, kind: TextKind, n: int) -> None:
        """Add n texts that went through the encoder."""
        self.encoder_texts.labels(_closed(kind, TextKind)).inc(n)

    def count_cache(self, hits: int, misses: int) -> None:
        """Add one look into the vector cache per text."""
        self.encoder_cache.labels("hit").inc(hits)
        self.encoder_cache.labels("miss").inc(misses)

    def show_encoder(self, encoder: str, device: str) -> None:
        """Set which encoder is in use, and the device it runs on now."""
        self.encoder_info.clear()
        self.encoder_info.labels(encoder, device).set(1)

    def count_pseudonymised(self, topic: str, outcome: Copied, n: int = 1) -> None:
        """Add n raw messages of a topic."""
        self.pseudonymised.labels(_topic(topic), _closed(outcome, Copied)).inc(n)

    def count_refused_vectors(self, reason: Refusal, n: int = 1) -> None:
        """Add n vectors that were not used."""
        self.refused_vectors.labels(_closed(reason, Refusal)).inc(n)

    def show_model(self, kind: ModelKind, name: str, version: str, now_ms: int) -> None:
        """Set which model of a kind is in use from now on."""
        if before := self._models.pop(kind, None):
            self.model_info.remove(*before)
            self.model_swaps.labels(kind).inc()
        self._models[kind] = (kind, name, version)
        self.model_info.labels(kind, name, version).set(1)
        self.model_taken.labels(kind).set(now_ms / 1000)
        # A rate cannot see the step from absent to 1.
        self.model_swaps.labels(kind)
        for reason in get_args(ModelRefusal):
            self.model_refusals.labels(kind, reason)

    def refuse_model(self, kind: ModelKind, reason: ModelRefusal) -> None:
        """Add a model that was not taken."""
        self.model_refusals.labels(kind, reason).inc()

    def count_recommended(self, sources: Iterable[Source]) -> None:
        """Add one recommended item per source given."""
        for name, n in collections.Counter(sources).items():
            self.recommended_items.labels(_closed(name, Source)).inc(n)

    def count_churn_risk(self, band: Band, previous: BandBefore, cause: Cause, n: int = 1) -> None:
        """Add n published churn risks; ``previous`` none is a first assessment."""
        labels = _closed(band, Band), _closed(previous, BandBefore), _closed(cause, Cause)
        self.churn_risks.labels(*labels).inc(n)

    def count_acts(self, act: Act, names_list: bool, n: int) -> None:
        """Add n acts that were folded."""
        self.acts.labels(_closed(act, Act), "yes" if names_list else "no").inc(n)

    def count_answers(self, found_by: Answer, n: int) -> None:
        """Add n answers to searches."""
        self.search_answers.labels(_closed(found_by, Answer)).inc(n)

    def count_sent(self, outputs: Iterable[Output]) -> None:
        """Add the bytes of messages that the broker has."""
        n_bytes = collections.Counter[str]()
        for output in outputs:
            n_bytes[output.topic] += len(output.key or b"") + len(output.value or b"")
        for topic, n in n_bytes.items():
            self.sent_bytes.labels(_topic(topic)).inc(n)

    def count_spans(self, outcome: Delivered, n: int) -> None:
        """Add n spans; called by the exporter's thread."""
        self.spans.labels(outcome).inc(n)

    @contextmanager
    def stage(self, stage: Stage, n: int) -> Iterator[None]:
        """Time the block and count its n events, whether it fails or not."""
        name = _closed(stage, Stage)
        self.batch_size.labels(name).observe(n)
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stage_seconds.labels(name).observe(time.perf_counter() - started)

    def published(
        self, topic: str, event_times_ms: Sequence[int], arrivals_ms: Sequence[int], now_ms: int
    ) -> None:
        """Observe the latency of outputs of one topic that were acknowledged at ``now_ms``.

        Of each output: when its event happened, and when that reached the broker. A time after
        ``now_ms`` is a clock that goes wrong: counted, its latency is 0.
        """
        name = _topic(topic)
        for histogram, times_ms, clock in (
            (self.end_to_end, event_times_ms, "event"),
            (self.broker_to_publish, arrivals_ms, "broker"),
        ):
            if skewed := sum([at_ms > now_ms for at_ms in times_ms]):
                self.clock_skew.labels(clock).inc(skewed)
            seconds = [max(now_ms - at_ms, 0) / 1000 for at_ms in times_ms]
            histogram.labels(name).observe_many(seconds)

    def show_index(self, items: int, vectors: int, version: str, now_ms: int) -> None:
        """Set the size of the index, and when it changed if its version is a new one.

        The version itself is no label: each batch of writes would begin a new series.
        """
        self.index_items.set(items)
        self.index_vectors.set(vectors)
        if version != self._index_version:
            self._index_version = version
            self.index_updates.inc()
            self.index_updated.set(now_ms / 1000)

    def show_index_kind(self, kind: str, encoder: str) -> None:
        """Set which kind of index is in use, over vectors of which encoder."""
        self.index_info.clear()
        self.index_info.labels(kind, encoder).set(1)

    def observe_lag(self, group: str, reading: Sequence[PartitionLag]) -> None:
        """Show a reading of LagProbe; partitions that are no longer in it disappear."""
        gauges = (self.lag, self.commit_age, self.trimmed)
        places = {(lag.topic, lag.partition) for lag in reading}
        for topic, partition in self._lag_places.get(group, set()) - places:
            for gauge in gauges:
                gauge.remove(group, topic, str(partition))
        self._lag_places[group] = places
        for lag in reading:
            labels = (group, lag.topic, str(lag.partition))
            for gauge, value in zip(gauges, (lag.lag, lag.commit_age_s, lag.trimmed), strict=True):
                gauge.labels(*labels).set(value)

    def watch_readiness(self, readiness: Readiness) -> None:
        """From now on ``ready`` and ``ready_condition`` say what /ready says."""
        self.ready.set_function(lambda: float(readiness.ready))
        for name in readiness.names:
            self.condition.labels(name).set_function(partial(readiness.holds, name))

    @classmethod
    def describe(cls) -> list[Described]:
        """Return every metric of this program: name, type, labels, help."""
        return cls().described

    # --- declaring -------------------------------------------------------------------------------

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        self.described.append(Described(PREFIX + name, "counter", labels, text))
        return _Counter(PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        self.described.append(Described(PREFIX + name, "gauge", labels, text))
        return Gauge(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: Sequence[float], *labels: str
    ) -> BatchHistogram:
        self.described.append(Described(PREFIX + name, "histogram", labels, text))
        return BatchHistogram(PREFIX + name, text, labels, buckets, self.registry)

    def _start_at_zero(self) -> None:
        # A rate cannot see the step from absent to 1: the first dead letter would raise no alert.
        for topic in TOPICS:
            if topic.role == "out":
                self.outputs.labels(topic.name)
            if topic.role != "out":
                self.events_lost.labels(topic.name)
                for reason in get_args(DeadLetterReason):
                    self.dead_letters.labels(topic.name, reason)
        for act in get_args(InteractionType):
            for names_list in ("yes", "no"):
                self.acts.labels(act, names_list)
        for counter, values in (
            (self.refused_vectors, get_args(Refusal)),
            (self.clock_skew, ("event", "broker")),
            (self.search_answers, get_args(Answer)),
            (self.review_sentiments, get_args(Polarity)),
            (self.encoder_fallbacks, get_args(Fallback)),
            (self.spans, get_args(Delivered)),
        ):
            for value in values:
                counter.labels(value)


def _closed(value: str, allowed: object) -> str:
    # Types say as much; this keeps a mistake from making a series per user.
    return value if value in get_args(allowed) else OTHER


def _topic(name: str) -> str:
    return name if name in _TOPICS else OTHER

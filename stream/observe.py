"""BatchReport -> metrics, once per micro-batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast, get_args

from stream.agents.reports import BatchReport, Report
from stream.dead_letters import DeadLetters
from stream.messages import Band
from stream.metrics import (
    Act,
    Answer,
    BandBefore,
    Cause,
    Metrics,
    Outcome,
    Stage,
    TextKind,
)


def reporter(metrics: Metrics, dead_letters: DeadLetters, clock: Callable[[], int]) -> Report:
    """Return what the stages call when a batch has been committed."""

    def report(batch: BatchReport) -> None:
        _times(metrics, batch)
        _events(metrics, batch)
        dead_letters.count(batch.failures)
        _outputs(metrics, batch, clock())

    return report


def _times(metrics: Metrics, batch: BatchReport) -> None:
    if batch.n_events:
        stage = batch.stage if batch.stage in get_args(Stage) else "other"
        metrics.batch_size.labels(stage).observe(batch.n_events)
    for name, seconds in batch.seconds.items():
        metrics.stage_seconds.labels(name).observe(seconds)
    if batch.texts:
        metrics.encoder_seconds.labels().observe(batch.seconds["encode"])


def _events(metrics: Metrics, batch: BatchReport) -> None:
    for (topic, outcome), n in batch.events.items():
        # "duplicate" is a repeat by event id; the metric does not tell the two apart.
        name = "repeat" if outcome == "duplicate" else outcome
        metrics.count_events(topic, cast(Outcome, name), n)
    for kind, n in batch.texts.items():
        metrics.count_texts(cast(TextKind, kind), n)
    for (act, names_list), n in batch.acts.items():
        metrics.count_acts(cast(Act, act), names_list, n)
    for polarity, n in batch.sentiments.items():
        metrics.review_sentiments.labels(polarity).inc(n)
    if batch.n_future:
        metrics.clock_skew.labels("event").inc(batch.n_future)


def _outputs(metrics: Metrics, batch: BatchReport, now_ms: int) -> None:
    metrics.count_outputs(batch.outputs)
    for topic, event_times_ms in batch.event_times_ms.items():
        metrics.published(topic, event_times_ms, batch.arrivals_ms[topic], now_ms)
    for source, n in batch.sources.items():
        metrics.recommended_items.labels(source).inc(n)
    if batch.row_bytes:
        metrics.row_bytes.labels().observe_many(batch.row_bytes)
    for counter, n in (
        (metrics.rows_trimmed, batch.n_trimmed),
        (metrics.rows_expired, batch.n_expired),
        (metrics.coalesced, batch.n_coalesced),
        (metrics.cold_starts, batch.n_cold),
    ):
        if n:
            counter.inc(n)
    metrics.listed.add(batch.listed)
    for found_by, n in batch.answers.items():
        metrics.count_answers(cast(Answer, found_by), n)
    for (band, previous, cause), n in batch.bands.items():
        metrics.count_churn_risk(
            cast(Band, band), cast(BandBefore, previous), cast(Cause, cause), n
        )
    for cause, n in batch.n_assessed.items():
        metrics.churn_assessments.labels(cause).inc(n)

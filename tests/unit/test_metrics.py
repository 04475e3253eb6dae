"""What the metrics promise: right buckets, closed labels, no negative latency, little cost."""

from __future__ import annotations

import re

import numpy as np
import pytest
from builders import NOW_MS
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from stream.delivery import Output
from stream.histogram import BatchHistogram
from stream.lag import PartitionLag
from stream.listed_items import ListedItems
from stream.metrics import Metrics
from stream.topics import TOPICS


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"prefstream_{name}", labels)


def series(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == f"prefstream_{name}"
    }


@pytest.mark.parametrize("n", [1, 7, 500], ids=["one", "few", "many"])
def test_a_batch_lands_in_the_same_buckets_as_the_clients_own_histogram(n):
    bounds = (0.0, 0.005, 0.5, 1, 60)
    values = np.random.default_rng(n).exponential(1.0, n)
    values[0] = 0.5  # exactly on a bound
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    BatchHistogram("wait_seconds", "Waiting.", (), bounds, ours).labels().observe_many(values)
    reference = Histogram("wait_seconds", "Waiting.", buckets=bounds, registry=theirs)
    for one in values.tolist():
        reference.observe(one)

    assert samples_of(ours) == pytest.approx(samples_of(theirs))


def samples_of(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@pytest.mark.parametrize("n", [3, 300], ids=["few", "many"])
def test_a_value_that_is_not_finite_spoils_neither_sum_nor_count(n):
    histogram = BatchHistogram("wait_seconds", "Waiting.", (), (1, 2), CollectorRegistry())
    histogram.labels().observe_many([np.nan, np.inf, *[0.5] * n])
    counts, total = histogram.labels().snapshot()
    assert (counts.tolist(), total) == ([n, n, n], 0.5 * n)


def test_an_empty_batch_counts_nothing():
    histogram = BatchHistogram("wait_seconds", "Waiting.", (), (1, 2), CollectorRegistry())
    histogram.labels().observe_many([])
    assert histogram.labels().snapshot()[0].tolist() == [0, 0, 0]


def test_buckets_that_do_not_rise_and_labels_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="rising"):
        BatchHistogram("wait_seconds", "Waiting.", (), (2, 1), CollectorRegistry())
    histogram = BatchHistogram("wait_seconds", "Waiting.", ("topic",), (1,), CollectorRegistry())
    with pytest.raises(ValueError, match="expects labels"):
        histogram.labels("clickstream", "u1")


def test_latency_is_observed_from_event_time_and_from_arrival():
    metrics = Metrics()
    metrics.published("recommendations", [NOW_MS - 2000, NOW_MS - 40], [NOW_MS - 30] * 2, NOW_MS)
    topic = {"topic": "recommendations"}
    assert value(metrics, "end_to_end_seconds_sum", **topic) == pytest.approx(2.04)
    assert value(metrics, "broker_to_publish_seconds_sum", **topic) == pytest.approx(0.06)
    assert value(metrics, "broker_to_publish_seconds_bucket", le="0.05", **topic) == 2


def test_an_event_from_the_future_counts_as_no_latency_and_as_clock_skew():
    metrics = Metrics()
    metrics.published("churn-risk", [NOW_MS + 86_400_000], [NOW_MS - 10], NOW_MS)
    assert value(metrics, "end_to_end_seconds_sum", topic="churn-risk") == 0
    assert value(metrics, "end_to_end_seconds_count", topic="churn-risk") == 1
    assert series(metrics, "clock_skew_events_total") == {("event",): 1, ("broker",): 0}


def test_a_stage_is_timed_even_when_it_fails():
    metrics = Metrics()
    with pytest.raises(RuntimeError), metrics.stage("fold", 7):
        raise RuntimeError
    assert value(metrics, "stage_seconds_count", stage="fold") == 1
    assert value(metrics, "batch_size_sum", stage="fold") == 7


def test_a_label_outside_its_set_becomes_other():
    metrics = Metrics()
    metrics.count_events("clickstream", "user-17")  # type: ignore[arg-type]
    metrics.count_events("user-17", "folded")
    metrics.count_refused_vectors("user-17")  # type: ignore[arg-type]
    metrics.published("user-17", [NOW_MS], [NOW_MS], NOW_MS)
    with metrics.stage("user-17", 1):  # type: ignore[arg-type]
        pass
    assert "user-17" not in generate_latest(metrics.registry).decode()
    assert series(metrics, "events_total") == {
        ("clickstream", "other"): 1,
        ("other", "folded"): 1,
    }


def test_a_dead_letter_is_also_an_event_with_that_outcome():
    metrics = Metrics()
    metrics.count_dead_letters("searches", "bad_event", 3)
    assert value(metrics, "dead_letters_total", topic="searches", reason="bad_event") == 3
    assert value(metrics, "events_total", topic="searches", outcome="dead_letter") == 3


def test_counters_that_alerts_watch_start_at_zero():
    metrics = Metrics()
    sources = {topic.name for topic in TOPICS if topic.role != "out"}
    assert {labels[0] for labels in series(metrics, "dead_letters_total")} == sources
    assert set(series(metrics, "dead_letters_total").values()) == {0}
    assert value(metrics, "refused_vectors_total", reason="encoder") == 0


def test_a_counter_is_the_same_for_the_same_labels():
    metrics = Metrics()
    metrics.events.labels("clickstream", "folded").inc()
    metrics.events.labels("clickstream", "folded").inc(2)
    metrics.events.labels("clickstream", "late").inc()
    assert series(metrics, "events_total") == {
        ("clickstream", "folded"): 3,
        ("clickstream", "late"): 1,
    }


def test_outputs_and_sources_are_counted_by_name():
    metrics = Metrics()
    metrics.count_outputs(["recommendations", "churn-risk", "recommendations"])
    metrics.count_recommended(["popular", "taken_together", "popular"])
    assert value(metrics, "outputs_total", topic="recommendations") == 2
    assert series(metrics, "recommended_items_total") == {("popular",): 2, ("taken_together",): 1}


def test_acts_and_answers_start_at_zero_so_that_a_share_of_them_is_one_from_the_first():
    metrics = Metrics()
    metrics.count_acts("click", True, 3)
    metrics.count_acts("user-17", False, 1)  # type: ignore[arg-type]
    metrics.count_answers("meaning", 2)
    acts = series(metrics, "acts_total")
    assert len(acts) == 8 * 2 + 1
    assert {labels: n for labels, n in acts.items() if n} == {
        ("click", "yes"): 3,
        ("other", "no"): 1,
    }
    answers = series(metrics, "search_answers_total")
    assert set(answers) >= {("words",), ("meaning",), ("both",), ("nothing",)}
    assert answers["meaning",] == 2


def test_what_was_sent_is_counted_in_bytes_by_topic():
    metrics = Metrics()
    metrics.count_sent(
        [
            Output("user-state", b"anna", b"row"),
            Output("user-state", b"ben", None),
            Output("churn-risk", None, b"risk"),
        ]
    )
    assert series(metrics, "sent_bytes_total") == {("user-state",): 10, ("churn-risk",): 4}


def test_each_item_listed_in_the_last_hour_counts_once():
    now_s = 0.0
    listed = ListedItems(lambda: now_s)
    listed.add(["boots", "shoes", "boots"])
    now_s = 1800.0
    listed.add(["shoes", "tea"])
    assert len(listed) == 3
    now_s = 3601.0
    assert len(listed) == 2  # boots were listed last more than an hour ago
    listed.add(["lamp"])  # looks at all, for what is to be forgotten
    assert len(listed) == 3
    now_s = 9000.0
    assert len(listed) == 0


def test_the_endpoint_tells_how_many_items_were_listed():
    metrics = Metrics()
    metrics.listed.add(["boots", "shoes", "boots"])
    assert value(metrics, "recommended_distinct_items") == 2


def test_a_partition_that_left_the_reading_leaves_the_scrape():
    metrics = Metrics()
    two = [PartitionLag("clickstream", p, 0, 100, 60, 40, 0, 1.5) for p in (0, 1)]
    metrics.observe_lag("prefstream-encode", two)
    metrics.observe_lag("prefstream-preference", two)
    metrics.observe_lag("prefstream-preference", two[1:])
    assert series(metrics, "consumer_lag") == {
        ("prefstream-encode", "clickstream", "0"): 40,
        ("prefstream-encode", "clickstream", "1"): 40,
        ("prefstream-preference", "clickstream", "1"): 40,
    }
    assert set(series(metrics, "commit_age_seconds").values()) == {1.5}


def test_the_index_has_changed_only_when_its_version_has():
    metrics = Metrics()
    metrics.show_index(10, 12, "v1", NOW_MS)
    metrics.show_index(10, 12, "v1", NOW_MS + 60_000)
    assert value(metrics, "index_updates_total") == 1
    assert value(metrics, "index_updated_timestamp_seconds") == NOW_MS / 1000
    metrics.show_index(9, 12, "v2", NOW_MS + 60_000)
    assert value(metrics, "index_items") == 9
    assert value(metrics, "index_updated_timestamp_seconds") == NOW_MS / 1000 + 60


def test_two_instances_share_nothing():
    first, second = Metrics(), Metrics()
    first.rebalances.inc()
    assert value(second, "rebalances_total") == 0


def test_every_metric_is_described_with_its_unit_and_every_described_one_is_exposed():
    metrics = Metrics()
    described = Metrics.describe()
    exposed = {family.name for family in metrics.registry.collect()}
    assert {d.name.removesuffix("_total") for d in described} == {
        name for name in exposed if not name.startswith("process_")
    }
    for name, kind, _labels, text in described:
        assert re.fullmatch(r"prefstream_[a-z_]+", name)
        assert text.endswith(".")
        assert name.endswith("_total") == (kind == "counter")
        assert not name.endswith(("_ms", "_milliseconds", "_minutes"))


def test_no_metric_has_a_label_that_grows_with_users_or_items():
    labels = {label for d in Metrics.describe() for label in d.labels}
    assert not labels & {"user_id", "item_id", "event_id", "query", "offset", "key", "error"}

"""The edge's metrics and health: what it counts, what it is ready by, and where it listens."""

from __future__ import annotations

import pytest
from aiokafka.errors import KafkaConnectionError
from builders import NOW_MS, interaction, message

from stream import edge
from stream.core.events import BadEvent
from stream.dead_letters import Failure
from stream.edge import CONDITIONS, EdgeWatch, edge_port
from stream.settings import Settings
from stream.worker import PROCESSES, metrics_port


@pytest.fixture
def watch() -> EdgeWatch:
    return EdgeWatch(Settings())


def test_its_port_is_behind_those_of_a_worker():
    settings = Settings()
    assert edge_port(settings) == metrics_port(settings, PROCESSES[-1]) + 1
    assert edge_port(settings.model_copy(update={"metrics_port": 0})) == 0


def test_what_is_copied_and_what_is_refused_is_counted_by_topic_with_its_age(watch):
    acts = [message("clickstream", interaction(event_id=f"e{n}"), n) for n in range(3)]
    watch.copied(acts, [Failure(acts[0], BadEvent("no"), "pseudonymise")], NOW_MS + 40)
    value = watch.metrics.registry.get_sample_value
    labels = {"topic": "clickstream"}
    count = "prefstream_pseudonymised_total"
    assert value(count, {**labels, "outcome": "copied"}) == 2
    assert value(count, {**labels, "outcome": "refused"}) == 1
    assert value("prefstream_pseudonymise_seconds_count", labels) == 3
    # Of a topic that nothing came of, too: a share of nothing is to be 0 from the first.
    assert value(count, {"topic": "reviews", "outcome": "refused"}) == 0


def test_it_is_not_ready_before_it_knows_who_declined(watch):
    for condition in CONDITIONS:
        assert not watch.readiness.ready
        watch.readiness.set(condition, True)
    assert not watch.readiness.ready  # nobody has said how far its groups are
    watch._progress.update([])
    assert watch.readiness.ready


@pytest.mark.parametrize(
    ("fails", "condition"),
    [
        (LookupError("no topic raw-users"), "topics"),
        (KafkaConnectionError("gone"), "broker"),
    ],
)
async def test_a_topic_or_a_broker_that_goes_away_is_told_and_forgotten_when_it_is_back(
    watch, monkeypatch, fails, condition
):
    problems: list[Exception] = [fails]
    seen: list[bool] = []
    monkeypatch.setattr(edge, "TOPICS_EVERY_S", 0)
    watch.readiness.set("broker", True)
    watch.readiness.set("topics", True)

    async def check() -> None:
        seen.append(watch.readiness.holds(condition))
        if problems:
            raise problems.pop()
        if len(seen) == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await watch.watch_topics(check)
    assert seen == [True, False, True]

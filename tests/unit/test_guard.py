from __future__ import annotations

from collections.abc import Sequence

import pytest
from builders import message
from fakes import Outbox

from models.encoder import EncoderUnavailable
from stream.agents.failures import Failures
from stream.agents.guard import Guard
from stream.agents.reports import BatchReport
from stream.dead_letters import DeadLetters, DeadLetterStorm, StormGauge
from stream.delivery import DeliveryFailed, SourceMessage
from stream.engine.commits import CommitFailed
from stream.engine.table import StoreFailed


class Summing:
    """A stage that adds numbers up; nothing of a batch counts when one of its events is bad."""

    def __init__(self, window: int = 1000) -> None:
        self.failures = Failures(DeadLetters(Outbox(), "0", lambda *_: None), "summing")
        self.gauge = StormGauge(window)
        self.guard = Guard(self.process, self.reject, self.failures, self.gauge)
        self.total = 0
        self.n_calls = 0
        self.rejected: list[tuple[int, str]] = []

    async def process(self, batch: Sequence[SourceMessage]) -> None:
        self.n_calls += 1
        report = BatchReport("summing", len(batch))
        numbers = []
        for event in batch:
            if event.value == b"poison":  # what the stage itself gives up on
                self.failures.effect(event, ValueError("poison"), report)
            else:
                numbers.append(int(event.value or b""))
        self.total += sum(numbers)

    async def reject(self, event: SourceMessage, error: Exception) -> None:
        self.failures.effect(event, error, BatchReport("summing", 1))
        self.rejected.append((event.offset, type(error).__name__))


def events(*values: int | str) -> list[SourceMessage]:
    return [message("t", str(value).encode(), n) for n, value in enumerate(values)]


async def test_one_bad_event_among_a_hundred_costs_one_dead_letter() -> None:
    for bad in (0, 1, 49, 50, 98, 99):
        stage = Summing()
        values: list[int | str] = [2**n for n in range(100)]
        values[bad] = "bad"
        await stage.guard(events(*values))
        assert stage.rejected == [(bad, "ValueError")]
        assert stage.total == 2**100 - 1 - 2**bad  # every other one exactly once


async def test_finding_one_bad_event_takes_a_logarithm_of_tries() -> None:
    stage = Summing()
    await stage.guard(events(*range(1023), "bad"))
    assert stage.n_calls <= 21


async def test_bad_events_are_given_up_in_their_order() -> None:
    stage = Summing()
    await stage.guard(events("bad", 1, "bad", "bad", 2))
    assert [offset for offset, _ in stage.rejected] == [0, 2, 3]
    assert stage.total == 3


async def test_a_good_batch_is_processed_once() -> None:
    stage = Summing()
    await stage.guard(events(1, 2))
    assert (stage.n_calls, stage.total, stage.rejected) == (1, 3, [])


@pytest.mark.parametrize(
    "error",
    [
        StoreFailed("disk full"),
        CommitFailed("sender"),
        DeliveryFailed("broker"),
        EncoderUnavailable("device lost"),
        OSError("disk full"),
        MemoryError(),
    ],
)
async def test_trouble_of_the_worker_passes_through(error: Exception) -> None:
    stage = Summing()

    async def broken(batch: Sequence[SourceMessage]) -> None:
        raise error

    guard = Guard(broken, stage.reject, stage.failures, stage.gauge)
    with pytest.raises(type(error)):
        await guard(events(1, 2))
    assert stage.rejected == []


async def test_trouble_in_one_half_leaves_the_other_half_unprocessed() -> None:
    stage = Summing()
    calls: list[int] = []

    async def half_broken(batch: Sequence[SourceMessage]) -> None:
        calls.append(len(batch))
        raise RuntimeError("a bug") if len(batch) == 4 else StoreFailed("disk full")

    guard = Guard(half_broken, stage.reject, stage.failures, stage.gauge)
    with pytest.raises(StoreFailed):
        await guard(events(1, 2, 3, 4))
    assert calls == [4, 2]


async def test_a_storm_of_failures_stops_the_worker() -> None:
    stage = Summing(window=20)
    for _ in range(4):  # a few bad events at first are no storm
        await stage.guard(events("bad", "bad", "bad", 1))
    with pytest.raises(DeadLetterStorm, match="15 of the last 20"):
        await stage.guard(events("bad", "bad", "bad", 1))


async def test_poison_beside_a_bug_is_counted_once_however_often_it_is_met() -> None:
    stage = Summing()
    await stage.guard(events("bad", *range(95), *["poison"] * 4))
    assert stage.failures.n_failed == 5
    assert stage.gauge.share == pytest.approx(0.05)

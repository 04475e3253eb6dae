from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from builders import NOW_MS, interaction, item
from fakes import Outbox
from rich.console import Console

from stream.core.events import parse_interaction, parse_item
from stream.delivery import DeliveryFailed, Output
from stream.formats import Record
from stream.replay import Pace, progress_bar, replay, shift_to, shifted


def item_record(n: int = 1) -> Record:
    value = item(item_id=f"i{n}", updated_ms=NOW_MS, created_ms=NOW_MS - 5)
    return Record("items", f"i{n}".encode(), msgspec.json.encode(value), NOW_MS)


def click(after_ms: int = 0, n: int = 1) -> Record:
    value = interaction(event_id=f"e{n}", event_time_ms=NOW_MS + after_ms)
    return Record("clickstream", b"u1", msgspec.json.encode(value), NOW_MS + after_ms)


class Batches(Outbox):
    """An Outbox that remembers what came together."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def send(self, outputs: Sequence[Output]) -> list[int]:
        self.sizes.append(len(outputs))
        return await super().send(outputs)


async def test_every_record_arrives_as_it_is_in_its_order():
    records = [item_record(), click(n=1), click(n=2), Record("users", b"u2", None, 0)]
    outbox = Outbox()
    report = await replay(records, outbox)
    assert [(o.topic, o.key, o.value) for o in outbox.sent] == [
        (r.topic, r.key, r.value) for r in records
    ]
    assert all(o.timestamp_ms is None and o.partition is None for o in outbox.sent)
    assert report.sent == {"items": 1, "clickstream": 2, "users": 1}
    assert (report.first_ms, report.last_ms) == (NOW_MS, NOW_MS)


async def test_items_are_there_before_the_first_event():
    outbox = Outbox()
    seen: list[int] = []

    async def wait() -> None:
        seen.append(len(outbox.sent))

    await replay([item_record(1), item_record(2), click()], outbox, after_items=wait)
    assert seen == [2]
    assert len(outbox.sent) == 3


async def test_sends_go_in_batches_and_progress_counts_events():
    outbox, told = Batches(), list[int]()
    records = [item_record(), *(click(n=n) for n in range(7))]
    await replay(records, outbox, Pace(batch=3), on_sent=told.append)
    assert outbox.sizes == [1, 3, 3, 1]
    assert told == [3, 3, 1]


async def test_a_limit_counts_events_and_takes_no_more_from_the_source():
    taken: list[int] = []

    def source() -> Any:
        yield item_record()
        for n in range(100):
            taken.append(n)
            yield click(n=n)

    report = await replay(source(), Outbox(), Pace(limit=5))
    assert report.sent == {"items": 1, "clickstream": 5}
    assert len(taken) <= 6


@pytest.mark.parametrize("limit", [0, 3])
async def test_fewer_events_than_the_limit_are_all_there_are(limit: int):
    report = await replay([item_record(), click()], Outbox(), Pace(limit=limit))
    assert report.sent["clickstream"] == min(limit, 1)


async def test_nothing_is_nothing():
    report = await replay([], Outbox())
    assert report.sent == {}
    assert report.last_ms is None


async def test_a_refusal_stops_the_replay():
    class Refusing(Outbox):
        async def send(self, outputs: Sequence[Output]) -> list[int]:
            raise DeliveryFailed("clickstream: no such topic")

    with pytest.raises(DeliveryFailed):
        await replay([click()], Refusing())


async def test_at_a_speed_events_wait_until_they_are_due(monkeypatch: pytest.MonkeyPatch):
    """Simulated time: sleeping moves the clock, so the test takes none."""
    now_s = 100.0

    async def sleep(seconds: float) -> None:
        nonlocal now_s
        assert seconds > 0
        now_s += seconds

    sent_at: list[tuple[str, float]] = []

    class Watched(Outbox):
        async def send(self, outputs: Sequence[Output]) -> list[int]:
            for output in outputs:
                event = msgspec.json.decode(output.value or b"")
                sent_at.append((event.get("event_id", "item"), round(now_s - 100.0, 6)))
            return await super().send(outputs)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    records = [
        item_record(),
        *(click(ms, n) for n, ms in enumerate([0, 0, 10_000, 10_000, 60_000])),
    ]
    report = await replay(records, Watched(), Pace(speed=10.0), clock=lambda: now_s)
    assert sent_at == [
        ("item", 0.0),
        ("e0", 0.0),
        ("e1", 0.0),
        ("e2", 1.0),
        ("e3", 1.0),
        ("e4", 6.0),
    ]
    assert report.seconds == pytest.approx(6.0)


async def test_shifted_to_now_the_last_event_is_now():
    outbox = Outbox()
    records = [item_record(), click(0), click(60_000)]
    now_ms = NOW_MS + 1_000_000
    shift_ms = shift_to(NOW_MS + 60_000, now_ms)
    report = await replay(records, outbox, Pace(shift_ms=shift_ms))
    first, last = (parse_interaction(o.value) for o in outbox.of("clickstream"))
    assert last.event_time_ms == now_ms == report.last_ms
    assert first.event_time_ms == now_ms - 60_000
    moved = parse_item(outbox.of("items")[0].value)
    assert moved.updated_ms - (moved.created_ms or 0) == 5
    assert moved.updated_ms == first.event_time_ms


def test_a_log_without_times_is_not_shifted():
    assert shift_to(None, NOW_MS) == 0


@pytest.mark.parametrize("value", [None, b"\xff", b"[1]", b'{"event_time_ms":"x"}', b"[" * 100_000])
def test_what_has_no_time_is_not_changed(value: bytes | None):
    assert shifted(Record("reviews", b"u", value, 0), 1000) == Record("reviews", b"u", value, 0)


@pytest.mark.parametrize("fields", [{"speed": -1}, {"batch": 0}, {"limit": -1}])
def test_a_pace_refuses_nonsense(fields: dict[str, Any]):
    with pytest.raises(ValueError, match="expected speed >= 0"):
        Pace(**fields)


@pytest.mark.parametrize(("terminal", "drawn"), [(True, True), (False, False)])
def test_a_bar_is_drawn_on_a_terminal_only(terminal: bool, drawn: bool):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    with progress_bar(5, console) as on_sent:
        on_sent(5)
    assert ("5/5" in console.file.getvalue()) is drawn  # type: ignore[attr-defined]

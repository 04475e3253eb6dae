"""Taobao UserBehavior (CSV without a header: user, item, category, act, seconds) -> records.

The log has no text: a title is ``item <id> category <id>``. Times outside the nine days that the
log is said to cover (25 November to 3 December 2017, in China) are errors of its making and are
dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stream.core.events import Interaction, InteractionType, Item
from stream.formats.source import ReadReport, Record, event_id, read_lines
from stream.formats.spool import Spool, catalogue

ACTS: dict[bytes, InteractionType] = {
    b"pv": "view",
    b"cart": "add_to_cart",
    b"fav": "favorite",
    b"buy": "purchase",
}
FIRST_S = 1_511_539_200
END_S = 1_512_316_800


def read_taobao(path: Path, report: ReadReport) -> Iterator[Record]:
    """Yield a catalogue of bare numbers, then the acts in time order."""
    categories: dict[str, str] = {}
    with Spool(report) as spool:
        for line in read_lines(path):
            report.n_read += 1
            if (event := _event(line.raw or b"", categories, report)) is not None:
                spool.add(event)
        spool.close_intake()
        yield from catalogue(_items(categories, report.first_ms or 1), report)
        yield from spool.in_time_order()


def _event(raw: bytes, categories: dict[str, str], report: ReadReport) -> Interaction | None:
    fields = raw.split(b",")
    act = ACTS.get(fields[3]) if len(fields) == 5 else None
    if act is None or not all(field.isdigit() for field in (*fields[:3], fields[4])):
        report.dropped["unreadable line"] += 1
        return None
    user, item, category = (field.decode() for field in fields[:3])
    # Python refuses to read the longest numbers; with eleven digits it is no time of the log.
    seconds = int(fields[4][:11])
    if not FIRST_S <= seconds < END_S:
        report.dropped["outside the days of the log"] += 1
        return None
    # A few items change category; the first one seen stays.
    categories.setdefault(item, category)
    return Interaction(
        event_id=event_id("taobao", raw.decode()),
        user_id=user,
        item_id=item,
        type=act,
        event_time_ms=seconds * 1000,
    )


def _items(categories: dict[str, str], updated_ms: int) -> Iterator[Item]:
    for item, category in categories.items():
        title = f"item {item} category {category}"
        yield Item(item_id=item, title=title, updated_ms=updated_ms, categories=[category])

"""explain: what is known of a user, and why the last items were chosen, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import msgspec

from stream.core.user_rows import from_row
from stream.core.user_state import UserState
from stream.engine.stores import unstamp
from stream.latest import latest
from stream.settings import Settings
from stream.topic_names import full_name
from stream.topics import ITEMS, RECOMMENDATIONS

Titles = Callable[[str], str]


def because(reason: Mapping[str, Any], title: Titles) -> str:
    """Return one published reason in words."""
    kind, item_id = reason["kind"], reason.get("item_id")
    item = f"“{title(item_id)}”" if item_id else "another item"
    said = reason.get("query") or reason.get("text")
    text = f"“{said}”" if said else "what was typed"
    return {
        "similar_to_item": f"similar to {item}",
        "taken_together": f"often taken with {item}",
        "matches_search": f"matches the search {text}",
        "matches_interest": f"matches the stated interest {text}",
        "long_term_interest": "fits a lasting interest",
        "recent_interest": "fits the interest of the moment",
        "popular": "popular now",
        "new_arrival": "just arrived",
    }.get(kind, str(kind))


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is stored of a user, the last recommendation as published, and the titles of items."""

    user_id: str
    state: UserState | None
    recommendation: dict[str, Any] | None
    titles: dict[str, str] = field(default_factory=dict)

    def title(self, item_id: str) -> str:
        return self.titles.get(item_id, item_id)


async def explain(settings: Settings, changelog: str, user_id: str) -> Explanation:
    """Read a user's row from the changelog and the last recommendation; only the user's partition.

    ``changelog`` is the topic's full name. Raises LookupError when a topic is missing,
    KafkaError when there is no broker.
    """
    key = user_id.encode()
    row = (await latest(settings, changelog, [key])).get(key)
    last = (await latest(settings, full_name(settings, RECOMMENDATIONS.name), [key])).get(key)
    state = from_row(unstamp(row.value)[1]) if row and row.value else None
    message = msgspec.json.decode(last.value) if last and last.value else None
    wanted = {item_id.encode() for item_id in _items_named(state, message)}
    items = await latest(settings, full_name(settings, ITEMS.name), wanted, deadline_s=10)
    titles = {
        item.decode(): msgspec.json.decode(record.value).get("title", item.decode())
        for item, record in items.items()
        if record.value
    }
    return Explanation(user_id, state, message, titles)


def _items_named(state: UserState | None, message: dict[str, Any] | None) -> set[str]:
    named: set[str] = set()
    if state:
        named.update(act.item_id for act in state.acts[-_SHOWN:])
        named.update(_newest(state.latest("purchase")), _newest(state.latest("dislike")))
    for item in message["items"] if message else []:
        named.add(item["item_id"])
        named.update(reason["item_id"] for reason in item["reasons"] if reason.get("item_id"))
    return named


_SHOWN = 10


def lines(found: Explanation) -> Iterator[str]:
    """Yield the explanation line by line."""
    if found.state is None:
        yield f"Nothing is known of {found.user_id}."
    else:
        yield f"What is known of {found.user_id}"
        yield from _known(found)
    if found.recommendation is None:
        yield "No recommendation is out."
    else:
        yield from _chosen(found.recommendation, found.title)


def _known(found: Explanation) -> Iterator[str]:
    state, title = found.state or UserState(), found.title
    stated = state.stated
    if not stated.personalize:
        yield "  wishes no profile: nothing is kept"
    if region := stated.region or state.seen_region:
        yield f"  region: {region}"
    if stated.interests:
        yield f"  stated interests: {stated.interests}"
    for act in reversed(state.acts[-_SHOWN:]):
        waits = "" if act.item_id in found.titles else "  (item not known)"
        yield f"  {_when(act.event_time_ms)}  {act.kind:<16} {title(act.item_id)}{waits}"
    if len(state.acts) > _SHOWN:
        yield f"  … and {len(state.acts) - _SHOWN} earlier acts"
    for text in reversed(state.texts):
        yield f"  {_when(text.event_time_ms)}  {'search':<16} “{text.text}”"
    yield from _listed("bought", _newest(state.latest("purchase")), title)
    yield from _listed("disliked", _newest(state.latest("dislike")), title)
    if state.faded:
        yield "  and more that is not shown again, of which only hashes are kept"
    if state.band:
        yield f"  churn risk: {state.band}"


def _chosen(message: dict[str, Any], title: Titles) -> Iterator[str]:
    trigger = message["trigger"]
    yield (
        f"Last recommendation, {_when(message['generated_ms'])}, after event "
        f"{trigger['event_id']} of {trigger['topic']}"
        + (" (cold start)" if message["cold_start"] else "")
    )
    for item in message["items"]:
        why = "; ".join(
            f"{because(reason, title)} ({reason['weight']:.0%})" for reason in item["reasons"]
        )
        yield f"  {item['rank']:>3}. {title(item['item_id'])}  {item['score']:.3f}  {why}"


def _newest(times_ms: Mapping[str, int]) -> list[str]:
    return sorted(times_ms, key=lambda item: -times_ms[item])[:_SHOWN]


def _listed(name: str, item_ids: Iterable[str], title: Titles) -> Iterator[str]:
    if named := ", ".join(title(item_id) for item_id in item_ids):
        yield f"  {name}: {named}"


def _when(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")

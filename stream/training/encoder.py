"""A behaviour log -> what an encoder is fine-tuned on, and from that a model's folder.

Items are read as the encode tier reads them. What is held out lies behind, in time, all that is
learnt from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from models.training.encoder import Behaviour, TooLittle
from models.training.examples import Example, next_items, pairs, together
from models.training.fine_tuning import HeldOut
from stream.agents.encode import text_of
from stream.core.events import PARSERS, BadEvent, Interaction, Item, Search
from stream.formats import Record

Objective = Literal["history", "pairs"]
#: Without clicked items, a search speaks for what its shopper takes next, within so long.
_SEARCH_MS = 30 * 60_000


class _Act(NamedTuple):
    event_time_ms: int
    item_id: str


@dataclass(frozen=True, slots=True)
class _Log:
    """What was read: texts of items, and what users took and searched for, in the log's order."""

    item_texts: Mapping[str, str]
    acts: Mapping[str, list[_Act]]
    searches: Mapping[str, list[Search]]


def read_behaviour(
    records: Iterable[Record],
    weights: Mapping[str, float],
    step_decay: float,
    objective: Objective = "history",
    held_out: float = 0.1,
) -> tuple[Behaviour, dict[str, Any]]:
    """Return what is learnt from a log, and its span for the manifest.

    Acts count whose weight is above 0. The last ``held_out`` of them, in time, are asked of.
    Raises TooLittle.
    """
    log = _read(records, weights)
    times = np.array([act.event_time_ms for acts in log.acts.values() for act in acts], np.int64)
    if not len(times):
        raise TooLittle("no acts on items with a text in the log")
    cut_ms = int(np.quantile(times, 1 - held_out))
    texts = _Texts(log.item_texts)
    groups: list[Sequence[Example]] = []
    asked: list[Example] = []
    for user in dict.fromkeys((*log.acts, *log.searches)):
        in_order = sorted(log.acts.get(user, ()), key=lambda act: act.event_time_ms)
        taken = _without_repeats([(a.event_time_ms, texts.of_item(a.item_id)) for a in in_order])
        numbers = [text for _, text in taken]
        n_before = sum(time_ms < cut_ms for time_ms, _ in taken)
        found = _searched(log.searches.get(user, ()), in_order, texts)
        learnt = [example for time_ms, example in found if time_ms < cut_ms]
        before = numbers[:n_before]
        learnt += next_items(before, step_decay) if objective == "history" else pairs(before)
        groups += together(learnt)
        asked += [example for time_ms, example in found if time_ms >= cut_ms]
        asked += next_items(numbers, step_decay, first=n_before)
    items = np.arange(texts.n_items)
    behaviour = Behaviour(texts.texts, texts.is_query, groups, HeldOut(asked, items))
    facts = {
        "first_ms": int(times.min()),
        "last_ms": int(times.max()),
        "held_out_from_ms": cut_ms,
        "n_acts": len(times),
        "n_users": len(log.acts),
    }
    return behaviour, {"data": facts}


def _read(records: Iterable[Record], weights: Mapping[str, float]) -> _Log:
    """Read what the topics' parsers take; a repeated event id of a user counts once."""
    item_texts: dict[str, str] = {}
    acts: defaultdict[str, list[_Act]] = defaultdict(list)
    searches: defaultdict[str, list[Search]] = defaultdict(list)
    seen = set[tuple[str, str]]()
    for record in records:
        if record.value is None or record.topic not in ("items", "clickstream", "searches"):
            continue
        try:
            event = PARSERS[record.topic](record.value)
        except BadEvent:
            continue
        if isinstance(event, Item):
            if text := text_of(event):
                item_texts[event.item_id] = text
            continue
        if (event.user_id, event.event_id) in seen:
            continue
        seen.add((event.user_id, event.event_id))
        if isinstance(event, Search):
            searches[event.user_id].append(event)
        elif isinstance(event, Interaction) and weights[event.type] > 0:
            acts[event.user_id].append(_Act(event.event_time_ms, event.item_id))
    known = {
        user: [act for act in of_user if act.item_id in item_texts]
        for user, of_user in acts.items()
    }
    return _Log(item_texts, {user: of_user for user, of_user in known.items() if of_user}, searches)


class _Texts:
    """Numbers of texts: items' first, so that those are 0 to n_items; equal texts share one."""

    def __init__(self, item_texts: Mapping[str, str]) -> None:
        self._of_items: dict[str, int] = {}
        for text in item_texts.values():
            self._of_items.setdefault(text, len(self._of_items))
        self._item_texts = item_texts
        self._of_queries: dict[str, int] = {}
        self.n_items = len(self._of_items)

    def of_item(self, item_id: str) -> int:
        return self._of_items[self._item_texts[item_id]]

    def of_query(self, query: str) -> int:
        return self._of_queries.setdefault(query, self.n_items + len(self._of_queries))

    def has(self, item_id: str) -> bool:
        return item_id in self._item_texts

    @property
    def texts(self) -> list[str]:
        return [*self._of_items, *self._of_queries]

    @property
    def is_query(self) -> list[bool]:
        return [False] * self.n_items + [True] * len(self._of_queries)


def _without_repeats(taken: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Leave out acts on the item of the act before: clicked, put into the cart, bought."""
    return [act for n, act in enumerate(taken) if n == 0 or act[1] != taken[n - 1][1]]


def _searched(
    searches: Sequence[Search], acts: Sequence[_Act], texts: _Texts
) -> list[tuple[int, Example]]:
    """Return what searches speak for, with their times."""
    times = np.array([act.event_time_ms for act in acts], np.int64)
    found = []
    for search in searches:
        chosen = [item for item in search.clicked_item_ids if texts.has(item)]
        if not chosen:
            next_act = int(np.searchsorted(times, search.event_time_ms))
            until_ms = search.event_time_ms + _SEARCH_MS
            chosen = [act.item_id for act in acts[next_act : next_act + 1]]
            if chosen and times[next_act] > until_ms:
                chosen = []
        for item in chosen:
            example = Example((texts.of_query(search.query),), (1.0,), texts.of_item(item))
            found.append((search.event_time_ms, example))
    return found

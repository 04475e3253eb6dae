"""``search-results``: each search that stands has an answer, and it is always the same bytes."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from faults.reference import Place, Sources

#: (user, event id)
_Search = tuple[bytes, str]


class Off(NamedTuple):
    """What is wrong with the answers to one search, as a sentence."""

    text: str
    lost: int = 0
    doubled: int = 0


def answers_off(
    sources: Sources, answers: Iterable[Any], failing: frozenset[Place]
) -> Iterator[Off]:
    """Yield what is wrong with the records of ``search-results``.

    A search sent again by its producer, under the same event id, may be answered again (of those
    who declined profiling no ids are kept). Who was erased may have asked in vain before.
    """
    asked = Counter(_searches(sources))
    found: defaultdict[_Search, set[int]] = defaultdict(set)
    for record in answers:
        if record.value() is not None:
            name = json.loads(record.value())["search_event_id"]
            found[record.key(), name].add(hash(record.value()))
    for search in sorted(set(found) - set(asked)):
        yield Off(f"search {search} was answered, and nobody sent it", doubled=1)
    excused = {r.key for r in sources.records if r.value is None or r.place in failing}
    for search, n_sent in sorted(asked.items()):
        n_answers = len(found.get(search, ()))
        if not n_answers and search[0] not in excused:
            yield Off(f"search {search} was never answered", lost=1)
        if n_answers > n_sent:
            yield Off(f"search {search} has {n_answers} answers", doubled=n_answers - n_sent)


def _searches(sources: Sources) -> Iterator[_Search]:
    for record in sources.records:
        if record.place[0] == "searches" and record.place not in sources.dead:
            assert record.value is not None
            yield record.key, json.loads(record.value)["event_id"]

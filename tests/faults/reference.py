"""What must be: the users' states, computed anew from the source topics and the rules' text.

Shares no code with the engine's fold, and works the other way round: all of a user's events at
once, in float64, each weighed by its age at the end, instead of one after the other. It takes
four things for given: that a message marked ``dead`` cannot be read, that duplicates follow within
the memory of event ids, the vectors that the encoder published, and how a row writes the vector of
a text and the hash of an item.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.packed_vector import from_four_bits, to_four_bits

HOUR_MS, DAY_MS = 3_600_000, 86_400_000

# As the README gives them.
WEIGHTS = {
    "impression": -0.02,
    "view": 0.3,
    "click": 0.5,
    "add_to_cart": 1.0,
    "remove_from_cart": -0.5,
    "favorite": 1.2,
    "purchase": 1.5,
    "dislike": -2.0,
}
SEARCH_WEIGHT, REVIEW_WEIGHT, REVIEW_TEXT = 0.8, 1.0, 0.5
UNRATED = 0.25
LONG_MS, SHORT_MS = 720 * HOUR_MS, 2 * HOUR_MS
RECENT_ACTS, RECENT_TEXTS, ID_BYTES = 50, 3, 6
#: More than by default: while nothing encodes, what a user clicks goes by, and a search sent twice
#: must be known when its copy has its vector at last.
ID_MEMORY = 128
MAX_FUTURE_MS = 300_000
EXCLUDED_MS, PERIOD_MS = 90 * DAY_MS, 30 * DAY_MS
#: The period of what has no end.
NO_PERIOD = -1
ACTIVITY_SHORT_MS, ACTIVITY_LONG_MS = 7 * DAY_MS, 60 * DAY_MS
TEXT_KEPT = 80

State = dict[str, Any]
#: (topic, partition, offset)
Place = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Read:
    """One record of a source topic."""

    place: Place
    timestamp_ms: int
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Sources:
    """What the reference is computed from; text vectors are by the place of their event."""

    records: Sequence[Read]
    item_vectors: Mapping[str, Any]
    text_vectors: Mapping[Place, bytes]
    dead: frozenset[Place]


@dataclass(slots=True)
class _User:
    """Everything a user's events say, as lists: nothing is folded before all of it is there."""

    offsets: dict[str, int] = field(default_factory=dict)
    ids: dict[bytes, None] = field(default_factory=dict)
    #: (time, weight, vector) of what is never kept one by one.
    terms: list[tuple[int, float, Any]] = field(default_factory=list)
    acts: set[tuple[int, str, str, float]] = field(default_factory=set)
    texts: set[tuple[int, str, bytes, float]] = field(default_factory=set)
    #: (time, kind, price, quantity, rating)
    activity: list[tuple[int, str, Any, Any, Any]] = field(default_factory=list)
    regions: list[tuple[int, str]] = field(default_factory=list)
    stated: Mapping[str, Any] = field(default_factory=dict)
    stated_vector: bytes = b""


def expected_states(sources: Sources) -> dict[str, State]:
    """Return the state of every user who must have one."""
    users: dict[str, _User] = {}
    for user_id, record in _standing(sources):
        if record is None:
            users.pop(user_id, None)
        else:
            _take(users.setdefault(user_id, _User()), record, sources)
    return {user_id: _state(user, sources) for user_id, user in users.items()}


def _standing(sources: Sources) -> Iterator[tuple[str, Read | None]]:
    """Yield each user's readable records in the order they were sent; None where all is erased.

    Nothing of an erased user stands until a new ``users`` record, however late it comes.
    """
    erased: set[str] = set()
    for record in sorted(sources.records, key=lambda r: (r.timestamp_ms, r.place)):
        if record.place in sources.dead or record.place[0] == "items":
            continue
        user_id, topic = record.key.decode(), record.place[0]
        if record.value is None:
            erased.add(user_id)
            yield user_id, None
            continue
        if topic == "users":
            erased.discard(user_id)
        if user_id not in erased:
            yield user_id, record


def trigger_places(sources: Sources) -> dict[str, dict[str, Place]]:
    """Return per user and topic the last event that may cause a recommendation."""
    last: dict[str, dict[str, Place]] = {}
    seen: set[tuple[str, str]] = set()
    for user_id, record in _standing(sources):
        if record is None:
            last.pop(user_id, None)
            continue
        topic, event = record.place[0], json.loads(record.value or b"")
        if topic == "users":
            if event.get("interests"):
                last.setdefault(user_id, {})[topic] = record.place
        elif (topic, event["event_id"]) not in seen:
            seen.add((topic, event["event_id"]))
            if event.get("type") != "impression":
                last.setdefault(user_id, {})[topic] = record.place
    return last


def _take(user: _User, record: Read, sources: Sources) -> None:
    topic, _, offset = record.place
    user.offsets[topic] = offset
    event = json.loads(record.value or b"")
    if topic == "users":
        _take_record(user, event, record, sources)
        return
    name = f"{topic}\x1f{event['event_id']}".encode()
    digest = hashlib.blake2b(name, digest_size=8).digest()[:ID_BYTES]
    if digest in user.ids:
        return
    user.ids[digest] = None
    at_ms = event["event_time_ms"]
    if at_ms > record.timestamp_ms + MAX_FUTURE_MS:
        at_ms = record.timestamp_ms
    text = sources.text_vectors.get(record.place)
    if topic == "clickstream":
        _take_act(user, event, at_ms, sources)
    elif topic == "searches":
        user.activity.append((at_ms, "search", None, None, None))
        if text is not None:
            packed = to_four_bits(_vector(text))
            user.texts.add((at_ms, event["query"][:TEXT_KEPT], packed, _told(SEARCH_WEIGHT)))
        for item_id in event.get("clicked_item_ids", ()):
            user.acts.add((at_ms, item_id, "click", _told(WEIGHTS["click"])))
    else:
        rating = event.get("rating")
        weight = _told(REVIEW_WEIGHT * (UNRATED if rating is None else (rating - 3) / 2))
        user.activity.append((at_ms, "review", None, None, rating))
        if text is not None:
            user.terms.append((at_ms, weight * REVIEW_TEXT, _vector(text)))
        user.acts.add((at_ms, event["item_id"], "review", weight))


def _take_record(user: _User, event: Mapping[str, Any], record: Read, sources: Sources) -> None:
    vector = sources.text_vectors.get(record.place)
    if event["updated_ms"] >= user.stated.get("updated_ms", 0):
        user.stated = event
        user.stated_vector = b"" if vector is None else to_four_bits(_vector(vector))
    if vector is not None:
        user.offsets["interests"] = record.place[2]


def _take_act(user: _User, event: Mapping[str, Any], at_ms: int, sources: Sources) -> None:
    kind = event["type"]
    region = (event.get("context") or {}).get("region")
    if region:
        user.regions.append((at_ms, region))
    if kind == "impression":
        vector = sources.item_vectors.get(event["item_id"])
        if vector is not None:
            user.terms.append((at_ms, _told(WEIGHTS[kind]), vector))
        return
    user.activity.append((at_ms, kind, event.get("price"), event.get("quantity"), None))
    user.acts.add((at_ms, event["item_id"], kind, _told(WEIGHTS[kind])))


def _told(weight: float) -> float:
    """Return a weight in float32, as rows tell it."""
    return float(np.float32(weight))


def _vector(raw: bytes) -> Any:
    return np.frombuffer(raw, "<f2").astype(np.float32)


def _terms(acts: Iterable[Any], texts: Iterable[Any], sources: Sources) -> list[Any]:
    """Return what acts and searches say to the interests, as (time, weight, vector)."""
    vectors = sources.item_vectors
    known = [(at_ms, weight, item_id) for at_ms, item_id, _, weight in acts if item_id in vectors]
    of_acts = [(at_ms, weight, vectors[item_id]) for at_ms, weight, item_id in known]
    of_texts = [(at_ms, weight, from_four_bits(packed)) for at_ms, _, packed, weight in texts]
    return of_acts + of_texts


def _state(user: _User, sources: Sources) -> State:
    acts, texts = sorted(user.acts), sorted(user.texts)
    recent, recent_texts = acts[-RECENT_ACTS:], texts[-RECENT_TEXTS:]
    gone, gone_texts = acts[:-RECENT_ACTS], texts[:-RECENT_TEXTS]
    n_rounded = len(user.terms) + len(_terms(gone, gone_texts, sources))
    state: State = {
        "offsets": user.offsets,
        "acts": set(recent),
        "texts": set(recent_texts),
        "event_ids": set(user.ids),
        **_interest("long", [*user.terms, *_terms(acts, texts, sources)], LONG_MS, n_rounded),
        **_interest("short", _terms(recent, recent_texts, sources), SHORT_MS, 0),
        "faded": _faded(gone, recent),
        **_counters(user),
    }
    if user.stated:
        stated = user.stated
        state["stated.updated_ms"] = stated["updated_ms"]
        state["stated.interests"] = "; ".join(stated.get("interests", ()))[:TEXT_KEPT]
        state["stated.region"] = stated.get("region")
        state["stated.vector"] = user.stated_vector
    return state


def _interest(
    name: str, terms: Sequence[tuple[int, float, Any]], half_life_ms: float, n_rounded: int
) -> State:
    if not terms:
        return {}
    terms = sorted(terms, key=lambda term: term[0])
    as_of_ms = terms[-1][0]
    shares = [w * 0.5 ** ((as_of_ms - at_ms) / half_life_ms) for at_ms, w, _ in terms]
    vectors = np.stack([np.asarray(vector, np.float64) for _, _, vector in terms])
    sums = np.cumsum(np.asarray(shares)[:, None] * vectors, axis=0)
    return {
        f"{name}.as_of_ms": as_of_ms,
        f"{name}.weight": sum(shares),
        f"{name}.vector": sums[-1],
        # For the tolerance alone: what was added up, whatever its sign; the largest value that the
        # sum had on its way; and how many terms are in, or on their way were in, what a row rounds.
        f"{name}.scale": sum(map(abs, shares)),
        f"{name}.largest": float(np.abs(sums).max()),
        f"{name}.n_rounded": n_rounded,
    }


def _faded(gone: Sequence[Any], recent: Sequence[Any]) -> dict[int, set[str]]:
    """Return the items that may not come back though their act is gone, by what the act's month is;
    a dislike has no end."""
    faded: dict[int, set[str]] = defaultdict(set)
    newest_ms = max((at_ms for at_ms, *_ in recent), default=0)
    for at_ms, item_id, kind, _ in gone:
        period = at_ms // PERIOD_MS if kind == "purchase" else NO_PERIOD
        lasts = kind == "dislike" or period >= (newest_ms - EXCLUDED_MS) // PERIOD_MS
        if kind in ("purchase", "dislike") and lasts:
            faded[period].add(item_id)
    return dict(faded)


def _counters(user: _User) -> State:
    acts = user.activity
    if not acts:
        return {"n_acts": 0}
    last_ms = max(at_ms for at_ms, *_ in acts)
    purchases = [(at, price, n) for at, kind, price, n, _ in acts if kind == "purchase"]
    priced = [price * (1.0 if n is None else n) for _, price, n in purchases if price is not None]
    ratings = [rating for _, kind, _, _, rating in acts if kind == "review" and rating is not None]

    def decayed(half_life_ms: float) -> float:
        return sum(0.5 ** ((last_ms - at_ms) / half_life_ms) for at_ms, *_ in acts)

    return {
        "n_acts": len(acts),
        "first_ms": min(at_ms for at_ms, *_ in acts),
        "last_ms": last_ms,
        "n_purchases": len(purchases),
        "n_priced": len(priced),
        "n_purchase_days": len({at_ms // DAY_MS for at_ms, _, _ in purchases}),
        "spend": sum(priced),
        "n_ratings": len(ratings),
        "satisfaction": sum((rating - 3) / 2 for rating in ratings),
        "n_dislikes": sum(kind == "dislike" for _, kind, *_ in acts),
        "short_acts": decayed(ACTIVITY_SHORT_MS),
        "long_acts": decayed(ACTIVITY_LONG_MS),
    }

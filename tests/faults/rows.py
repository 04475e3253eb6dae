"""Stored rows as plain values, to hold against the reference; the codec is ours, no fold is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from faults.reference import ID_MEMORY, State

from models.hashed_ids import HashedIds
from stream.core.bounds import ID_BYTES
from stream.core.profiles import long_interest, short_interest
from stream.core.user_rows import from_row
from stream.core.user_state import SOURCES, Rules, UserState
from stream.engine.stores import unstamp
from stream.engine.table import CONTROL
from stream.settings import load_settings

#: Of a vector's component, per unit of weight that was added up: float32 sums in any order.
VECTOR_TOLERANCE = 1e-6
FLOAT_TOLERANCE = 1e-9
#: What left the recent acts, impressions and the texts of reviews lie in a sum of eight bits. One
#: addition errs by 2 % of the sum's largest value, as the README says, up or down by turns, so that
#: n of them err by sqrt(n) times that and not by n times (0.7 % was the most in 100 users of up to
#: 300 events). One lost act can hide behind it; what finds that are the sum's weight, which has
#: room for its own last bits alone, and the counters, the ids and the acts, which have none.
ROUNDING = 0.02
#: The weight of that sum is float32: half a unit in the last place each time.
WEIGHT_ROUNDING = 2.0**-24
RULES = Rules.of(load_settings())


def replayed(changelog: Iterable[Any]) -> dict[str, bytes]:
    """Return the rows that a fresh replay of the changelog gives, stamps and control rows off."""
    rows: dict[bytes, bytes] = {}
    for record in changelog:
        value = record.value()
        if value is None:
            rows.pop(record.key(), None)
        elif record.key() not in rows or value[:8] >= rows[record.key()][:8]:
            rows[record.key()] = value
    return {
        key.decode(): unstamp(value)[1]
        for key, value in rows.items()
        if not key.startswith(CONTROL)
    }


def state_of(row: bytes, item_vectors: Mapping[str, Any] | None = None) -> State:
    """Return a user row's content under the names that the reference uses.

    The interests are among it where the items' vectors are given: they follow from the acts.
    """
    user = from_row(row)
    ids = bytes(user.event_ids)
    state: State = {
        "offsets": {s: o for s, o in zip(SOURCES, user.offsets, strict=False) if o >= 0},
        "acts": {(a.event_time_ms, a.item_id, a.kind, a.weight) for a in user.acts},
        "texts": {(t.event_time_ms, t.text, bytes(t.vector), t.weight) for t in user.texts},
        "event_ids": {ids[i : i + ID_BYTES] for i in range(0, len(ids), ID_BYTES)},
        "faded": {faded.period: faded.ids() for faded in user.faded},
        "pending": user.pending,
        "n_acts": 0,
    }
    if item_vectors is not None:
        state |= _interests(user, item_vectors)
    if user.activity:
        activity = user.activity
        state |= activity._asdict()
        state["n_purchase_days"] = activity.n_purchase_days
    if user.stated.updated_ms:
        state["stated.updated_ms"] = user.stated.updated_ms
        state["stated.interests"] = user.stated.interests
        state["stated.region"] = user.stated.region
        state["stated.vector"] = bytes(user.stated.interests_vector)
    return state


def _interests(user: UserState, item_vectors: Mapping[str, Any]) -> State:
    vectors = {item_id: np.asarray(v, np.float32) for item_id, v in item_vectors.items()}
    times = [a.event_time_ms for a in user.acts if a.item_id in vectors]
    times += [text.event_time_ms for text in user.texts]
    state: State = {}
    for name, of, in_sum in (
        ("long", long_interest, [user.long.as_of_ms] if user.long else []),
        ("short", short_interest, []),
    ):
        vector, weight = of(user, vectors, RULES)
        if vector is not None:
            state[f"{name}.as_of_ms"] = max(times + in_sum)
            state[f"{name}.weight"] = weight
            state[f"{name}.vector"] = np.asarray(vector, np.float64)
    return state


def differences(expected: State, found: State) -> list[str]:
    """Return in words where a state is not what it must be; only the fields expected are judged."""
    texts = []
    for name, wanted in expected.items():
        if name.endswith((".scale", ".largest", ".n_rounded")):
            continue
        got = found.get(name)
        if not _same(name, wanted, got, expected):
            texts.append(f"{name}: {_told(wanted, got)}")
    return texts


def _same(name: str, wanted: Any, got: Any, expected: Mapping[str, Any]) -> bool:
    if got is None or wanted is None:
        return got is wanted
    if name == "event_ids" and len(wanted) > ID_MEMORY:
        return len(got) == ID_MEMORY and got <= wanted
    if name == "faded":
        return bool(_hashed(wanted, got) == got)
    if name.endswith((".vector", ".weight")) and not isinstance(wanted, bytes):
        return _is_near(name, wanted, got, expected)
    if isinstance(wanted, float):
        return math.isclose(wanted, got, rel_tol=FLOAT_TOLERANCE, abs_tol=FLOAT_TOLERANCE)
    return bool(wanted == got)


def _is_near(name: str, wanted: Any, got: Any, expected: Mapping[str, Any]) -> bool:
    interest, part = name.split(".")
    scale = max(1.0, expected[f"{interest}.scale"])
    n_rounded = expected[f"{interest}.n_rounded"]
    if part == "vector":
        rounding = ROUNDING * math.sqrt(n_rounded) * expected[f"{interest}.largest"]
        return bool(np.abs(wanted - got).max() <= VECTOR_TOLERANCE * scale + rounding)
    rounding = WEIGHT_ROUNDING * n_rounded * scale
    return math.isclose(wanted, got, rel_tol=0, abs_tol=FLOAT_TOLERANCE * scale + rounding)


def _hashed(wanted: Mapping[int, set[str]], got: Mapping[int, HashedIds]) -> dict[int, HashedIds]:
    """Return the items as sets of hashes, as long as those of the row where it has some."""
    return {
        period: HashedIds(got[period].bits if period in got else HashedIds().bits).plus(item_ids)
        for period, item_ids in wanted.items()
    }


def _told(wanted: Any, got: Any) -> str:
    if isinstance(wanted, np.ndarray) and isinstance(got, np.ndarray):
        return f"differs by {np.abs(wanted - got).max():.3g} at most"
    if isinstance(wanted, set) and isinstance(got, set):
        return f"{len(wanted - got)} missing, {len(got - wanted)} too many of {len(wanted)}"
    if isinstance(wanted, dict) and isinstance(got, dict):
        off = [k for k in {*wanted, *got} if wanted.get(k) != got.get(k)]
        return f"differs in {len(off)}, as {off[0]}: {wanted.get(off[0])} became {got.get(off[0])}"
    return f"expected {wanted!r:.60}, got {got!r:.60}"

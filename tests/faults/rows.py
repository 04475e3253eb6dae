"""Stored rows as plain values, to hold against the reference; the codec is ours, no fold is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from faults.reference import ID_MEMORY, State

from models.activity import from_bytes
from stream.core.user_state import SOURCES, Interest, from_row
from stream.engine.stores import unstamp
from stream.engine.table import CONTROL

#: Of a vector's component, per unit of weight that was added up: float32 sums in any order.
VECTOR_TOLERANCE = 1e-6
FLOAT_TOLERANCE = 1e-9


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


def state_of(row: bytes) -> State:
    """Return a user row's content under the names that the reference uses."""
    user = from_row(row)
    state: State = {
        "offsets": {s: o for s, o in zip(SOURCES, user.offsets, strict=False) if o >= 0},
        "acts": {(a.event_time_ms, a.item_id, a.kind, a.weight) for a in user.acts},
        "waiting": {a.item_id for a in user.acts if not a.folded},
        "texts": {(t.event_time_ms, t.text, bytes(t.vector), t.weight) for t in user.texts},
        "event_ids": {bytes(user.event_ids[i : i + 8]) for i in range(0, len(user.event_ids), 8)},
        "bought": dict(user.bought),
        "disliked": dict(user.disliked),
        "pending": user.pending,
        "n_acts": 0,
        **_interest("long", user.long),
        **_interest("short", user.short),
    }
    if user.activity:
        activity = from_bytes(user.activity)
        state |= activity._asdict()
        state["n_purchase_days"] = activity.n_purchase_days
    if user.stated.updated_ms:
        state["stated.updated_ms"] = user.stated.updated_ms
        state["stated.interests"] = user.stated.interests
        state["stated.region"] = user.stated.region
        state["stated.vector"] = bytes(user.stated.interests_vector)
    return state


def _interest(name: str, interest: Interest | None) -> State:
    if interest is None:
        return {}
    return {
        f"{name}.as_of_ms": interest.as_of_ms,
        f"{name}.weight": interest.weight,
        f"{name}.vector": np.asarray(interest.array(), np.float64),
    }


def differences(expected: State, found: State) -> list[str]:
    """Return in words where a state is not what it must be; only the fields expected are judged."""
    texts = []
    for name, wanted in expected.items():
        if name.endswith(".scale"):
            continue
        got = found.get(name)
        if not _same(name, wanted, got, expected):
            texts.append(f"{name}: {_told(wanted, got)}")
    if found.get("waiting"):
        texts.append(f"never folded, though known: {sorted(found['waiting'])[:5]}")
    return texts


def _same(name: str, wanted: Any, got: Any, expected: Mapping[str, Any]) -> bool:
    if got is None or wanted is None:
        return got is wanted
    if name == "event_ids" and len(wanted) > ID_MEMORY:
        return len(got) == ID_MEMORY and got <= wanted
    if name.endswith(".vector") and isinstance(wanted, np.ndarray):
        scale = max(1.0, expected[name.replace("vector", "scale")])
        return bool(np.abs(wanted - got).max() <= VECTOR_TOLERANCE * scale)
    if isinstance(wanted, float):
        scale = expected.get(name.replace("weight", "scale"), abs(wanted))
        return math.isclose(wanted, got, rel_tol=0, abs_tol=FLOAT_TOLERANCE * max(1.0, scale))
    return bool(wanted == got)


def _told(wanted: Any, got: Any) -> str:
    if isinstance(wanted, np.ndarray) and isinstance(got, np.ndarray):
        return f"differs by {np.abs(wanted - got).max():.3g} at most"
    if isinstance(wanted, set) and isinstance(got, set):
        return f"{len(wanted - got)} missing, {len(got - wanted)} too many of {len(wanted)}"
    if isinstance(wanted, dict) and isinstance(got, dict):
        off = [k for k in {*wanted, *got} if wanted.get(k) != got.get(k)]
        return f"differs in {len(off)}, as {off[0]}: {wanted.get(off[0])} became {got.get(off[0])}"
    return f"expected {wanted!r:.60}, got {got!r:.60}"

"""A behaviour log -> customers' activities at several moments, folded as the workers fold them,
and from those a model's folder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models.activity import DAY_MS, NO_ACTIVITY, Activity, fold_activity
from models.trained_churn import ChurnParts, save_churn
from models.training.churn import Moment, TooLittle, Validation, train_churn
from stream.core.events import PARSERS, BadEvent
from stream.formats import Record

_N_MOMENTS, _N_HORIZONS = 8, 6


@dataclass(frozen=True, slots=True)
class Made:
    """A model that was written."""

    name: str
    validation: Validation


class Act(NamedTuple):
    """What activity reads of one act; all acts of a log take some 200 bytes each."""

    event_time_ms: int
    user_id: str
    kind: str
    price: float | None = None
    quantity: float | None = None
    rating: float | None = None


def train_into(out: Path, records: Iterable[Record], horizon_days: float) -> Made:
    """Fit a model to a log, for ``horizon_days`` too, and write it into a new folder.

    Raises TooLittle, ModelError, OSError, and ImportError without LightGBM.
    """
    acts = read_acts(records)
    if not acts:
        raise TooLittle("no acts in the log")
    end_ms = acts[-1].event_time_ms + 1
    parts, validation = train_on(acts, end_ms, horizon_days)
    facts = {
        "data": {
            "first_ms": acts[0].event_time_ms,
            "last_ms": end_ms - 1,
            "n_acts": len(acts),
            "n_users": len({act.user_id for act in acts}),
        },
        "validation": {
            "cut_ms": validation.cut_ms,
            "horizon_days": validation.horizon_days,
            "n_customers": validation.n_customers,
            **{name: list(figure) for name, figure in validation.figures.items()},
        },
    }
    return Made(save_churn(out, parts, facts), validation)


def train_on(
    acts: Sequence[Act], end_ms: int, horizon_days: float | None = None
) -> tuple[ChurnParts, Validation]:
    """Fit a model to acts in time order, all before ``end_ms``; raises TooLittle."""
    cuts_ms, horizons = plan(acts[0].event_time_ms, end_ms, horizon_days)
    return train_churn(moments(acts, cuts_ms), end_ms, horizons)


def read_acts(records: Iterable[Record]) -> list[Act]:
    """Return the acts in time order; a repeated event id of a user counts once.

    What the topics' parsers refuse is left out, as the workers would.
    """
    acts, seen = [], set[tuple[str, str, str]]()
    for record in records:
        if record.value is None or record.topic not in _ACTS:
            continue
        try:
            event = PARSERS[record.topic](record.value)
        except BadEvent:
            continue
        identity = (record.topic, event.user_id, event.event_id)
        if identity not in seen:
            seen.add(identity)
            acts.append(_ACTS[record.topic](event))
    return sorted(acts, key=lambda act: act.event_time_ms)


_ACTS: dict[str, Any] = {
    "clickstream": lambda e: Act(e.event_time_ms, e.user_id, e.type, e.price, e.quantity),
    "searches": lambda e: Act(e.event_time_ms, e.user_id, "search"),
    "reviews": lambda e: Act(e.event_time_ms, e.user_id, "review", rating=e.rating),
}


def moments(acts: Sequence[Act], cuts_ms: Sequence[int]) -> list[Moment]:
    """Return what was known at each cut, in order; ``acts`` are in time order, cuts ascend.

    An act at a cut lies behind it. Customers are numbered by their first act.
    """
    numbers: dict[str, int] = {}
    known: list[Activity] = []
    found: list[Moment] = []
    for act in acts:
        while len(found) < len(cuts_ms) and act.event_time_ms >= cuts_ms[len(found)]:
            found.append(_moment(cuts_ms[len(found)], known))
        number = numbers.setdefault(act.user_id, len(numbers))
        if number == len(known):
            known.append(NO_ACTIVITY)
        known[number] = fold_activity(known[number], *_folded(act))
        if act.kind == "purchase":
            _note_purchase(found, number, act.event_time_ms)
    found += [_moment(cut_ms, known) for cut_ms in cuts_ms[len(found) :]]
    return [_of_those_who_acted(moment) for moment in found]


def _folded(act: Act) -> tuple[str, int, float | None, float | None, float | None]:
    return act.kind, act.event_time_ms, act.price, act.quantity, act.rating


def _moment(cut_ms: int, known: Sequence[Activity]) -> Moment:
    return Moment(cut_ms, np.arange(len(known)), list(known), np.full(len(known), np.inf))


def _note_purchase(found: Sequence[Moment], number: int, event_time_ms: int) -> None:
    """Note the first purchase behind each cut, from the newest back to one that has it."""
    for moment in reversed(found):
        if number >= len(moment.users) or math.isfinite(moment.silent_days[number]):
            break
        moment.silent_days[number] = (event_time_ms - moment.cut_ms) / DAY_MS


def _of_those_who_acted(moment: Moment) -> Moment:
    """Leave out who only saw impressions: that is the shop's act."""
    acted = np.array([activity.n_acts > 0 for activity in moment.activities], bool)
    activities = [a for a, did in zip(moment.activities, acted, strict=True) if did]
    return Moment(moment.cut_ms, moment.users[acted], activities, moment.silent_days[acted])


def plan(
    first_ms: int, end_ms: int, horizon_days: float | None = None
) -> tuple[list[int], list[float]]:
    """Return the cuts and the horizons in days to learn from a log of that span.

    Cuts lie in its second half, since a first half must be known of customers as it will be later;
    horizons between a twentieth of it and a half, as well as ``horizon_days`` if that is shorter.
    Raises TooLittle for less than two weeks.
    """
    span = (end_ms - first_ms) / DAY_MS
    if span < 14:
        raise TooLittle(f"expected a log of two weeks at least, got {span:.1f} days")
    horizons = np.geomspace(span / 20, span / 2, _N_HORIZONS).tolist()
    if horizon_days is not None and horizon_days < span / 2:
        horizons = sorted({*horizons, horizon_days})
    cuts = np.linspace(0.5 * span, span - horizons[0], _N_MOMENTS)
    return [first_ms + round(cut * DAY_MS) for cut in cuts.tolist()], horizons

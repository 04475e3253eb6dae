"""Churn: who buys nothing after a cut, asked of customers of two shops, fitted on what precedes.

CDNOW is asked about customers who had no part in the fit, Online Retail about its own: the one cut
in time and by customer, the other in time alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.activity import DAY_MS, Activity
from models.churn import ONLINE_RETAIL_SHIFT, BaselineChurn, ChurnModel, churn_inputs
from models.evaluation import intervals
from models.evaluation.bgnbd import Customers, fit_bgnbd
from models.evaluation.classes import OF_PROBABILITY, calibration, of_probabilities
from models.evaluation.intervals import Estimate, of_statistic
from models.trained_churn import ChurnParts, TrainedChurn
from models.training.churn import Moment
from stream.evaluate.datasets import load_cdnow, load_online_retail
from stream.evaluate.report import Evaluated, OnStep, Row
from stream.evaluate.vectors import Encode, encoded
from stream.settings import Settings
from stream.training.churn import Act, moments, plan, train_on

Floats = NDArray[np.float64]

_WEEK_DAYS = 7
#: As in Fader, Hardie and Lee (2005): 39 weeks to learn from, 39 to be asked about.
_CDNOW_CUT = datetime(1997, 10, 1, tzinfo=timezone.utc)
_CDNOW_HORIZON_DAYS = 273
_RETAIL_CUT = datetime(2010, 9, 1, tzinfo=timezone.utc)
_RETAIL_HORIZON_DAYS = 90
_QUICK = 4
_RANKS = ("auc", "pr_auc")
_TOLD = "told the others' answers"
_TOLD_MORE = "told them, with all purchases"
_OURS, _BG_NBD, _BG_NBD_RANK = "trained", "BG/NBD", "BG/NBD, expected purchases"


def evaluate(
    data: Path,
    settings: Settings,
    on_step: OnStep,
    quick: bool = False,
    encode: Encode = encoded,
) -> Iterator[Evaluated]:
    """Yield CDNOW, then Online Retail; ``quick`` takes a quarter of the customers of both.

    Nothing is encoded: there are no texts.
    """
    on_step("CDNOW")
    cdnow = load_cdnow(data)
    sample = [act for act in cdnow.acts if act.user_id in cdnow.sample]
    rest = [act for act in cdnow.acts if act.user_id not in cdnow.sample]
    yield _evaluated(
        "churn",
        _Question(_some(rest, quick), _some(sample, quick), _CDNOW_CUT, _CDNOW_HORIZON_DAYS, 0.0),
        on_step,
        "The published sample's customers, 39 weeks after their first 39; fitted on the first 39 "
        "weeks of CDNOW's other customers, the number of trees and their size chosen there. The "
        "built-in model was fitted on those too, but with answers until June 1998; those that are "
        "told their answers are no models, but say how much the inputs hold, and the purchases.",
    )
    on_step("Online Retail")
    retail = _some(load_online_retail(data), quick)
    question = _Question(retail, retail, _RETAIL_CUT, _RETAIL_HORIZON_DAYS, ONLINE_RETAIL_SHIFT)
    yield _evaluated(
        "churn_online_retail",
        question,
        on_step,
        "All who had bought by 2010-09-01, 90 days after it; fitted on what precedes, with "
        "nothing chosen on this shop. The built-in model saw the shop until then as well.",
    )


def _some(acts: Sequence[Act], quick: bool) -> Sequence[Act]:
    users = dict.fromkeys(act.user_id for act in acts)
    kept = set(list(users)[:: _QUICK if quick else 1])
    return [act for act in acts if act.user_id in kept]


@dataclass(frozen=True, slots=True)
class _Question:
    """``learnt`` and ``asked`` are acts in time order; of the first, those before the cut count."""

    learnt: Sequence[Act]
    asked: Sequence[Act]
    cut: datetime
    horizon_days: int
    base_shift: float

    @property
    def cut_ms(self) -> int:
        return round(self.cut.timestamp() * 1000)

    def before(self) -> list[Act]:
        return [act for act in self.learnt if act.event_time_ms < self.cut_ms]


def _evaluated(name: str, question: _Question, on_step: OnStep, note: str) -> Evaluated:
    on_step(f"{name}: fitting")
    known = question.before()
    parts, validation = train_on(known, question.cut_ms)
    [asked] = moments(question.asked, [question.cut_ms])
    asked = _buyers(asked)
    silent = asked.silent_days >= question.horizon_days
    on_step(f"{name}: asking")
    said = {
        _OURS: _said(TrainedChurn(parts, _OURS), asked, question.horizon_days),
        "built-in": _said(_built_in(parts, question), asked, question.horizon_days),
        "logistic regression on RFM": _regression(known, question, asked),
        **_bg_nbd(asked, question.horizon_days),
    }
    if question.learnt is not question.asked:
        told = _told(question, asked, parts.typical_order)
        said[_TOLD] = _regression_told(told)
        said[_TOLD_MORE] = _trees_told(told, question)
    ranks = {
        _BG_NBD_RANK: said.pop(_BG_NBD_RANK),
        "recency": np.array([-activity.last_purchase_ms for activity in asked.activities]),
    }
    rows = [Row(model, of_probabilities(silent, p)) for model, p in said.items()]
    rows += [Row(model, _of_ranks(silent, score)) for model, score in ranks.items()]
    brier = intervals.difference((said[_OURS] - silent) ** 2, (said[_BG_NBD] - silent) ** 2)
    auc = of_statistic(_auc_gain, silent, said[_OURS], ranks[_BG_NBD_RANK])
    return Evaluated(
        name,
        rows,
        f"{note} {len(silent):,} customers, {silent.mean():.1%} without a purchase. Against "
        f"BG/NBD fitted on their own past: AUC {_signed(auc)} (expected purchases), Brier "
        f"{_signed(brier)}. Validated before the cut, {validation.horizon_days:.0f} days: AUC "
        f"{validation.figures['auc']}.",
        {model: calibration(silent, said[model]) for model in (_OURS, "built-in", _BG_NBD)},
    )


def _buyers(moment: Moment) -> Moment:
    """Leave out who never bought: of them there is nobody to lose, and BG/NBD knows nothing."""
    bought = np.array([activity.last_purchase_ms > 0 for activity in moment.activities])
    activities = [a for a, did in zip(moment.activities, bought, strict=True) if did]
    return Moment(moment.cut_ms, moment.users[bought], activities, moment.silent_days[bought])


def _auc_gain(silent: NDArray[np.bool_], ours: Floats, theirs: Floats) -> float:
    return float(roc_auc_score(silent, ours) - roc_auc_score(silent, theirs))


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.4f} [{estimate.low:+.4f}, {estimate.high:+.4f}]"


def _of_ranks(silent: NDArray[np.bool_], score: Floats) -> dict[str, Estimate]:
    return {name: of_statistic(OF_PROBABILITY[name], silent, score) for name in _RANKS}


def _said(model: ChurnModel, asked: Moment, horizon_days: int) -> Floats:
    assessments = model.predict(asked.activities, asked.cut_ms, float(horizon_days))
    return np.array([assessment.probability for assessment in assessments])


def _built_in(parts: ChurnParts, question: _Question) -> BaselineChurn:
    return BaselineChurn(typical_order=parts.typical_order, base_shift=question.base_shift)


def _bg_nbd(asked: Moment, horizon_days: int) -> dict[str, Floats]:
    """Return the probabilities of no purchase, and a score that falls as purchases expected rise.

    Fitted on the same customers, in weeks, days with a purchase counting once.
    """
    today = asked.cut_ms // DAY_MS
    first, last = (
        np.array(
            [getattr(activity, f"{end}_purchase_ms") // DAY_MS for activity in asked.activities]
        )
        for end in ("first", "last")
    )
    repeats = np.array([activity.n_purchase_days - 1 for activity in asked.activities])
    customers = Customers(
        repeats.astype(np.float64), (last - first) / _WEEK_DAYS, (today - 1 - first) / _WEEK_DAYS
    )
    model, weeks = fit_bgnbd(customers), horizon_days / _WEEK_DAYS
    return {
        _BG_NBD: model.no_purchase(customers, weeks),
        _BG_NBD_RANK: -model.expected_purchases(customers, weeks),
    }


def _regression(known: Sequence[Act], question: _Question, asked: Moment) -> Floats:
    """Return what a plain logistic regression says, of the logs of recency, frequency, monetary
    value and the horizon, fitted on the same moments and horizons as ours."""
    cuts_ms, horizons = plan(known[0].event_time_ms, question.cut_ms)
    windows = [
        (_rfm(moment.activities, moment.cut_ms, horizon), moment.silent_days >= horizon)
        for moment in moments(known, cuts_ms)
        for horizon in horizons
        if moment.cut_ms + horizon * DAY_MS <= question.cut_ms
    ]
    model = LogisticRegression(max_iter=1000)
    model.fit(np.vstack([x for x, _ in windows]), np.concatenate([y for _, y in windows]))
    columns = _rfm(asked.activities, asked.cut_ms, question.horizon_days)
    return np.asarray(model.predict_proba(columns)[:, 1])


class _Told(NamedTuple):
    """The inputs of others and of those asked about, without gaps, and the others' answers.

    No model can know those at the cut: they say how much the inputs hold.
    """

    others: Moment
    asked: Moment
    learnt: Floats
    wanted: Floats
    silent: NDArray[np.bool_]


def _told(question: _Question, asked: Moment, typical_order: float) -> _Told:
    others = _buyers(moments(question.learnt, [question.cut_ms])[0])
    learnt, wanted = (
        np.nan_to_num(
            churn_inputs(
                moment.activities, moment.cut_ms, float(question.horizon_days), typical_order
            )[1]
        )
        for moment in (others, asked)
    )
    return _Told(others, asked, learnt, wanted, others.silent_days >= question.horizon_days)


def _regression_told(told: _Told) -> Floats:
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(told.learnt, told.silent)
    return np.asarray(model.predict_proba(told.wanted)[:, 1])


def _trees_told(told: _Told, question: _Question) -> Floats:
    """Return the mean of a regression and of trees on the inputs and on all that the purchases of
    before the cut say beside them."""
    learnt = np.hstack([told.learnt, _purchases(question.learnt, told.others, question.cut_ms)])
    wanted = np.hstack([told.wanted, _purchases(question.asked, told.asked, question.cut_ms)])
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=500))
    trees = HistGradientBoostingClassifier(
        learning_rate=0.04, max_iter=200, max_leaf_nodes=8, min_samples_leaf=60,
        l2_regularization=10.0, random_state=0,
    )  # fmt: skip
    said = [m.fit(learnt, told.silent).predict_proba(wanted)[:, 1] for m in (linear, trees)]
    return np.asarray(np.mean(said, axis=0))


def _purchases(acts: Sequence[Act], moment: Moment, cut_ms: int) -> Floats:
    """Return, by customer of a moment, what its acts say of purchases: days with one in each
    four weeks back, the day of the first, weekdays, gaps (first, last, longest, shortest, mean,
    their variation), recency in the longest, days' values and discs (first, last, most, least,
    sum), (n, columns)."""
    numbers: dict[str, int] = {}
    days: dict[int, dict[int, list[float]]] = {}
    for act in acts:
        number = numbers.setdefault(act.user_id, len(numbers))
        if act.kind == "purchase" and act.event_time_ms < cut_ms:
            of_day = days.setdefault(number, {}).setdefault(
                (cut_ms - act.event_time_ms) // DAY_MS, [0.0, 0.0]
            )
            quantity = act.quantity or 1.0
            of_day[0] += (act.price or 0.0) * quantity
            of_day[1] += quantity
    return np.array([_row(days[number]) for number in moment.users.tolist()])


def _row(bought: dict[int, list[float]]) -> list[float]:
    ago = np.array(sorted(bought, reverse=True), np.float64)
    gaps = -np.diff(ago) if len(ago) > 1 else np.array([-1.0])
    row = [*np.histogram(ago, np.arange(0, 281, 28))[0], ago[0], ago[0] % 7, ago[-1] % 7]
    row += [gaps[0], gaps[-1], gaps.max(), gaps.min(), gaps.mean(), gaps.std() / gaps.mean()]
    row.append(ago[-1] / max(gaps.max(), 1.0))
    for amounts in np.log1p(np.array([bought[int(day)] for day in ago])).T:
        row += [amounts[0], amounts[-1], amounts.max(), amounts.min(), amounts.sum()]
    return [float(number) for number in row]


def _rfm(activities: Sequence[Activity], now_ms: int, horizon_days: float) -> Floats:
    return np.log1p(
        [
            ((now_ms - a.last_ms) / DAY_MS, a.n_purchase_days, max(a.spend, 0.0), horizon_days)
            for a in activities
        ]
    )

"""What shoppers could have been shown and what they took -> the weights of a ranker.

The loss is listwise: the cross-entropy of what was taken by the softmax over a shopper's
candidates, which is convex, so that the same questions always give the same weights. Questions
whose answer no source found teach nothing, and are left out.

Where shoppers took the next item by themselves, its rivals are the candidates that they did not
take, most of which they never saw: what is easy to come by (popular, shown elsewhere) is
over-rated as far as it was taken for that. Where lists were shown, the rivals are what was shown
with it, and the place in the list is a feature of its own which is left out afterwards, so that
being looked at first is not taken for being liked; what was never shown teaches nothing there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from models.ranking_features import FEATURES
from models.trained_ranker import log_shares

#: Pulls weights of standardised features to zero, so little that only idle ones notice.
_L2 = 1e-4
_MOST_STEPS = 200
#: What many take is what most questions ask for, so that weights fitted to all alike give up what
#: few take. On Amazon Beauty, item before the last, by 0 / .25 / .4 / .6 / the hybrid score alone:
#: NDCG@10 of all .0750 .0752 .0755 .0726 .0600, Recall@10 of what was seen fewer than five times
#: .052 .068 .077 .084 .073.
RARITY = 0.4
#: Users that an item is counted to have beside its own: of the rare ones none counts for all.
_USUALLY_FEW = 4.0
_USERS = list(FEATURES).index("users")


class TooLittle(ValueError):
    """Acts from which nothing can be learnt; the text says what they lack."""


@dataclass(frozen=True, slots=True)
class Questions:
    """Candidates of q questions, m in all, those of a question side by side.

    ``owners`` (m,) are the questions' numbers, never falling; some may have no candidates.
    ``features`` (m, len(FEATURES)); ``is_taken`` (m,); ``positions`` (m,) the places from 0 at
    which they were shown, None where they were not shown.
    """

    owners: NDArray[np.int64]
    features: NDArray[np.float32]
    is_taken: NDArray[np.bool_]
    positions: NDArray[np.float32] | None
    n: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """By FEATURES (models/trained_ranker.py); ``by_position`` is what log2(2 + place) cost."""

    weights: NDArray[np.float64]
    centres: NDArray[np.float64]
    lows: NDArray[np.float64]
    highs: NDArray[np.float64]
    by_position: float
    n_questions: int


def joined(parts: Sequence[Questions]) -> Questions:
    """Return the questions of some batches, one after the other; raises TooLittle for none."""
    if not parts:
        raise TooLittle("expected acts on items that are new to their shoppers: there are none")
    firsts = np.cumsum([0, *(part.n for part in parts)])
    shown = [part.positions for part in parts if part.positions is not None]
    return Questions(
        np.concatenate([part.owners + first for part, first in zip(parts, firsts, strict=False)]),
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.is_taken for part in parts]),
        np.concatenate(shown) if shown else None,
        int(firsts[-1]),
    )


def fit_ranker(questions: Questions, rarity: float = RARITY) -> Fitted:
    """Return the weights under which what was taken was likeliest; raises TooLittle.

    With ``rarity`` above 0, a question counts for less the more users took its answer: as their
    number to the power of minus that.
    """
    n_taken = np.bincount(questions.owners, questions.is_taken, questions.n)
    n_candidates = np.bincount(questions.owners, minlength=questions.n)
    kept = ((n_taken > 0) & (n_taken < n_candidates))[questions.owners]
    if not kept.any():
        raise TooLittle("expected shoppers who took one of their candidates: there are none")
    starts = np.flatnonzero(np.diff(questions.owners[kept], prepend=-1))
    values = questions.features[kept]
    known = ~np.isnan(values)
    centres = np.where(known, values, 0).sum(axis=0, dtype=np.float64)
    centres /= np.maximum(known.sum(axis=0), 1)
    lows, highs = (np.nan_to_num(of_it) for of_it in _extremes(values, known))
    values = np.where(known, values - centres.astype(np.float32), 0)
    if questions.positions is not None:
        places = np.log2(2 + questions.positions[kept])
        values = np.concatenate([values, (places - places.mean())[:, None]], axis=1)
    scales = values.std(axis=0, dtype=np.float64)
    # What never varies teaches nothing, and must not be blown up.
    scales[scales < 1e-6] = np.inf
    values /= scales.astype(np.float32)
    is_taken, users = questions.is_taken[kept], questions.features[kept, _USERS]
    counts = (_USUALLY_FEW + np.exp2(users, dtype=np.float64)) ** -rarity
    weights = _likeliest(values, starts, is_taken, counts) / scales
    n = len(FEATURES)
    by_position = float(weights[n]) if len(weights) > n else 0.0
    return Fitted(weights[:n], centres, lows, highs, by_position, len(starts))


def _extremes(
    values: NDArray[np.float32], known: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and highest known of each column, NaN where nothing is."""
    lows = np.where(known, values, np.inf).min(axis=0).astype(np.float64)
    highs = np.where(known, values, -np.inf).max(axis=0).astype(np.float64)
    lows[~known.any(axis=0)] = highs[~known.any(axis=0)] = np.nan
    return lows, highs


def _likeliest(
    values: NDArray[np.float32],
    starts: NDArray[np.int64],
    is_taken: NDArray[np.bool_],
    counts: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the weights; ``counts`` (m,) say for how much an answer counts."""
    owners = np.repeat(np.arange(len(starts)), np.diff([*starts, len(values)]))
    # Each question counts once, however much was taken.
    n_taken = np.bincount(owners, is_taken)
    of_question = np.bincount(owners, is_taken * counts) / n_taken
    of_question /= of_question.mean()
    share = (is_taken * (of_question / n_taken)[owners]).astype(np.float32)
    taken, n = (share @ values).astype(np.float64), len(starts)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = values @ weights.astype(np.float32)
        largest = np.maximum.reduceat(scores, starts)
        powers = np.exp(scores - largest[owners])
        sums = np.add.reduceat(powers, starts)
        of_all = (powers * (of_question / sums).astype(np.float32)[owners]) @ values
        value = of_question @ (np.log(sums) + largest) - taken @ weights
        pulled = _L2 * weights
        return float(value / n + pulled @ weights), (of_all - taken) / n + 2 * pulled

    start = np.zeros(values.shape[1])
    options = {"maxiter": _MOST_STEPS}
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x)


def calibrate(
    scores: NDArray[np.float32], owners: NDArray[np.int64], is_taken: NDArray[np.bool_]
) -> tuple[float, float]:
    """Return Platt's slope and intercept of chances, by the softmax's logarithms as
    models/trained_ranker.py has them; of questions that were not learnt from. Raises TooLittle."""
    if not is_taken.any():
        raise TooLittle("expected that some of those kept aside took one of their candidates")
    said = log_shares(scores, owners, int(owners[-1]) + 1).astype(np.float64)
    # As Platt has them: half a case of either kind more, so that no chance is 0 or 1.
    n_taken = int(is_taken.sum())
    wanted = np.where(is_taken, (n_taken + 1) / (n_taken + 2), 1 / (len(said) - n_taken + 2))

    def loss(numbers: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_odds = numbers[0] * said + numbers[1]
        away = 1 / (1 + np.exp(-log_odds)) - wanted
        value = (np.logaddexp(0, log_odds) - wanted * log_odds).mean()
        return float(value), np.array([away @ said, away.sum()]) / len(said)

    start, bounds = np.array([1.0, 0.0]), [(1e-3, None), (None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return float(found[0]), float(found[1])

"""The stream's own parts, asked act by act, say what the formula says on whole matrices."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation import baselines
from models.evaluation.splits import leave_one_out
from models.hybrid import HybridRule
from models.items import ItemFacts
from models.partial_correlations import partial_correlations
from models.recommender import Recommender
from stream.core.events import Interaction
from stream.evaluate.shop import LiveShop
from stream.settings import Settings

N_ITEMS, N_USERS, DIM = 120, 300, 16
NOW_MS = 1_700_000_000_000


@pytest.fixture
def sequences() -> list[np.ndarray]:
    """Users of five tastes, each with few enough items that a row keeps all of them."""
    rng = np.random.default_rng(5)
    tastes = np.arange(N_ITEMS).reshape(5, -1)
    return [
        rng.choice(tastes[user % 5], rng.integers(3, 9), replace=False).astype(np.int64)
        for user in range(N_USERS)
    ]


@pytest.fixture
def vectors() -> np.ndarray:
    """Unit vectors whose mean is nothing: of a few items the catalogue takes off a part of it."""
    half = np.random.default_rng(6).normal(size=(N_ITEMS // 2, DIM)).astype(np.float32)
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    return np.concatenate([half, -half])


def opened(vectors: np.ndarray, **settings: object) -> LiveShop:
    facts = [ItemFacts(str(number), f"item {number}", NOW_MS) for number in range(N_ITEMS)]
    never = {"cooccurrence_half_life_d": 1e6, "max_state_bytes": 4096, "diversity": 0.0}
    shop = LiveShop(Settings(**{**never, **settings}), facts, vectors)
    # What else speaks settles near-ties only, and is no part of the formula.
    rule = HybridRule(0.3, 0.7, long_interest=0, short_interest=0, popular=0, new_arrival=0)
    shop._recommender = Recommender(shop._catalogue, diversity=0, rule=rule)
    return shop


def act(user: int, item: int, place: int) -> Interaction:
    return Interaction(
        event_id=f"{user}-{place}",
        user_id=f"u{user}",
        item_id=str(item),
        type="purchase",
        event_time_ms=NOW_MS + 1000 * place,
    )


def acts(histories: list[np.ndarray]) -> list[Interaction]:
    """Everyone's first act, then everyone's second, as they come in a stream."""
    rounds = max(map(len, histories))
    return [
        act(user, history[place], place)
        for place in range(rounds)
        for user, history in enumerate(histories)
        if place < len(history)
    ]


@pytest.mark.parametrize("batch", [1, 7, 10_000])
def test_lists_are_those_of_the_formula_however_acts_are_batched(
    sequences: list[np.ndarray], vectors: np.ndarray, batch: int
) -> None:
    histories = leave_one_out(sequences).histories
    shop, events = opened(vectors), acts(histories)
    for start in range(0, len(events), batch):
        shop.learn(events[start : start + batch])
    lists = shop.recommend([f"u{user}" for user in range(N_USERS)], 10, NOW_MS + 60_000)
    shown = np.array([[int(item) for item in of_user] for of_user in lists])
    formula = baselines.hybrid(histories, vectors)
    wanted = baselines.ranked(formula, histories, 10)
    # The catalogue keeps vectors in half precision: what is nearly tied may change places.
    scores = formula(histories)
    of_shown, of_wanted = (np.take_along_axis(scores, lists, 1) for lists in (shown, wanted))
    assert of_shown == pytest.approx(of_wanted, abs=1e-3)
    assert (shown == wanted).mean() > 0.95


def test_with_a_ridge_lists_are_those_of_partial_correlations_of_all_acts(
    sequences: list[np.ndarray], vectors: np.ndarray
) -> None:
    histories = leave_one_out(sequences).histories
    shop = opened(vectors, cooccurrence_ridge=5.0)
    shop.learn(acts(histories))
    lists = shop.recommend([f"u{user}" for user in range(N_USERS)], 10, NOW_MS + 60_000)
    shown = np.array([[int(item) for item in of_user] for of_user in lists])
    taken = baselines.matrix(histories, N_ITEMS)
    both = (taken.T @ taken).toarray()
    users = np.diag(both).astype(np.float64)
    np.fill_diagonal(both, 0)
    together = partial_correlations(both, users, 5.0)
    cosines = both / np.sqrt(np.outer(users, users))
    together *= cosines.max(axis=1).sum() / together.max(axis=1).sum()
    weights = baselines._decayed(histories, N_ITEMS, 0.7)
    lengths = np.array([[len(history)] for history in histories])
    scores = (0.3 * (weights @ vectors) @ vectors.T + 0.7 * (weights @ together)) / lengths
    for user, history in enumerate(histories):
        scores[user, history] = -np.inf
    wanted = baselines.best(scores.astype(np.float32), 10)
    of_shown, of_wanted = (np.take_along_axis(scores, lists, 1) for lists in (shown, wanted))
    assert of_shown == pytest.approx(of_wanted, abs=1e-3)
    assert (shown == wanted).mean() > 0.95


def test_what_is_only_folded_moves_no_count(
    sequences: list[np.ndarray], vectors: np.ndarray
) -> None:
    histories = leave_one_out(sequences).histories
    shop = opened(vectors)
    shop.learn(acts(histories))
    before = shop.recommend(["u1"], 10, NOW_MS)
    others = [event for event in acts(sequences) if event.user_id != "u1"]
    shop.learn(
        [e for e in others if e.event_id not in {a.event_id for a in acts(histories)}], False
    )
    assert shop.recommend(["u1"], 10, NOW_MS) == before


def test_of_whom_nothing_is_known_something_is_shown(vectors: np.ndarray) -> None:
    [shown] = opened(vectors).recommend(["nobody"], 5, NOW_MS)
    assert len(shown) == 5

"""A cross-encoder orders the first items anew, within its time, and what it read is remembered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from fakes import TitleLover

from models.matches import Match
from models.reranking import RerankFailed, Reranking, RerankRule

TITLES = {"case": "laptop case", "bag": "laptop bag", "laptop": "fast laptop", "cup": "cup"}
FOUND = [
    Match("case", 0.9, "both"),
    Match("bag", 0.8, "both"),
    Match("laptop", 0.7, "both"),
    Match("cup", 0.1, "meaning"),
]


def reranking(scorer: TitleLover, clock: Sequence[float] = (), **rule: float) -> Reranking:
    times = iter(clock)
    return Reranking(
        scorer,
        lambda item_id: TITLES.get(item_id, ""),
        RerankRule(**rule),  # type: ignore[arg-type]
        lambda: next(times, 0.0),
    )


def ids(matches: Sequence[Match] | None) -> list[str]:
    assert matches is not None
    return [match.item_id for match in matches]


def test_what_the_model_likes_best_comes_first_with_the_score_it_then_has() -> None:
    [better] = reranking(TitleLover("fast laptop")).reranked(["laptop"], [FOUND], until=1)
    assert ids(better) == ["laptop", "case", "bag", "cup"]
    assert better is not None
    assert better[0].score == pytest.approx(0.7 + 22 / 24)
    assert [m.score for m in better] == sorted((m.score for m in better), reverse=True)


def test_only_the_first_are_read_and_stay_before_the_others() -> None:
    scorer = TitleLover("fast laptop", "laptop bag")
    [better] = reranking(scorer, k=2).reranked(["laptop"], [FOUND], until=1)
    assert ids(better) == ["bag", "case", "laptop", "cup"]
    assert scorer.read == [("laptop", "laptop case"), ("laptop", "laptop bag")]


def test_a_pair_is_read_once_and_one_with_another_title_anew() -> None:
    scorer = TitleLover("fast laptop")
    ours = reranking(scorer)
    assert ours.reranked(["laptop"], [FOUND], 1) == ours.reranked(["laptop"], [FOUND], 1)
    assert len(scorer.read) == 4
    ours.reranked(["notebook"], [FOUND[:1]], 1)
    assert len(scorer.read) == 5


def test_a_batch_that_has_used_its_time_up_leaves_the_rest_as_found() -> None:
    ours = reranking(TitleLover("cup"), clock=[5.0, 5.0, 5.07], seconds=0.06)
    until = ours.until()
    assert until == pytest.approx(5.06)
    first, second = ours.reranked(["laptop", "tea"], [FOUND, FOUND], until)
    assert ids(first)[0] == "cup"
    assert second is None


def test_without_a_weight_the_order_is_as_found() -> None:
    [better] = reranking(TitleLover("cup"), weight=0.0).reranked(["laptop"], [FOUND], 1)
    assert better == FOUND


def test_a_model_that_fails_says_so() -> None:
    with pytest.raises(RerankFailed, match="out of order"):
        reranking(TitleLover(is_broken=True)).reranked(["laptop"], [FOUND], 1)


def test_nothing_found_is_nothing_to_read() -> None:
    scorer = TitleLover()
    assert reranking(scorer).reranked(["laptop"], [[]], 1) == [[]]
    assert scorer.read == []


def test_log_odds_beyond_what_is_known_count_as_the_most() -> None:
    scorer = TitleLover("cup", liked=np.inf)
    [better] = reranking(scorer).reranked(["cup"], [FOUND[3:]], 1)
    assert better is not None
    assert better[0].score == pytest.approx(1.1)

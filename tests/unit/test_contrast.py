"""The losses, against their formulas."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from models.training.contrast import contrast  # noqa: E402 - it imports torch

SCORES = torch.tensor([[1.0, 2.0, 0.5, 9.0]])
CHOSEN = torch.tensor([1])
EXCLUDED = torch.tensor([[False, False, False, True]])


def test_info_nce_is_the_cross_entropy_among_what_counts() -> None:
    expected = -math.log(math.exp(2) / (math.exp(1) + math.exp(2) + math.exp(0.5)))
    assert float(contrast("info_nce", SCORES, CHOSEN, EXCLUDED)) == pytest.approx(expected)


def test_pairwise_is_the_mean_over_negatives() -> None:
    expected = (math.log1p(math.exp(1 - 2)) + math.log1p(math.exp(0.5 - 2))) / 2
    assert float(contrast("pairwise", SCORES, CHOSEN, EXCLUDED)) == pytest.approx(expected)


@pytest.mark.parametrize("loss", ["info_nce", "pairwise"])
def test_what_is_excluded_and_what_has_no_negatives_moves_nothing(loss: str) -> None:
    scores = SCORES.clone().requires_grad_()
    contrast(loss, scores, CHOSEN, EXCLUDED).backward()
    assert scores.grad[0, 3] == 0
    assert scores.grad[0, 1] < 0 < scores.grad[0, 0]
    alone = torch.tensor([[True, False, True, True]])
    assert float(contrast(loss, SCORES, CHOSEN, alone)) == 0

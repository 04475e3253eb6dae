"""Losses by which chosen texts come nearer and others move away."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

Loss = Literal["info_nce", "pairwise"]


def contrast(
    loss: Loss, scores: torch.Tensor, chosen: torch.Tensor, excluded: torch.Tensor
) -> torch.Tensor:
    """Return the mean loss of examples, a scalar.

    ``scores`` (b, n) are each example's with all texts of the batch, ``chosen`` (b,) the right
    one's place, ``excluded`` (b, n) what is no negative.
    """
    return _LOSSES[loss](scores, chosen, excluded)


def _info_nce(scores: torch.Tensor, chosen: torch.Tensor, excluded: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the right text among all (van den Oord et al., 2018), known too as
    multiple negatives ranking."""
    return functional.cross_entropy(scores.masked_fill(excluded, -torch.inf), chosen)


def _pairwise(scores: torch.Tensor, chosen: torch.Tensor, excluded: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the right text against each other one by itself (Burges et al., 2005;
    Rendle et al., 2009), the mean over an example's negatives."""
    is_chosen = functional.one_hot(chosen, scores.shape[1]).bool()
    negatives = ~(excluded | is_chosen)
    right = scores.gather(1, chosen[:, None])  # (b, 1)
    of_pairs = functional.softplus(scores - right) * negatives
    of_each = of_pairs.sum(dim=1) / negatives.sum(dim=1).clamp(min=1)
    return of_each.mean()


_LOSSES = {"info_nce": _info_nce, "pairwise": _pairwise}

"""SequenceNetwork: a shopper's learnt items in order -> a vector that resembles the next one's.

After SASRec (Kang and McAuley, ICDM 2018), with two changes. An item's vector is a projection of
its text's plus a residual of its own, which is left out at random in training: so a new item works
by its text alone. And what attention finds is added to the decayed sum of the history, which is
what the hybrid score looks at: untrained, the network is a text recommender already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Shape:
    """``text_dim`` is the encoder's, ``dim`` of all learnt vectors, ``length`` of the longest
    history. Without ``by_text`` items are known by their residuals alone."""

    text_dim: int
    n_items: int
    dim: int = 64
    layers: int = 2
    heads: int = 2
    length: int = 20
    by_text: bool = True


class SequenceNetwork(nn.Module):
    """``dropout`` is of the network's activations, ``residual_dropout`` the share of items that a
    training step knows by text alone; both act in training only. ``scale`` multiplies inner
    products into log-odds."""

    def __init__(
        self,
        shape: Shape,
        *,
        dropout: float = 0.0,
        residual_dropout: float = 0.0,
        step_decay: float = 0.7,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        dim = shape.dim
        self.shape = shape
        self._residual_dropout = residual_dropout if shape.by_text else 0.0
        if shape.by_text:
            self.text = nn.Linear(shape.text_dim, dim, bias=False)
        self.residual = nn.Embedding(shape.n_items, dim)
        self.place = nn.Embedding(shape.length, dim)
        for table in (self.residual, self.place):
            nn.init.normal_(table.weight, std=0.02)
        self.enter = nn.Linear(dim, dim)
        layer = nn.TransformerEncoderLayer(
            dim, shape.heads, 2 * dim, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.attention = nn.TransformerEncoder(layer, shape.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        self.leave = nn.Linear(dim, dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.dropout = nn.Dropout(dropout)
        self.decay = nn.Parameter(torch.tensor(math.log(step_decay / (1 - step_decay))))
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp()

    def items(self, texts: Tensor, numbers: Tensor) -> Tensor:
        """Return unit vectors, (n, dim), of items with centred unit texts, (n, text_dim).

        ``numbers`` (n,) name the residuals; one of -1 has none.
        """
        known = numbers >= 0
        residuals = self.residual(numbers.clamp(min=0)) * known[:, None]
        if not self.shape.by_text:
            return F.normalize(residuals, dim=1)
        if self.training and self._residual_dropout:
            kept = torch.rand(len(numbers), 1) >= self._residual_dropout
            residuals = residuals * kept
        return F.normalize(self.text(texts) + residuals, dim=1)

    def forward(self, histories: Tensor) -> Tensor:
        """Return unit vectors, (b, l, dim), of what comes after each of a history's items.

        ``histories`` (b, l, dim), oldest first, zero behind the end of the shorter ones: no place
        looks at what lies behind it.
        """
        steps = torch.arange(histories.shape[1])
        hidden = self.enter(histories * math.sqrt(self.shape.dim)) + self.place(steps)
        behind = steps[:, None] < steps[None]
        hidden = self.attention(self.dropout(hidden), mask=behind)
        found = self.leave(self.dropout(self.norm(hidden)))
        ages = (steps[:, None] - steps[None]).clamp(min=0)
        weights = torch.sigmoid(self.decay) ** ages * ~behind  # (l, l)
        recent = F.normalize(weights @ histories, dim=2)
        return F.normalize(recent + found, dim=2)

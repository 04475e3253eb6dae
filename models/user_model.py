"""UserModel: what was learnt of which item comes next, as vectors of items and of shoppers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from models.item_index import Vectors


class UserModel(Protocol):
    """An item fits a shopper as far as the inner product of their learnt vectors goes.

    ``weight`` is what that product counts beside the hybrid score, in units of ``reach``
    (models/hybrid.py). ``history_items`` is how many of a shopper's newest items are looked at.
    """

    @property
    def name(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def weight(self) -> float: ...
    @property
    def history_items(self) -> int: ...

    def items(self, item_ids: Sequence[str], vectors: Vectors) -> Vectors:
        """Return learnt unit vectors, (n, dim), of items with the encoder's unit vectors, (n, m).

        An item that was not there when it learnt is known by its text alone.
        """

    def shoppers(self, histories: Sequence[Vectors]) -> Vectors:
        """Return unit vectors, (b, dim), of histories of learnt vectors, each (n, dim), newest
        last; zero for one of no items."""

"""ItemFacts: what the shop says of an item."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """One catalogue entry; times are epoch ms."""

    item_id: str
    title: str
    updated_ms: int
    in_stock: bool = True
    created_ms: int | None = None
    categories: tuple[str, ...] = ()
    brand: str | None = None
    price: float | None = None
    locale: str | None = None

    @property
    def appeared_ms(self) -> int:
        """Return when the item came into the shop; never after it was last described."""
        return min(self.created_ms or self.updated_ms, self.updated_ms)

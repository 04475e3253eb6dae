"""The simulated shop: seed -> a few hundred items, English and Chinese, of skewed popularity."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from stream.core.events import Item
from stream.demo.tastes import TASTES, Taste
from stream.topics import DAY_MS

DEFAULT_ITEMS = 352
# Most shops sell most of their volume from a few items: rank^-0.9 gives the first fifth about
# two thirds of the acts.
_ITEM_SKEW = 0.9
_TASTE_SKEW = 0.5


@dataclass(frozen=True, slots=True)
class ShopItem:
    """An item as the shop publishes it, and what only the simulation knows of it.

    ``appeal`` is the item's share of all acts in the shop; the appeals of a shop sum to 1.
    """

    item: Item
    taste: str
    appeal: float


class Shop:
    """What is on sale. Item ids carry no hint of the taste, so that only text and acts do."""

    def __init__(self, items: list[ShopItem]) -> None:
        self.items: dict[str, ShopItem] = {each.item.item_id: each for each in items}
        self.of_taste: dict[str, list[ShopItem]] = {}
        for each in items:
            self.of_taste.setdefault(each.taste, []).append(each)

    def __len__(self) -> int:
        return len(self.items)

    def title(self, item_id: str) -> str:
        """Return the title, or the id itself where the shop does not sell it."""
        found = self.items.get(item_id)
        return found.item.title if found else item_id

    def taste(self, item_id: str) -> str | None:
        """Return the name of the item's taste; None where the shop does not sell it."""
        found = self.items.get(item_id)
        return found.taste if found else None


def build_shop(seed: int, now_ms: int, n_items: int = DEFAULT_ITEMS) -> Shop:
    """Return the shop of a seed: the same items, prices and popularity each time.

    ``n_items`` is rounded up to as many for each taste.
    """
    rng = np.random.default_rng(seed)
    per_taste = -(-n_items // len(TASTES))
    # Numbers are dealt at random: neighbours by number have nothing in common.
    numbers = iter(rng.permutation(len(TASTES) * per_taste) + 1)
    items: list[ShopItem] = []
    for taste, taste_appeal in zip(TASTES, _zipf(len(TASTES), _TASTE_SKEW, rng), strict=True):
        appeals = taste_appeal * _zipf(per_taste, _ITEM_SKEW, rng)
        ids = [f"p{next(numbers):04d}" for _ in appeals]
        for item, appeal in zip(_items_of(taste, ids, rng, now_ms), appeals, strict=True):
            items.append(ShopItem(item, taste.name, float(appeal)))
    return Shop(items)


def _items_of(taste: Taste, ids: list[str], rng: np.random.Generator, now_ms: int) -> list[Item]:
    variants = rng.permutation(list(product(taste.brands, taste.adjectives)))
    names = list(taste.products)
    items: list[Item] = []
    for n, item_id in enumerate(ids):
        name = names[n % len(names)]
        # Every product gets its turn, each time in another brand and adjective.
        brand, adjective = variants[(n + n // len(names)) % len(variants)]
        items.append(
            Item(
                item_id=item_id,
                # In a large shop the same product is there in many generations.
                title=taste.title(brand, adjective, name, 1 + n // (len(names) * len(variants))),
                description=taste.description,
                categories=[part.strip() for part in taste.category.split(">")],
                brand=str(brand),
                price=round(taste.products[name] * float(rng.uniform(0.75, 1.3)), 2),
                currency="EUR" if taste.locale == "en" else "CNY",
                created_ms=now_ms - int(rng.integers(1, 720)) * DAY_MS,
                updated_ms=now_ms,
                locale=taste.locale,
            )
        )
    return items


def _zipf(n: int, skew: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return n shares that sum to 1, falling by rank^-skew, in random order."""
    shares = np.arange(1, n + 1, dtype=float) ** -skew
    return rng.permutation(shares / shares.sum())

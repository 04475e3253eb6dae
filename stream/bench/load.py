"""A shop to measure with: its catalogue as the other stages leave it, and what is done in it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.agents.encode import hash_of_text, item_text
from stream.bench.vectors import around_centres, clusters
from stream.core.events import Context, Interaction, InteractionType, Item, Review, Search
from stream.delivery import Output
from stream.messages import ItemEmbedding, ItemNeighbours, to_fp16, to_message
from stream.topics import (
    CLICKSTREAM,
    DAY_MS,
    HOUR_MS,
    ITEM_EMBEDDINGS,
    ITEM_NEIGHBOURS,
    ITEMS,
    REVIEWS,
    SEARCHES,
)

# A few people make most of the acts and a few items get them: shares fall by rank to the power.
_USER_SKEW, _ITEM_SKEW = 0.5, 0.9
_KINDS: dict[InteractionType, float] = {
    "view": 0.55,
    "click": 0.25,
    "add_to_cart": 0.1,
    "purchase": 0.07,
    "dislike": 0.03,
}
#: Of a mix; all else are acts on items.
_SEARCHES, _REVIEWS = 0.08, 0.02
#: Of the searches; the others say what an earlier one did.
_NEW_QUERIES = 0.18
_WORDS = """
warm light blue green soft strong small large cotton leather steel wood paper glass winter summer
garden kitchen office travel running shoes jacket lamp table chair bottle phone case cable cream tea
coffee book game puzzle mirror
"""
#: Items taken together with an item, as counted from pairs.
_NEIGHBOURS = 32
#: The first acts are spread over so long before they are stored, later ones over the time since.
_BACKLOG_MS = 12 * HOUR_MS


def wall_ms() -> int:
    """Return the time, epoch milliseconds."""
    return time.time_ns() // 1_000_000


class Load:
    """``n_users`` who act on ``n_items``; the same seed does the same."""

    def __init__(self, n_users: int, n_items: int, seed: int = 1) -> None:
        self._rng = np.random.default_rng(seed)
        self._n_users, self._n_items, self._n_acts = n_users, n_items, 0
        self._users, self._items = _skewed(n_users, _USER_SKEW), _skewed(n_items, _ITEM_SKEW)
        self._latest_ms = wall_ms() - _BACKLOG_MS
        self._queries: list[str] = []

    def catalogue(self, encoder_id: str, dim: int) -> list[Output]:
        """Return every item, its vector and its neighbours, as messages."""
        now_ms = wall_ms()
        items = [
            Item(
                item_id=f"i{number}",
                title=f"item number {number}",
                categories=["all"],
                price=round(5 + number % 95 + 0.99, 2),
                created_ms=now_ms - (1 + number % 700) * DAY_MS,
                updated_ms=now_ms,
            )
            for number in range(self._n_items)
        ]
        return catalogue_of(items, clusters(self._rng, len(items)), encoder_id, dim, self._rng)

    def acts(self, n: int) -> list[Output]:
        """Return n messages of ``clickstream``, oldest first: since those before, until now."""
        rng, since_ms, self._latest_ms = self._rng, self._latest_ms, wall_ms()
        users = self._users.searchsorted(rng.random(n)).tolist()
        items = self._items.searchsorted(rng.random(n)).tolist()
        kinds = rng.choice(list(_KINDS), n, p=list(_KINDS.values())).tolist()
        first, self._n_acts = self._n_acts, self._n_acts + n
        return [
            self._act(first + i, f"u{users[i]}", f"i{items[i]}", kinds[i], at_ms)
            for i, at_ms in enumerate(
                np.linspace(since_ms, self._latest_ms, n, dtype=np.int64).tolist()
            )
        ]

    def mix(self, n: int) -> list[Output]:
        """Return n messages: acts as ``acts`` has them, and 8 % searches and 2 % reviews."""
        kinds, mixed = self._rng.random(n), self.acts(n)
        for place in np.flatnonzero(kinds < _SEARCHES + _REVIEWS).tolist():
            key = mixed[place].key or b""
            act = msgspec.json.decode(mixed[place].value or b"", type=Interaction)
            event: Search | Review
            if kinds[place] < _SEARCHES:
                event, topic = self._search(act), SEARCHES.name
            else:
                event, topic = self._review(act), REVIEWS.name
            mixed[place] = Output(topic, key, msgspec.json.encode(event))
        return mixed

    def _search(self, act: Interaction) -> Search:
        if not self._queries or self._rng.random() < _NEW_QUERIES:
            self._queries.append(self._words(4))
        query = self._queries[int(self._rng.integers(len(self._queries)))]
        return Search(
            event_id=act.event_id,
            user_id=act.user_id,
            query=query,
            event_time_ms=act.event_time_ms,
        )

    def _review(self, act: Interaction) -> Review:
        return Review(
            event_id=act.event_id,
            user_id=act.user_id,
            item_id=act.item_id,
            text=self._words(30),
            event_time_ms=act.event_time_ms,
            rating=5.0,
        )

    def _words(self, n: int) -> str:
        return " ".join(self._rng.choice(_WORDS.split(), n).tolist())

    def one_act_each(self) -> list[Output]:
        """Return an act of every user, so that all of them have a row."""
        now_ms = wall_ms()
        items = self._items.searchsorted(self._rng.random(self._n_users)).tolist()
        return [
            self._act(-1 - number, f"u{number}", f"i{items[number]}", "view", now_ms - HOUR_MS)
            for number in range(self._n_users)
        ]

    def _act(
        self, number: int, user_id: str, item_id: str, kind: InteractionType, at_ms: int
    ) -> Output:
        act = Interaction(
            event_id=f"e{number}",
            user_id=user_id,
            item_id=item_id,
            type=kind,
            event_time_ms=at_ms,
            session_id=f"{user_id}-{at_ms // HOUR_MS}",
            context=Context(channel="web", device="phone", region="eu"),
            dwell_ms=1200 if kind == "view" else None,
            price=19.99 if kind == "purchase" else None,
            quantity=1 if kind == "purchase" else None,
            currency="EUR" if kind == "purchase" else None,
        )
        return Output(CLICKSTREAM.name, user_id.encode(), msgspec.json.encode(act))


def catalogue_of(
    items: Sequence[Item],
    labels: NDArray[np.int64],
    encoder_id: str,
    dim: int,
    rng: np.random.Generator,
) -> list[Output]:
    """Return items, vectors and neighbours as messages.

    Items with the same label, shape (len(items),), are alike.
    """
    vectors = around_centres(rng, labels, dim)
    alike = [np.flatnonzero(labels == label) for label in range(int(labels.max()) + 1)]
    outputs: list[Output] = []
    for item, vector, label in zip(items, vectors, labels.tolist(), strict=True):
        key, raw = item.item_id.encode(), msgspec.json.encode(item)
        embedding = ItemEmbedding(
            item_id=item.item_id,
            encoder=encoder_id,
            dim=dim,
            text_hash=hash_of_text(item_text(item)),
            vector=to_fp16(vector),
        )
        others = [items[row].item_id for row in rng.choice(alike[label], _NEIGHBOURS).tolist()]
        neighbours = ItemNeighbours(
            item_id=item.item_id,
            as_of_ms=item.updated_ms,
            n_users=100.0,
            neighbours=[
                (other, 30.0 / (1 + place))
                for place, other in enumerate(dict.fromkeys(others))
                if other != item.item_id
            ],
            popularity=10.0,
            regions={"eu": 10.0},
        )
        outputs += [
            Output(ITEMS.name, key, raw),
            Output(ITEM_EMBEDDINGS.name, key, to_message(embedding)),
            Output(ITEM_NEIGHBOURS.name, key, to_message(neighbours)),
        ]
    return outputs


def _skewed(n: int, power: float) -> NDArray[np.float64]:
    """Return the running sums of n shares that fall by rank, shape (n,), the last of them 1."""
    sums = np.cumsum(np.arange(1, n + 1, dtype=float) ** -power)
    return np.asarray(sums / sums[-1])

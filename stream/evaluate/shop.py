"""LiveShop: the stream's own fold, counts, index and ranker, one micro-batch after the other.

What a worker would answer, without the broker between its parts: stream/core/fold.py folds users'
states, stream/core/item_state.py items' counts, models/recommender.py makes the lists.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.catalogue import Catalogue
from models.faiss_index import faiss_index
from models.items import ItemFacts
from models.learnt_items import LearntItems
from models.learnt_ranking import Choices
from models.profile import Profile
from models.recommender import Recommender
from models.trained_ranker import TrainedRanker
from models.user_model import UserModel
from stream.agents.item_vectors import ItemVectors
from stream.catalog_writer import facts_of
from stream.core.events import Interaction, Review, Search
from stream.core.fold import Sourced, Touch, fold
from stream.core.item_state import (
    CountingRules,
    ItemState,
    fold_batch,
    to_neighbours,
    touches_by_item,
)
from stream.core.pairs import pair_messages
from stream.core.profiles import profiles_of
from stream.core.user_state import Rules, UserState
from stream.messages import read_item_pairs
from stream.settings import Settings
from stream.topics import CLICKSTREAM, DAY_MS, HOUR_MS, REVIEWS, SEARCHES

_SOURCE_OF = {Interaction: CLICKSTREAM.name, Search: SEARCHES.name, Review: REVIEWS.name}
_NO_TEXTS: Mapping[str, NDArray[np.float32]] = {}


class LiveShop:
    """Users and items of one shop, as the settings say."""

    def __init__(
        self,
        settings: Settings,
        items: Sequence[ItemFacts],
        vectors: NDArray[np.float32],
        user_model: UserModel | None = None,
    ) -> None:
        """``vectors`` are the encoder's of the items, unit, shape (len(items), dim)."""
        dim = vectors.shape[1]
        self._rules = Rules.of(settings)
        self._counting = CountingRules(
            cooccurrence_half_life_ms=settings.cooccurrence_half_life_d * DAY_MS,
            popularity_half_life_ms=settings.popularity_half_life_h * HOUR_MS,
            neighbours_kept=settings.neighbours_kept,
        )
        self._catalogue = Catalogue(
            dim,
            partial(faiss_index, dim),
            cooccurrence_half_life_ms=self._counting.cooccurrence_half_life_ms,
            popularity_half_life_ms=self._counting.popularity_half_life_ms,
            cooccurrence_ridge=settings.cooccurrence_ridge,
            learnt=_learnt(user_model),
        )
        self._settings = settings
        self.use(user_model)
        self._catalogue.put_items(items)
        self._catalogue.put_vectors([item.item_id for item in items], vectors)
        self._catalogue.rebuild()
        self._users: dict[str, UserState] = {}
        self._items: dict[str, ItemState] = {}
        self._untold: set[str] = set()
        self._n_batches = 0
        self._n_events = 0

    def use(
        self,
        user_model: UserModel | None,
        ranker: TrainedRanker | None = None,
        trend: float | None = None,
    ) -> None:
        """Rank from now on with the model that the shop was opened with, or without it; with a
        ranker, or by the hybrid score; and by another power of trends than the settings'."""
        settings = self._settings
        self._recommender = Recommender(
            self._catalogue,
            text_share=settings.text_share,
            step_decay=settings.step_decay,
            trend=settings.trend if trend is None else trend,
            diversity=settings.diversity,
            n_candidates=settings.n_candidates,
            user_model=user_model,
            ranker=ranker,
        )

    def learn(
        self,
        events: Sequence[Interaction | Search | Review],
        counting: bool = True,
        texts: Mapping[str, NDArray[np.float32]] = _NO_TEXTS,
    ) -> None:
        """Fold one micro-batch, each user's acts in order; not ``counting``, into states alone.

        ``texts`` are the encoder's vectors, (dim,), of searches and reviews by event id.
        """
        by_user: defaultdict[str, list[Sourced]] = defaultdict(list)
        for event in events:
            source, at_ms = _SOURCE_OF[type(event)], event.event_time_ms
            vector = texts.get(event.event_id)
            place = Sourced(source, 0, self._n_events, at_ms, event, vector=vector)
            by_user[event.user_id].append(place)
            self._n_events += 1
        items = (e.item_id for e in events if not isinstance(e, Search))
        vectors = ItemVectors(self._catalogue, items)
        touches: list[Touch] = []
        for user_id, acts in by_user.items():
            folded = fold(self._users.get(user_id, UserState()), acts, vectors, self._rules)
            self._users[user_id] = folded.state
            touches += folded.touches
        if counting:
            self._count(touches)

    def _count(self, touches: Sequence[Touch]) -> None:
        offset, self._n_batches = self._n_batches, self._n_batches + 1
        if not touches:
            return
        messages = pair_messages(touches, lambda _: 0, source_partition=0, sequence=offset)
        told = [(offset, read_item_pairs(raw)) for _, raw in messages]
        changed = fold_batch(self._items, touches_by_item(told), self._counting)
        self._items |= changed
        self._untold |= changed.keys()

    def _tell(self) -> None:
        """Have the catalogue follow the counts, as it does in a worker; nobody looks before."""
        for item_id in self._untold:
            told = to_neighbours(self._items[item_id], self._counting)
            self._catalogue.put_neighbours(facts_of(told))
        self._untold.clear()
        if self._catalogue.correlate_due:
            self._catalogue.correlate()

    def recommend(self, user_ids: Sequence[str], k: int, now_ms: int) -> list[list[str]]:
        """Return what each user would be shown now, best first."""
        lists = self._recommender.recommend(self._profiles(user_ids, now_ms), k, now_ms)
        return [[ranked.item_id for ranked in of_user] for of_user in lists]

    def choices(self, user_ids: Sequence[str], k: int, now_ms: int) -> Choices:
        """Return what lists of k items would be chosen from now; of few users at a time."""
        return self._recommender.choices(self._profiles(user_ids, now_ms), k, now_ms)

    def has_taken(self, user_id: str, item_id: str) -> bool:
        """True when an act of the user on the item is among those that are kept."""
        state = self._users.get(user_id)
        return state is not None and any(act.item_id == item_id for act in state.acts)

    def _profiles(self, user_ids: Sequence[str], now_ms: int) -> list[Profile]:
        self._tell()
        states = [self._users.get(user_id, UserState()) for user_id in user_ids]
        return profiles_of(states, self._catalogue.raw_vectors, now_ms, self._rules)


def _learnt(model: UserModel | None) -> LearntItems | None:
    return None if model is None else LearntItems(model, partial(faiss_index, model.dim))

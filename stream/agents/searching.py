"""Searches of a micro-batch -> search-results, each answered in the commit that folds it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import perf_counter

from models.catalogue import Catalogue
from models.matches import Match, Query
from models.reranking import RerankFailed, Reranking
from models.search import ItemSearch
from models.tokenise import load_dictionary, needs_dictionary
from stream.agents.interests import Interests
from stream.agents.work import Work
from stream.core.drafts import UserDraft, user_key
from stream.core.events import Search
from stream.core.fold import Sourced
from stream.core.search_results import search_results_id, to_search_results
from stream.engine.commits import Committer, Effect
from stream.messages import ModelInfo, to_message
from stream.topics import SEARCH_RESULTS

log = logging.getLogger(__name__)

#: Searches answered between two breaths of the event loop: some milliseconds.
SLICE = 8


class Searching:
    """Answers every search once, whoever asks: a search is a direct request.

    Who is not to be profiled is answered without a profile, who has been erased not at all.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        search: ItemSearch,
        committer: Committer,
        interests: Interests | None,
        *,
        encoder_id: str,
        k: int,
        reranking: Reranking | None = None,
    ) -> None:
        """``interests`` None: everyone is shown the same; ``reranking`` None: as found."""
        self._catalogue = catalogue
        self._search = search
        self._committer = committer
        self._interests = interests
        self._encoder_id = encoder_id
        self._k = k
        self._reranking = reranking

    async def publish(self, work: Work, now_ms: int) -> None:
        """Add the answers to the commit."""
        asked = [
            (draft, search)
            for draft in work.drafts
            for search in draft.searches
            if not self._committer.was_sent(draft.partition, search_results_id(search))
        ]
        if not asked:
            return
        started = perf_counter()
        reranking = self._reranking
        until = 0.0 if reranking is None else reranking.until()
        for first in range(0, len(asked), SLICE):
            some = asked[first : first + SLICE]
            queries = await self._queries(some, now_ms)
            found = self._search.search(
                queries, max(self._k, 0 if reranking is None else reranking.k)
            )
            anew: Sequence[list[Match] | None] = [None] * len(found)
            if reranking is not None:
                texts = [query.text for query in queries]
                try:
                    anew = await asyncio.to_thread(reranking.reranked, texts, found, until)
                except RerankFailed as error:
                    # An answer in the order found is better than none, and soon.
                    log.warning("searches of a batch are answered without: %s", error)
                    reranking = None
            for (draft, search), matches, better in zip(some, found, anew, strict=True):
                self._add(draft, search, matches, better, work, now_ms)
            await asyncio.sleep(0)
        work.report.seconds["search"] = perf_counter() - started

    async def _queries(
        self, asked: Sequence[tuple[UserDraft, Sourced]], now_ms: int
    ) -> list[Query]:
        queries = []
        for draft, search in asked:
            assert isinstance(search.event, Search)
            assert search.vector is not None, "searches come with their vectors"
            if needs_dictionary(search.event.query):
                await asyncio.to_thread(load_dictionary)
            interest = None if self._interests is None else self._interests.of(draft, now_ms)
            queries.append(Query(search.event.query, search.vector, interest))
        return queries

    def _add(
        self,
        draft: UserDraft,
        search: Sourced,
        matches: Sequence[Match],
        better: Sequence[Match] | None,
        work: Work,
        now_ms: int,
    ) -> None:
        assert isinstance(search.event, Search)
        ranker = self._search.name
        if better is not None:
            assert self._reranking is not None
            matches, ranker = better, f"{ranker}+{self._reranking.name}"
        model = ModelInfo(
            encoder=self._encoder_id, index_version=self._catalogue.version, ranker=ranker
        )
        answer = to_search_results(search.event, matches[: self._k], now_ms=now_ms, model=model)
        work.commit(draft.partition).effects.append(
            Effect(
                search_results_id(search),
                SEARCH_RESULTS.name,
                user_key(draft.user_id),
                to_message(answer),
            )
        )
        work.report.answers[matches[0].source if matches else "nothing"] += 1
        work.report.published(SEARCH_RESULTS.name, search.event_time_ms(), search.timestamp_ms)

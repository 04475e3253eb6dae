"""What a search found -> the message of topic ``search-results``."""

from __future__ import annotations

from collections.abc import Sequence

from models.matches import Match
from stream.core.events import Search
from stream.core.fold import Sourced
from stream.messages import FoundItem, ModelInfo, SearchResults, output_id

#: A query may be as long as a broker takes; its beginning says which one was answered.
MAX_QUERY_CHARS = 1000


def search_results_id(search: Sourced) -> str:
    """Return the id of what a search causes: a repeat after a crash has the same one."""
    return output_id("search-results", search.source, search.partition, search.offset)


def to_search_results(
    search: Search, matches: Sequence[Match], *, now_ms: int, model: ModelInfo
) -> SearchResults:
    """Return the message; ``matches`` are best first."""
    return SearchResults(
        search_event_id=search.event_id,
        query=search.query[:MAX_QUERY_CHARS],
        items=[
            FoundItem(
                item_id=match.item_id, rank=rank, score=round(match.score, 6), source=match.source
            )
            for rank, match in enumerate(matches, start=1)
        ],
        generated_ms=now_ms,
        model=model,
    )

"""What shoppers did with what they were shown: acts by type, and those that name their list."""

from __future__ import annotations

from collections.abc import Iterable

from stream.agents.reports import BatchReport
from stream.core.drafts import UserDraft
from stream.core.events import Interaction
from stream.core.fold import Sourced

#: Once each, and of nobody who declined or is erased.
_COUNTED = frozenset(("folded", "unknown_item"))


def count_acts(drafts: Iterable[UserDraft], report: BatchReport) -> None:
    """Count the acts of drafts that were folded; a shop tells of a list by its id in the act."""
    report.acts.update(
        (content.event.type, content.event.recommendation_id is not None)
        for draft in drafts
        for taken, outcome in zip(draft.taken, draft.outcomes, strict=True)
        if outcome in _COUNTED
        and isinstance(content := taken.content, Sourced)
        and isinstance(content.event, Interaction)
    )

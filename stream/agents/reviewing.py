"""Reviews of a micro-batch -> review-insights, each told of in the commit that folds it."""

from __future__ import annotations

from stream.agents.work import Work
from stream.core.review_insights import review_insight_id, to_review_insight
from stream.engine.commits import Committer, Effect
from stream.messages import to_message
from stream.topics import REVIEW_INSIGHTS


def add_insights(work: Work, committer: Committer) -> None:
    """Add what the reviews say to the commit; those of who is erased or declined are not there."""
    for draft in work.drafts:
        for review in draft.reviews:
            effect_id = review_insight_id(review)
            if committer.was_sent(draft.partition, effect_id):
                continue
            insight = to_review_insight(review)
            work.commit(draft.partition).effects.append(
                Effect(
                    effect_id, REVIEW_INSIGHTS.name, insight.item_id.encode(), to_message(insight)
                )
            )
            work.report.published(REVIEW_INSIGHTS.name, review.event_time_ms(), review.timestamp_ms)

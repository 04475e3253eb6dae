"""A review that a model has read -> the message of topic ``review-insights``."""

from __future__ import annotations

from stream.core.events import Review
from stream.core.fold import Sourced
from stream.messages import ReviewInsight, output_id


def review_insight_id(review: Sourced) -> str:
    """Return the id of what a review causes: a repeat after a crash has the same one."""
    return output_id("review-insights", review.source, review.partition, review.offset)


def to_review_insight(sourced: Sourced) -> ReviewInsight:
    """Return the message of a review that comes with its sentiment."""
    review, said = sourced.event, sourced.sentiment
    assert isinstance(review, Review)
    assert said is not None, "reviews are told of once a model has read them"
    satisfaction = said.content if review.rating is None else (review.rating - 1) / 4
    return ReviewInsight(
        review_event_id=review.event_id,
        item_id=review.item_id,
        user_id=review.user_id,
        sentiment=round(said.sentiment, 4),
        satisfaction=round(satisfaction, 4),
        model=said.model,
    )

"""What the recommender chose -> the message of topic ``recommendations``; and when it is due."""

from __future__ import annotations

from models.profile import RecommendedItem
from stream.messages import ModelInfo, Recommendation, Trigger, output_id


def recommendation_id(trigger: Trigger) -> str:
    """Return the id of what a trigger causes: a repeat after a crash has the same one."""
    return output_id("recommendation", trigger.topic, trigger.partition, trigger.offset)


def is_due(recommended_ms: int, now_ms: int, min_interval_ms: int) -> bool:
    """True when the user's last recommendation is long enough ago (or in a future clock's time)."""
    return not 0 <= now_ms - recommended_ms < min_interval_ms


def to_recommendation(
    user_id: str,
    trigger: Trigger,
    items: list[RecommendedItem],
    *,
    cold_start: bool,
    now_ms: int,
    ttl_ms: int,
    model: ModelInfo,
) -> Recommendation:
    """Return the message; ``items`` is best first."""
    return Recommendation(
        recommendation_id=recommendation_id(trigger),
        user_id=user_id,
        generated_ms=now_ms,
        expires_ms=now_ms + ttl_ms,
        trigger=trigger,
        items=items,
        cold_start=cold_start,
        variant="default",
        model=model,
    )

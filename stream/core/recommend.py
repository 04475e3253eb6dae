"""What the recommender chose -> the message of topic ``recommendations``; and when it is due."""

from __future__ import annotations

from collections.abc import Sequence

from models.profile import Ranked
from models.profile import Reason as WhyPicked
from stream import messages
from stream.messages import ModelInfo, Recommendation, RecommendedItem, Trigger, output_id


def recommendation_id(trigger: Trigger) -> str:
    """Return the id of what a trigger causes: a repeat after a crash has the same one."""
    return output_id("recommendation", trigger.topic, trigger.partition, trigger.offset)


def is_due(recommended_ms: int, now_ms: int, min_interval_ms: int) -> bool:
    """True when the user's last recommendation is long enough ago (or in a future clock's time)."""
    return not 0 <= now_ms - recommended_ms < min_interval_ms


def to_recommendation(
    user_id: str,
    trigger: Trigger,
    ranked: Sequence[Ranked],
    *,
    cold_start: bool,
    now_ms: int,
    ttl_ms: int,
    model: ModelInfo,
) -> Recommendation:
    """Return the message; ``ranked`` is best first."""
    return Recommendation(
        recommendation_id=recommendation_id(trigger),
        user_id=user_id,
        generated_ms=now_ms,
        expires_ms=now_ms + ttl_ms,
        trigger=trigger,
        items=[_item(rank, item) for rank, item in enumerate(ranked, start=1)],
        cold_start=cold_start,
        variant="default",
        model=model,
    )


def _item(rank: int, item: Ranked) -> RecommendedItem:
    return RecommendedItem(
        item_id=item.item_id,
        rank=rank,
        score=round(item.score, 6),
        source=item.source,
        reasons=[_reason(reason) for reason in item.reasons],
    )


def _reason(why: WhyPicked) -> messages.Reason:
    is_query = why.kind == "matches_search"
    return messages.Reason(
        kind=why.kind,
        weight=round(why.weight, 4),
        item_id=why.item_id,
        query=why.text if is_query else None,
        text=None if is_query else why.text,
    )

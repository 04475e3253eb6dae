"""The names of our consumer groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream.settings import Settings


def group_of(settings: Settings, tier: str) -> str:
    """Return the consumer group of a tier."""
    return f"{settings.topic_prefix}{settings.group_prefix}-{tier}"

"""The names of our consumer groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream.settings import Settings


def group_of(settings: Settings, tier: str) -> str:
    """Return the consumer group of a tier."""
    return f"{settings.topic_prefix}{settings.state_prefix}{settings.group_prefix}-{tier}"


def group_of_acts(settings: Settings) -> str:
    """Return the group by which `prefstream pseudonymise` reads what users do."""
    return f"{settings.topic_prefix}{settings.group_prefix}-pseudonymise"


def group_of_users(settings: Settings, key_id: str) -> str:
    """Return the group by which it reads who users are, under one key."""
    return f"{group_of_acts(settings)}-users-{key_id}"

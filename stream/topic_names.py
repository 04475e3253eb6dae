"""Full names of topics on the brokers, and back.

What the shop writes is behind the setting topic_prefix. What follows from it is behind state_prefix
as well: a second state, of another encoder or version, is made from the same source topics while
the first one serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream.topics import TOPICS

if TYPE_CHECKING:
    from stream.settings import Settings

#: What others than our tiers write.
SOURCES = frozenset(spec.name for spec in TOPICS if spec.role == "in")


def full_name(settings: Settings, topic: str) -> str:
    """Return what a topic is called on the brokers."""
    state = "" if topic in SOURCES else settings.state_prefix
    return f"{settings.topic_prefix}{state}{topic}"


def short_name(settings: Settings, full: str) -> str:
    """Return the topic of a full name."""
    name = full.removeprefix(settings.topic_prefix)
    return name if name in SOURCES else name.removeprefix(settings.state_prefix)


class FullNames(dict[str, str]):
    """``full_name`` of each topic, made when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def __missing__(self, topic: str) -> str:
        self[topic] = full_name(self._settings, topic)
        return self[topic]

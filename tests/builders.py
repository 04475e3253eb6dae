"""Values with every field filled: a test names only what matters to it."""

from __future__ import annotations

from typing import Any

import msgspec

from stream.core.events import Interaction, Item, Review, Search, User
from stream.delivery import SourceMessage

NOW_MS = 1_760_000_000_000


def interaction(**fields: Any) -> Interaction:
    base = {"event_id": "e1", "user_id": "u1", "item_id": "i1", "type": "click"}
    return Interaction(**{**base, "event_time_ms": NOW_MS, **fields})


def search(**fields: Any) -> Search:
    base = {"event_id": "s1", "user_id": "u1", "query": "red boots", "event_time_ms": NOW_MS}
    return Search(**{**base, **fields})


def review(**fields: Any) -> Review:
    base = {"event_id": "r1", "user_id": "u1", "item_id": "i1", "text": "very good"}
    return Review(**{**base, "event_time_ms": NOW_MS, **fields})


def item(**fields: Any) -> Item:
    return Item(**{"item_id": "i1", "title": "Red boots", "updated_ms": NOW_MS, **fields})


def user(**fields: Any) -> User:
    return User(**{"user_id": "u1", "updated_ms": NOW_MS, **fields})


def message(topic: str, event: Any, offset: int = 0, **fields: Any) -> SourceMessage:
    """The message that carries an event (or raw bytes, or None) as a producer would send it."""
    raw = event if event is None or isinstance(event, bytes) else msgspec.json.encode(event)
    key = getattr(event, "item_id" if topic == "items" else "user_id", "u1")
    base = {"partition": 0, "timestamp_ms": NOW_MS, "key": key.encode()}
    return SourceMessage(topic=topic, offset=offset, value=raw, **{**base, **fields})

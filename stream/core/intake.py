"""intake: a message of the preference tier -> whose it is, and what it says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from msgspec import Struct

from stream.core.events import (
    BadEvent,
    Interaction,
    Review,
    Search,
    User,
    parse_interaction,
    parse_review,
    parse_search,
    parse_user,
)
from stream.core.fold import Sourced
from stream.delivery import SourceMessage
from stream.messages import BadDerived, EmbeddedText, read_embedded_text, vector_of

_TEXT_PARSERS: dict[str, Callable[[bytes | None, bytes | None], Search | Review | User]] = {
    "search": parse_search,
    "review": parse_review,
    "user": parse_user,
}
_TEXT_TOPICS = {"search": "searches", "review": "reviews", "user": "users"}


class Erasure(Struct, frozen=True, gc=False):
    """A tombstone in ``users``: forget this user."""

    offset: int


class Taken(Struct, frozen=True, gc=False):
    """One message, understood."""

    message: SourceMessage
    user_id: str
    content: Sourced | Erasure


def intake(message: SourceMessage, encoder_id: str) -> Taken:
    """Return what a message says; raise BadEvent or BadDerived when it cannot be used."""
    if message.topic == "embedded-texts":
        return _embedded(message, encoder_id)
    if message.topic == "users" and message.value is None:
        return Taken(message, key_of(message), Erasure(message.offset))
    parse = parse_user if message.topic == "users" else parse_interaction
    event: Interaction | User = parse(message.value, message.key)
    return Taken(message, event.user_id, _sourced(message, event))


def key_of(message: SourceMessage) -> str:
    """Return whom a tombstone names; raises BadEvent when it names nobody."""
    try:
        user_id = (message.key or b"").decode()
    except UnicodeDecodeError:
        raise BadEvent("the message key is not UTF-8") from None
    if not user_id:
        raise BadEvent("a tombstone without a key names no user")
    return user_id


def _sourced(message: SourceMessage, event: Interaction | User) -> Sourced:
    return Sourced(
        source=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=message.timestamp_ms,
        event=event,
    )


def _embedded(message: SourceMessage, encoder_id: str) -> Taken:
    if message.value is None:
        raise BadDerived("expected an embedded text, got a null value")
    text: EmbeddedText = read_embedded_text(message.value)
    event = _TEXT_PARSERS[text.kind](text.event, message.key)
    place = text.source
    if place.topic != _TEXT_TOPICS[text.kind]:
        raise BadDerived(f"expected a {text.kind} of topic {_TEXT_TOPICS[text.kind]}")
    vector = vector_of(text, encoder_id)
    # In a sum it would never leave the user's interests again.
    if not np.isfinite(vector).all():
        raise BadDerived("expected finite numbers in the vector")
    sourced = Sourced(
        source="interests" if text.kind == "user" else place.topic,
        partition=place.partition,
        offset=place.offset,
        timestamp_ms=place.timestamp_ms,
        event=event,
        vector=vector,
        sentiment=text.sentiment,
    )
    return Taken(message, event.user_id, sourced)

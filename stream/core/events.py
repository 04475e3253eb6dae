"""The events that come in: their types, and bytes -> checked value.

Each ``parse_*`` checks a message once, at the edge, so that nothing after it has to. The JSON
Schemas served by ``prefstream schema`` are generated from these same types.
"""

from __future__ import annotations

from types import EllipsisType
from typing import Annotated, Any, Literal, Protocol, TypeVar

import msgspec
from msgspec import Meta, Struct

Id = Annotated[str, Meta(min_length=1, max_length=256)]
# Up to the year 5138: room for any real clock, and exact in a double.
EpochMs = Annotated[int, Meta(gt=0, lt=10**14, description="epoch milliseconds, UTC")]
Text = Annotated[str, Meta(max_length=100_000)]
Amount = Annotated[float, Meta(ge=0)]

InteractionType = Literal[
    "impression",
    "view",
    "click",
    "add_to_cart",
    "remove_from_cart",
    "favorite",
    "purchase",
    "dislike",
]


class BadEvent(ValueError):
    """A message that can never be processed; the text names the field, never its value."""


class Context(Struct, frozen=True, omit_defaults=True, gc=False):
    """Where the shopper acted."""

    channel: str | None = None
    device: str | None = None
    region: str | None = None


class Interaction(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One act on an item (topic ``clickstream``)."""

    event_id: Id
    user_id: Id
    item_id: Id
    type: InteractionType
    event_time_ms: EpochMs
    session_id: str | None = None
    quantity: Annotated[float, Meta(gt=0)] | None = None
    price: Amount | None = None
    currency: str | None = None
    dwell_ms: Annotated[int, Meta(ge=0)] | None = None
    position: Annotated[int, Meta(ge=0)] | None = None
    recommendation_id: str | None = None
    context: Context | None = None


class Search(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One query typed by a shopper (topic ``searches``)."""

    event_id: Id
    user_id: Id
    query: Annotated[str, Meta(min_length=1, max_length=100_000)]
    event_time_ms: EpochMs
    session_id: str | None = None
    locale: str | None = None
    clicked_item_ids: list[Id] = []


class Review(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One review of an item (topic ``reviews``)."""

    event_id: Id
    user_id: Id
    item_id: Id
    text: Text
    event_time_ms: EpochMs
    rating: Annotated[float, Meta(ge=1, le=5)] | None = None
    title: Text | None = None
    locale: str | None = None


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One catalogue entry (topic ``items``, compacted)."""

    item_id: Id
    title: Text
    updated_ms: EpochMs
    description: Text | None = None
    categories: list[str] = []
    brand: str | None = None
    tags: list[str] = []
    price: Amount | None = None
    currency: str | None = None
    in_stock: bool = True
    created_ms: EpochMs | None = None
    image_url: str | None = None
    locale: str | None = None


class User(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What the shop states about a shopper (topic ``users``, compacted)."""

    user_id: Id
    updated_ms: EpochMs
    interests: list[str] = []
    locale: str | None = None
    region: str | None = None
    personalize: bool = True


Event_co = TypeVar("Event_co", bound=Struct, covariant=True)


class Parser(Protocol[Event_co]):
    """Bytes -> checked event."""

    def __call__(self, raw: bytes | None, key: bytes | EllipsisType | None = ...) -> Event_co:
        """Return the event; raise BadEvent, and nothing else, when it is not one.

        ``key`` is the message's key as the broker gave it; leave it out where there is none to
        check (a file).
        """


def _parser(event_type: type[Event_co], key_field: str) -> Parser[Event_co]:
    decoder = msgspec.json.Decoder(event_type)

    def parse(raw: bytes | None, key: bytes | EllipsisType | None = ...) -> Event_co:
        if raw is None:
            raise BadEvent(f"expected a value of type {event_type.__name__}, got null")
        try:
            event = decoder.decode(raw)
        except msgspec.ValidationError as error:
            raise BadEvent(_without_values(str(error))) from None
        except UnicodeDecodeError:
            raise BadEvent("not JSON: not UTF-8") from None
        except msgspec.DecodeError as error:
            raise BadEvent(f"not JSON: {error}") from None
        except RecursionError:
            raise BadEvent("not JSON: nested too deeply") from None
        # The key decides the partition, and so the owner of the state: a message keyed
        # otherwise would be folded by a worker that does not hold this user or item.
        if key is not ... and key != getattr(event, key_field).encode():
            problem = "has no key" if key is None else "has another key"
            raise BadEvent(f"the message {problem}; expected its `{key_field}`")
        return event

    return parse


def _without_values(reason: str) -> str:
    """Cut what a decoder quotes of the message: a reason must not carry personal data."""
    if "Invalid enum value" not in reason:
        return reason
    return "Invalid enum value - at " + reason.rsplit(" - at ", 1)[-1]


parse_interaction = _parser(Interaction, "user_id")
parse_search = _parser(Search, "user_id")
parse_review = _parser(Review, "user_id")
parse_item = _parser(Item, "item_id")
parse_user = _parser(User, "user_id")

#: Source topic (without prefix) -> parser; what ``validate``, ``replay`` and the agents share.
PARSERS: dict[str, Parser[Any]] = {
    "clickstream": parse_interaction,
    "searches": parse_search,
    "reviews": parse_review,
    "items": parse_item,
    "users": parse_user,
}

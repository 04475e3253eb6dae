from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import json_values, values_of

from stream.core.events import (
    PARSERS,
    BadEvent,
    Interaction,
    Item,
    Review,
    Search,
    User,
    parse_interaction,
)

TYPES: dict[str, type[msgspec.Struct]] = {
    "clickstream": Interaction,
    "searches": Search,
    "reviews": Review,
    "items": Item,
    "users": User,
}
KEY_FIELD = {"items": "item_id"}
VALID = b'{"event_id":"e","user_id":"u","item_id":"i","type":"view","event_time_ms":5%s}'
MARK = "wh0-b0ught-what"

topics = st.sampled_from(sorted(PARSERS))
events = topics.flatmap(lambda topic: st.tuples(st.just(topic), values_of(TYPES[topic])))


def parses_or_refuses(topic: str, raw: bytes | None, key: bytes | None = None) -> None:
    """Anything but a value or a BadEvent fails the test by being raised."""
    with suppress(BadEvent):
        PARSERS[topic](raw, key)


def test_every_topic_has_a_parser_and_a_type_here():
    assert set(TYPES) == set(PARSERS)


@given(events)
def test_a_valid_value_comes_back_as_it_went(topic_and_event: tuple[str, Any]):
    topic, event = topic_and_event
    key = getattr(event, KEY_FIELD.get(topic, "user_id")).encode()
    assert PARSERS[topic](msgspec.json.encode(event), key) == event


@given(topics, st.none() | st.binary(max_size=200), st.none() | st.binary(max_size=8))
@example("clickstream", None, None)
@example("clickstream", b"", b"")
@example("items", b"null", b"i")
@example("users", b"\xef\xbb\xbf{}", b"u")
@example("clickstream", b"[" * 200_000, b"u")
@example("clickstream", b'{"x":' * 100_000, b"u")
@example("clickstream", b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"u")
@example("clickstream", VALID % b',"session_id":"\xff\xfe"', b"u")
@example("clickstream", VALID % b',"session_id":"\\ud800"', b"u")
@example("clickstream", VALID % b',"session_id":"\\udc00\\ud800"', b"u")
@example("clickstream", VALID % b',"session_id":"\xed\xa0\x80"', b"u")
@example("clickstream", VALID % b',"price":NaN', b"u")
@example("clickstream", VALID % b',"price":Infinity', b"u")
@example("clickstream", VALID % b',"price":1e999', b"u")
@example("clickstream", VALID % (b',"price":' + b"9" * 10_000), b"u")
@example("clickstream", VALID % (b',"dwell_ms":' + b"9" * 10_000), b"u")
@example("clickstream", VALID % b',"dwell_ms":18446744073709551616', b"u")
def test_arbitrary_bytes_parse_or_are_a_bad_event(topic: str, raw: bytes | None, key: bytes | None):
    parses_or_refuses(topic, raw, key)


@given(topics, json_values)
def test_arbitrary_json_parses_or_is_a_bad_event(topic: str, value: Any):
    parses_or_refuses(topic, msgspec.json.encode(value))


@given(events, st.data())
def test_a_damaged_event_parses_or_is_a_bad_event(topic_and_event: Any, data: st.DataObject):
    topic, event = topic_and_event
    raw = bytearray(msgspec.json.encode(event))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    parses_or_refuses(topic, bytes(raw))


@given(events, st.dictionaries(st.text(min_size=1, max_size=9).map("x_".__add__), json_values))
def test_unknown_fields_change_nothing(topic_and_event: Any, more: dict[str, Any]):
    topic, event = topic_and_event
    raw = msgspec.json.encode({**msgspec.to_builtins(event), **more})
    assert PARSERS[topic](raw) == event


@given(events, st.data())
def test_the_error_names_the_field_and_quotes_nothing(topic_and_event: Any, data: st.DataObject):
    topic, event = topic_and_event
    fields = msgspec.to_builtins(event)
    name = data.draw(st.sampled_from([f.encode_name for f in msgspec.structs.fields(type(event))]))
    wrong = {"personal": MARK, "name": [MARK]}
    if name == "context":
        fields["context"] = {"region": wrong}
    else:
        fields[name] = wrong
    with pytest.raises(BadEvent) as caught:
        PARSERS[topic](msgspec.json.encode(fields))
    assert name in str(caught.value)
    assert MARK not in str(caught.value)


@pytest.mark.parametrize("where", ["type", "event_id", "price", "context", "event_time_ms"])
@given(value=st.text(st.characters(exclude_categories=["Cs"]), max_size=5).map(MARK.__add__))
def test_no_text_of_the_message_reaches_the_error(where: str, value: str):
    fields: dict[str, Any] = msgspec.json.decode(VALID % b"")
    fields |= {where: f"{value} - at `$.{value}`" if where != "event_id" else [value]}
    with pytest.raises(BadEvent) as caught:
        parse_interaction(msgspec.json.encode(fields))
    assert MARK not in str(caught.value)
    assert where in str(caught.value)

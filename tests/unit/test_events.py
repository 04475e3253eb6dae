from __future__ import annotations

import time

import msgspec
import pytest
from builders import interaction

from stream.core.events import PARSERS, BadEvent, parse_interaction, parse_item, parse_user


def raw(**fields: object) -> bytes:
    return msgspec.json.encode({**msgspec.to_builtins(interaction()), **fields})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"type": "teleport"}, "$.type"),
        ({"type": None}, "$.type"),
        ({"user_id": ""}, "$.user_id"),
        ({"user_id": 7}, "$.user_id"),
        ({"user_id": "u" * 257}, "$.user_id"),
        ({"event_time_ms": 0}, "$.event_time_ms"),
        ({"event_time_ms": -5}, "$.event_time_ms"),
        ({"event_time_ms": 10**14}, "$.event_time_ms"),
        ({"event_time_ms": 1.5}, "$.event_time_ms"),
        ({"event_time_ms": "2026-01-01"}, "$.event_time_ms"),
        ({"price": -0.01}, "$.price"),
        ({"quantity": 0}, "$.quantity"),
        ({"quantity": True}, "$.quantity"),
        ({"context": "web"}, "$.context"),
        ({"context": {"region": 1}}, "$.context.region"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, object], named: str):
    with pytest.raises(BadEvent) as caught:
        parse_interaction(raw(**fields))
    assert f"`{named}`" in str(caught.value)


@pytest.mark.parametrize("name", ["event_id", "user_id", "item_id", "type", "event_time_ms"])
def test_a_missing_required_field_is_named(name: str):
    fields = msgspec.to_builtins(interaction())
    del fields[name]
    with pytest.raises(BadEvent, match=f"missing required field `{name}`"):
        parse_interaction(msgspec.json.encode(fields))


def test_seconds_instead_of_milliseconds_still_parse():
    """They cannot be told from old events here; the fold treats them as late."""
    assert parse_interaction(raw(event_time_ms=1_700_000_000)).event_time_ms == 1_700_000_000


def test_a_null_for_an_optional_field_is_its_absence():
    assert parse_interaction(raw(price=None, context=None)) == interaction()


@pytest.mark.parametrize(
    ("key", "problem"), [(b"someone-else", "another"), (b"", "another"), (None, "no")]
)
def test_a_message_that_would_reach_the_wrong_worker_is_refused(key: bytes | None, problem: str):
    with pytest.raises(BadEvent, match=f"the message has {problem} key; expected its `user_id`"):
        parse_interaction(raw(), key)


def test_without_a_key_to_check_the_value_alone_decides():
    assert parse_interaction(raw()) == interaction()


def test_ids_may_be_in_any_script():
    assert parse_interaction(raw(user_id="用户一"), "用户一".encode()).user_id == "用户一"


@pytest.mark.parametrize("parse", [parse_item, parse_user])
def test_a_tombstone_is_not_an_event(parse: object):
    with pytest.raises(BadEvent, match="got null"):
        parse(None, b"i1")  # type: ignore[operator]


@pytest.mark.parametrize("topic", sorted(PARSERS))
@pytest.mark.parametrize("bad", [b"", b"null", b"[]", b"7", b'"text"', b"\x00", b"{"])
def test_what_is_not_an_object_is_refused(topic: str, bad: bytes):
    with pytest.raises(BadEvent):
        PARSERS[topic](bad)


@pytest.mark.bench
def test_a_core_parses_more_than_300_000_events_a_second():
    message = raw(session_id="s1", price=9.5, currency="EUR", context={"region": "DE"}, position=3)
    n = 200_000
    start = time.perf_counter()
    for _ in range(n):
        parse_interaction(message, b"u1")
    assert n / (time.perf_counter() - start) > 300_000

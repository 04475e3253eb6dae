from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from builders import NOW_MS, interaction, message, review, search, user

from stream.core.events import BadEvent, Search, User
from stream.core.fold import Sourced
from stream.core.intake import Erasure, intake
from stream.delivery import SourceMessage
from stream.messages import (
    BadDerived,
    EmbeddedText,
    SourcePlace,
    TextSentiment,
    to_fp16,
    to_message,
)

ENCODER = "hash-4"
VECTOR = np.array([0.5, -0.5, 0.25, 1.0], np.float32)


def embedded(kind: Any, about: Any, **fields: Any) -> SourceMessage:
    base: dict[str, Any] = {
        "kind": kind,
        "source": SourcePlace("searches", 0, 41, NOW_MS - 7),
        "event": msgspec.json.encode(about),
        "encoder": ENCODER,
        "dim": 4,
        "vector": to_fp16(VECTOR),
    }
    return message("embedded-texts", to_message(EmbeddedText(**{**base, **fields})), 3, key=b"u1")


def sourced(read: SourceMessage) -> Sourced:
    content = intake(read, ENCODER).content
    assert isinstance(content, Sourced)
    return content


def test_an_interaction_keeps_its_place() -> None:
    taken = intake(message("clickstream", interaction(), 5, partition=2), ENCODER)
    found = taken.content
    assert isinstance(found, Sourced)
    assert (taken.user_id, found.event) == ("u1", interaction())
    assert (found.source, found.partition, found.offset) == ("clickstream", 2, 5)
    assert found.timestamp_ms == NOW_MS
    assert found.vector is None


def test_an_embedded_search_has_the_place_of_the_search_itself() -> None:
    found = sourced(embedded("search", search()))
    assert isinstance(found.event, Search)
    assert (found.source, found.offset, found.timestamp_ms) == ("searches", 41, NOW_MS - 7)
    np.testing.assert_array_equal(found.vector, VECTOR)


def test_a_review_keeps_what_its_text_says() -> None:
    place = SourcePlace("reviews", 0, 9, NOW_MS)
    said = TextSentiment(0.25, "sentiment-1")
    assert sourced(embedded("review", review(), source=place, sentiment=said)).sentiment == said
    # As the tier of an older version, or without a model, sends it.
    assert sourced(embedded("review", review(), source=place)).sentiment is None


@pytest.mark.parametrize("content", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_sentiment_that_is_no_probability_is_refused(content: float) -> None:
    place = SourcePlace("reviews", 0, 9, NOW_MS)
    said = TextSentiment(content, "sentiment-1")
    with pytest.raises(BadDerived):
        intake(embedded("review", review(), source=place, sentiment=said), ENCODER)


def test_the_interests_of_a_user_are_a_source_of_their_own() -> None:
    place = SourcePlace("users", 0, 9, NOW_MS)
    found = sourced(embedded("user", user(interests=["tea"]), source=place))
    assert isinstance(found.event, User)
    assert (found.source, found.offset) == ("interests", 9)
    assert sourced(message("users", user(), 9)).source == "users"


def test_a_tombstone_in_users_is_an_erasure() -> None:
    taken = intake(message("users", None, 4, key="ü".encode()), ENCODER)
    assert (taken.user_id, taken.content) == ("ü", Erasure(4))


@pytest.mark.parametrize("key", [None, b"", b"\xff\xfe"])
def test_a_tombstone_that_names_nobody_is_refused(key: bytes | None) -> None:
    with pytest.raises(BadEvent, match=r"names no user|not UTF-8"):
        intake(message("users", None, key=key), ENCODER)


@pytest.mark.parametrize("topic", ["clickstream", "users"])
@pytest.mark.parametrize("raw", [b"", b"{}", b"null", b'{"user_id": "u1"}'])
def test_what_is_no_event_is_refused(topic: str, raw: bytes) -> None:
    with pytest.raises(BadEvent):
        intake(message(topic, raw), ENCODER)


def test_a_null_click_is_refused() -> None:
    with pytest.raises(BadEvent, match="null"):
        intake(message("clickstream", None), ENCODER)


def test_an_event_under_another_key_is_refused() -> None:
    for topic, event in (("clickstream", interaction()), ("users", user())):
        with pytest.raises(BadEvent, match="another key"):
            intake(message(topic, event, key=b"u2"), ENCODER)


def test_a_derived_message_of_another_encoder_or_size_is_refused() -> None:
    for fields in ({"encoder": "other"}, {"dim": 5}, {"vector": b"\x00" * 7}):
        with pytest.raises(BadDerived):
            intake(embedded("review", review(), **fields), ENCODER)


def test_a_derived_message_whose_event_is_bad_is_refused() -> None:
    for raw in (b"", b"{}", msgspec.json.encode(review())):
        with pytest.raises(BadEvent):
            intake(embedded("search", search(), event=raw), ENCODER)


@pytest.mark.parametrize("raw", [None, b"", b"\xc1", b"{}", b"\x93\x01\x02\x03"])
def test_what_is_no_derived_message_is_refused(raw: bytes | None) -> None:
    with pytest.raises(BadDerived):
        intake(message("embedded-texts", raw), ENCODER)

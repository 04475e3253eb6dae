from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from builders import interaction, item, review, search, user
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from strategies import json_values, values_of

from models.profile import Reason, RecommendedItem
from stream.core.events import PARSERS, BadEvent
from stream.messages import (
    ChurnRisk,
    Driver,
    FoundItem,
    ModelInfo,
    Recommendation,
    ReviewInsight,
    SearchResults,
    Trigger,
    to_message,
)
from stream.schemas import PUBLIC_TOPICS, TYPES, UnknownTopic, publish, published, schema_of
from stream.schemas.compatibility import UnknownKeyword, incompatibilities
from stream.topics import TOPICS

TRIGGER = Trigger(topic="searches", partition=3, offset=7, event_id="s1", event_time_ms=5)
RECOMMENDATION = Recommendation(
    recommendation_id="r",
    user_id="u1",
    generated_ms=6,
    expires_ms=9,
    trigger=TRIGGER,
    items=[
        RecommendedItem(
            item_id="i1",
            rank=1,
            score=0.5,
            source="short_interest",
            reasons=[Reason(kind="matches_search", weight=0.4, query="红色 靴子")],
        )
    ],
    cold_start=False,
    variant="a",
    model=ModelInfo(encoder="e", index_version="1", ranker="hybrid-1"),
)
CHURN_RISK = ChurnRisk(
    assessment_id="a",
    user_id="u1",
    assessed_ms=5,
    probability=0.25,
    horizon_days=30.0,
    band="low",
    drivers=[Driver(feature="recency_days", value=3.0, contribution=-0.2)],
    model="baseline-1",
)
SEARCH_RESULTS = SearchResults(
    search_event_id="s1",
    query="红色 靴子",
    items=[FoundItem(item_id="i1", rank=1, score=0.5, source="both")],
    generated_ms=6,
    model=ModelInfo(encoder="e", index_version="1", ranker="search-1"),
)
REVIEW_INSIGHT = ReviewInsight(
    review_event_id="r1",
    item_id="i1",
    user_id="u1",
    sentiment=-0.8,
    satisfaction=0.1,
    model="sentiment-0123",
)
EXAMPLES = [
    ("clickstream", interaction(price=9.5, context={"region": "DE"}, quantity=2)),
    ("searches", search(query="红色 靴子", clicked_item_ids=["i1"])),
    ("reviews", review(rating=4.5)),
    ("items", item(categories=["Shoes"], in_stock=False)),
    ("users", user(interests=["hiking"], personalize=False)),
    ("recommendations", RECOMMENDATION),
    ("churn-risk", CHURN_RISK),
    ("search-results", SEARCH_RESULTS),
    ("review-insights", REVIEW_INSIGHT),
]


def validator(topic: str) -> Draft202012Validator:
    return Draft202012Validator(schema_of(topic))


@pytest.mark.parametrize("topic", PUBLIC_TOPICS)
def test_a_schema_is_valid_by_the_2020_12_meta_schema(topic: str):
    schema = schema_of(topic)
    assert schema["$schema"].endswith("2020-12/schema")
    Draft202012Validator.check_schema(schema)


def test_every_topic_that_others_write_or_read_has_a_schema():
    assert set(PUBLIC_TOPICS) == {spec.name for spec in TOPICS if spec.role != "derived"}


def test_another_topic_is_refused_by_name():
    with pytest.raises(UnknownTopic, match="no schema for topic item-pairs; there is one for cli"):
        schema_of("item-pairs")


@pytest.mark.parametrize(("topic", "value"), EXAMPLES, ids=[topic for topic, _ in EXAMPLES])
def test_what_is_written_is_valid_with_and_without_unknown_fields(topic: str, value: Any):
    written = msgspec.json.decode(
        to_message(value)
        if topic in ("recommendations", "churn-risk", "search-results", "review-insights")
        else msgspec.json.encode(value)
    )
    validator(topic).validate(written)
    validator(topic).validate({**written, "added_next_year": {"x": [1]}})


@pytest.mark.parametrize(("topic", "value"), EXAMPLES, ids=[topic for topic, _ in EXAMPLES])
def test_each_required_field_is_missed(topic: str, value: Any):
    written = msgspec.json.decode(msgspec.json.encode(value))
    assert schema_of(topic)["required"]
    for name in schema_of(topic)["required"]:
        assert not validator(topic).is_valid({k: v for k, v in written.items() if k != name})


topics = st.sampled_from(sorted(PARSERS))


@given(topics.flatmap(lambda topic: st.tuples(st.just(topic), values_of(TYPES[topic]))), st.data())
def test_the_schema_and_the_parser_agree(topic_and_event: Any, data: st.DataObject):
    """A producer who checks against the schema has nothing dead-lettered."""
    topic, event = topic_and_event
    value = msgspec.to_builtins(event)
    name = data.draw(st.sampled_from([f.name for f in msgspec.structs.fields(type(event))]))
    value[name] = data.draw(json_values)
    raw = msgspec.json.encode(value)
    parsed = False
    with suppress(BadEvent):
        PARSERS[topic](raw)
        parsed = True
    # To JSON Schema 5.0 is an integer; whoever writes a time as 5.0 is refused.
    whole = isinstance(value[name], float) and value[name].is_integer()
    assert validator(topic).is_valid(msgspec.json.decode(raw)) == parsed or (whole and not parsed)


# --- compatibility -------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], object]


def changed(topic: str, change: Change) -> tuple[dict[str, Any], dict[str, Any]]:
    old = schema_of(topic)
    new = copy.deepcopy(old)
    change(new)
    return old, new


def optional(kind: str) -> dict[str, Any]:
    return {"anyOf": [{"type": kind}, {"type": "null"}], "default": None}


BREAKING: list[tuple[str, Change, str]] = [
    # What producers send must stay valid.
    ("clickstream", lambda s: s["required"].append("session_id"), "$.session_id: now required"),
    ("clickstream", lambda s: s["properties"].pop("price"), "$.price: the field is gone"),
    (
        "clickstream",
        lambda s: s["properties"]["type"]["enum"].remove("view"),
        "$.type: 'view' is no longer possible",
    ),
    (
        "clickstream",
        lambda s: s["properties"]["price"].update(optional("integer")),
        "$.price: number is no longer possible",
    ),
    (
        "clickstream",
        lambda s: s["properties"].update(session_id={"type": "string", "default": None}),
        "$.session_id: null is no longer possible",
    ),
    (
        "clickstream",
        lambda s: s["properties"]["user_id"].update(maxLength=64),
        "$.user_id: maxLength was 256, is 64",
    ),
    (
        "clickstream",
        lambda s: s["properties"]["recommendation_id"]["anyOf"][0].update(pattern="^r"),
        "$.recommendation_id: pattern was None, is ^r",
    ),
    (
        "clickstream",
        lambda s: s["$defs"]["Context"]["required"].append("region"),
        "$.context.region: now required",
    ),
    (
        "searches",
        lambda s: s["properties"]["clicked_item_ids"]["items"].update(minLength=5),
        "$.clicked_item_ids[]: minLength was 1, is 5",
    ),
    (
        "items",
        lambda s: s["properties"]["in_stock"].update(default=False),
        "$.in_stock: the default was True",
    ),
    ("items", lambda s: s["x-prefstream"].update(key="sku"), "$: key was 'item_id', is 'sku'"),
    # What consumers know must be what is written.
    ("churn-risk", lambda s: s["properties"].pop("band"), "$.band: the field is gone"),
    (
        "churn-risk",
        lambda s: s["required"].remove("probability"),
        "$.probability: no longer always there",
    ),
    (
        "churn-risk",
        lambda s: s["properties"]["band"]["enum"].append("extreme"),
        "$.band: 'extreme' is newly possible",
    ),
    (
        "churn-risk",
        lambda s: s["properties"].update(probability=optional("number")),
        "$.probability: null is newly possible",
    ),
    (
        "recommendations",
        lambda s: s["$defs"]["RecommendedItem"]["properties"]["rank"].update(type="number"),
        "$.items[].rank: number is newly possible",
    ),
    (
        "recommendations",
        lambda s: s["$defs"]["ModelInfo"]["properties"].pop("ranker"),
        "$.model.ranker: the field is gone",
    ),
    (
        "dead-letters",
        lambda s: s["properties"]["headers"]["required"].remove("dlq.stage"),
        "$.headers.dlq.stage: no longer always there",
    ),
]

HARMLESS: list[tuple[str, Change]] = [
    ("clickstream", lambda s: s["properties"].update(coupon=optional("string"))),
    ("clickstream", lambda s: s["required"].remove("event_id")),
    ("clickstream", lambda s: s["properties"]["type"]["enum"].append("share")),
    ("clickstream", lambda s: s["properties"]["user_id"].update(maxLength=1024)),
    ("clickstream", lambda s: s["properties"]["user_id"].pop("minLength")),
    ("clickstream", lambda s: s["properties"].update(dwell_ms=optional("number"))),
    ("clickstream", lambda s: s.update(description="Said better.")),
    (
        "reviews",
        lambda s: s["properties"].update(text={"anyOf": [{"type": "string"}, {"type": "null"}]}),
    ),
    ("churn-risk", lambda s: s["properties"].update(segment={"type": "string"})),
    ("churn-risk", lambda s: s["required"].append("segment")),
    ("churn-risk", lambda s: s["properties"]["band"]["enum"].remove("medium")),
    ("churn-risk", lambda s: s["properties"]["horizon_days"].update(type="integer")),
    ("recommendations", lambda s: s["$defs"]["Reason"]["required"].append("item_id")),
]


@pytest.mark.parametrize(("topic", "change", "problem"), BREAKING, ids=[c[2] for c in BREAKING])
def test_a_break_is_found_and_named(topic: str, change: Change, problem: str):
    assert problem in incompatibilities(*changed(topic, change))


@pytest.mark.parametrize(("topic", "change"), HARMLESS)
def test_a_harmless_change_is_let_through(topic: str, change: Change):
    assert incompatibilities(*changed(topic, change)) == []


def test_a_keyword_the_checker_does_not_know_is_not_taken_for_harmless():
    with pytest.raises(UnknownKeyword, match="dependentRequired"):
        incompatibilities(*changed("items", lambda s: s.update(dependentRequired={})))


@pytest.mark.parametrize("topic", PUBLIC_TOPICS)
def test_the_schemas_keep_what_was_published(topic: str):
    assert incompatibilities(published(topic), schema_of(topic)) == [], (
        "if the break is meant: raise SCHEMA_VERSION, tell the readers, "
        "and run python -m stream.schemas"
    )


@pytest.mark.parametrize("topic", PUBLIC_TOPICS)
def test_the_published_schemas_are_the_present_ones(topic: str):
    assert published(topic) == schema_of(topic), "run python -m stream.schemas and commit"


def test_publishing_writes_one_file_per_public_topic(tmp_path: Any):
    publish(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(PUBLIC_TOPICS)

"""JSON Schemas (2020-12) of the public topics, generated from the types that parse and write them.

``published/`` holds the schemas as last agreed on: the promise that a change is tested against
(``compatibility.incompatibilities``). ``python -m stream.schemas`` brings it up to date.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from stream.core.events import Interaction, Item, Review, Search, User
from stream.messages import ChurnRisk, Recommendation, ReviewInsight, SearchResults
from stream.topics import TOPICS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PUBLISHED = Path(__file__).parent / "published"

#: Public topic -> the type of its values; ``dead-letters`` holds values of any kind.
TYPES: dict[str, type[Struct]] = {
    "clickstream": Interaction,
    "searches": Search,
    "reviews": Review,
    "items": Item,
    "users": User,
    "recommendations": Recommendation,
    "churn-risk": ChurnRisk,
    "search-results": SearchResults,
    "review-insights": ReviewInsight,
}
PUBLIC_TOPICS: tuple[str, ...] = (*TYPES, "dead-letters")

NULL_VALUES = {
    "items": "removes the item",
    "users": "erases the user everywhere, until a new record brings them back",
    "recommendations": "the user has been erased",
    "churn-risk": "the user has been erased",
    "search-results": "the user has been erased",
}

Schema = dict[str, Any]


class UnknownTopic(KeyError):
    """No public topic of this name."""

    def __str__(self) -> str:
        return f"no schema for topic {self.args[0]}; there is one for {', '.join(PUBLIC_TOPICS)}"


def schema_of(topic: str) -> Schema:
    """Return the schema of a topic's values; raise UnknownTopic if it is not a public one.

    ``x-prefstream`` adds what JSON Schema has no word for: the role (in: we read what fits the
    schema; out: we write it), the message key, and what a null value means.
    """
    if topic not in PUBLIC_TOPICS:
        raise UnknownTopic(topic)
    spec = next(spec for spec in TOPICS if spec.name == topic)
    facts = {"topic": topic, "role": spec.role, "key": spec.key}
    if topic in NULL_VALUES:
        facts["null_value"] = NULL_VALUES[topic]
    head = {"$schema": DIALECT, "$id": f"urn:prefstream:topic:{topic}"}
    body = _dead_letter() if topic == "dead-letters" else _generated(TYPES[topic])
    return {**head, **body, "x-prefstream": facts}


def _generated(value_type: type[Struct]) -> Schema:
    types = {struct.__name__: struct for struct in _structs(value_type)}
    _, definitions = msgspec.json.schema_components([value_type])
    for name, definition in definitions.items():
        if "description" in definition:
            definition["description"] = definition["description"].replace("``", "`")
        # A type that writes its defaults too always has all of its fields.
        if not types[name].__struct_config__.omit_defaults:
            definition["required"] = list(definition["properties"])
    own = definitions.pop(value_type.__name__)
    return {**own, "$defs": definitions} if definitions else own


def _structs(kind: Any) -> Iterator[type[Struct]]:
    """Yield every Struct that a type is made of."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        kind = msgspec.inspect.type_info(kind)
    match kind:
        case msgspec.inspect.StructType():
            yield kind.cls
            for field in kind.fields:
                yield from _structs(field.type)
        case msgspec.inspect.UnionType():
            for part in kind.types:
                yield from _structs(part)
        case msgspec.inspect.ListType():
            yield from _structs(kind.item_type)
        case msgspec.inspect.Metadata():
            yield from _structs(kind.type)


def _dead_letter() -> Schema:
    """The message as a whole, since its value is what could not be read."""
    text = {"type": "string"}
    number = {"type": "string", "pattern": "^-?[0-9]+$"}
    headers = {
        "dlq.original.topic": {**text, "description": "without the settings' prefix"},
        "dlq.original.partition": number,
        "dlq.original.offset": number,
        "dlq.original.timestamp": {**number, "description": "the broker's, epoch milliseconds"},
        "dlq.error.class": text,
        "dlq.error.message": {**text, "description": "names the field; no personal data"},
        "dlq.stage": {**text, "description": "where it was given up on"},
        "dlq.attempts": {**number, "description": "1, plus one for each redrive"},
        "dlq.app.version": text,
    }
    raw = {"type": ["string", "null"], "contentEncoding": "base64"}
    return {
        "title": "DeadLetter",
        "description": "A message that was given up on: key, value and headers as they came, and "
        "headers that say why. This describes the Kafka message, with bytes as base64 and headers "
        "as an object of UTF-8 text; headers the message came with stay beside those named here. "
        "The topic also holds notes of what was redriven (no key, an empty value, the one header "
        "dlq.redriven), which readers may skip.",
        "type": "object",
        "properties": {
            "key": {**raw, "description": "as received"},
            "value": {**raw, "description": "as received, byte for byte"},
            "headers": {
                "type": "object",
                "properties": {
                    **headers,
                    "dlq.truncated": {
                        **text,
                        "description": "only if the message was too big to keep whole: "
                        "sha256 and length in bytes of the original value, and what was cut",
                    },
                },
                "required": list(headers),
            },
        },
        "required": ["key", "value", "headers"],
    }


def published(topic: str) -> Schema:
    """Return the schema as last agreed on."""
    schema: Schema = json.loads((PUBLISHED / f"{topic}.json").read_text())
    return schema


def publish(folder: Path = PUBLISHED) -> None:
    """Write the schema of every public topic: what later changes are tested against."""
    for topic in PUBLIC_TOPICS:
        text = json.dumps(schema_of(topic), indent=2, ensure_ascii=False)
        (folder / f"{topic}.json").write_text(text + "\n")

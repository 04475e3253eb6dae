"""Two versions of a schema -> what the newer one breaks for people who hold to the older.

For a topic we read, everything that was valid must stay valid. For one we write, everything we
write must be valid by the older schema. Both are one question: is each value that the narrow
schema allows also allowed by the wide one?
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

#: Keyword -> whether a wide limit includes a narrow one.
LIMITS: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": operator.le,
    "exclusiveMinimum": operator.le,
    "minLength": operator.le,
    "minItems": operator.le,
    "maximum": operator.ge,
    "exclusiveMaximum": operator.ge,
    "maxLength": operator.ge,
    "maxItems": operator.ge,
    # Whether one pattern includes another cannot be told: a changed one is taken for a break.
    "pattern": operator.eq,
    "format": operator.eq,
    "contentEncoding": operator.eq,
    "multipleOf": operator.eq,
}
#: What the checker understands; anything else must not pass unseen.
KNOWN = {
    *LIMITS, "$schema", "$id", "$defs", "title", "description", "default", "type", "enum", "anyOf",
    "properties", "required", "items", "prefixItems", "additionalProperties", "x-prefstream",
}  # fmt: skip


class UnknownKeyword(ValueError):
    """The checker does not know what a keyword means, so it cannot say that nothing breaks."""


def incompatibilities(old: Schema, new: Schema) -> list[str]:
    """Return one line per break, each beginning with the path of the field; empty if none."""
    before, after = old["x-prefstream"], new["x-prefstream"]
    changed = [
        f"$: {fact} was {before.get(fact)!r}, is {after.get(fact)!r}"
        for fact in ("topic", "role", "key", "null_value")
        if before.get(fact) != after.get(fact)
    ]
    old, new = _resolved(old, old), _resolved(new, new)
    if before["role"] == "in":
        refused = _Inclusion(new_is_wide=True).breaks(new, old, "$")
    else:
        refused = _Inclusion(new_is_wide=False).breaks(old, new, "$")
    return list(dict.fromkeys([*changed, *_removed(old, new, "$"), *refused]))


def _resolved(schema: Any, root: Schema) -> Any:
    """Return a schema with each ``$ref`` replaced by what it points to (no type is recursive)."""
    if isinstance(schema, list):
        return [_resolved(part, root) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return _resolved(
            {**root["$defs"][name], **{k: v for k, v in schema.items() if k != "$ref"}}, root
        )
    return {key: _resolved(part, root) for key, part in schema.items() if key != "$defs"}


def _alternatives(schema: Schema) -> list[Schema]:
    """Return a schema as a list of schemas of one type each."""
    if "anyOf" in schema:
        return [one for part in schema["anyOf"] for one in _alternatives(part)]
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": kind} for kind in schema["type"]]
    return [schema]


def _removed(old: Schema, new: Schema, path: str) -> Iterator[str]:
    """Fields that are gone, and defaults that changed: absence then has another meaning.

    The value of a field that is gone would be ignored (in) or missed (out), although by the
    letter of the schemas nothing becomes invalid.
    """
    for one in _alternatives(old):
        others = [other for other in _alternatives(new) if _kind(other) == _kind(one)]
        for other in others[:1]:
            for name, field in one.get("properties", {}).items():
                inner = f"{path}.{name}"
                if name not in other.get("properties", {}):
                    yield f"{inner}: the field is gone"
                    continue
                now = other["properties"][name]
                if "default" in field and field["default"] != now.get("default", ...):
                    yield f"{inner}: the default was {field['default']!r}"
                yield from _removed(field, now, inner)
            if "items" in one and "items" in other:
                yield from _removed(one["items"], other["items"], f"{path}[]")


@dataclass(frozen=True)
class _Inclusion:
    """Whether a wide schema allows all that a narrow one does, told as a change."""

    new_is_wide: bool

    def breaks(self, wide: Schema, narrow: Schema, path: str) -> Iterator[str]:
        """Say why a value that ``narrow`` allows may be refused by ``wide``."""
        for schema in (wide, narrow):
            if unknown := set(schema) - KNOWN:
                raise UnknownKeyword(f"{path}: {', '.join(sorted(unknown))}")
        choices = _alternatives(wide)
        for one in _alternatives(narrow):
            alike = [choice for choice in choices if _includes(choice, one)]
            if alike:
                yield from min((list(self._of_one_type(c, one, path)) for c in alike), key=len)
            else:
                yield f"{path}: {_kind(one)} is {self._word} possible"

    @property
    def _word(self) -> str:
        return "no longer" if self.new_is_wide else "newly"

    def _of_one_type(self, wide: Schema, narrow: Schema, path: str) -> Iterator[str]:
        yield from self._values(wide, narrow, path)
        yield from self._limits(wide, narrow, path)
        for name in wide.get("required", []):
            if name not in narrow.get("required", []):
                word = "now required" if self.new_is_wide else "no longer always there"
                yield f"{path}.{name}: {word}"
        inner = narrow.get("properties", {})
        for name, field in wide.get("properties", {}).items():
            if name in inner:
                yield from self.breaks(field, inner[name], f"{path}.{name}")
        for keyword in ("items", "additionalProperties"):
            if isinstance(wide.get(keyword), dict):
                yield from self.breaks(wide[keyword], narrow.get(keyword, {}), f"{path}[]")

    def _values(self, wide: Schema, narrow: Schema, path: str) -> Iterator[str]:
        if "enum" in wide:
            for value in sorted(set(narrow["enum"]) - set(wide["enum"])):
                yield f"{path}: {value!r} is {self._word} possible"

    def _limits(self, wide: Schema, narrow: Schema, path: str) -> Iterator[str]:
        for keyword, includes in LIMITS.items():
            if keyword not in wide or "enum" in narrow:
                continue
            if keyword not in narrow or not includes(wide[keyword], narrow[keyword]):
                was, now = narrow.get(keyword), wide[keyword]
                if not self.new_is_wide:
                    was, now = now, was
                yield f"{path}: {keyword} was {was}, is {now}"


def _kind(schema: Schema) -> str:
    return "one of a list" if "enum" in schema else str(schema.get("type", "anything"))


def _includes(wide: Schema, narrow: Schema) -> bool:
    kinds = (_kind(wide), _kind(narrow))
    return kinds[0] in (kinds[1], "anything") or kinds in (
        ("number", "integer"),
        ("string", "one of a list"),
    )

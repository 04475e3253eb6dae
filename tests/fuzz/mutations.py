"""Inputs of several fields, and changes to them that keep their form.

A fuzzer that knows bytes only seldom gets past a length or a quote. Here a field is read as what
it is (JSON, MessagePack, safetensors), one thing in it is changed, and it is written again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec

#: Between two fields of an input; no UTF-8 holds it.
SPLIT = b"\xff\xfe\xfd"
#: Longer inputs show nothing that shorter ones do not.
MAX_BYTES = 1 << 16


def joined(*fields: bytes) -> bytes:
    """Return the input of these fields."""
    return SPLIT.join(fields)


def fields(raw: bytes, n: int) -> list[bytes]:
    """Return exactly n fields of an input; those that it lacks are empty."""
    found = raw.split(SPLIT, n - 1)
    return found + [b""] * (n - len(found))


@dataclass(frozen=True)
class Form:
    """How a field is read as a tree of plain values, and written; ``decode`` may raise anything.

    The first ``n_before`` bytes are no part of the tree: a version, a stamp.
    """

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    n_before: int = 0

    def behind(self, n_bytes: int) -> Form:
        return Form(self.decode, self.encode, n_bytes)


def _read_tensors(raw: bytes) -> list[Any]:
    n = int.from_bytes(raw[:8], "little")
    return [json.loads(raw[8 : 8 + n]), raw[8 + n :]]


def _write_tensors(tree: list[Any]) -> bytes:
    head = json.dumps(tree[0]).encode()
    return len(head).to_bytes(8, "little") + head + tree[1]


JSON = Form(json.loads, lambda tree: json.dumps(tree).encode())
MSGPACK = Form(msgspec.msgpack.decode, msgspec.msgpack.encode)
TENSORS = Form(_read_tensors, _write_tensors)
#: No form that is worth keeping.
BYTES: Form | None = None

_NUMBERS = [0, 1, -1, 7, 127, 128, 255, 256, 10**6, 10**14, 2**31, 2**32, 2**53, 2**62, 2**63 - 1,
            2**63, 2**64 - 1, -(2**31), -(2**63), 10**30]  # fmt: skip
_FLOATS = [0.5, -0.0, 1e-320, 1e308, -1e308, math.inf, -math.inf, math.nan]
_TEXTS = ["", "\0", "²", "٣", "\ud800", "红靴", "null", "..", "/", "a" * 300, "\x85\u2028", "1e400"]
_ODD = [None, True, False, [], {}, b"", b"\xff\xff", *_TEXTS, *_NUMBERS, *_FLOATS]
_TOKENS = [b"null", b"NaN", b"1e999", b"\\ud800", b"\xff", b"\0", b"[" * 3000, b"{\"a\":" * 3000,
           b"\x91" * 3000, b"\n", b"\r", b'"', b",", "²".encode(),  b"9" * 30, b"9" * 5000, SPLIT,
           b"\xdd\xff\xff\xff\xff", b"\x1f\x8b"]  # fmt: skip


def mutated(raw: bytes, forms: Sequence[Form | None], random: Random) -> bytes:
    """Return an input that differs in one field, or here and there in a few."""
    parts = fields(raw, len(forms))
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at = random.randrange(len(parts))
        parts[at] = _changed(parts[at], forms[at], random)
    return joined(*parts)[:MAX_BYTES]


def _changed(raw: bytes, form: Form | None, random: Random) -> bytes:
    if form is None or random.random() < 0.3:
        return _changed_bytes(raw, random)
    try:
        tree = form.decode(raw[form.n_before :])
        return raw[: form.n_before] + form.encode(_changed_tree(tree, random))
    except Exception:  # noqa: BLE001 - no longer of this form, or not to be written in it
        return _changed_bytes(raw, random)


def _changed_bytes(raw: bytes, random: Random) -> bytes:
    at = random.randrange(len(raw) + 1)
    end = min(len(raw), at + random.choice((1, 1, 2, 4, 8, 64)))
    match random.randrange(6):
        case 0 if at < len(raw):
            return raw[:at] + bytes([raw[at] ^ 1 << random.randrange(8)]) + raw[at + 1 :]
        case 1:
            return raw[:at] + random.randbytes(end - at or 1) + raw[end:]
        case 2:
            return raw[:at] + raw[end:]
        case 3:
            return raw[:at]
        case 4:
            return raw[:at] + raw[at:end] * random.choice((2, 3, 50)) + raw[end:]
    return raw[:at] + random.choice(_TOKENS) + raw[at:]


def _changed_tree(tree: Any, random: Random) -> Any:
    """Return the tree with one thing changed, mostly deep inside."""
    if isinstance(tree, dict | list) and tree and random.random() < 0.85:
        if isinstance(tree, list):
            at = random.randrange(len(tree))
            return [*tree[:at], _changed_tree(tree[at], random), *tree[at + 1 :]]
        name = random.choice(list(tree))
        return {**tree, name: _changed_tree(tree[name], random)}
    if random.random() < 0.3:
        return random.choice(_ODD)
    return _changed_value(tree, random)


def _changed_value(value: Any, random: Random) -> Any:
    match value:
        case bool() | None:
            return not value
        case int():
            return value + random.choice((1, -1, value, -2 * value, 10**6, -(10**6)))
        case float():
            return random.choice((value * 2, -value, value + 1, value / 3, *_FLOATS))
        case str():
            at = random.randrange(len(value) + 1)
            return value[:at] + random.choice(_TEXTS) + value[at + random.randrange(2) :]
        case bytes():
            return _changed_bytes(value, random)
        case list():
            at = random.randrange(len(value) + 1)
            more = value[at : at + 1] or [random.choice(_ODD)]
            return random.choice((value[:at] + value[at + 1 :], value[:at] + more + value[at:]))
        case dict():
            name = random.choice([*value, "", "id", "é"])
            without = {key: held for key, held in value.items() if key != name}
            return random.choice((without, {**value, name: random.choice(_ODD)}))
    return random.choice(_ODD)

"""Item ids in few bytes: whatever they are, and fewer where their letters are few."""

from __future__ import annotations

from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Sequence

import msgspec

#: The first byte says how the rest is to be read; others are the character that "+" stands for.
_PLAIN, _UUIDS = b"\x00", b"\x01"
MARKS = ("-", "_", ".", ":")
_UUID_CHARS, _UUID_BYTES = 36, 16
_texts = msgspec.msgpack.Decoder(list[str])


def pack_ids(item_ids: Sequence[str]) -> bytes:
    """Return ids, none of them empty, in six bits a character or as UUIDs if all of them can be."""
    joined = "/".join(item_ids)
    if len(joined) == 37 * len(item_ids) - 1 and (uuids := _as_uuids(item_ids)):
        return _UUIDS + uuids
    if joined.count("/") == len(item_ids) - 1 and all(item_ids):
        packed, mark = _as_base64(joined), "+"
        if packed is None and "+" not in joined:
            mark = next((mark for mark in MARKS if mark in joined), "+")
            packed = _as_base64(joined.replace(mark, "+"))
        if packed is not None:
            return mark.encode() + packed
    return _PLAIN + msgspec.msgpack.encode(list(item_ids))


def unpack_ids(packed: bytes) -> list[str]:
    """Return what ``pack_ids`` packed; raises ValueError for bytes that it did not."""
    form, raw = packed[:1], packed[1:]
    if form == _PLAIN:
        return _texts.decode(raw)
    if form == _UUIDS:
        return [_uuid(raw[at : at + _UUID_BYTES].hex()) for at in range(0, len(raw), _UUID_BYTES)]
    joined = b2a_base64(raw, newline=False).decode().rstrip("/")
    return joined.replace("+", form.decode()).split("/")


def _as_base64(joined: str) -> bytes | None:
    if "=" in joined:  # what base64 takes for its end
        return None
    padded = joined + "/" * (-len(joined) % 4)
    try:
        return a2b_base64(padded, strict_mode=True)
    except (Error, ValueError):
        return None


def _as_uuids(item_ids: Sequence[str]) -> bytes | None:
    try:
        raw = bytes.fromhex("".join(item_ids).replace("-", ""))
    except ValueError:
        return None
    return raw if unpack_ids(_UUIDS + raw) == list(item_ids) else None


def _uuid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

"""Text and prices as shops' exports have them -> as a person would read them."""

from __future__ import annotations

import html
import re

_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_SCRIPT = re.compile(r"<(script|style)\b.*?</\1>", re.DOTALL | re.IGNORECASE)
_PRICE = re.compile(r"\$?\s*(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?")
MAX_TEXT = 100_000


def plain(text: str | None) -> str:
    """Return text without tags, entities and runs of white space; "<3" stays."""
    if not text:
        return ""
    if "<" in text:
        text = _TAG.sub(" ", _SCRIPT.sub(" ", text))
    if "&" in text:
        text = html.unescape(text)
    return " ".join(text.split())[:MAX_TEXT]


def price(text: str) -> float | None:
    """Return the amount of "$1,250.00"; None for anything but one price (a range, markup)."""
    found = _PRICE.fullmatch(text.strip())
    return float(found[1].replace(",", "") + (found[2] or "")) if found else None

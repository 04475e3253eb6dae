"""Texts -> the words they are found by: English stemmed, Chinese cut by its dictionary."""

from __future__ import annotations

import re
import threading
import unicodedata
from functools import cache

import jieba
import Stemmer

_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_RUNS = re.compile(rf"[{_HAN}]+|[^\W_{_HAN}]+(?:-[^\W_{_HAN}]+)*")
_IS_HAN = re.compile(f"[{_HAN}]")
#: Words that say nothing of what is sought.
_STOP_ENGLISH = (
    "a an and are as at be by for from has in is it its of on or that the this to was with"
)
_STOP_CHINESE = "的 了 和 与 及 或 在 是 等 以及"
_STOP = frozenset([*_STOP_ENGLISH.split(), *_STOP_CHINESE.split()])

#: Behind these a title says what the thing is for, or of; before them, what it is.
_BEHIND = re.compile(
    r"\b(?:and|by|compatible|for|from|in|of|to|with)\b|适用|用于|[,，(（\[【/|–—+:：]| - ",
    re.IGNORECASE,
)
_HAS_DIGIT = re.compile(r"\d")

_of_thread = threading.local()


def words(text: str) -> list[str]:
    """Return the words of a text, in order; empty where it has none.

    What is joined by a hyphen is found joined and apart ("TN-2110", "wi-fi"). Where there are
    only stop words they are what is meant ("The Who").
    """
    found: list[str] = []
    for run in _RUNS.findall(unicodedata.normalize("NFKC", text).lower()):
        if _IS_HAN.match(run):
            found += _dictionary().cut_for_search(run)
        elif "-" in run:
            found += [*_stems(run.split("-")), run.replace("-", "")]
        else:
            found += _stems([run])
    return [word for word in found if word not in _STOP] or found


def head(title: str) -> str:
    """Return the word for what a title's thing is, as ``words`` has it; empty where none is found.

    English and Chinese name the thing last: a laptop case is a case. Numbers of models behind it,
    and what it is for, say nothing of that.
    """
    named = next((part for part in _BEHIND.split(title) if part.strip()), "")
    runs = [run for run in _RUNS.findall(unicodedata.normalize("NFKC", named)) if len(run) > 1]
    of_letters = [run for run in runs if not _HAS_DIGIT.search(run)]
    return words(of_letters[-1])[-1] if of_letters else ""


def needs_dictionary(text: str) -> bool:
    """True when ``words`` would first load the Chinese dictionary: 0.6 s, 50 MB."""
    return _dictionary.cache_info().currsize == 0 and _IS_HAN.search(text) is not None


def load_dictionary() -> None:
    _dictionary()


def _stems(run: list[str]) -> list[str]:
    # A stemmer must not be shared by threads.
    if not hasattr(_of_thread, "stemmer"):
        _of_thread.stemmer = Stemmer.Stemmer("english")
    stems: list[str] = _of_thread.stemmer.stemWords(run)
    return stems


@cache
def _dictionary() -> jieba.Tokenizer:
    tokenizer = jieba.Tokenizer()
    # What its own ``initialize`` does, but without a cache that anyone may write to in /tmp.
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer

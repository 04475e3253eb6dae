"""Reviews with stars, from logs or tables -> their vectors, and from those a model's folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.encoder import TextEncoder
from models.trained_sentiment import save_sentiment
from models.training.sentiment import TooLittle, Validation, train_sentiment
from stream.agents.encode import text_of
from stream.core.events import BadEvent, Review, parse_review
from stream.formats import BadSource, Record
from stream.formats.source import READ_ERRORS, open_source
from stream.topics import REVIEWS

#: Columns of a table, in the order in which they are looked for.
_TEXT, _RATING = ("text", "review", "review text"), ("rating", "stars", "label")
#: Texts encoded between two signs of life; within it those of like length go together.
_SLICE = 1024
#: Three of five stars say neither, so nothing is learnt from them.
CONTENT_FROM, DISCONTENT_TO = 4.0, 2.0


class RatedReview(NamedTuple):
    """What the encoder reads of a review, and whether its writer was content."""

    text: str
    content: bool


@dataclass(frozen=True, slots=True)
class Made:
    """A model that was written."""

    name: str
    n_reviews: int
    validation: Validation


def train_into(
    out: Path,
    reviews: Sequence[RatedReview],
    encoder: TextEncoder,
    on_encoded: Callable[[int], None] = lambda n: None,
) -> Made:
    """Fit a model to reviews and write it into a new folder.

    ``on_encoded`` is told how many more have their vectors, which takes most of the time. Raises
    TooLittle, ModelError, OSError and EncoderUnavailable.
    """
    if not reviews:
        raise TooLittle("no reviews with stars")
    texts = [review.text for review in reviews]
    content = np.array([review.content for review in reviews])
    vectors = _encoded(texts, encoder, on_encoded)
    parts, validation = train_sentiment(texts, vectors, content)
    facts = {
        "data": {"n_reviews": len(reviews), "n_content": int(content.sum())},
        "validation": {
            "n_reviews": validation.n_reviews,
            **{name: list(figure) for name, figure in validation.figures.items()},
        },
    }
    name = save_sentiment(out, parts, encoder.encoder_id, facts)
    return Made(name, len(reviews), validation)


def _encoded(
    texts: Sequence[str], encoder: TextEncoder, on_encoded: Callable[[int], None]
) -> NDArray[np.float32]:
    vectors = np.empty((len(texts), encoder.dim), np.float32)
    for first in range(0, len(texts), _SLICE):
        rows = slice(first, first + _SLICE)
        vectors[rows] = encoder.encode(texts[rows])
        on_encoded(len(texts[rows]))
    return vectors


def reviews_of_log(records: Iterable[Record]) -> Iterator[RatedReview]:
    """Yield the reviews of a behaviour log that say something; what the workers' parser refuses is
    left out, and a repeated event id of a user counts once."""
    seen = set[tuple[str, str]]()
    for record in records:
        if record.topic != REVIEWS.name or record.value is None:
            continue
        try:
            review = parse_review(record.value)
        except BadEvent:
            continue
        identity = (review.user_id, review.event_id)
        if identity not in seen:
            seen.add(identity)
            yield from _rated(review.text, review.title, review.rating)


def reviews_of_table(path: Path) -> Iterator[RatedReview]:
    """Yield the reviews of a CSV file that say something; the first line names the columns.

    There must be one called text, review or review text, and one called rating or stars (1 to 5)
    or label (1 for content, 0 for not); title may be there. Raises BadSource.
    """
    try:
        with io.TextIOWrapper(open_source(path), encoding="utf-8-sig", newline="") as file:
            yield from _of_rows(csv.DictReader(file), path)
    except (*READ_ERRORS, OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadSource(f"{path}: not a table of reviews: {error}") from None


def _of_rows(rows: csv.DictReader[str], path: Path) -> Iterator[RatedReview]:
    names = {name.strip().lower(): name for name in rows.fieldnames or ()}
    text = next((names[name] for name in _TEXT if name in names), None)
    of_rating = next((name for name in _RATING if name in names), None)
    if text is None or of_rating is None:
        raise BadSource(
            f"{path}: expected a column {', '.join(_TEXT)}, and one {', '.join(_RATING)}; "
            f"got {', '.join(names) or 'none'}"
        )
    for row in rows:
        try:
            stated = float(row[names[of_rating]] or "")
        except (TypeError, ValueError):
            continue
        rating = 1.0 + 4.0 * stated if of_rating == "label" else stated
        title = row.get(names.get("title", "")) or None
        yield from _rated(row[text] or "", title, rating)


def _rated(text: str, title: str | None, rating: float | None) -> Iterator[RatedReview]:
    if rating is None or not 1 <= rating <= 5 or DISCONTENT_TO < rating < CONTENT_FROM:
        return
    # What is learnt from is put together as what is served.
    read = text_of(
        Review(event_id="?", user_id="?", item_id="?", text=text, title=title, event_time_ms=1)
    )
    if read.strip():
        yield RatedReview(read, rating >= CONTENT_FROM)

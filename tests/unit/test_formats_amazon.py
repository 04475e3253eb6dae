"""The reader of Amazon reviews and metadata.

The real logs' numbers were counted apart from the readers, with plain JSON and data frames.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from format_checks import META, amazon_review, check_promises, events_of, real, taken, write_amazon

from stream.core.events import Item, Review
from stream.formats import BadSource


def test_a_verified_review_is_a_purchase_and_a_review(tmp_path: Path):
    records, _ = taken(write_amazon(tmp_path, [amazon_review()], [META]), "amazon")
    item, purchase, review = events_of(records)
    assert (item.title, item.price, item.currency) == ("Toy & Co", 1250.0, "USD")
    assert item.categories == ["Toys"]
    assert (purchase.type, purchase.user_id, purchase.item_id) == ("purchase", "A1", "B1")
    assert (review.text, review.title, review.rating) == ("Great", "Five Stars", 5.0)
    assert purchase.event_time_ms == review.event_time_ms == 1_400_000_000_000


def test_reviews_are_given_in_time_order_and_duplicates_once(tmp_path: Path):
    rows = [amazon_review(unixReviewTime=t, verified=False) for t in (300, 100, 200, 100)]
    rows.append(amazon_review(unixReviewTime=100, verified=False, reviewText="Another"))
    records, report = taken(write_amazon(tmp_path, rows, [META]), "amazon")
    times = [r.event_time_ms for r in records if r.topic == "reviews"]
    assert times == [100_000, 100_000, 200_000, 300_000]
    assert report.dropped == {"duplicate": 1}
    assert report.expected == 5


def test_dirt_is_dropped_with_its_reason(tmp_path: Path):
    reviews = [
        amazon_review(reviewText=None, summary=None),
        amazon_review(overall=9.0, verified=False),
        {"asin": "B1"},
        "{broken",
    ]
    reviews[0].pop("verified")
    metadata = [
        {**META, "title": "  "},
        {**META, "asin": "B2", "title": "var aPageStart = (new Date()).getTime();"},
        {**META, "asin": "B3", "price": "$1.00 - $2.00"},
        {**META, "asin": "B3"},
        {**META, "asin": "B4", "description": ["<b>Soft</b> &amp; warm<br/>", "I <3 it"]},
    ]
    records, report = taken(write_amazon(tmp_path, reviews, metadata), "amazon")
    b3, b4, review = events_of(records)
    assert (b3.price, b3.currency) == (None, None)
    assert b4.description == "Soft & warm I <3 it"
    assert (review.text, review.title) == ("", None)
    assert report.dropped == {
        "reviews: Expected `float` <= 5.0 - at `$.rating`": 1,
        "review: Object missing required field `reviewerID`": 1,
        "review: not JSON": 1,
        "metadata: no title": 2,
        "metadata: duplicate": 1,
    }
    assert report.altered == {"metadata: unreadable price left out": 1}


def test_missing_metadata_is_named(tmp_path: Path):
    path = write_amazon(tmp_path, [amazon_review()], [META])
    (tmp_path / "meta_Toys.json.gz").rename(tmp_path / "elsewhere.gz")
    with pytest.raises(BadSource, match=r"expected meta_Toys.json\[.gz\]"):
        taken(path, "amazon")
    records, _ = taken(path, "amazon", items=tmp_path / "elsewhere.gz")
    assert len(records) == 3


def test_all_gift_cards():
    records, report = taken(real("amazon_gift_cards"), "amazon")
    parsed = check_promises(records, report)
    assert report.records == {"reviews": 2972, "clickstream": 2838, "items": 1547}
    assert not report.dropped
    reviews = [event for event in parsed if isinstance(event, Review)]
    assert len({review.user_id for review in reviews}) == 458
    assert len({review.item_id for review in reviews}) == 148
    assert {review.item_id for review in reviews} <= {
        event.item_id for event in parsed if isinstance(event, Item)
    }
    stars = Counter(review.rating for review in reviews)
    assert stars == {5.0: 2752, 4.0: 154, 3.0: 33, 2.0: 11, 1.0: 22}


def test_the_same_log_gives_the_same_bytes_each_time():
    path = real("amazon_gift_cards")
    assert taken(path, "amazon")[0] == taken(path, "amazon")[0]

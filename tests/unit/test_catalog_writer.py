"""The writer: records of the item topics -> catalogue."""

from __future__ import annotations

import logging
from typing import Any

import builders
import numpy as np
import pytest
from catalog_broker import DIM, ENCODER, PREFIX, FakeBroker

from models.catalogue import Catalogue
from stream.catalog import FOLLOWED
from stream.catalog_writer import CatalogWriter

NAMES = {PREFIX + topic: topic for topic in FOLLOWED}


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


def writer(catalogue: Catalogue | None = None) -> CatalogWriter:
    return CatalogWriter(Catalogue(DIM) if catalogue is None else catalogue, ENCODER, NAMES)


def test_an_item_is_there_once_its_facts_and_vector_are_applied(broker: FakeBroker) -> None:
    catalogue = Catalogue(DIM)
    record = broker.put_item("a", title="靴", categories=["x"], in_stock=True, price=2.0)
    writer(catalogue).apply([broker.put_vector("a"), record])
    facts = catalogue.facts("a")
    assert len(catalogue) == 1
    assert facts is not None
    assert (facts.title, facts.categories, facts.price) == ("靴", ("x",), 2.0)


def test_of_an_item_in_one_batch_the_last_record_counts(broker: FakeBroker) -> None:
    catalogue = Catalogue(DIM)
    records = [broker.put_vector("a"), broker.put_vector("b"), broker.put_item("a")]
    records += [broker.put("items", "a", None), broker.put_item("b", title="1")]
    records += [broker.put("items", "b", None), broker.put_item("b", title="2")]
    writer(catalogue).apply(records)
    assert catalogue.facts("a") is None
    assert len(catalogue) == 1
    facts = catalogue.facts("b")
    assert facts is not None
    assert facts.title == "2"


def test_a_tombstone_read_late_does_not_take_the_vector_of_a_newer_life(
    broker: FakeBroker,
) -> None:
    catalogue = Catalogue(DIM)
    apply = writer(catalogue).apply
    # The shop: item, tombstone, item again. The vectors of both lives are read first.
    apply([broker.put_vector("a"), broker.put("item-embeddings", "a", None, 1)])
    apply([broker.put_vector("a")])
    apply([broker.put_item("a"), broker.put("items", "a", None)])
    assert len(catalogue) == 0
    apply([broker.put_item("a")])
    assert len(catalogue) == 1


def test_a_tombstone_of_its_own_topic_takes_each_part(broker: FakeBroker) -> None:
    catalogue = Catalogue(DIM)
    apply = writer(catalogue).apply
    apply([broker.put_item("a"), broker.put_vector("a"), broker.put_neighbours("a", [("b", 2.0)])])
    apply([broker.put_neighbours("b", [("a", 2.0)])])
    row = catalogue.row("a")
    assert len(catalogue.neighbours(np.array([row]))[0]) == 1
    apply([broker.put("item-neighbours", "a", None), broker.put("item-embeddings", "a", None, 1)])
    assert len(catalogue.neighbours(np.array([row]))[0]) == 0
    assert not catalogue.raw_vectors(["a"])[1].any()
    assert catalogue.facts("a") is not None


def test_neighbours_arrive_with_popularity(broker: FakeBroker) -> None:
    catalogue = Catalogue(DIM)
    records = [broker.put_neighbours("a", [("b", 2.0)]), broker.put_neighbours("b", [("a", 2.0)])]
    for item_id in ("a", "b", "c"):
        records += [broker.put_item(item_id), broker.put_vector(item_id)]
    writer(catalogue).apply(records)
    rows, _, strengths = catalogue.neighbours(np.array([catalogue.row("a")]))
    assert [catalogue.item_id(row) for row in rows.tolist()] == ["b"]
    assert strengths.tolist() == pytest.approx([0.5])
    popular = catalogue.popular(2, "north", builders.NOW_MS)
    assert {catalogue.item_id(row) for row in popular.tolist()} == {"a", "b"}


@pytest.mark.parametrize(
    "foreign",
    [
        {"encoder": "another"},
        {"dim": DIM + 1, "vector": bytes(2 * (DIM + 1))},
        {"vector": np.full(DIM, np.nan, "<f2").tobytes()},
    ],
    ids=["encoder", "dimension", "nan"],
)
def test_foreign_vectors_are_refused_counted_and_logged_once(
    broker: FakeBroker, caplog: pytest.LogCaptureFixture, foreign: dict[str, Any]
) -> None:
    catalogue = Catalogue(DIM)
    subject = writer(catalogue)
    with caplog.at_level(logging.WARNING):
        subject.apply([broker.put_vector("a", **foreign), broker.put_vector("b", **foreign)])
        subject.apply([broker.put_vector("c", **foreign), broker.put_vector("d")])
    assert subject.n_refused == 3
    assert catalogue.raw_vectors(["a", "b", "c", "d"])[1].tolist() == [False] * 3 + [True]
    assert len([r for r in caplog.records if "refused" in r.message]) == 1


@pytest.mark.parametrize("topic", FOLLOWED)
@pytest.mark.parametrize(
    ("key", "value"),
    [("a", b"\xff not it"), ("a", b""), (b"\xff", None), (None, b"{}"), (None, None)],
)
def test_malformed_records_are_counted_and_change_nothing(
    broker: FakeBroker, topic: str, key: str | bytes | None, value: bytes | None
) -> None:
    catalogue = Catalogue(DIM)
    subject = writer(catalogue)
    subject.apply([broker.put_item("a"), broker.put_vector("a")])
    subject.apply([broker.put(topic, key, value), broker.put_item("b"), broker.put_vector("b")])
    assert subject.n_malformed == {topic: 1}
    assert len(catalogue) == 2


def test_applying_records_again_changes_nothing(broker: FakeBroker) -> None:
    catalogue = Catalogue(DIM)
    records = [broker.put_item("a"), broker.put_vector("a", 1), broker.put_vector("b", 2)]
    records += [broker.put("items", "a", None), broker.put_item("a", title="again")]
    subject = writer(catalogue)
    subject.apply(records)
    before = catalogue.raw_vectors(["a", "b"])[0], catalogue.facts("a")
    subject.apply(records)
    np.testing.assert_array_equal(catalogue.raw_vectors(["a", "b"])[0], before[0])
    assert catalogue.facts("a") == before[1]

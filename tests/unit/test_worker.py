from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from faust.types import TP

from stream.settings import load_settings
from stream.worker import _Worker, settle_garbage_collection


@pytest.fixture
def own_collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("own_collector")
def test_collections_leave_alone_what_the_start_has_made() -> None:
    settle_garbage_collection()
    assert gc.get_freeze_count() > 10_000
    assert len(gc.get_objects()) < 1_000


def test_events_deleted_before_they_were_read_are_counted_without_the_prefix() -> None:
    worker = _Worker(load_settings(topic_prefix="shop-"), "preference")

    worker._note_lost(TP("shop-clickstream", 1), 7)

    lost = {
        sample.labels["topic"]: sample.value
        for metric in worker._metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "prefstream_events_lost_total" and sample.value
    }
    assert lost == {"clickstream": 7}

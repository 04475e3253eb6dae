from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from faust.types import TP, ConsumerMessage

from stream.engine.app import EngineApp, new_app
from stream.engine.conductor import EngineConductor
from stream.engine.schema import RawSchema
from stream.settings import load_settings

PLACE = TP("clickstream", 2)
FULL = 100


def message(offset: int, tp: TP = PLACE) -> ConsumerMessage:
    return ConsumerMessage(
        *tp, offset, 1.5, 0, [("h", b"1")], b"anna", b"%d" % offset, None, tp=tp, generation_id=3
    )


class Fetching:
    """The part of a consumer that is told to pause partitions and to go on with them."""

    def __init__(self) -> None:
        self.told: list[tuple[str, TP]] = []

    def on_buffer_full(self, tp: TP) -> None:
        self.told.append(("full", tp))

    def on_buffer_drop(self, tp: TP) -> None:
        self.told.append(("drop", tp))


@pytest.fixture
async def app(tmp_path: Path) -> EngineApp:
    app = new_app(load_settings(state_dir=tmp_path), "preference")
    app._consumer = Fetching()  # type: ignore[assignment]
    app.flow_control.resume()
    return app


def subscribe(app: EngineApp, n_streams: int = 1) -> list[Any]:
    """Have streams read PLACE; return their channels."""
    topic = app.topic(PLACE.topic, schema=RawSchema(), partitions=4)
    channels: list[Any] = [topic.clone(is_iterator=True) for _ in range(n_streams)]
    for channel in channels:
        channel.queue._maxsize = FULL
    app.topics._tp_index[PLACE] = set(channels)
    return channels


def conductor(app: EngineApp) -> EngineConductor:
    assert isinstance(app.topics, EngineConductor)
    return app.topics


async def test_a_message_is_put_as_faust_puts_it(app: EngineApp) -> None:
    [channel] = subscribe(app)
    mine, fausts = message(1), message(2)
    assert conductor(app).take(mine)
    await conductor(app)._compiler.build(conductor(app), PLACE, {channel})(fausts)
    taken, put = channel.queue.get_nowait(), channel.queue.get_nowait()
    assert type(taken) is type(put)
    assert (taken.app, taken.key, taken.value, taken.message) == (app, b"anna", b"1", mine)
    assert (put.key, put.value, put.message) == (b"anna", b"2", fausts)
    assert mine.refcount == fausts.refcount == 1
    assert mine.headers == [("h", b"1")]


async def test_nothing_is_taken_while_the_flow_is_suspended(app: EngineApp) -> None:
    [channel] = subscribe(app)
    app.flow_control.suspend()
    assert not conductor(app).take(message(1))
    assert channel.queue.empty()


@pytest.mark.parametrize("n_streams", [0, 2])
async def test_what_has_not_one_stream_is_left_to_faust(app: EngineApp, n_streams: int) -> None:
    channels = subscribe(app, n_streams)
    one = message(1)
    assert not conductor(app).take(one)
    assert not conductor(app).take(message(1, TP("of-nobody", 0)))
    assert one.refcount == 0
    assert all(channel.queue.empty() for channel in channels)


async def test_a_full_buffer_pauses_fetching_and_an_empty_one_goes_on(app: EngineApp) -> None:
    [channel] = subscribe(app)
    fetching: Any = app.consumer
    n_taken = sum(conductor(app).take(message(offset)) for offset in range(FULL + 5))
    assert n_taken == FULL
    assert fetching.told == [("full", PLACE)]
    for _ in range(FULL):
        channel.queue.get_nowait()
    assert fetching.told == [("full", PLACE), ("drop", PLACE)]


async def test_a_partition_in_aiokafkas_type_is_told_in_fausts(app: EngineApp) -> None:
    [channel] = subscribe(app)
    fetching: Any = app.consumer
    place: Any = TopicPartition(*PLACE)
    for offset in range(FULL):
        assert conductor(app).take(message(offset, place))
    for _ in range(FULL):
        channel.queue.get_nowait()
    # Equal they are anyway; Faust's consumer asserts the type.
    assert [(word, type(tp)) for word, tp in fetching.told] == [("full", TP), ("drop", TP)]

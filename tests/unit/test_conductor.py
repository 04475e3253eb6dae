from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from stream.engine.app import EngineApp, new_app
from stream.engine.conductor import EngineConductor
from stream.engine.runs import Run, RunQueue
from stream.settings import load_settings

PLACE = TP("clickstream", 2)
FULL = 100


def run(first: int, n: int = 1) -> Run:
    return Run(PLACE, [SimpleNamespace(offset=first + i) for i in range(n)], 3)


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


def subscribe(app: EngineApp, n_streams: int = 1) -> list[RunQueue]:
    """Have streams read PLACE; return their buffers."""
    topic = app.topic(PLACE.topic, partitions=4)
    channels: list[Any] = [topic.clone(is_iterator=True) for _ in range(n_streams)]
    for channel in channels:
        channel.queue._maxsize = FULL
    app.topics._tp_index[PLACE] = set(channels)
    return [channel.queue for channel in channels]


def conductor(app: EngineApp) -> EngineConductor:
    assert isinstance(app.topics, EngineConductor)
    return app.topics


async def test_a_run_goes_into_the_buffer_of_the_stream(app: EngineApp) -> None:
    [queue] = subscribe(app)
    assert conductor(app).queue_of(PLACE) is queue
    one = run(5)
    assert conductor(app).take(one, queue)
    assert queue.get_nowait() is one


async def test_nothing_is_taken_while_the_flow_is_suspended(app: EngineApp) -> None:
    [queue] = subscribe(app)
    app.flow_control.suspend()
    assert not conductor(app).take(run(1), queue)
    assert queue.empty()


@pytest.mark.parametrize("n_streams", [0, 2])
async def test_a_topic_has_one_stream(app: EngineApp, n_streams: int) -> None:
    subscribe(app, n_streams)
    with pytest.raises(RuntimeError, match=f"one stream of clickstream, got {n_streams}"):
        conductor(app).queue_of(PLACE)


async def test_a_full_buffer_pauses_fetching_and_an_empty_one_goes_on(app: EngineApp) -> None:
    [queue] = subscribe(app)
    fetching: Any = app.consumer
    taken = [conductor(app).take(run(first, 10), queue) for first in range(0, FULL + 20, 10)]
    assert taken == [True] * 10 + [False] * 2
    assert fetching.told == [("full", PLACE)]
    while not queue.empty():
        queue.get_nowait()
    assert fetching.told == [("full", PLACE), ("drop", PLACE)]

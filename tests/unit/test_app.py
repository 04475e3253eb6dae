from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import faust
import pytest
from aiokafka import ConsumerRecord

from stream.delivery import SourceMessage
from stream.engine.app import EngineApp, add_agent, new_app
from stream.engine.commits import WorkerEnds
from stream.settings import load_settings
from stream.tiers.base import Background


class Stream:
    """Yields the batches given, then raises."""

    def __init__(self, *batches: list[Any], then: Exception | None = None) -> None:
        self._batches = batches
        self._then = then

    async def batches(self, max_records: int, wait_s: float) -> AsyncIterator[list[Any]]:
        for batch in self._batches:
            yield batch
        if self._then:
            raise self._then


def record() -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord("searches", 0, 7, 0, 0, b"anna", b"{}", None, 4, 2, ())


@pytest.fixture
def app(tmp_path: Path) -> EngineApp:
    return new_app(load_settings(store="memory", state_dir=tmp_path), "preference")


@pytest.fixture(params=[None, MemoryError("even for this")], ids=["told", "telling fails"])
def telling(request: Any, monkeypatch: pytest.MonkeyPatch) -> Exception | None:
    """What goes wrong while Faust is told of a crash."""
    if request.param:

        async def crash(self: Any, reason: BaseException) -> None:
            raise request.param

        monkeypatch.setattr(faust.App, "crash", crash)
    return request.param  # type: ignore[no-any-return]


async def run(app: EngineApp, stream: Stream, fails: bool = False) -> None:
    async def process(batch: Sequence[SourceMessage]) -> None:
        if fails:
            raise MemoryError("no room for the batch")

    add_agent(app, load_settings(), "shoppers", ["searches"], process, wait_s=0)
    await app.agents["shoppers"].fun(stream)  # type: ignore[arg-type, misc]


async def test_a_stage_that_fails_ends_the_right_to_commit(
    app: EngineApp, telling: Exception | None
) -> None:
    with pytest.raises(MemoryError):
        await run(app, Stream([record()]), fails=True)
    assert app.lease.given_up
    assert app.crashed is (telling is None)


async def test_so_does_a_batch_that_cannot_be_gathered(
    app: EngineApp, telling: Exception | None
) -> None:
    with pytest.raises(MemoryError):
        await run(app, Stream([record()], then=MemoryError("no room for the next event")))
    assert app.lease.given_up


async def test_and_a_task_in_the_background_that_fails(
    app: EngineApp, telling: Exception | None
) -> None:
    async def step() -> None:
        raise RuntimeError("nothing is due, and yet")

    background = Background(app)
    background.start(step())
    [task] = background._tasks
    await asyncio.wait({task})
    assert app.lease.given_up
    assert task.exception() is telling
    assert app.crashed is (telling is None)


async def test_what_fails_because_of_a_failure_is_not_told_as_one(
    app: EngineApp, caplog: pytest.LogCaptureFixture
) -> None:
    await app.crash(RuntimeError("the reason"))
    await app.crash(WorkerEnds("about to end"))
    assert "the reason" in caplog.text
    assert "about to end" not in caplog.text


async def test_the_first_to_be_told_is_told_whatever_it_is(app: EngineApp) -> None:
    await app.crash(WorkerEnds("about to end"))
    assert app.crashed


async def test_what_ends_in_good_order_goes_on_committing(app: EngineApp) -> None:
    await run(app, Stream([record()], [record()]))
    assert not app.lease.given_up

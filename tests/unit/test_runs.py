from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from faust.types import TP
from mode.utils.queues import FlowControlEvent

from stream.engine.runs import Run, RunQueue

PLACE = TP("clickstream", 2)


def run(*offsets: int) -> Run:
    return Run(PLACE, [SimpleNamespace(offset=offset) for offset in offsets], 3)


@pytest.fixture
async def queue() -> RunQueue:
    return RunQueue(maxsize=5, flow_control=FlowControlEvent(initially_suspended=False))


def test_parts_are_taken_from_the_front() -> None:
    whole = run(4, 5, 9)
    first, rest = whole.take(2), whole.take(7)
    assert [record.offset for record in first.records] == [4, 5]
    assert [record.offset for record in rest.records] == [9]
    assert len(whole) == 0


def test_what_is_done_may_be_committed_once() -> None:
    whole = run(4, 5, 9)
    assert whole.committable() is None
    whole.done(1)
    assert whole.committable() == 5
    assert whole.committable() is None
    whole.done(2)
    assert whole.committable() == 10
    assert whole.is_done


async def test_a_queue_is_as_full_as_its_runs_have_records(queue: RunQueue) -> None:
    await queue.put(run(1, 2, 3))
    assert (queue.qsize(), queue.full()) == (3, False)
    await queue.put(run(4, 5))
    assert (queue.qsize(), queue.full()) == (5, True)
    queue.get_nowait()
    assert (queue.qsize(), queue.full()) == (2, False)


async def test_what_is_left_of_a_run_is_taken_next(queue: RunQueue) -> None:
    await queue.put(run(1, 2, 3))
    await queue.put(run(4))
    first = queue.get_nowait()
    first.take(2)
    queue.put_back(first)
    assert queue.qsize() == 2
    assert queue.get_nowait() is first
    assert queue.qsize() == 1


async def test_what_is_cleared_leaves_room(queue: RunQueue) -> None:
    await queue.put(run(1, 2, 3, 4, 5))
    waiting = asyncio.create_task(queue.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.clear()
    await asyncio.wait_for(waiting, 5)
    assert (queue.qsize(), queue.empty()) == (0, True)

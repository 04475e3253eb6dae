from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import faust
import pytest
from aiokafka import ConsumerRecord
from faust.types import TP, ConsumerMessage, Message
from mode.utils.queues import ThrowableQueue

from stream.engine.app import EngineApp, new_app
from stream.engine.batches import BatchStream, source_message
from stream.engine.runs import Part, Run
from stream.settings import load_settings

TOPIC = "shop-clickstream"


class FakeConsumer:
    """The part of the consumer that knows what is in progress and what is done."""

    def __init__(self) -> None:
        self._in_progress: list[Part] = []
        self.acked: list[int] = []

    @property
    def in_progress(self) -> list[int]:
        return [record.offset for part in self._in_progress for record in part.records]

    def track(self, part: Part) -> None:
        self._in_progress.append(part)

    def done(self, part: Part) -> None:
        self._in_progress.remove(part)
        self.acked += [record.offset for record in part.records]


class Source:
    """A Faust app with one open stream, and runs put into it as the consumer would."""

    def __init__(self, app: EngineApp) -> None:
        self.app = app
        self.consumer = FakeConsumer()
        app._consumer = self.consumer  # type: ignore[assignment]
        app.flow_control.resume()
        self.channel = app.channel().clone(is_iterator=True)
        self.stream = BatchStream(self.channel, app=app)
        self.n_put = 0

    def put(self, n: int = 1, generation: int = 0) -> None:
        """Put a run of n records."""
        offsets = range(self.n_put, self.n_put + n)
        self.n_put += n
        records = [record(offset) for offset in offsets]
        self.channel.queue.put_nowait(Run(TP(TOPIC, 2), records, generation))


def record(offset: int, headers: Any = (("h", b"1"),)) -> ConsumerRecord[bytes, bytes]:
    at_ms = 1_760_000_000_125
    return ConsumerRecord(TOPIC, 2, offset, at_ms, 0, b"u1", b"%d" % offset, None, 2, 1, headers)


@pytest.fixture
async def app(tmp_path: Path) -> EngineApp:
    return new_app(load_settings(state_dir=tmp_path, topic_prefix="shop-"), "preference")


@pytest.fixture
async def source(app: EngineApp) -> AsyncIterator[Source]:
    source = Source(app)
    yield source
    await source.stream.stop()


def offsets(batch: list[Any]) -> list[int]:
    return [record.offset for record in batch]


async def until(done: Callable[[], object]) -> None:
    for _ in range(5000):
        if done():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not come to this in five seconds")


async def test_a_batch_is_what_has_arrived(source: Source) -> None:
    source.put(3)
    batches = source.stream.batches(100, 0)
    assert offsets(await anext(batches)) == [0, 1, 2]
    source.put(1)
    assert offsets(await anext(batches)) == [3]


async def test_no_batch_is_larger_than_asked_for_and_none_is_left_behind(source: Source) -> None:
    source.put(7)
    batches = source.stream.batches(3, 0)
    assert [offsets(await anext(batches)) for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [6]]


async def test_a_batch_waits_a_little_for_more(source: Source) -> None:
    source.put(1)
    waiting = asyncio.create_task(anext(source.stream.batches(100, 0.05)))
    await asyncio.sleep(0.01)
    source.put(2)
    assert offsets(await waiting) == [0, 1, 2]


async def test_a_full_batch_does_not_wait(source: Source) -> None:
    source.put(2)
    first = anext(source.stream.batches(2, wait_s=60))
    assert len(await asyncio.wait_for(first, 5)) == 2


async def test_a_batch_is_acknowledged_when_the_next_one_is_asked_for(source: Source) -> None:
    source.put(2)
    batches = source.stream.batches(100, 0)
    await anext(batches)
    assert (source.consumer.acked, source.consumer.in_progress) == ([], [0, 1])
    source.put(1)
    await anext(batches)
    assert (source.consumer.acked, source.consumer.in_progress) == ([0, 1], [2])


async def test_a_body_that_raises_leaves_its_events_unacknowledged(source: Source) -> None:
    source.put(2)

    async def agent() -> None:
        async for _ in source.stream.batches(100, 0):
            raise RuntimeError("in the body")

    with pytest.raises(RuntimeError, match="in the body"):
        await agent()
    assert (source.consumer.acked, source.consumer.in_progress) == ([], [0, 1])


class TakeConsumer:
    """What Faust's own streams tell of an event that is done."""

    def __init__(self) -> None:
        self._unacked_messages: set[Message] = set()
        self.acked: list[int] = []

    def track_message(self, message: Message) -> None:
        self._unacked_messages.add(message)

    def ack(self, message: Message) -> bool:
        self.acked.append(message.offset)
        return True


async def test_fausts_take_acknowledges_a_batch_whose_body_raises(app: EngineApp) -> None:
    """Why there are batches(): if this fails, Faust has mended take()."""
    app._consumer = consumer = TakeConsumer()  # type: ignore[assignment]
    app.topics._topic_name_index[TOPIC] = set()
    app.topics.acking_topics.add(TOPIC)
    app.flow_control.resume()
    channel: Any = app.channel().clone(is_iterator=True)
    channel._queue = ThrowableQueue(maxsize=10, flow_control=app.flow_control)
    stream = faust.Stream(channel, app=app)
    await stream.start()
    for offset in range(2):
        message = ConsumerMessage(
            TOPIC, 2, offset, 1.5, 0, [], b"u1", b"", None, tp=TP(TOPIC, 2), generation_id=0
        )
        message.incref()
        channel.queue.put_nowait(faust.Event(app, b"u1", b"", None, message))

    async def agent() -> None:
        async for _ in stream.take(2, within=5):
            raise RuntimeError("in the body")

    with pytest.raises(RuntimeError, match="in the body"):
        await asyncio.wait_for(agent(), 5)
    await until(lambda: consumer.acked == [0, 1])
    await stream.stop()


async def test_what_was_fetched_before_a_rebalance_is_dropped(source: Source) -> None:
    source.app.consumer_generation_id = 2
    source.put(2, generation=1)
    source.put(1, generation=2)
    batches = source.stream.batches(100, 0)
    assert offsets(await anext(batches)) == [2]
    assert source.consumer.in_progress == [2]  # what is dropped is nothing to wait for
    source.put(1, generation=2)
    await anext(batches)
    assert source.consumer.acked == [2]


async def test_a_batch_of_nothing_but_dropped_events_is_no_batch(source: Source) -> None:
    source.app.consumer_generation_id = 2
    source.put(2, generation=1)
    waiting = asyncio.create_task(anext(source.stream.batches(100, 0.001)))
    await until(lambda: source.channel.queue.empty())
    await asyncio.sleep(0.01)
    source.put(1, generation=2)
    assert offsets(await waiting) == [2]


async def test_an_event_is_in_progress_while_its_batch_is_still_gathered(source: Source) -> None:
    """Faust waits for what is in progress before it lets go of a partition."""
    source.put(1)
    waiting = asyncio.create_task(anext(source.stream.batches(100, 0.05)))
    await until(lambda: source.consumer.in_progress == [0])
    assert not waiting.done()
    await waiting


async def test_nothing_is_taken_once_a_rebalance_has_begun(source: Source) -> None:
    source.put(1)
    batches = source.stream.batches(100, 0.03)
    waiting = asyncio.create_task(anext(batches))
    await until(lambda: source.consumer.in_progress == [0])
    source.app.flow_control.suspend()
    source.put(1)
    assert offsets(await waiting) == [0]
    assert source.consumer.in_progress == [0]


async def test_batches_end_when_faust_closes_the_channel(source: Source) -> None:
    source.put(1)
    batches = source.stream.batches(100, 0.01)
    waiting = asyncio.create_task(anext(batches))
    await until(lambda: source.consumer.in_progress == [0])
    await source.channel.throw(StopAsyncIteration())  # while the batch is being gathered
    assert offsets(await waiting) == [0]
    assert [batch async for batch in batches] == []
    assert source.consumer.acked == [0]


async def test_a_run_is_taken_in_parts_and_what_is_left_of_it_may_be_cleared(
    source: Source,
) -> None:
    source.put(5)
    batches = source.stream.batches(2, 0)
    assert offsets(await anext(batches)) == [0, 1]
    assert source.channel.queue.qsize() == 3
    source.app.flow_control.clear()
    source.put(1)
    assert offsets(await anext(batches)) == [5]


async def test_a_record_becomes_a_plain_message(source: Source) -> None:
    source.put(1)
    [taken] = await anext(source.stream.batches(1, 0))
    message = source_message(taken, {TOPIC: "clickstream"})
    assert (message.topic, message.partition, message.offset) == ("clickstream", 2, 0)
    assert (message.key, message.value) == (b"u1", b"0")
    assert message.timestamp_ms == 1_760_000_000_125
    assert message.headers == (("h", b"1"),)


def test_headers_may_repeat_a_name() -> None:
    headers = (("a", b"1"), ("a", b"2"))
    assert source_message(record(0, headers), {TOPIC: "clickstream"}).headers == headers

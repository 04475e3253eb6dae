from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from faust.types import TP, ConsumerMessage, Message

from stream.engine.app import EngineApp, new_app
from stream.engine.batches import BatchStream, source_message
from stream.settings import load_settings

TOPIC = "shop-clickstream"


class FakeConsumer:
    """The part of Faust's consumer that knows what is in progress and what is done."""

    def __init__(self) -> None:
        self._unacked_messages: set[Message] = set()
        self.acked: list[int] = []

    @property
    def in_progress(self) -> list[int]:
        return sorted(message.offset for message in self._unacked_messages)

    def track_message(self, message: Message) -> None:
        self._unacked_messages.add(message)

    def ack(self, message: Message) -> bool:
        self._unacked_messages.discard(message)
        self.acked.append(message.offset)
        return True


class Source:
    """A Faust app with one open stream, and events put into it as Faust's conductor would."""

    def __init__(self, app: EngineApp, stream_type: type[faust.Stream[Any]] = BatchStream) -> None:
        self.app = app
        self.consumer = FakeConsumer()
        app._consumer = self.consumer  # type: ignore[assignment]
        app.topics._topic_name_index[TOPIC] = set()
        app.topics.acking_topics.add(TOPIC)
        app.flow_control.resume()
        self.channel = app.channel().clone(is_iterator=True)
        self.stream = stream_type(self.channel, app=app)
        self.n_put = 0

    def put(self, n: int = 1, generation: int = 0) -> None:
        for _ in range(n):
            message = ConsumerMessage(
                topic=TOPIC,
                partition=2,
                offset=self.n_put,
                timestamp=1_760_000_000.125,
                timestamp_type=0,
                headers=[("h", b"1")],
                key=b"u1",
                value=b"%d" % self.n_put,
                checksum=None,
                tp=TP(TOPIC, 2),
                generation_id=generation,
            )
            message.incref()
            event = faust.Event(self.app, b"u1", b"%d" % self.n_put, None, message)
            self.channel.queue.put_nowait(event)
            self.n_put += 1


@pytest.fixture
async def app(tmp_path: Path) -> EngineApp:
    return new_app(load_settings(state_dir=tmp_path, topic_prefix="shop-"), "preference")


@pytest.fixture
async def source(app: EngineApp) -> AsyncIterator[Source]:
    source = Source(app)
    yield source
    await source.stream.stop()


def offsets(batch: list[Any]) -> list[int]:
    return [event.message.offset for event in batch]


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


async def test_fausts_take_acknowledges_a_batch_whose_body_raises(app: EngineApp) -> None:
    """Why there are batches(): if this fails, Faust has mended take()."""
    source = Source(app, faust.Stream)
    await source.stream.start()
    source.put(2)

    async def agent() -> None:
        async for _ in source.stream.take(2, within=5):
            raise RuntimeError("in the body")

    with pytest.raises(RuntimeError, match="in the body"):
        await asyncio.wait_for(agent(), 5)
    await until(lambda: source.consumer.acked == [0, 1])
    await source.stream.stop()


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


async def test_an_event_becomes_a_plain_message(source: Source) -> None:
    source.put(1)
    [event] = await anext(source.stream.batches(1, 0))
    message = source_message(event, "shop-")
    assert (message.topic, message.partition, message.offset) == ("clickstream", 2, 0)
    assert (message.key, message.value) == (b"u1", b"0")
    assert message.timestamp_ms == 1_760_000_000_125
    assert message.headers == (("h", b"1"),)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [(None, ()), ({"a": b"1"}, (("a", b"1"),)), ([("a", b"1"), ("a", b"2")], None)],
)
def test_headers_come_in_every_form_that_faust_gives_them(headers: Any, expected: Any) -> None:
    message = SimpleNamespace(
        topic="t", partition=0, offset=0, timestamp=None, key=None, value=None, headers=headers
    )
    made = source_message(SimpleNamespace(message=message), "")  # type: ignore[arg-type]
    assert made.headers == (tuple(headers) if expected is None else expected)
    assert made.timestamp_ms == 0

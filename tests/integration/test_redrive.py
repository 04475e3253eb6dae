"""dead-letters list and redrive on the embedded broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from builders import message

from stream.core.events import BadEvent
from stream.dead_letters import DeadLetters, Failure
from stream.delivery import Headers, Output
from stream.redrive import Selection, list_dead_letters, redrive
from stream.settings import Settings

pytestmark = pytest.mark.broker

BAD = BadEvent("Expected `str`, got `int` - at `$.user_id`")
PARTITIONS = 2


class ProducerSender:
    """The least Sender on a broker: acks=all, awaited."""

    def __init__(self, producer: AIOKafkaProducer, prefix: str) -> None:
        self._producer, self._prefix = producer, prefix

    async def send(self, outputs: Sequence[Output]) -> list[int]:
        sent = [
            await self._producer.send(
                self._prefix + o.topic, o.value, o.key, o.partition, headers=list(o.headers)
            )
            for o in outputs
        ]
        return [(await one).offset for one in sent]

    def partition_of(self, topic: str, key: bytes) -> int:
        raise NotImplementedError


async def _created(broker: str, names: list[str]) -> None:
    for _ in range(100):
        admin = AIOKafkaAdminClient(bootstrap_servers=broker)
        try:
            await admin.start()
            await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])
            return
        except KafkaError:
            await asyncio.sleep(0.1)
        finally:
            await admin.close()
    raise TimeoutError("the broker did not start")


@pytest.fixture
async def shop(
    embedded_broker: str, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Settings, ProducerSender]]:
    settings = Settings(broker=embedded_broker, topic_prefix=f"{request.node.name[-24:]}.")
    names = ["clickstream", "reviews", "dead-letters"]
    await _created(embedded_broker, [settings.topic_prefix + name for name in names])
    producer = AIOKafkaProducer(
        bootstrap_servers=embedded_broker, acks="all", max_request_size=2_000_000
    )
    await producer.start()
    yield settings, ProducerSender(producer, settings.topic_prefix)
    await producer.stop()


async def read_all(settings: Settings, topic: str) -> list[tuple[bytes | None, bytes, Headers]]:
    consumer = AIOKafkaConsumer(
        settings.topic_prefix + topic,
        bootstrap_servers=settings.broker,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        found = await consumer.getmany(timeout_ms=1500)
        return [(r.key, r.value, tuple(r.headers)) for rs in found.values() for r in rs]
    finally:
        await consumer.stop()


async def poison(sender: ProducerSender) -> None:
    letters = DeadLetters(sender, "0.1.0", lambda topic, reason, n: None)
    trace: Headers = (("trace", b"\x00\xff"),)
    await letters.send_all(
        [
            Failure(message("clickstream", b"\xff{", 1, headers=trace), BAD, "parse"),
            Failure(message("clickstream", b"", 2, key=b"u2"), KeyError("u2"), "fold"),
            Failure(message("reviews", b"{}", 3), BAD, "parse"),
        ]
    )


async def test_dead_letters_are_listed_with_their_reasons(shop: tuple[Settings, ProducerSender]):
    settings, sender = shop
    await poison(sender)
    letters = await list_dead_letters(settings)
    assert {letter.source for letter in letters} == {
        "clickstream/0/1",
        "clickstream/0/2",
        "reviews/0/3",
    }
    [fold] = await list_dead_letters(settings, Selection(stage="fold"))
    assert (fold.key, fold.value, fold.fact("dlq.error.class")) == (b"u2", b"", "KeyError")
    assert len(await list_dead_letters(settings, limit=2)) == 2


async def test_a_redrive_copies_byte_for_byte_and_only_once(shop: tuple[Settings, ProducerSender]):
    settings, sender = shop
    await poison(sender)
    chosen = Selection(topic="clickstream")
    rehearsal = await redrive(settings, sender, chosen, dry_run=True)
    assert rehearsal.sent == {"clickstream": 2}
    assert await read_all(settings, "clickstream") == []

    assert (await redrive(settings, sender, chosen)).sent == {"clickstream": 2}
    assert sorted(await read_all(settings, "clickstream")) == [
        (b"u1", b"\xff{", (("trace", b"\x00\xff"), ("dlq.attempts", b"2"))),
        (b"u2", b"", (("dlq.attempts", b"2"),)),
    ]
    assert await read_all(settings, "reviews") == []

    second = await redrive(settings, sender, chosen)
    assert (second.sent, second.skipped) == ({}, {"redriven before": 2})
    again = await redrive(settings, sender, chosen, again=True, limit=1)
    assert again.sent == {"clickstream": 1}
    marks = {letter.source: letter.redriven for letter in await list_dead_letters(settings)}
    assert marks == {"clickstream/0/1": True, "clickstream/0/2": True, "reviews/0/3": False}


async def test_a_cut_message_arrives_but_is_not_redriven(shop: tuple[Settings, ProducerSender]):
    settings, sender = shop
    letters = DeadLetters(sender, "0.1.0", lambda topic, reason, n: None)
    await letters.send(message("reviews", b"x" * 3_000_000), BAD, "parse")
    [letter] = await list_dead_letters(settings)
    assert letter.truncated
    report = await redrive(settings, sender)
    assert report.sent == {}
    assert report.skipped == {"was cut, so a copy would not be the message": 1}


async def test_without_the_topic_its_name_is_said(embedded_broker: str):
    with pytest.raises(LookupError, match="no topic elsewhere-dead-letters"):
        await list_dead_letters(Settings(broker=embedded_broker, topic_prefix="elsewhere-"))

"""KafkaSender on both brokers: what it sent, read by a client that is not ours."""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from types import SimpleNamespace

import pytest
from aiokafka.protocol.group import SyncGroupRequest
from confluent_kafka import Producer
from running import Outside

from stream.delivery import DeliveryFailed, Output
from stream.engine.lease import Lease
from stream.kafka_client import MAX_REQUEST_BYTES, KafkaSender
from stream.settings import Settings
from stream.topic_admin import create_topics

PARTITIONS = 5


@pytest.fixture
def settings(broker, topic_prefix):
    return Settings(broker=broker, topic_prefix=topic_prefix, partitions=PARTITIONS)


@pytest.fixture
async def sender(settings):
    await create_topics(settings)
    sender = KafkaSender(settings)
    await sender.start()
    yield sender
    await sender.stop()


@pytest.fixture
def outside(settings):
    return Outside(settings.broker, settings.topic_prefix)


async def test_every_output_arrives_as_it_is_at_the_offset_returned(sender, outside):
    outputs = [
        # Where it stamps messages itself, the embedded broker keeps one header of each name.
        Output("searches", b"anna", b"1", headers=(("a", b"1"), ("a", b"\xff"), ("b", b""))),
        Output("recommendations", b"anna", None),
        Output("items", "é雪".encode(), b"\x00\xff", timestamp_ms=1_700_000_000_123),
        Output("recommendations", b"", b""),
        Output("dead-letters", None, None, partition=4),
        Output("dead-letters", None, b"no key"),
    ]
    offsets = await sender.send(outputs)
    topics = {output.topic for output in outputs}
    read = {(m.topic(), m.partition(), m.offset()): m for t in topics for m in outside.read(t)}
    assert len(read) == len(outputs)
    for output, offset in zip(outputs, offsets, strict=True):
        partition = output.partition
        if partition is None and output.key is not None:
            partition = sender.partition_of(output.topic, output.key)
        (message,) = [
            m
            for (topic, p, o), m in read.items()
            if topic == outside.prefix + output.topic
            and o == offset
            and (p == partition or (partition is None and m.value() == output.value))
        ]
        assert (message.key(), message.value()) == (output.key, output.value)
        assert tuple(message.headers() or ()) == output.headers
        if output.timestamp_ms:
            assert message.timestamp()[1] == output.timestamp_ms


async def test_keys_go_where_librdkafka_s_murmur2_sends_them(sender, settings, outside):
    chance = random.Random(11)
    keys = [
        b"",
        "é雪🙂".encode(),
        *(chance.randbytes(chance.randrange(1, 60)) for _ in range(3000)),
    ]
    producer = Producer({"bootstrap.servers": settings.broker, "partitioner": "murmur2"})
    for key in keys:
        producer.produce(settings.topic_prefix + "clickstream", key=key, value=b"x")
    assert producer.flush(30) == 0
    theirs = {m.key() or b"": m.partition() for m in outside.read("clickstream")}
    await sender.send([Output("searches", key, b"x") for key in keys])
    ours = {m.key() or b"": m.partition() for m in outside.read("searches")}
    assert len(ours) == len(set(keys))
    assert ours == theirs


async def test_a_large_send_keeps_its_order_in_each_partition(sender, outside):
    outputs = [
        Output("item-pairs", f"i{n % 40}".encode(), f"{n:06}".encode() * 200) for n in range(2500)
    ]
    first = await sender.send(outputs[:2000])
    then = await sender.send(outputs[2000:])
    placed = defaultdict(list)
    for output, offset in zip(outputs, first + then, strict=True):
        placed[sender.partition_of(output.topic, output.key)].append((offset, output.value))
    read = defaultdict(list)
    for message in outside.read("item-pairs"):
        read[message.partition()].append((message.offset(), message.value()))
    assert read == placed
    assert all(places == sorted(places) for places in placed.values())


async def test_messages_without_a_key_go_round_the_partitions(sender, outside):
    await sender.send([Output("dead-letters", None, b"x")] * (2 * PARTITIONS))
    partitions = [m.partition() for m in outside.read("dead-letters")]
    assert sorted(partitions) == sorted([*range(PARTITIONS)] * 2)


async def test_too_large_a_message_fails_by_topic_and_the_sender_goes_on(sender, outside):
    large = Output("churn-risk", b"anna", b"x" * MAX_REQUEST_BYTES)
    with pytest.raises(DeliveryFailed, match=r"topic churn-risk: a message of 20\d+ bytes"):
        await sender.send([Output("recommendations", b"a", b"before"), large])
    assert await sender.send([Output("churn-risk", b"anna", b"small")]) == [0]
    assert outside.read("recommendations") == []


@pytest.mark.kafka
async def test_what_the_broker_refuses_fails_by_topic_and_reason(apache_kafka, topic_prefix):
    settings = Settings(broker=apache_kafka, topic_prefix=topic_prefix, partitions=PARTITIONS)
    await create_topics(settings)
    sender = KafkaSender(settings)
    await sender.start()
    # Larger than Kafka's message.max.bytes by default, smaller than our own limit.
    refused = Output("churn-risk", b"anna", b"x" * 1_500_000)
    with pytest.raises(DeliveryFailed, match="topic churn-risk: MessageSizeTooLargeError"):
        await sender.send([Output("recommendations", b"a", b"b"), refused])
    assert await sender.send([Output("churn-risk", b"anna", b"small")]) == [0]
    await sender.stop()


@pytest.mark.kafka
async def test_what_was_refused_does_not_stand_in_the_way_of_what_follows(
    apache_kafka, topic_prefix
):
    settings = Settings(broker=apache_kafka, topic_prefix=topic_prefix, partitions=PARTITIONS)
    await create_topics(settings)
    sender = KafkaSender(settings)
    await sender.start()
    small = Output("churn-risk", b"anna", b"small")
    assert await sender.send([small]) == [0]
    with pytest.raises(DeliveryFailed, match="MessageSizeTooLargeError"):
        await sender.send([Output("churn-risk", b"anna", b"x" * 1_500_000)])
    # A producer that goes on counting is refused from here on, as out of order.
    assert await sender.send([small]) == [1]
    await sender.stop()


async def test_a_sender_that_is_not_started_says_so(settings):
    with pytest.raises(DeliveryFailed, match="not started"):
        await KafkaSender(settings).send([Output("churn-risk", b"a", b"b")])


async def test_one_message_arrives_in_a_moment(sender):
    took_s: list[float] = []
    for _ in range(21):
        started = time.monotonic()
        await sender.send([Output("churn-risk", b"a", b"b")])
        took_s.append(time.monotonic() - started)
    # Not the mean: what else the machine does makes one or two wait.
    assert statistics.median(took_s) < 0.05


async def test_nothing_is_sent_in_a_term_that_is_over_by_a_producer_made_anew_either(
    sender, outside
):
    lease = Lease(session_s=60)
    sender.write_only_with(lease)
    output = Output("recommendations", b"anna", b"1")

    async def answered(node_id: int, request: object) -> SimpleNamespace:
        return SimpleNamespace(error_code=0)

    async def joins() -> None:
        await lease.watching(answered)(0, SyncGroupRequest("g", 1, "m", [], None))

    await joins()
    for _ in range(2):  # what is refused for good makes the sender begin anew
        with pytest.raises(DeliveryFailed):
            await sender.send([output])
    lease.assigned()
    await sender.send([output])
    assert len(outside.read("recommendations")) == 1
    await joins()
    with pytest.raises(DeliveryFailed):
        await sender.send([output])

"""pseudonymise: raw topics -> the same events under pseudonyms, in our topics.

At least once: what was read is committed when it has arrived. Event ids stay as they are, by which
a repeat is known again. Of an event only the fields of its schema go on, of its headers the trace:
what else a producer adds may say who it is. What cannot be read is a dead letter beside the raw
topics, since it may hold a raw id.

``users`` is read by a group that is named after the key, and before all else: a new key has it read
anew from the beginning, so that who declined under the old one is known before they act.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from importlib.metadata import version
from typing import Any, Protocol

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError
from tenacity import (
    AsyncRetrying,
    before_sleep_log,
    retry_if_exception_type,
    wait_exponential_jitter,
)

from stream.connection import client_options
from stream.core.events import PARSERS, BadEvent, User
from stream.core.intake import key_of
from stream.dead_letters import DeadLetters, Failure
from stream.delivery import DeliveryFailed, Headers, Output, Sender, SourceMessage
from stream.edge import EdgeWatch
from stream.groups import group_of_acts, group_of_users
from stream.kafka_client import KafkaSender
from stream.latest import partitions_of, reading
from stream.logs import tell_uncaught
from stream.pseudonyms import Pseudonymiser
from stream.settings import Settings
from stream.topic_admin import wait_for_broker
from stream.topics import CLICKSTREAM, DEAD_LETTERS, REVIEWS, SEARCHES, USERS

log = logging.getLogger(__name__)

ACTS = (CLICKSTREAM.name, SEARCHES.name, REVIEWS.name)
STAGE = "pseudonymise"
#: W3C Trace Context.
KEPT_HEADERS = ("traceparent", "tracestate")
#: With its framing, a message stays below Kafka's default limit of 1 MiB.
MAX_BYTES = 1_000_000
_BATCH = 2000
_WAIT_MS = 500
#: Until the users known before are under the key in use, acts wait, and look again this often.
_LOOK_AGAIN_S = 0.5

#: Called with a batch, and those of it that could not be read, once all has arrived.
OnCopied = Callable[[Sequence[SourceMessage], Sequence[Failure], int], None]


Copying = asyncio.Task[None]


class Reader(Protocol):
    """What is read of a consumer of aiokafka's."""

    async def getmany(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, Any]: ...

    def assignment(self) -> Collection[TopicPartition]: ...

    async def position(self, place: TopicPartition) -> int: ...

    async def commit(self, offsets: dict[TopicPartition, int]) -> None: ...


def pseudonymous(message: SourceMessage, names: Pseudonymiser) -> list[Output]:
    """Return what a raw message becomes; raises BadEvent when it cannot be read.

    More than one where a user declines or is erased: that goes for every key's pseudonym.
    """
    headers = tuple(header for header in message.headers if header[0] in KEPT_HEADERS)
    if message.topic == USERS.name and message.value is None:
        user_id = key_of(message)
        return [
            Output(USERS.name, n.encode(), None, headers=headers) for n in names.all_of(user_id)
        ]
    event = PARSERS[message.topic](message.value, message.key)
    declines = isinstance(event, User) and not event.personalize
    found = names.all_of(event.user_id) if declines else [names.of(event.user_id)]
    return [
        Output(
            message.topic,
            name.encode(),
            _fitting(msgspec.json.encode(_under(name, event, names)), headers),
            headers=headers,
        )
        for name in found
    ]


def _fitting(value: bytes, headers: Headers) -> bytes:
    """Return a value that a broker takes by default; a pseudonym may be longer than an id."""
    n_bytes = len(value) + sum(len(content or b"") for _, content in headers)
    if n_bytes > MAX_BYTES:
        raise BadEvent(f"expected at most {MAX_BYTES} bytes, got {n_bytes}")
    return value


def _under(name: str, event: Any, names: Pseudonymiser) -> Any:
    session_id = getattr(event, "session_id", None)
    if session_id is None:
        return msgspec.structs.replace(event, user_id=name)
    return msgspec.structs.replace(event, user_id=name, session_id=names.of_session(session_id))


class Pseudonymise:
    """Copies what a reader gives."""

    def __init__(
        self,
        names: Pseudonymiser,
        sender: Sender,
        dead_letters: DeadLetters,
        raw_prefix: str,
        on_copied: OnCopied,
    ) -> None:
        """``dead_letters`` go beside the raw topics, ``sender`` sends to ours."""
        self._names = names
        self._sender = sender
        self._dead_letters = dead_letters
        self._raw_prefix = raw_prefix
        self._on_copied = on_copied
        self._committed: dict[TopicPartition, int] = {}

    async def step(self, reader: Reader) -> int:
        """Copy a batch and commit it; return how many messages it had."""
        batch = await reader.getmany(timeout_ms=_WAIT_MS, max_records=_BATCH)
        records = [record for some in batch.values() for record in some]
        if records:
            await self._copied([self._message(record) for record in records])
        try:
            # Not the last record's: behind it there may be a transaction's end, which is no record.
            at = {place: await reader.position(place) for place in reader.assignment()}
            new = {place: n for place, n in at.items() if self._committed.get(place) != n}
            if new:
                await reader.commit(new)
                self._committed.update(new)
        except (CommitFailedError, IllegalStateError) as error:
            # The partitions have another reader by now, which copies them again.
            log.info("not committed, to be copied again: %r", error)
            self._committed.clear()
        return len(records)

    async def _copied(self, messages: Sequence[SourceMessage]) -> None:
        outputs: list[Output] = []
        failures: list[Failure] = []
        for message in messages:
            try:
                outputs += pseudonymous(message, self._names)
            except BadEvent as error:
                failures.append(Failure(message, error, STAGE))
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(DeliveryFailed),
            wait=wait_exponential_jitter(initial=0.5, max=10),
            before_sleep=before_sleep_log(log, logging.WARNING),
        ):
            with attempt:
                await self._sender.send(outputs)
                # Tried again, the events go twice; they are known by their ids.
                await self._dead_letters.send_all(failures)
        self._on_copied(messages, failures, time.time_ns() // 1_000_000)

    def _message(self, record: Any) -> SourceMessage:
        return SourceMessage(
            record.topic.removeprefix(self._raw_prefix),
            record.partition,
            record.offset,
            record.timestamp,
            record.key,
            record.value,
            tuple(record.headers),
        )


def run_until_told(settings: Settings, names: Pseudonymiser) -> None:
    """Copy until SIGTERM or Ctrl-C, once a broker is there; what is in hand is copied again.

    Raises CannotListen when the address of metrics and health cannot be had, and as ``run`` does.
    """

    async def copy() -> None:
        task = asyncio.current_task()
        assert task is not None
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, task.cancel)
        watch = EdgeWatch(settings)
        async with watch.serving():
            await wait_for_broker(settings, watch.no_broker)
            await run(settings, names, watch)

    sys.excepthook = tell_uncaught
    with suppress(asyncio.CancelledError):
        asyncio.run(copy())


async def run(settings: Settings, names: Pseudonymiser, watch: EdgeWatch) -> None:
    """Copy until cancelled.

    Raises LookupError when a topic is missing or has not the partitions that it must have,
    KafkaError when there is no broker.
    """
    watch.readiness.set("broker", True)
    raw = await _raw_settings(settings)
    watch.readiness.set("topics", True)
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        sender = KafkaSender(settings, watch.delivered, watch.metrics.count_sent)
        beside = KafkaSender(raw, watch.delivered)
        for one in (sender, beside):
            stack.push_async_callback(one.stop)
            await one.start()
        watch.readiness.set("deliveries", True)
        dead_letters = DeadLetters(beside, version("prefstream"), lambda *_: None)

        async def follow(topics: Iterable[str], group: str) -> tuple[AIOKafkaConsumer, Copying]:
            reader = await _reading(raw, topics, group, stack)
            places = [
                (topic, n)
                for topic in topics
                for n in await partitions_of(reader, raw.topic_prefix + topic)
            ]
            await watch.watch_group(raw, group, places, reader.assignment, stack)
            copying = Pseudonymise(names, sender, dead_letters, raw.topic_prefix, watch.copied)
            task = loop.create_task(_follow(copying, reader))
            stack.callback(task.cancel)
            return reader, task

        users, following = await follow((USERS.name,), group_of_users(settings, names.key_ids[0]))
        known = await _Known.of(users, raw.topic_prefix + USERS.name)
        reached = loop.create_task(known.reached())
        stack.callback(reached.cancel)
        await asyncio.wait({following, reached}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            await following  # fails: no act may be copied before who declined is known
        await reached
        log.info("users are known under key=%s: copying their acts", names.key_ids[0])
        watch.readiness.set("users_known", True, f"under key {names.key_ids[0]}")
        _, also = await follow(ACTS, group_of_acts(settings))
        watching = loop.create_task(watch.watch_topics(lambda: _raw_settings(settings)))
        stack.callback(watching.cancel)
        await asyncio.gather(following, also, watching)


async def _raw_settings(settings: Settings) -> Settings:
    """Return the settings of what lies beside the raw topics; raises LookupError."""
    prefix = settings.pseudonym_raw_prefix
    async with reading(settings) as consumer:
        for topic in (*ACTS, USERS.name):
            await partitions_of(consumer, prefix + topic)
            n_ours = len(await partitions_of(consumer, settings.topic_prefix + topic))
            if n_ours != settings.partitions:
                raise LookupError(
                    f"topic {settings.topic_prefix}{topic}: expected {settings.partitions} "
                    f"partitions (setting partitions), got {n_ours}"
                )
        n_beside = len(await partitions_of(consumer, prefix + DEAD_LETTERS.name))
    return settings.model_copy(
        update={"topic_prefix": prefix, "state_prefix": "", "partitions": n_beside}
    )


async def _follow(copying: Pseudonymise, reader: Reader) -> None:
    while True:
        await copying.step(reader)


async def _reading(
    raw: Settings, topics: Iterable[str], group: str, stack: AsyncExitStack
) -> AIOKafkaConsumer:
    consumer = AIOKafkaConsumer(
        *(raw.topic_prefix + topic for topic in topics),
        **client_options(raw),
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=round(raw.session_timeout_s * 1000),
        heartbeat_interval_ms=round(raw.session_timeout_s * 250),
    )
    stack.push_async_callback(consumer.stop)
    await consumer.start()
    return consumer


class _Known:
    """Whether a group has come to where a topic ended when it was asked first."""

    def __init__(self, consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> None:
        self._consumer = consumer
        self._ends = ends

    @classmethod
    async def of(cls, consumer: AIOKafkaConsumer, topic: str) -> _Known:
        places = [TopicPartition(topic, n) for n in await partitions_of(consumer, topic)]
        starts = await consumer.beginning_offsets(places)
        ends = await consumer.end_offsets(places)
        return cls(consumer, {place: end for place, end in ends.items() if end > starts[place]})

    async def reached(self) -> None:
        """Return when it has."""
        while True:
            for place, end in list(self._ends.items()):
                # Of the whole group: the other partitions are copied by the other processes.
                if (await self._consumer.committed(place) or 0) >= end:
                    del self._ends[place]
            if not self._ends:
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

"""EngineApp: a Faust app with our streams and tables, and settings that lose nothing."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import faust
from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials
from faust.types import TP, Message
from faust.types.auth import CredentialsT
from faust.types.transports import TransportT
from yarl import URL

from stream.connection import secret, ssl_context, token_provider
from stream.delivery import SourceMessage
from stream.engine.batches import BatchStream, source_message
from stream.engine.commits import WorkerEnds
from stream.engine.lease import Lease
from stream.engine.recovery import EngineTables
from stream.engine.runs import RunQueue
from stream.engine.table import PartitionTable
from stream.engine.transport import EngineTransport
from stream.groups import group_of
from stream.settings import Settings
from stream.topic_names import full_name

log = logging.getLogger(__name__)

Process = Callable[[Sequence[SourceMessage]], Awaitable[None]]


class QuietMonitor(faust.Monitor):
    """Faust's own figures but for those of each event: ours count a batch at a time."""

    def on_message_in(self, tp: TP, offset: int, message: Message) -> None:
        """Count nothing."""


class EngineApp(faust.App):
    """One tier of the program: its consumer group, its agents and its tables."""

    #: The right to write, as long as the group's coordinator has lately heard of this worker.
    lease: Lease
    #: Told the partition and the number of events that the broker deleted before they were read.
    on_events_lost: Callable[[TP, int], None]

    async def crash(self, reason: BaseException) -> None:
        # Before anything else: out of memory, even saying so may fail, and Faust starts an agent
        # again that has failed.
        self.lease.given_up = True
        # What could not be committed because of it tells nothing more.
        if not (self.crashed and isinstance(reason, WorkerEnds)):
            await super().crash(reason)

    def FlowControlQueue(
        self, maxsize: int | None = None, *, clear_on_resume: bool = False
    ) -> RunQueue:
        """Return a stream's buffer."""
        return RunQueue(
            maxsize=maxsize, flow_control=self.flow_control, clear_on_resume=clear_on_resume
        )

    def _new_transport(self) -> TransportT:
        # ``kafka://`` means Faust's own driver wherever it is looked up by name.
        return EngineTransport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> TransportT:
        return EngineTransport(self.conf.broker_producer, self)


def new_app(settings: Settings, tier: str) -> EngineApp:
    """Return the app of a tier; nothing connects before it is started."""
    datadir = settings.state_dir / tier
    datadir.mkdir(parents=True, exist_ok=True)
    brokers = [URL(f"kafka://{server.strip()}") for server in settings.broker.split(",")]
    app = EngineApp(
        group_of(settings, tier),
        broker=brokers,
        broker_credentials=credentials(settings),
        store=f"{settings.store}://",
        datadir=datadir,
        Monitor=QuietMonitor,
        Stream=BatchStream,
        TableManager=EngineTables,
        key_serializer="raw",
        value_serializer="raw",
        autodiscover=False,
        # Nothing but our own metrics and health listens.
        web_enabled=False,
        # Topics are made by `prefstream topics create`, and checked before the start.
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=settings.partitions,
        # Static membership: a worker that is restarted in time keeps its partitions.
        consumer_group_instance_id=instance_id(settings, tier),
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 4,
        broker_commit_interval=settings.commit_interval_s,
        # When every partition's buffer is full, Faust's fetcher sleeps for a second.
        stream_buffer_maxsize=65_536,
        stream_wait_empty=True,
        stream_recovery_delay=0.0,
    )
    app.lease = Lease(settings.session_timeout_s)
    app.on_events_lost = lambda tp, n: log.error("%d events lost: %s", n, tp)
    return app


def credentials(settings: Settings) -> CredentialsT | None:
    """Return how Faust is to speak to the brokers, None where it need not say who it is."""
    context = ssl_context(settings)
    if settings.uses_tokens:
        return OAuthCredentials(oauth_cb=token_provider(settings), ssl_context=context)
    if settings.uses_sasl:
        return SASLCredentials(
            username=settings.sasl_username,
            password=secret(settings, "sasl_password"),
            mechanism=settings.sasl_mechanism,
            ssl_context=context,
        )
    return SSLCredentials(context) if context else None


def instance_id(settings: Settings, tier: str) -> str:
    """Return the worker's name in its group."""
    return f"{settings.instance_id or socket.gethostname()}-{tier}"


def add_table(app: EngineApp, settings: Settings, name: str) -> PartitionTable:
    """Add a table whose changelog is the topic of the same name."""
    changelog = app.topic(
        full_name(settings, name),
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        partitions=settings.partitions,
        compacting=True,
        acks=False,
        internal=True,
        maxsize=131_072,
        allow_empty=True,
    )
    table = PartitionTable(
        app,
        name=name,
        key_type=bytes,
        value_type=bytes,
        partitions=settings.partitions,
        changelog_topic=changelog,
        store_max_age_s=settings.state_max_age_h * 3600,
    )
    return cast(PartitionTable, app.tables.add(table))


def add_agent(
    app: EngineApp,
    settings: Settings,
    name: str,
    topics: Sequence[str],
    process: Process,
    wait_s: float,
    max_events: int = 0,
) -> None:
    """Add the agent that hands the micro-batches of some topics to a stage.

    Whatever fails takes the app down: its events are not acknowledged, and a restarted agent
    would not be given them again.
    """
    names = {full_name(settings, topic): topic for topic in topics}
    source = app.topic(
        *names,
        key_serializer="raw",
        value_serializer="raw",
        allow_empty=True,
        partitions=settings.partitions,
    )

    async def agent(stream: Any) -> None:
        try:
            async for records in stream.batches(max_events or settings.batch_max, wait_s):
                await process([source_message(record, names) for record in records])
        except Exception as error:
            await app.crash(error)
            raise

    agent.__name__ = name
    app.agent(source, name=name)(agent)


def partitions_of(tps: set[TP], topic: str) -> set[int]:
    """Return the partitions of one topic among topic partitions."""
    return {tp.partition for tp in tps if tp.topic == topic}

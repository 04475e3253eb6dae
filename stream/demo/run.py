"""The demo from start to end: broker, topics, workers, a shop, its shoppers, and the score."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from rich.console import Console
from rich.text import Text

from stream.broker import EmbeddedBroker
from stream.connection import client_options
from stream.demo.live import POISON, Reader, Sender, until
from stream.demo.observer import Observer, losses
from stream.demo.processes import (
    Child,
    ChildFailed,
    free_ports,
    gauge,
    is_free,
    terminated_as_interrupted,
    why_not_ready,
)
from stream.demo.shop import DEFAULT_ITEMS, build_shop
from stream.demo.shoppers import Crowd, Shopper, build_shoppers, n_shoppers
from stream.demo.summary import serving_lines, summary_table
from stream.engine.resting import resting
from stream.settings import Settings
from stream.topic_admin import create_topics, delete_topics, wait_for_broker
from stream.worker import PROCESSES, metrics_port

# For the start, and for each item that a slow machine has to encode.
READY_DEADLINE_S, ITEM_DEADLINE_S = 180.0, 0.1
# The days before the run are sent at once: they are digested before the clock runs.
SETTLED_S, LAG_KNOWN_S = 1.0, 2.5
ANSWER_DEADLINE_S, BROKER_DEADLINE_S = 60.0, 10.0
FETCH_REST_S = 0.005
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how fast, and whether to stay up; the seed decides everything else."""

    seconds: float
    rate: float
    serve: bool
    seed: int
    n_items: int


def run_demo(
    settings: Settings,
    *,
    seconds: float = 30,
    rate: float = 20,
    serve: bool = False,
    seed: int = 7,
    n_items: int = DEFAULT_ITEMS,
    broker: str | None = None,
    log: Path | None = None,
    console: Console | None = None,
) -> int:
    """Run the whole demo; return 0 only if recommendations came and nothing was lost.

    Without a ``broker`` (host:port) there is an embedded one on loopback. Everything else is on
    loopback and in a temporary folder, and all of it is gone afterwards, the topics on a broker
    that was given included; what was sent stays in the file ``log``, where one is named. Raises
    ChildFailed when the broker or the workers do not start, BrokerAbsent when the given one does
    not answer, OSError for a log that cannot be written, KeyboardInterrupt on Ctrl-C.
    """
    started_s = time.monotonic()
    console = console or Console()
    plan = Plan(seconds, rate, serve, seed, n_items)
    with (
        terminated_as_interrupted(),
        log.open("wb") if log else nullcontext() as log_file,
        tempfile.TemporaryDirectory(prefix="prefstream-demo-") as folder,
        _topics(_of_this_run(settings, Path(folder) / "state"), broker, Path(folder)) as own,
    ):
        console.print(f"broker {own.broker}, topics {own.topic_prefix}", style="dim")
        with _worker(own, Path(folder) / "worker.log") as worker:
            return asyncio.run(_Demo(own, plan, console, worker, started_s, log_file).play())


class _Demo:
    """One run against a broker and workers that have been started."""

    def __init__(
        self,
        settings: Settings,
        plan: Plan,
        console: Console,
        worker: Child,
        started_s: float,
        log: BinaryIO | None,
    ) -> None:
        self._settings, self._plan, self._console, self._log = settings, plan, console, log
        self._worker, self._started_s = worker, started_s
        self._ports = tuple(metrics_port(settings, name) for name in PROCESSES)
        self._rng = np.random.default_rng([plan.seed, 2])
        self._crowd = Crowd(build_shop(plan.seed, wall_ms(), plan.n_items), self._shoppers())
        self._watch = Observer(self._crowd)

    async def play(self) -> int:
        prefix = self._settings.topic_prefix
        async with _clients(self._settings) as (producer, consumer):
            send = Sender(producer, prefix, self._log)
            read = Reader(consumer, prefix, self._watch, self._say)
            await self._open_shop(send)
            read.follow()
            reading = asyncio.create_task(read.read())
            try:
                await self._send_past(send, read)
                await self._live(send)
                code = self._conclude(read)
                if self._plan.serve:
                    await self._serve(send)
            finally:
                reading.cancel()
        return code

    def _shoppers(self) -> list[Shopper]:
        plan = self._plan
        duration_ms = round(plan.seconds * 1000)
        return build_shoppers(plan.seed, wall_ms(), duration_ms, n_shoppers(plan.rate))

    async def _open_shop(self, send: Sender) -> None:
        n_items, n_shoppers = len(self._crowd.shop), len(self._crowd.shoppers)
        self._say(f"shop open: {n_items} items, {n_shoppers} shoppers, seed {self._plan.seed}")
        await send.send_shop(self._crowd)
        with self._console.status("workers are loading the model"):
            await self._reached(lambda: not any(self._why_not_ready()))
        self._say(f"workers ready after {self._elapsed_s():.1f} s")
        with self._console.status("the items are being encoded"):
            await self._reached(lambda: self._n_indexed() >= n_items)
        self._say(f"{n_items} items encoded and indexed after {self._elapsed_s():.1f} s")

    async def _send_past(self, send: Sender, read: Reader) -> None:
        """Send the weeks before the run, and wait until they are digested."""
        past = self._crowd.history(self._rng, wall_ms())
        for act in past:
            self._watch.past(act)
            await send.send(act.topic, act.user_id, act.event)
        await send.delivered()
        with self._console.status("the past sixty days are being digested"):
            # The lag is as of some seconds ago: look only once it knows of what was sent.
            await asyncio.sleep(LAG_KNOWN_S)
            await self._reached(lambda: read.settled(SETTLED_S) and self._lag() == 0)
        self._say(
            f"{len(past)} acts of the past sixty days digested after {self._elapsed_s():.1f} s; "
            "live from now on"
        )

    async def _reached(self, holds: Callable[[], bool]) -> None:
        def holds_and_alive() -> bool:
            self._worker.check()
            return holds()

        deadline_s = READY_DEADLINE_S + self._plan.n_items * ITEM_DEADLINE_S
        if not await until(holds_and_alive, deadline_s, every_s=0.25):
            why = " ".join(self._why_not_ready()).strip() or self._worker.last_words()
            raise ChildFailed(f"the workers are not done after {deadline_s:.0f} s: {why}")

    def _why_not_ready(self) -> list[str]:
        return [why_not_ready(_url(port, "ready")) for port in self._ports]

    def _n_indexed(self) -> float:
        return gauge(_url(self._ports[1], "metrics"), "prefstream_index_items")

    def _lag(self) -> float:
        return sum(gauge(_url(port, "metrics"), "prefstream_consumer_lag") for port in self._ports)

    async def _live(self, send: Sender) -> None:
        plan, watch = self._plan, self._watch
        # The changes of taste lie in the middle of the run, which begins only now.
        self._crowd.meet(self._shoppers())
        acts = self._crowd.acts(self._rng, wall_ms)
        await send.send_acts(acts, plan.rate, plan.seconds / 2, watch.sent)
        for topic, key, value in POISON:
            await send.send_raw(topic, key, value)
        await send.send_acts(acts, plan.rate, plan.seconds / 2, watch.sent)
        await until(lambda: not losses(watch.report(), len(POISON)), ANSWER_DEADLINE_S)

    def _conclude(self, read: Reader) -> int:
        """Print the score; return the exit code."""
        report = self._watch.report()
        first_s = None if read.first_s is None else read.first_s - self._started_s
        self._console.print(summary_table(report, n_poison=len(POISON), first_s=first_s))
        lost = losses(report, len(POISON))
        for line in lost:
            self._say(f"[red]{line}[/red]")
        if lost:
            self._say(f"the workers' last lines:\n{self._worker.tail()}")
        return 1 if lost else 0

    async def _serve(self, send: Sender) -> None:
        """Go on shopping, unrecorded, until Ctrl-C."""
        for line in serving_lines(self._settings, self._crowd):
            self._say(line)
        acts = self._crowd.acts(self._rng, wall_ms, prefix="served")
        await send.send_acts(acts, self._plan.rate, float("inf"), lambda act, sent_ms: None)

    def _say(self, line: Text | str) -> None:
        self._console.print(line, soft_wrap=True, highlight=False)

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started_s


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def _clients(settings: Settings) -> AsyncIterator[tuple[AIOKafkaProducer, AIOKafkaConsumer]]:
    producer = AIOKafkaProducer(**client_options(settings), acks="all", enable_idempotence=True)
    consumer = AIOKafkaConsumer(
        **client_options(settings), enable_auto_commit=False, auto_offset_reset="earliest"
    )
    # Asked without a rest, the embedded broker keeps half a core busy with saying no.
    consumer._client.send = resting(consumer._client.send, FETCH_REST_S)
    await producer.start()
    try:
        await consumer.start()
        try:
            yield producer, consumer
        finally:
            await consumer.stop()
    finally:
        await producer.stop()


@contextmanager
def _topics(settings: Settings, broker: str | None, folder: Path) -> Iterator[Settings]:
    """Make this run's topics, on an embedded broker or the one given, and take them away again."""
    if broker is None:
        with EmbeddedBroker(folder / "broker") as embedded:
            own = {
                "broker": embedded.address,
                "security_protocol": "PLAINTEXT",
                "topic_prefix": "",
                "state_prefix": "",
                "replication_factor": 1,
            }
            settings = settings.model_copy(update=own)
            asyncio.run(create_topics(settings))
            yield settings
        return
    own = {
        "broker": broker,
        "topic_prefix": f"demo-{uuid.uuid4().hex[:8]}-",
        "state_prefix": "",
    }
    settings = settings.model_copy(update={**own, "broker_wait_s": BROKER_DEADLINE_S})
    asyncio.run(wait_for_broker(settings))
    try:
        asyncio.run(create_topics(settings))
        yield settings
    finally:
        asyncio.run(delete_topics(settings))


def _of_this_run(settings: Settings, state_dir: Path) -> Settings:
    """Return the settings with a state folder and ports of this run's own, on loopback."""
    port = settings.metrics_port
    n = len(PROCESSES)
    if port == 0 or not all(is_free(port + i) for i in range(n)):
        port = free_ports(n)
    own = {"state_dir": state_dir, "metrics_host": _HOST, "metrics_port": port}
    return settings.model_copy(update=own)


def _worker(settings: Settings, log_path: Path) -> Child:
    own = (
        *("broker", "security_protocol", "topic_prefix", "state_prefix"),
        *("partitions", "replication_factor"),
    )
    env = {
        f"PREFSTREAM_{name.upper()}": str(getattr(settings, name))
        for name in (*own, "state_dir", "metrics_host", "metrics_port")
    }
    return Child("worker", [sys.executable, "-m", "stream.cli", "worker"], env, log_path)


def _url(port: int, path: str) -> str:
    return f"http://{_HOST}:{port}/{path}"

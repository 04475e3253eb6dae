"""worker: what a tier consists of runs in processes of their own, under one."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Literal

from aiokafka.errors import KafkaError
from faust.types import TP

from models.weights import ModelError
from stream.broker import die_with_parent
from stream.connection import AccessRefused, refusal
from stream.engine.app import EngineApp
from stream.engine.loop import KafkaLoopPolicy
from stream.groups import group_of
from stream.health import (
    NOT_READY_AFTER_S,
    CannotListen,
    Condition,
    Progress,
    Readiness,
    serving,
)
from stream.kafka_client import KafkaSender
from stream.lag import KafkaOffsets, LagProbe, PartitionLag, Place
from stream.logs import setup_logging, tell_uncaught
from stream.metrics import Metrics
from stream.otel import TracingUnavailable, otlp
from stream.settings import BadSettings, Settings, load_settings
from stream.spaces import OtherEncoder
from stream.tiers.base import Parts, Tier
from stream.topic_admin import BrokerAbsent, Problem, check_topics, wait_for_broker
from stream.topic_names import full_name, short_name

log = logging.getLogger(__name__)

ProcessName = Literal["encode", "preference", "neighbours"]
#: In the order of their metrics ports.
PROCESSES: tuple[ProcessName, ...] = ("encode", "preference", "neighbours")
#: The preference tier is two processes: counting what is taken together is heavy and can wait,
#: so it must not share an event loop with what a shopper waits for.
TIERS: dict[str, tuple[ProcessName, ...]] = {
    "encode": ("encode",),
    "preference": ("preference", "neighbours"),
    # Each alone, for a supervisor that gives it memory, probes and replicas of its own.
    "users": ("preference",),
    "neighbours": ("neighbours",),
    "all": PROCESSES,
}

CONDITIONS: dict[ProcessName, tuple[Condition, ...]] = {
    "encode": ("broker", "topics", "deliveries", "model", "partitions_assigned"),
    "neighbours": ("broker", "topics", "deliveries", "partitions_assigned", "recovered"),
    "preference": (
        "broker",
        "topics",
        "deliveries",
        "model",
        "catalogue_caught_up",
        "partitions_assigned",
        "recovered",
    ),
}
#: A worker that does not stop by itself is ended: what it did not acknowledge is read again.
STOP_DEADLINE_S = 20.0
#: One that has failed has nothing to bring to an end; its client may wait for a broker meanwhile.
FAILED_DEADLINE_S = 5.0
#: The broker answers, and the group's coordinator has not heard of us for longer than a rebalance
#: may take: the client has given up somewhere, and only starting again helps.
FORGOTTEN_AFTER_S = 90.0
LAG_EVERY_S, TOPICS_EVERY_S = 2.0, 5.0
#: On a small machine, whoever answers shoppers goes first.
NICE = 10
#: Faust tells nobody that an app has crashed; it can only be asked.
CRASH_POLL_S = 0.2
#: New objects before a collection of the young, young ones before one of the middle-aged, and so
#: on. Python's 700, 10, 10 collect everything every ten seconds at 200 events a second.
_GC_THRESHOLDS = 10_000, 10, 100

EXIT_CRASHED, EXIT_SETTING, EXIT_TOPICS, EXIT_STUCK, EXIT_REFUSED = 1, 2, 3, 4, 5


class BadTopics(RuntimeError):
    """Topics are missing or not as they must be; the text names each."""


_EXITS: dict[type[BaseException], int] = {
    BadTopics: EXIT_TOPICS,
    OtherEncoder: EXIT_TOPICS,
    AccessRefused: EXIT_REFUSED,
    TracingUnavailable: EXIT_SETTING,
}


#: What a person can mend: its text says all there is to say.
_TOLD = (AccessRefused, BadTopics, BrokerAbsent, CannotListen, ModelError, TracingUnavailable)


def metrics_port(settings: Settings, process: ProcessName) -> int:
    """Return the port of a process's metrics and health; 0 when they are switched off."""
    return settings.metrics_port + PROCESSES.index(process) if settings.metrics_port else 0


def run_worker(tier: str) -> int:
    """Run the processes of a tier until a signal or a failure; return the exit code.

    When one ends, so do the others; starting them again is the supervisor's job.
    """
    names = TIERS[tier]
    command = [sys.executable, "-m", "stream.worker"]
    children = [
        subprocess.Popen([*command, name], env=environment(name), preexec_fn=die_with_parent)
        for name in names
    ]

    def pass_on(signum: int, _frame: object) -> None:
        for child in children:
            child.send_signal(signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, pass_on)
    while all(child.poll() is None for child in children):
        time.sleep(0.1)
    codes = [code for child in children if (code := child.poll()) is not None]
    for child in children:
        child.terminate()
    # The first to end is why the others do; but one that had to be ended by force tells more than
    # those that stopped in good order before it.
    codes += [_ended(child) for child in children]
    return next((abs(code) for code in codes if code), 0)


def _ended(child: subprocess.Popen[bytes]) -> int:
    """Return a child's exit code, ending it the hard way if it does not keep its own deadline."""
    try:
        code = child.wait(STOP_DEADLINE_S + 5)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()
    # Told twice to stop, one that has stopped already and is only leaving dies of it.
    return 0 if code == -signal.SIGTERM else code


def environment(name: ProcessName) -> dict[str, str]:
    """Return the environment of one of the processes."""
    # Searches and folds are small and many: threads of the numeric libraries would only get in
    # their way. The encoder's batches are few and large; its threads sleep while they wait for
    # one another, since on cores that others need as well, spinning starves the one waited for.
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    # By default glibc keeps what was freed for each of up to eight threads a core: 185 MiB of the
    # 1.2 GiB of a worker with 100,000 items and users. With one for all, threads wait for it.
    arenas = {"MALLOC_ARENA_MAX": "2"}
    own = {"OMP_WAIT_POLICY": "PASSIVE"} if name == "encode" else {**threads, **arenas}
    return {**own, **os.environ}


def run_process(settings: Settings, name: ProcessName) -> int:
    """Run one process until a signal or a failure; return the exit code."""
    setup_logging(settings.log_level, settings.log_format, name)
    sys.excepthook = tell_uncaught
    if name == "neighbours":
        os.nice(NICE)
    asyncio.set_event_loop_policy(KafkaLoopPolicy())
    try:
        return asyncio.run(_Worker(settings, name).run())
    except _TOLD as error:
        log.error("%s", error)
        return _EXITS.get(type(error), EXIT_CRASHED)


class _Worker:
    """One tier's process, from waiting for the broker to the last commit."""

    def __init__(self, settings: Settings, tier: ProcessName) -> None:
        self._settings = settings
        self._name: ProcessName = tier
        self._metrics = Metrics(tier)
        self._progress = Progress(time.monotonic, NOT_READY_AFTER_S, settings.stall_timeout_s)
        self._readiness = Readiness(CONDITIONS[tier], self._progress)
        self._metrics.watch_readiness(self._readiness)
        self._stop = asyncio.Event()
        self._places: list[Place] | None = None
        self._heard_s = time.monotonic()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stop.set)
        async with AsyncExitStack() as stack:
            await self._listen(stack)
            running = loop.create_task(self._work(stack))
            stopped = loop.create_task(self._stop.wait())
            await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            running.cancel()
            self._end_if_stuck(running)
            try:
                return await running
            except asyncio.CancelledError:
                return 0

    def _end_if_stuck(self, running: asyncio.Task[int]) -> None:
        """End the process the hard way if it does not stop in time: an agent may hang for ever."""
        deadline_s, code = STOP_DEADLINE_S, EXIT_STUCK
        if running.done():  # by itself
            deadline_s = FAILED_DEADLINE_S
            failed = running.exception()
            code = _EXITS.get(type(failed), EXIT_CRASHED) if failed else running.result()

        def end() -> None:
            log.error("not stopped after %.0f s: ending the process", deadline_s)
            os._exit(code)

        asyncio.get_running_loop().call_later(deadline_s, end)

    async def _listen(self, stack: AsyncExitStack) -> None:
        port = metrics_port(self._settings, self._name)
        host = self._settings.metrics_host
        registry = self._metrics.registry
        await stack.enter_async_context(serving(registry, self._readiness, host, port))

    async def _work(self, stack: AsyncExitStack) -> int:
        settings, readiness = self._settings, self._readiness
        await wait_for_broker(
            settings, on_wait=lambda reason: readiness.set("broker", False, reason)
        )
        readiness.set("broker", True)
        problems = await check_topics(settings)
        for known in problems:
            if not known.stops:
                log.warning("%s", known)
        if stopping := _stopping(problems):
            raise BadTopics(f"{stopping}: see `prefstream topics create`")
        readiness.set("topics", True)
        sender = KafkaSender(settings, self._note_delivery, self._metrics.count_sent)
        await sender.start()
        readiness.set("deliveries", True)
        stack.push_async_callback(sender.stop)
        export = otlp(self._name, self._metrics.count_spans) if settings.tracing else None
        parts = Parts.make(settings, self._metrics, readiness, sender, export)
        tier = _build(self._name, parts)
        stack.push_async_callback(tier.stop)
        tier.app.on_events_lost = self._note_lost
        if tier.app.tables:
            sender.write_only_with(tier.app.lease)
        await tier.start()
        stack.push_async_callback(tier.app.stop)
        await tier.app.start()
        await self._watch_lag(tier, stack)
        task = asyncio.get_running_loop().create_task(self._watch_topics())
        stack.callback(task.cancel)
        settle_garbage_collection()
        self._heard_s = time.monotonic()
        log.info("running: group=%s topics=%s", tier.app.conf.id, ",".join(tier.topics))
        while not tier.app.should_stop:
            await asyncio.sleep(CRASH_POLL_S)
            # A loop that stands still cannot end itself: a thread without Python's lock does it.
            faulthandler.dump_traceback_later(settings.stall_timeout_s, exit=True)
            if tier.app.lease.given_up:
                break
            if problem := self._standstill(tier.app):
                log.error("to be started again: %s", problem)
                return EXIT_STUCK
        reason = tier.app.crash_reason
        if isinstance(reason, _TOLD):
            raise reason
        return EXIT_CRASHED

    def _standstill(self, app: EngineApp) -> str:
        """Return why nothing goes on here, though a new start would; empty when it does."""
        now_s = time.monotonic()
        if app.lease.held() or not self._readiness.holds("broker"):
            self._heard_s = now_s
        if now_s - self._heard_s > FORGOTTEN_AFTER_S:
            return f"the group has not heard of this worker for {FORGOTTEN_AFTER_S:.0f} s"
        moves = self._readiness.live()
        return "" if moves.ok else moves.reason

    async def _watch_lag(self, tier: Tier, stack: AsyncExitStack) -> None:
        settings = self._settings
        group = group_of(settings, self._name)
        offsets = KafkaOffsets(settings)
        await offsets.start()
        stack.push_async_callback(offsets.stop)
        places: list[Place] = [
            (topic, partition) for topic in tier.topics for partition in range(settings.partitions)
        ]

        def on_reading(reading: Sequence[PartitionLag]) -> None:
            self._metrics.observe_lag(group, reading)
            mine = self._mine(tier)
            self._note_assignment(mine)
            # While it recovers or rebalances, standing still is no fault.
            self._progress.working_on(mine if self._readiness.settled else [])
            self._progress.update(reading)

        probe = LagProbe(offsets, group, lambda: places, on_reading, time.monotonic)
        task = asyncio.get_running_loop().create_task(probe.run(LAG_EVERY_S))
        stack.callback(task.cancel)

    async def _watch_topics(self) -> None:
        """Have /ready tell of a topic that was deleted, or a broker that is away."""
        while True:
            await asyncio.sleep(TOPICS_EVERY_S)
            try:
                problems = await check_topics(self._settings)
            except AccessRefused as error:  # a file that is being replaced: our clients live on
                self._readiness.set("broker", False, str(error))
                continue
            except (KafkaError, OSError, asyncio.TimeoutError) as error:
                reason = str(await refusal(self._settings) or f"no answer: {error!r}")
                self._readiness.set("broker", False, reason)
                continue
            self._readiness.set("broker", True)
            stopping = _stopping(problems)
            self._readiness.set("topics", not stopping, stopping)

    def _note_delivery(self, problem: str) -> None:
        self._readiness.set("deliveries", not problem, problem)

    def _note_assignment(self, places: list[Place]) -> None:
        if places != self._places:
            self._places = places
            if self._name != "preference":
                reason = f"{len(places)} partitions"
                self._readiness.set("partitions_assigned", True, reason)

    def _note_lost(self, tp: TP, n_events: int) -> None:
        log.error(
            "events lost: %d of topic=%s partition=%d were deleted before they were read",
            n_events,
            tp.topic,
            tp.partition,
        )
        self._metrics.count_lost(short_name(self._settings, tp.topic), n_events)

    def _mine(self, tier: Tier) -> list[Place]:
        own = {full_name(self._settings, topic): topic for topic in tier.topics}
        return sorted(
            (own[tp.topic], tp.partition)
            for tp in tier.app.consumer.assignment()
            if tp.topic in own
        )


def _stopping(problems: Iterable[Problem]) -> str:
    """Return what of the topics keeps a worker from working; empty when nothing does."""
    return "; ".join(str(problem) for problem in problems if problem.stops)


def settle_garbage_collection() -> None:
    """Let collections look at what is new only: one of all that the start has made takes 100 ms.

    That much is what nothing else in the process would make a shopper wait.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def _build(name: ProcessName, parts: Parts) -> Tier:
    # Imported here: only the encode tier pays for torch.
    if name == "encode":
        from stream.tiers.encode import EncodeTier

        return EncodeTier(parts)
    if name == "neighbours":
        from stream.tiers.neighbours import NeighboursTier

        return NeighboursTier(parts)
    from stream.tiers.preference import PreferenceTier

    return PreferenceTier(parts)


def main() -> int:
    """Run the process named on the command line; what ``prefstream worker`` starts."""
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if name not in PROCESSES:
        sys.stderr.write(f"expected one of {', '.join(PROCESSES)}, got {name!r}\n")
        return 2
    try:
        return run_process(load_settings(), name)
    except BadSettings as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())

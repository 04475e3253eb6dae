from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP

from stream import worker as module
from stream.connection import AccessRefused
from stream.engine.app import new_app
from stream.settings import Settings, load_settings
from stream.topic_admin import Problem
from stream.worker import _ended, _Worker, environment, settle_garbage_collection


@pytest.fixture
def own_collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("own_collector")
def test_collections_leave_alone_what_the_start_has_made() -> None:
    settle_garbage_collection()
    assert gc.get_freeze_count() > 10_000
    assert len(gc.get_objects()) < 1_000


def test_events_deleted_before_they_were_read_are_counted_without_the_prefix() -> None:
    worker = _Worker(load_settings(topic_prefix="shop-"), "preference")

    worker._note_lost(TP("shop-clickstream", 1), 7)

    lost = {
        sample.labels["topic"]: sample.value
        for metric in worker._metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "prefstream_events_lost_total" and sample.value
    }
    assert lost == {"clickstream": 7}


async def test_a_topic_that_goes_missing_shows_until_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = _Worker(load_settings(), "encode")
    shown = []
    answers = iter(
        [[], [Problem("searches", "missing")], KafkaConnectionError("away"), [], AllShown()]
    )

    async def check_topics(settings: Settings) -> list[Problem]:
        checks = worker._readiness.checks()
        shown.append([name for name in ("broker", "topics") if not checks[name].ok])
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(module, "TOPICS_EVERY_S", 0.0)
    monkeypatch.setattr(module, "check_topics", check_topics)
    with pytest.raises(AllShown):
        await worker._watch_topics()
    assert shown == [["broker", "topics"], [], ["topics"], ["broker", "topics"], []]


async def test_a_certificate_that_is_being_replaced_ends_no_watch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = _Worker(load_settings(), "encode")
    answers: list[Exception] = [AccessRefused("setting ssl_ca_file=gone"), AllShown()]

    async def check_topics(settings: Settings) -> list[Problem]:
        raise answers.pop(0)

    monkeypatch.setattr(module, "TOPICS_EVERY_S", 0.0)
    monkeypatch.setattr(module, "check_topics", check_topics)
    with pytest.raises(AllShown):
        await worker._watch_topics()
    assert worker._readiness.checks()["broker"].reason == "setting ssl_ca_file=gone"


@pytest.mark.parametrize(
    ("held", "broker", "said"),
    [(True, True, ""), (False, False, ""), (False, True, "the group has not heard of")],
)
def test_a_worker_that_the_group_has_forgotten_is_of_no_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: bool, broker: bool, said: str
) -> None:
    settings = load_settings(state_dir=tmp_path)
    worker, app = _Worker(settings, "encode"), new_app(settings, "encode")
    worker._readiness.set("broker", broker)
    monkeypatch.setattr(app.lease, "held", lambda: held)
    monkeypatch.setattr(module, "FORGOTTEN_AFTER_S", 0.02)
    time.sleep(0.05)
    found = worker._standstill(app)
    assert found.startswith(said)
    assert bool(found) == bool(said)


class AllShown(Exception):
    """Ends what goes on for ever."""


def child(code: str) -> subprocess.Popen[bytes]:
    """A process that says when it has begun."""
    started = subprocess.Popen(
        [sys.executable, "-c", f"import signal, time; {code}"], stdout=subprocess.PIPE
    )
    assert started.stdout
    started.stdout.readline()
    return started


def test_a_child_that_stopped_by_itself_tells_its_code() -> None:
    assert _ended(child("print(flush=True); raise SystemExit(4)")) == 4


def test_a_child_that_died_of_being_told_twice_to_stop_has_stopped() -> None:
    stopped = child("print(flush=True); time.sleep(60)")
    stopped.terminate()
    assert _ended(stopped) == 0


def test_a_child_that_does_not_stop_is_ended_and_said_to_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STOP_DEADLINE_S", -4.5)
    ignoring = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    deaf = child(ignoring)
    deaf.terminate()
    assert _ended(deaf) == -signal.SIGKILL


async def fails() -> int:
    raise RuntimeError("of its own")


async def stands_still() -> int:
    return module.EXIT_STUCK


async def works_on() -> int:
    await asyncio.sleep(60)
    return 0


@pytest.mark.parametrize(
    ("work", "code", "after_s"),
    [
        (fails, module.EXIT_CRASHED, 0.01),
        (stands_still, module.EXIT_STUCK, 0.01),
        (works_on, module.EXIT_STUCK, 0.05),
    ],
)
async def test_a_process_that_does_not_stop_is_ended_with_the_code_of_what_it_ended_for(
    work: Callable[[], Coroutine[Any, Any, int]],
    code: int,
    after_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[tuple[int, float]] = []
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    monkeypatch.setattr(module.os, "_exit", lambda c: ended.append((c, loop.time() - started_s)))
    monkeypatch.setattr(module, "FAILED_DEADLINE_S", 0.01)
    monkeypatch.setattr(module, "STOP_DEADLINE_S", 0.05)
    running = asyncio.create_task(work())
    await asyncio.sleep(0)
    worker: Any = object.__new__(_Worker)
    worker._end_if_stuck(running)
    await asyncio.sleep(0.2)
    running.cancel()
    [(exit_code, passed_s)] = ended
    assert exit_code == code
    assert passed_s >= after_s


def test_a_process_is_told_how_many_threads_and_arenas_and_the_shop_may_say_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MALLOC_ARENA_MAX"):
        monkeypatch.delenv(name, raising=False)
    assert environment("encode")["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "MALLOC_ARENA_MAX" not in environment("encode")
    found = environment("preference")
    assert (found["OMP_NUM_THREADS"], found["MALLOC_ARENA_MAX"]) == ("1", "2")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    assert environment("preference")["MALLOC_ARENA_MAX"] == "8"

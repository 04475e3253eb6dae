"""When a worker is of use, when it should be restarted, and what its port says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from stream.health import HealthServer, Progress, Readiness
from stream.lag import PartitionLag
from stream.metrics import Metrics

CLICKS, SEARCHES = ("clickstream", 0), ("searches", 0)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def lagging(commit_age_s: float, place: tuple[str, int] = CLICKS) -> PartitionLag:
    return PartitionLag(*place, 0, 100, 60, 40, 0, commit_age_s)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock) -> Progress:
    """Not ready after 30 s without progress, dead after 300 s; works on clickstream[0] for long."""
    progress = Progress(clock, not_ready_after_s=30, dead_after_s=300)
    progress.working_on([CLICKS])
    clock.now_s += 10_000
    return progress


def test_before_the_first_reading_it_is_not_ready_but_alive(progress):
    assert not progress.ready().ok
    assert progress.live().ok


@pytest.mark.parametrize(
    ("commit_age_s", "ready", "live"),
    [(0, True, True), (30, True, True), (31, False, True), (301, False, False)],
    ids=["moving", "slow", "stalled", "stalled for long"],
)
def test_lag_without_commits_ends_readiness_first_and_life_later(
    progress, commit_age_s, ready, live
):
    progress.update([lagging(commit_age_s)])
    assert (progress.ready().ok, progress.live().ok) == (ready, live)


def test_the_reason_names_the_partition_its_lag_and_the_deadline(progress):
    progress.update([lagging(3), lagging(400)])
    assert progress.live().reason == (
        "clickstream[0]: lag 40, nothing committed for 400 s (at most 300)"
    )


def test_another_workers_stall_is_not_mine(progress):
    progress.update([lagging(9000, SEARCHES), lagging(0)])
    assert progress.ready().ok
    assert progress.live().ok


def test_what_the_last_owner_left_undone_is_not_my_stall(progress, clock):
    progress.working_on([SEARCHES])
    clock.now_s += 20
    progress.update([lagging(9000, SEARCHES)])
    assert progress.ready().ok
    clock.now_s += 20
    progress.update([lagging(9020, SEARCHES)])
    assert not progress.ready().ok


def test_saying_again_what_it_works_on_hides_no_stall(progress, clock):
    for _ in range(10):
        clock.now_s += 5
        progress.working_on([CLICKS, SEARCHES])
        progress.update([lagging(9000), lagging(9000, SEARCHES)])
    assert not progress.ready().ok  # clickstream[0] is held for long, searches[0] for 45 s
    progress.working_on([SEARCHES])
    assert progress.ready().ok
    progress.update([lagging(9000), lagging(9000, SEARCHES)])
    assert progress.ready().reason.startswith("searches[0]: lag 40, nothing committed for 45 s")


def test_a_long_recovery_does_not_get_the_worker_killed(progress):
    progress.update([lagging(9000)])
    progress.working_on([])
    assert progress.live().ok
    progress.update([lagging(9005)])
    assert progress.live().ok


def test_without_the_broker_it_is_not_ready_but_a_restart_would_not_help(progress, clock):
    progress.update([lagging(5)])
    clock.now_s += 3600
    assert not progress.ready().ok
    assert progress.live().ok


def test_ready_needs_every_condition(progress):
    progress.update([])
    readiness = Readiness(["broker", "model"], progress)
    assert not readiness.ready
    readiness.set("broker", True, "answered")
    assert not readiness.ready
    readiness.set("model", True)
    assert readiness.ready
    assert readiness.settled
    progress.update([lagging(400)])
    assert not readiness.ready
    assert readiness.settled
    readiness.set("broker", False, "connection refused")
    assert not readiness.settled
    assert not readiness.ready
    assert readiness.checks()["broker"].reason == "connection refused"


def test_a_condition_that_the_tier_does_not_have_cannot_be_set(progress):
    with pytest.raises(KeyError, match="recovered"):
        Readiness(["broker"], progress).set("recovered", True)


def test_the_gauges_say_what_the_port_says(progress):
    progress.update([])
    readiness, metrics = Readiness(["broker", "model"], progress), Metrics()
    metrics.watch_readiness(readiness)

    def condition(name: str) -> float | None:
        return metrics.registry.get_sample_value("prefstream_ready_condition", {"condition": name})

    readiness.set("broker", True)
    assert [condition(c) for c in ("broker", "model", "progress")] == [1, 0, 1]
    assert metrics.registry.get_sample_value("prefstream_ready") == 0
    readiness.set("model", True)
    assert metrics.registry.get_sample_value("prefstream_ready") == 1


# --- the port ------------------------------------------------------------------------------------


@pytest.fixture
async def server(progress) -> AsyncIterator[HealthServer]:
    readiness, metrics = Readiness(["broker"], progress), Metrics()
    metrics.watch_readiness(readiness)
    server = HealthServer(metrics.registry, readiness, "127.0.0.1", 0)
    server.readiness = readiness  # type: ignore[attr-defined]
    await server.start()
    yield server
    await server.stop()


async def ask(server: HealthServer, path: str, method: str = "GET") -> tuple[int, str]:
    url = f"http://{server.host}:{server.port}{path}"
    async with aiohttp.ClientSession() as http, http.request(method, url) as answer:
        return answer.status, await answer.text()


async def test_ready_answers_503_with_reasons_and_200_once_all_holds(server, progress):
    status, body = await ask(server, "/ready")
    assert status == 503
    assert json.loads(body)["checks"]["broker"] == {"ok": False, "reason": "not yet"}

    server.readiness.set("broker", True, "kafka:9092 answered")
    progress.update([lagging(0)])
    status, body = await ask(server, "/ready")
    assert status == 200
    assert json.loads(body) == {
        "ready": True,
        "checks": {
            "broker": {"ok": True, "reason": "kafka:9092 answered"},
            "progress": {"ok": True, "reason": "no lag, or offsets are being committed"},
        },
    }


async def test_live_answers_503_in_a_confirmed_stall(server, progress):
    assert (await ask(server, "/live"))[0] == 200
    progress.update([lagging(400)])
    status, body = await ask(server, "/live")
    assert status == 503
    assert "clickstream[0]" in json.loads(body)["reason"]


async def test_metrics_are_in_prometheus_text(server):
    status, body = await ask(server, "/metrics")
    assert status == 200
    assert "# TYPE prefstream_end_to_end_seconds histogram" in body
    assert "prefstream_ready 0.0" in body


@pytest.mark.parametrize(
    "path", ["/", "/table", "/table/user-state/u1/", "/metrics/", "/ready/x", "/../etc/passwd"]
)
async def test_everything_else_is_not_found(server, path):
    assert (await ask(server, path))[0] == 404


async def test_nothing_can_be_written(server):
    assert (await ask(server, "/ready", "POST"))[0] == 405


async def test_a_port_in_use_is_an_error_at_start(server):
    second = HealthServer(Metrics().registry, server.readiness, server.host, server.port)
    with pytest.raises(OSError, match="address already in use"):
        await second.start()


async def test_after_stop_nobody_answers(server):
    await server.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask(server, "/live")

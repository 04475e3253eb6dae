from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from stream.engine.lease import Lease


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class HeartbeatRequest:
    pass


class SyncGroupRequest:
    pass


class OffsetCommitRequest:
    pass


@dataclass
class Answer:
    error_code: int = 0


async def ask(lease: Lease, clock: Clock, request: Any, error_code: int, takes_s: float) -> None:
    async def send(node_id: int, request: Any, **options: Any) -> Answer:
        clock.now += takes_s
        return Answer(error_code)

    await lease.watching(send)(1, request, group=2)


@pytest.mark.parametrize("request_", [HeartbeatRequest(), SyncGroupRequest()])
async def test_an_answer_of_the_coordinator_gives_most_of_a_session_from_its_asking_on(
    request_: Any,
) -> None:
    clock = Clock()
    lease = Lease(10.0, clock)
    assert not lease.held()
    await ask(lease, clock, request_, 0, takes_s=2.0)
    clock.now = 108.9
    assert lease.held()
    clock.now = 109.1
    assert not lease.held()


async def test_a_rebalance_that_has_begun_renews_it_and_a_refusal_does_not() -> None:
    clock = Clock()
    lease = Lease(10.0, clock)
    await ask(lease, clock, HeartbeatRequest(), 27, takes_s=0.0)
    assert lease.held()
    clock.now += 8
    await ask(lease, clock, HeartbeatRequest(), 25, takes_s=0.0)
    await ask(lease, clock, OffsetCommitRequest(), 0, takes_s=0.0)
    clock.now += 2
    assert not lease.held()


async def test_who_waits_for_it_is_told_when_the_coordinator_answers_again() -> None:
    clock = Clock()
    lease = Lease(10.0, clock)
    await ask(lease, clock, HeartbeatRequest(), 0, takes_s=0.0)
    clock.now += 60
    waiting = asyncio.ensure_future(lease.confirmed(lease.n_refused))
    await asyncio.sleep(0)
    assert not waiting.done()
    await ask(lease, clock, HeartbeatRequest(), 0, takes_s=0.0)
    assert await waiting


@pytest.mark.parametrize("error_code", [22, 25, 82])
async def test_who_was_refused_meanwhile_does_not_get_it_back_by_joining_again(
    error_code: int,
) -> None:
    clock = Clock()
    lease = Lease(10.0, clock)
    await ask(lease, clock, SyncGroupRequest(), 0, takes_s=0.0)
    n_refused = lease.n_refused
    await ask(lease, clock, HeartbeatRequest(), error_code, takes_s=0.0)
    await ask(lease, clock, SyncGroupRequest(), 0, takes_s=0.0)
    assert lease.held()
    assert not await lease.confirmed(n_refused)

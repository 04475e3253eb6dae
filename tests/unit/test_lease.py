from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka.errors import IllegalGenerationError, NodeNotReadyError

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
    waiting = asyncio.ensure_future(lease.confirmed(lease.term))
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
    term = lease.term
    await ask(lease, clock, HeartbeatRequest(), error_code, takes_s=0.0)
    await ask(lease, clock, SyncGroupRequest(), 0, takes_s=0.0)
    assert lease.held()
    assert not await lease.confirmed(term)


async def test_joining_again_begins_another_term_though_nobody_was_refused() -> None:
    """A member whose session ran out while the coordinator was away is refused when it joins."""
    clock = Clock()
    lease = Lease(10.0, clock)
    await ask(lease, clock, SyncGroupRequest(), 0, takes_s=0.0)
    term = lease.term
    await ask(lease, clock, SyncGroupRequest(), 27, takes_s=0.0)
    assert await lease.confirmed(term)
    await ask(lease, clock, SyncGroupRequest(), 0, takes_s=0.0)
    assert not await lease.confirmed(term)


async def test_what_is_being_taken_away_may_be_finished_but_not_taken_over() -> None:
    clock = Clock()
    lease = Lease(10.0, clock)
    await ask(lease, clock, SyncGroupRequest(), 0, takes_s=0.0)
    assert not lease.may_take_over(lease.term)
    lease.assigned()
    assert lease.may_take_over(lease.term)
    lease.leaving()
    assert not await lease.confirmed(lease.term, taking_over=True)
    assert await lease.confirmed(lease.term)


async def test_who_takes_over_does_not_wait_for_an_answer_that_cannot_come() -> None:
    """Refused, a member sends no heartbeats until its partitions are let go of."""
    clock = Clock()
    lease = Lease(10.0, clock)
    await ask(lease, clock, SyncGroupRequest(), 0, takes_s=0.0)
    lease.assigned()
    clock.now += 60
    waiting = asyncio.ensure_future(lease.confirmed(lease.term, taking_over=True))
    await asyncio.sleep(0)
    lease.leaving()
    assert not await asyncio.wait_for(waiting, 5)


class ProduceRequest_v7:
    pass


async def test_nothing_is_written_without_the_lease_however_often_the_producer_tries() -> None:
    clock, sent = Clock(), list[Any]()
    lease = Lease(10.0, clock)

    async def send(node_id: int, request: Any, **options: Any) -> None:
        sent.append(request)

    guarded = lease.guarding(send)
    await ask(lease, clock, SyncGroupRequest(), 0, takes_s=0.0)
    lease.assigned()
    await guarded(1, ProduceRequest_v7())
    clock.now += 60
    with pytest.raises(NodeNotReadyError) as not_now:
        await guarded(1, ProduceRequest_v7())
    assert not_now.value.retriable
    await guarded(1, HeartbeatRequest())  # whatever is no writing passes
    await ask(lease, clock, HeartbeatRequest(), 0, takes_s=0.0)
    await guarded(1, ProduceRequest_v7())
    assert [type(request) for request in sent] == [
        ProduceRequest_v7,
        HeartbeatRequest,
        ProduceRequest_v7,
    ]


async def test_what_was_to_be_written_before_the_worker_joined_anew_is_not_tried_again() -> None:
    clock = Clock()
    lease = Lease(10.0, clock)

    async def send(node_id: int, request: Any, **options: Any) -> None:
        raise AssertionError("written")

    await ask(lease, clock, SyncGroupRequest(), 0, takes_s=0.0)
    lease.assigned()
    lease.leaving()
    await ask(lease, clock, SyncGroupRequest(), 0, takes_s=0.0)
    with pytest.raises(IllegalGenerationError) as over:
        await lease.guarding(send)(1, ProduceRequest_v7())
    assert not over.value.retriable

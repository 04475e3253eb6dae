"""Faults 1, 2, 3, 6, 7: workers that are killed, stopped, hang, come and go, or freeze."""

from __future__ import annotations

import random
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
from faults.arena import Arena
from faults.trial import SETTINGS

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

#: What is killed: any process of the three, or all of them at once.
VICTIMS = ("preference", "preference", "encode", "neighbours", None)


def kill_at_random(arena: Arena, store: str, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    # So many that nobody does more, while the encoder is away, than event ids are remembered.
    n_users = 40 * kills
    with arena.trial(
        "01 worker killed at random", store=store, seed=seed, n_users=n_users
    ) as trial:
        trial.load(300)
        # To the end, however long a restart takes: without events there is no output to wait for.
        with trial.under_load(per_s=300):
            for n in range(kills):
                time.sleep(rng.uniform(0.1, 2.5))
                trial.worker.kill(rng.choice(VICTIMS))
                trial.recovered_s(trial.worker, since=n + 1)
        trial.finish_now(60)
        trial.note = f"{kills} kills, {len(trial.worker.ends)} ends"


@pytest.mark.short
def test_01_a_worker_killed_at_random_loses_and_doubles_nothing(arena, store):
    kill_at_random(arena, store, kills=3, seed=11)


@pytest.mark.timeout(600)
def test_01_a_worker_killed_twenty_times_loses_and_doubles_nothing(arena, store):
    kill_at_random(arena, store, kills=20, seed=12)


@pytest.mark.short
def test_02_a_worker_stopped_under_load_ends_in_time_and_with_exit_0(arena):
    with arena.trial("02 stopped under load") as trial:
        sending = trial.load_in_background(3000, per_s=600)
        time.sleep(2)
        started = time.monotonic()
        code = trial.worker.stop()
        took_s = time.monotonic() - started
        assert code == 0, trial.worker.tail()
        assert took_s < 20, f"stopping took {took_s:.1f} s"
        again = trial.to_be_read_again()
        assert again <= int(SETTINGS["PREFSTREAM_BATCH_MAX"]), f"{again} events will be read again"
        trial.worker.start()
        trial.recovered_s(trial.worker, since=1)
        sending.join()
        trial.note = f"stopped in {took_s:.1f} s, {again} events read again"


@pytest.mark.timeout(200)
def test_03_a_worker_that_cannot_stop_is_ended_in_time(arena):
    hangs_for = "u003"
    with arena.trial("03 shutdown that hangs", inject={"FAULT_HANG_FOR": hangs_for}) as trial:
        trial.load(500, users=[user for user in trial.shoppers.users if user != hangs_for])
        trial.load(50, users=[hangs_for])
        time.sleep(3)
        started = time.monotonic()
        code = trial.worker.stop()
        took_s = time.monotonic() - started
        assert code == 4, f"exit {code}\n{trial.worker.tail()}"
        assert took_s < 30, f"stopping took {took_s:.0f} s"
        trial.worker.inject.clear()
        trial.worker.start()
        trial.note = f"ended after {took_s:.0f} s"


@pytest.mark.timeout(240)
def test_03_a_worker_that_stands_still_ends_itself_and_its_successor_goes_on(arena):
    settings, hangs_for = {"PREFSTREAM_STALL_TIMEOUT_S": "30"}, "u003"
    with arena.trial(
        "03 worker that stands still", settings=settings, inject={"FAULT_HANG_FOR": hangs_for}
    ) as trial:
        trial.load(500, users=[user for user in trial.shoppers.users if user != hangs_for])
        trial.load(50, users=[hangs_for])
        trial.worker.inject.clear()
        hung = time.monotonic()
        trial.worker.until(lambda: bool(trial.worker.ends), "ended by itself", 100)
        at, code = trial.worker.ends[0]
        assert code == 4, f"exit {code}\n{trial.worker.tail()}"
        trial.worker.until(trial.worker.ready, "ready", 60)
        trial.load(500)
        trial.note = f"ended after {at - hung:.0f} s, allowed to stand still for 30 s"


def come_and_go(arena: Arena, rounds: int) -> None:
    with arena.trial("06 rebalance under load") as trial:
        second = trial.another_worker("w2")
        sending = trial.load_in_background(rounds * 5000, per_s=350)
        for _ in range(rounds):
            second.start()
            trial.one_owner_each()
            time.sleep(2)
            assert second.stop() == 0, second.tail()
        sending.join()
        trial.finish_now(90)
        trial.one_owner_each()
        assert not trial.worker.ends, "the first worker ended"
        trial.note = f"{rounds} times"


@pytest.mark.short
def test_06_a_second_worker_comes_and_goes_under_load(arena):
    come_and_go(arena, rounds=1)


@pytest.mark.timeout(400)
def test_06_a_second_worker_comes_and_goes_again_and_again(arena):
    come_and_go(arena, rounds=5)


@pytest.mark.timeout(200)
def test_06_partitions_given_away_while_they_are_taken_over_are_not_written_to(arena, store):
    with arena.trial("06 rebalance while taking over", store=store) as trial:
        first, second = trial.worker, trial.another_worker("w2")
        with trial.under_load(per_s=300):
            time.sleep(2)
            # On an empty disk it cannot know that the last commit was sent.
            first.inject["FAULT_FINISH_S"] = "4"
            first.end()
            shutil.rmtree(first.folder / "state")
            first.launch()
            second.start()
            trial.one_owner_each()
            time.sleep(8)
            assert second.stop() == 0, second.tail()
            trial.one_owner_each()
            time.sleep(2)
            del first.inject["FAULT_FINISH_S"]
            first.kill("preference")
            trial.recovered_s(first, since=2)
        trial.finish_now(90)


@pytest.mark.timeout(200)
def test_07_a_frozen_worker_that_wakes_up_has_no_say_any_more(arena, store):
    with arena.trial("07 frozen worker", store=store) as trial:
        second = trial.another_worker("w2")
        second.start()
        trial.one_owner_each()
        sending = trial.load_in_background(9000, per_s=350)
        time.sleep(2)
        for frozen in (trial.worker, second):
            frozen.signal("preference", signal.SIGSTOP)
            time.sleep(10)
            frozen.signal("preference", signal.SIGCONT)
            time.sleep(2)
        sending.join()
        trial.finish_now(90)
        ended = len(trial.worker.ends) + len(second.ends)
        trial.note = f"frozen 10 s twice, with a session of 6 s; {ended} ended themselves"


@pytest.mark.timeout(200)
def test_30_a_worker_that_runs_out_of_memory_is_as_one_killed(arena, store):
    with arena.trial("30 out of memory", store=store) as trial:
        trial.load(500)
        with trial.under_load(per_s=300):
            for n in range(2):
                time.sleep(2)
                pid = trial.worker.pid("preference")
                kib = int(field_of(f"/proc/{pid}/status", "VmSize"))
                resource.prlimit(pid, resource.RLIMIT_AS, (kib * 1024, kib * 1024))
                trial.load(500, users=[f"crowd{n}-{m}" for m in range(500)])
                try:
                    trial.worker.until(lambda n=n: len(trial.worker.ends) > n, "out of memory", 15)
                except AssertionError:  # it found room in what it had: ended the hard way, then
                    trial.worker.kill("preference")
                trial.recovered_s(trial.worker, since=n + 1)
        trial.finish_now(90)
        trial.note = f"exits {[code for _, code in trial.worker.ends]}"


@pytest.mark.parametrize("at", ["fold", "taking", "telling"])
def test_30_what_a_worker_in_trouble_could_not_do_is_passed_over_by_nobody(arena, store, at):
    inject = {"FAULT_TROUBLE_FOR": "u003", "FAULT_TROUBLE_AT": at}
    with arena.trial(f"30 no memory for {at}", store=store, inject=inject) as trial:
        others = [user for user in trial.shoppers.users if user != "u003"]
        trial.load(300, users=others)
        sending = trial.load_in_background(4000, per_s=1000)
        sending.join()
        trial.worker.until(lambda: bool(trial.worker.ends), "ended", 30)
        trial.worker.until(trial.worker.ready, "ready", 60)
        trial.finish_now(60)
        assert [code for _, code in trial.worker.ends] == [1]


def field_of(path: str, name: str) -> str:
    lines = Path(path).read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(name + ":"))

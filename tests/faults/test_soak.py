"""Fault 34: steady load for long while faults 1, 4 and 6 strike at random; memory stays flat."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from faults.arena import Arena
from faults.cluster import Admin
from faults.test_kills import VICTIMS
from faults.trial import Trial
from faults.vitals import growths, leaks
from faults.watch import Watch

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "150"))
SOAK_SEED = int(os.environ.get("SOAK_SEED", "34"))
#: Two cores also hold the broker, two workers at times, and the generator.
PER_S, N_USERS = 300.0, 2000
#: Between the end of one fault and the next.
CALM_S = (10.0, 40.0)
DRAINED_S = 120.0
#: RocksDB's write buffers take minutes to fill at this rate, and lives are no longer: small ones
#: are full within the warm-up, and what grows from then on is no buffer.
SMALL = {"FAULT_WRITE_BUFFER_KIB": "1024"}


@dataclass
class Strikes:
    """The faults of a soak, each of which is over when the workers are ready again."""

    arena: Arena
    trial: Trial
    watch: Watch
    rng: random.Random
    n_kills: int = 0
    n_outages: int = 0
    n_comings: int = 0
    second_is_there: bool = False
    _all: list[Callable[[], None]] = field(init=False)

    def __post_init__(self) -> None:
        self.second = self.trial.another_worker("w2")
        self._all = [self.kill, self.take_the_broker_away, self.come_or_go]

    def upcoming(self) -> Iterator[Callable[[], None]]:
        """Yield faults without end: each once, then whichever comes."""
        yield from self.rng.sample(self._all, len(self._all))
        while True:
            yield self.rng.choice(self._all)

    def kill(self) -> None:
        worker = self.rng.choice(
            self.trial.workers if self.second_is_there else [self.trial.worker]
        )
        victim = self.rng.choice(VICTIMS)
        # It may have ended by itself just now, after an outage, and not be there again.
        worker.until(lambda: worker.is_there(victim), "there")
        before = len(worker.starts)
        self.watch.note(f"1: {victim or 'all'} of {worker.folder.name} killed")
        worker.kill(victim)
        self.n_kills += 1
        worker.until(lambda: len(worker.starts) > before, "started again")
        # With two of them the next output may be the other's, and tells nothing.
        if not self.second_is_there:
            self.trial.recovered_s(worker, since=before)
        worker.until(worker.ready, "ready after it was killed", 90)

    def take_the_broker_away(self) -> None:
        away_s = self.rng.uniform(3, 12)
        with self.watch.asking:
            self.watch.note(f"4: broker killed for {away_s:.0f} s")
            self.arena.one().kill(1)
            try:
                time.sleep(away_s)
            finally:
                self.arena.one().start()
            self.n_outages += 1
            # Such a client may go on looking for a group's coordinator where it was.
            self.trial.admin = Admin(self.trial.broker, self.trial.prefix)
        assert self.trial.outputs
        self.trial.outputs.first_after(time.monotonic(), 60)

    def come_or_go(self) -> None:
        self.watch.note(f"6: w2 {'goes' if self.second_is_there else 'comes'}")
        if self.second_is_there:
            code = self.second.stop()
            assert code == 0, f"exit {code}\n{self.second.tail()}"
        else:
            self.second.start()
            self.n_comings += 1
        self.second_is_there = not self.second_is_there
        self.trial.one_owner_each()

    @property
    def n_own_ends(self) -> int:
        """How often a worker ended that nobody had killed."""
        return sum(len(worker.ends) for worker in self.trial.workers) - self.n_kills

    def __str__(self) -> str:
        return (
            f"{self.n_kills} kills, broker away {self.n_outages} times, "
            f"w2 came {self.n_comings} times, {self.n_own_ends} ended themselves"
        )


def run(strikes: Strikes, seconds: float) -> None:
    """Keep the load up and the faults coming for so many seconds."""
    until = time.monotonic() + seconds
    with strikes.trial.under_load(PER_S):
        for strike in strikes.upcoming():
            left_s = until - time.monotonic()
            time.sleep(max(0.0, min(left_s, strikes.rng.uniform(*CALM_S))))
            if time.monotonic() >= until:
                return
            strike()


@pytest.mark.timeout(1.5 * SOAK_SECONDS + 600)
def test_34_soak_loses_nothing_doubles_nothing_and_stays_flat(arena, tmp_path):
    rng = random.Random(SOAK_SEED)
    with arena.trial("34 soak", seed=SOAK_SEED, n_users=N_USERS, inject=SMALL) as trial:
        watch = Watch(trial, csv_path(tmp_path, "soak"))
        strikes = Strikes(arena, trial, watch, rng)
        with watch.running():
            run(strikes, SOAK_SECONDS)
            trial.drained(DRAINED_S)
        watch.show()
        before = time.monotonic()
        trial.finish_now(DRAINED_S)
        judged_s = time.monotonic() - before
        grown = [growth for growth in growths(watch.samples) if growth.quantity == "rss_mib"]
        trial.note = (
            f"{SOAK_SECONDS:.0f} s at {PER_S:.0f}/s; {strikes}; "
            f"{max(grown, key=lambda growth: growth.by)}; judged in {judged_s:.0f} s"
        )
        assert len(trial.shop.log) > 0.9 * PER_S * SOAK_SECONDS, "the load was not kept up"
        # Two workers whose sessions ran out while the broker started cannot tell whose the
        # partitions are, and begin anew; there is no other reason to end.
        assert strikes.n_own_ends <= len(trial.workers) * strikes.n_outages
        assert not (found := leaks(watch.samples)), "\n".join(found)


@pytest.mark.timeout(200)
def test_34_what_leaks_in_a_worker_is_found_within_a_minute(arena, tmp_path):
    with arena.trial("34 a leak put in", inject={**SMALL, "FAULT_LEAK_KIB": "32"}) as trial:
        watch = Watch(trial, csv_path(tmp_path, "leak"))
        with watch.running(), trial.under_load(PER_S):
            time.sleep(60)
        trial.finish_now(DRAINED_S)
        leaking = {(g.process, g.quantity) for g in growths(watch.samples) if g.is_leak}
        trial.note = "; ".join(leaks(watch.samples))
        assert leaking == {("preference", "rss_mib"), ("preference", "handles")}


def csv_path(folder: Path, name: str) -> Path:
    folder = Path(os.environ.get("SOAK_DIR", folder))
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}-{SOAK_SEED}.csv"

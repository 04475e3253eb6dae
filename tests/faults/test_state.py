"""Faults 19 to 22, 27: state that is full, gone, corrupt, stale or cut off."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from faults.generator import Mix

pytestmark = [pytest.mark.faults, pytest.mark.kafka]


def flip(folder: Path, rng: random.Random, names: tuple[str, ...], flips: int = 40) -> int:
    """Flip bytes of the files whose names match; return how many files were hit."""
    files = [p for name in names for p in sorted(folder.rglob(name)) if p.stat().st_size]
    for path in files:
        raw = bytearray(path.read_bytes())
        for _ in range(flips):
            raw[rng.randrange(len(raw))] ^= 0xFF
        path.write_bytes(raw)
    return len(files)


@pytest.mark.short
def test_20_a_state_folder_that_was_deleted_is_rebuilt(arena):
    with arena.trial("20 state folder deleted") as trial:
        trial.load(1500)
        assert trial.drained(60) is not None
        assert trial.worker.stop() == 0
        shutil.rmtree(trial.worker.folder / "state")
        trial.load(500)
        trial.worker.start()


@pytest.mark.short
def test_20_a_state_folder_with_flipped_bytes_is_rebuilt(arena):
    with arena.trial("20 state folder corrupted", seed=20) as trial:
        trial.load(1500)
        assert trial.drained(60) is not None
        assert trial.worker.stop() == 0
        state = trial.worker.folder / "state"
        hit = flip(state / "preference", random.Random(20), ("*.log", "*.sst", "MANIFEST*"))
        trial.note = f"{hit} files"
        assert hit
        trial.load(500)
        trial.worker.start()


@pytest.mark.short
def test_31_an_erased_user_leaves_no_trace_though_events_go_on(arena, store):
    with arena.trial("31 erasure under load", store=store) as trial:
        trial.load(1000)
        erased = trial.shoppers.users[:30]
        sending = trial.load_in_background(2500, per_s=500)
        for user_id in erased:
            trial.shop.send([trial.shoppers.erasure(user_id)], per_s=10)
        sending.join()
        trial.shop.flush()
        assert trial.drained(60) is not None
        back = erased[:10]
        trial.send(trial.shoppers.record(user_id) for user_id in back)
        assert trial.drained(60) is not None
        trial.load(500, Mix(duplicates=0.1), users=back)
        trial.erased = set(erased[10:])
        trial.note = f"{len(erased)} erased, {len(back)} came back"

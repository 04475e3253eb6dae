"""Faults 19 to 22, 27: state that is full, gone, corrupt, stale or cut off."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from faults.generator import HOSTILE, Mix
from faults.trial import GROUPS

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
        trial.load_and_drain(1500)
        assert trial.worker.stop() == 0
        shutil.rmtree(trial.worker.folder / "state")
        trial.load(500)
        trial.worker.start()


@pytest.mark.short
def test_20_a_state_folder_with_flipped_bytes_is_rebuilt(arena):
    with arena.trial("20 state folder corrupted", seed=20) as trial:
        trial.load_and_drain(1500)
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
        # No new records in between: they would bring the erased back.
        sending = trial.load_in_background(2500, per_s=500, mix=replace(HOSTILE, records=0.0))
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


@pytest.mark.timeout(240)
def test_19_a_full_disk_ends_the_worker_cleanly_and_is_made_good_by_space(arena):
    with arena.trial("19 disk full on the state folder", opened=False) as trial:
        state = trial.worker.folder / "state"
        state.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(state)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("a small tmpfs cannot be mounted here")
        try:
            trial.open()
            trial.load(4000)
            trial.worker.until(lambda: len(trial.worker.ends) >= 1, "ended by the full disk", 90)
            codes = {code for _, code in trial.worker.ends}
            subprocess.run(["mount", "-o", "remount,size=300m", str(state)], check=True)
            trial.worker.until(trial.worker.ready, "ready", 60)
            trial.finish_now(90)
            trial.note = f"{len(trial.worker.ends)} ends, exit {sorted(codes)}"
            assert codes == {1}
        finally:
            trial.close()
            subprocess.run(["umount", "-l", str(state)], check=False)


@pytest.mark.timeout(280)
def test_21_a_stale_state_folder_brings_no_erased_user_back(arena):
    # A day in the life of a tombstone, here in half a minute.
    settings = {"PREFSTREAM_STATE_MAX_AGE_H": f"{25 / 3600:.5f}"}
    with arena.trial("21 stale state folder", settings=settings) as trial:
        trial.load_and_drain(1000)
        assert trial.worker.stop() == 0
        state = trial.worker.folder / "state"
        shutil.copytree(state, trial.worker.folder / "old")
        trial.worker.start()
        erased = trial.shoppers.users[:20]
        trial.send(trial.shoppers.erasure(user_id) for user_id in erased)
        trial.load_and_drain(1000, users=trial.shoppers.users[20:])
        # So that the tombstones go: nothing in the changelog tells of the erased any more.
        trial.admin.configure(
            "user-state",
            {
                "min.compaction.lag.ms": "0",
                "delete.retention.ms": "0",
                "min.cleanable.dirty.ratio": "0.001",
                "segment.ms": "1000",
            },
        )
        keys = {user_id.encode() for user_id in erased}

        def compacted() -> bool:
            # Only what lies behind newer segments is cleaned, and a tombstone goes the second time.
            trial.load_and_drain(40, users=trial.shoppers.users[20:])
            records = trial.admin.read("user-state")["user-state"]
            return not any(record.key() in keys for record in records)

        copied = time.monotonic()
        trial.worker.until(compacted, "the tombstones compacted", 120)
        as_it_was = {"min.compaction.lag.ms": "3600000", "delete.retention.ms": "86400000"}
        trial.admin.configure("user-state", as_it_was)
        assert trial.worker.stop() == 0
        shutil.rmtree(state)
        (trial.worker.folder / "old").rename(state)
        time.sleep(max(0.0, copied + 27 - time.monotonic()))
        trial.worker.start()
        trial.erased = set(erased)


def cut_off(trial, topic: str) -> None:
    """Delete every record of a changelog, as somebody with a script might."""
    trial.admin.configure(topic, {"cleanup.policy": "compact,delete"})
    trial.admin.trim(trial.admin.ends([topic]))
    trial.admin.configure(topic, {"cleanup.policy": "compact"})


@pytest.mark.timeout(200)
def test_22_a_changelog_that_was_cut_off_costs_nothing_while_the_local_store_is_there(arena):
    with arena.trial("22 changelog truncated, store kept") as trial:
        trial.load_and_drain(1500)
        before = trial.live_rows()
        assert trial.worker.stop() == 0
        cut_off(trial, "user-state")
        trial.worker.start()
        assert trial.live_rows() == before
        trial.note = f"{len(before)} rows kept"
        trial.verdict = []


@pytest.mark.timeout(240)
def test_22_a_changelog_that_was_cut_off_is_never_taken_for_an_empty_one(arena):
    with arena.trial("22 changelog truncated, no store", store="memory") as trial:
        trial.load_and_drain(1500)
        before = trial.live_rows()
        assert trial.worker.stop() == 0
        cut_off(trial, "user-state")
        trial.worker.launch()
        trial.worker.until(lambda: trial.worker.ends, "ended", 60)
        text = trial.worker.log.read_text(errors="replace")
        assert "StateLost: table user-state is not whole" in text
        trial.worker.end()
        # The way back that the README shows.
        trial.admin.delete(["user-state", "item-state", "item-pairs"])
        trial.worker.command("topics", "create")
        for group in ("prefstream-preference", "prefstream-neighbours"):
            trial.admin.rewind(group, GROUPS[group])
        trial.worker.start()
        assert trial.drained(90) is not None
        assert trial.live_rows().keys() == before.keys()
        # Counted anew, too: with its old state the next tier would take the pairs for repeats.
        assert trial.admin.read("item-state")["item-state"]
        trial.note = f"refused; {len(before)} rows rebuilt from the sources"
        trial.verdict = []


@pytest.mark.timeout(120)
def test_27_a_damaged_index_snapshot_is_refused_and_the_index_built_anew(arena):
    with arena.trial("27 index snapshot damaged", seed=27) as trial:
        trial.load_and_drain(500)
        assert trial.worker.stop() == 0
        hit = flip(trial.worker.folder / "state/catalogue", random.Random(27), ("*.safetensors",))
        assert hit
        trial.load(500)
        trial.worker.start()
        served = trial.worker.metric("preference", "prefstream_index_items")
        text = trial.worker.log.read_text(errors="replace")
        trial.finish_now()
        assert served == trial.shoppers.n_items
        assert "snapshot" in text.lower()
        trial.note = f"{hit} files; {served:.0f} items served"

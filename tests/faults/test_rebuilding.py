"""Faults 34 and 35: a cluster that is lost with its data, and a version that was taken back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from faults.cluster import Admin
from faults.generator import Mix
from faults.rows import replayed, state_of
from faults.supervisor import Supervised
from faults.trial import GROUPS, Trial

from stream.core import user_rows
from stream.engine.stores import unstamp
from stream.engine.table import CONTROL

pytestmark = [pytest.mark.faults, pytest.mark.kafka, pytest.mark.timeout(600)]

#: In the order of the operations guide.
DUMPED = ("items", "users", "clickstream", "searches", "reviews")
#: Nothing of it is a line that a dump cannot hold.
PLAIN = Mix(duplicates=0.05, records=0.02, late=0.02)


def acts_of(admin: Admin) -> dict[str, Any]:
    rows = replayed(admin.read("user-state")["user-state"])
    return {user_id: state_of(row)["acts"] for user_id, row in rows.items()}


def dump(trial: Trial, folder: Path) -> dict[str, Path]:
    """Write each source topic as `kcat -C -e -u` prints it: a value a line."""
    files = {}
    for topic in DUMPED:
        files[topic] = folder / f"{topic}.jsonl"
        records = trial.admin.read(topic)[topic]
        files[topic].write_bytes(b"".join((r.value() or b"") + b"\n" for r in records))
    return files


def test_34_a_lost_cluster_is_made_good_from_a_dump_with_more_partitions(arena, tmp_path):
    with arena.trial("34 cluster lost, more partitions") as trial:
        trial.load(800, PLAIN)
        assert trial.drained(90) is not None
        before, files = acts_of(trial.admin), dump(trial, tmp_path)
        assert trial.worker.stop() == 0
        # Of the old one nothing is left but the dump.
        trial.admin.delete(list(trial.admin.partitions()))
        prefix = f"{trial.prefix}p3-"
        new = trial.another_worker("w2", PREFSTREAM_PARTITIONS="3", PREFSTREAM_TOPIC_PREFIX=prefix)
        trial.workers.remove(new)
        admin = Admin(trial.broker, prefix)
        try:
            new.command("topics", "create")
            new.start()
            for topic, path in files.items():
                arguments = (str(path), "--format", "jsonl", "--topic", topic)
                new.command("validate", *arguments)
                new.command("replay", *arguments)
            new.until(lambda: _lag(new) == 0 and acts_of(admin) == before, "built anew", 180)
            assert not new.ends
            assert set(admin.partitions().values()) <= {1, 3}
            lists = [r for r in admin.read("recommendations")["recommendations"] if r.value()]
            assert {r.key().decode() for r in lists} == set(before)
            trial.note = f"{len(before)} users from {len(files)} files"
        finally:
            new.end()
        trial.verdict = []


def _lag(worker: Supervised) -> float:
    names = ("encode", "preference")
    return sum(worker.metric(name, "prefstream_consumer_lag") for name in names)


def test_35_a_version_taken_back_meets_newer_rows_ends_and_is_built_anew(arena):
    with arena.trial("35 rolled back over newer rows") as trial:
        trial.load(600, PLAIN)
        assert trial.drained(90) is not None
        before = acts_of(trial.admin)
        assert trial.worker.stop() == 0
        # What the newer program has written: rows that begin with a version of its own.
        newest = {r.key(): r for r in trial.admin.read("user-state")["user-state"]}
        rows = [r for key, r in newest.items() if r.value() and not key.startswith(CONTROL)]
        newer = bytes((user_rows.VERSION + 1,))
        for record in rows:
            sequence = record.value()[:8]
            row = newer + unstamp(record.value())[1][1:]
            trial.shop.put_raw("user-state", record.partition(), record.key(), sequence + row)
        trial.shop.flush()
        shutil.rmtree(trial.worker.folder / "state")
        trial.load(100, PLAIN)
        trial.worker.launch()
        trial.worker.until(lambda: trial.worker.ends, "ended", 90)
        trial.worker.end()
        assert trial.worker.ends[0][1] == 1
        text = trial.worker.log.read_text(errors="replace")
        assert f"got version {user_rows.VERSION + 1}: was it written by a newer prefstream?" in text
        after = {r.key(): r for r in trial.admin.read("user-state")["user-state"]}
        kept = [after[r.key()].value()[8:9] for r in rows]
        assert kept == [newer] * len(rows), "the rows were touched"
        # The one way back: that of a lost changelog.
        trial.admin.delete(["user-state", "item-state", "item-pairs"])
        shutil.rmtree(trial.worker.folder / "state")
        trial.worker.command("topics", "create")
        for group in ("prefstream-preference", "prefstream-neighbours"):
            trial.admin.rewind(group, GROUPS[group])
        trial.worker.start()
        assert trial.drained(120) is not None, trial.worker.tail()
        assert acts_of(trial.admin).keys() >= before.keys()
        trial.note = f"{len(rows)} newer rows"
        trial.verdict = []

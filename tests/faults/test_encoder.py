"""Fault 33: the encoder is changed: by mistake, and as the operations guide says."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import Any

import pytest
from faults.cluster import Admin
from faults.model import tiny_model
from faults.rows import replayed, state_of
from faults.supervisor import Supervised
from faults.trial import GROUPS, Trial

from models.weights import encoder_id, resolve
from stream.messages import read_item_embedding
from stream.topic_names import SOURCES
from stream.topics import TOPICS

pytestmark = [pytest.mark.faults, pytest.mark.kafka, pytest.mark.timeout(900)]

STATE = "v2-"
EXIT_TOPICS = 3
#: What follows from vectors; the items' counts know none, and are taken over as ever.
WITH_VECTORS = (
    *("item-embeddings", "embedded-texts", "user-state", "item-pairs"),
    *("recommendations", "search-results", "churn-risk", "dead-letters"),
)
DERIVED = [spec.name for spec in TOPICS if spec.role == "derived"]


def other_model(trial: Trial) -> str:
    return str(tiny_model(trial.folder, weight=1.0))


@dataclass
class Encoders:
    """The ids of a trial's encoder and of the other one."""

    ours: str
    other: str

    @classmethod
    def of(cls, trial: Trial) -> Encoders:
        folders = (tiny_model(trial.folder), tiny_model(trial.folder, weight=1.0))
        return cls(*(encoder_id(resolve(str(folder))) for folder in folders))


def vectors_of(admin: Admin) -> set[str]:
    """Return whose vectors the newest of each item are."""
    newest = {r.key(): r.value() for r in admin.read("item-embeddings")["item-embeddings"]}
    return {read_item_embedding(value).encoder for value in newest.values() if value}


def states_of(admin: Admin) -> dict[str, Any]:
    """Return what of each user's row does not depend on the encoder."""
    found = {}
    for user_id, row in replayed(admin.read("user-state")["user-state"]).items():
        state = state_of(row)
        found[user_id] = {name: state[name] for name in ("offsets", "acts")}
    return found


def drained(trial: Trial, state: Admin) -> bool:
    """True when the groups of a second state have read all there is."""
    for group, topics in GROUPS.items():
        committed = state.committed(group)
        for topic in topics:
            of_it = trial.admin if topic in SOURCES else state
            for (name, number), end in of_it.ends([topic]).items():
                # The group's topics are told without the prefix that they have.
                full = (name, number) if topic not in SOURCES else (f"{trial.prefix}{name}", number)
                if end and committed.get(full, -1) != end:
                    return False
    return True


def answered(admin: Admin, since: int = 0) -> list[dict[str, Any]]:
    records = admin.read("recommendations")["recommendations"]
    return [json.loads(r.value()) for r in records if r.value()][since:]


def test_33_another_encoder_on_the_same_topics_ends_and_changes_nothing(arena):
    with arena.trial("33 another encoder by mistake") as trial:
        trial.load_and_drain(800)
        encoders, before = Encoders.of(trial), states_of(trial.admin)
        assert trial.worker.stop() == 0
        ends = trial.admin.ends(WITH_VECTORS)
        wrong = trial.another_worker("w2", PREFSTREAM_ENCODER=other_model(trial))
        wrong.launch()
        wrong.until(lambda: wrong.ends, "ended", 120)
        wrong.end()
        assert wrong.ends[0][1] == EXIT_TOPICS, wrong.tail()
        said = wrong.log.read_text(errors="replace")
        assert f"expected vectors of encoder {encoders.other} (32 dimensions)" in said
        assert f"got {encoders.ours} (32 dimensions)" in said
        assert trial.admin.ends(WITH_VECTORS) == ends
        # The vectors of the items gone as well, the rows themselves say whose they are.
        trial.workers.remove(wrong)
        embeddings = next(spec for spec in TOPICS if spec.name == "item-embeddings")
        trial.admin.delete([embeddings.name])
        trial.admin.create(embeddings.name, 2, embeddings.config())
        wrong = trial.another_worker("w3", PREFSTREAM_ENCODER=other_model(trial))
        wrong.launch()
        wrong.until(lambda: wrong.ends, "ended", 120)
        wrong.end()
        assert wrong.ends[0][1] == EXIT_TOPICS, wrong.tail()
        said = wrong.log.read_text(errors="replace")
        assert "rows of user-state, partition 0: expected vectors of encoder" in said
        assert states_of(trial.admin) == before
        trial.workers.remove(wrong)
        trial.note = "exit 3, twice"
        trial.verdict = []


def test_33_a_second_state_of_another_encoder_takes_over_while_the_first_serves(arena):
    with arena.trial("33 a second state beside the first") as trial:
        trial.load_and_drain(800)
        encoders = Encoders.of(trial)
        second = trial.another_worker(
            "w2", PREFSTREAM_ENCODER=other_model(trial), PREFSTREAM_STATE_PREFIX=STATE
        )
        trial.workers.remove(second)  # the judge knows of one state
        state = Admin(trial.broker, trial.prefix + STATE)
        try:
            second.command("topics", "create")
            sending = trial.load_in_background(600, per_s=20)
            second.start()
            sending.join()
            trial.shop.flush()
            second.until(lambda: drained(trial, state), "drained", 180)
            trial.finish_now()
            assert not trial.worker.ends
            assert not second.ends
            # Neither knows anything of the other's vectors, and both the same of the users.
            assert vectors_of(trial.admin) == {encoders.ours}
            assert vectors_of(state) == {encoders.other}
            assert {one["model"]["encoder"] for one in answered(state)} == {encoders.other}
            assert states_of(state) == states_of(trial.admin)
            assert "known of" in second.command("explain", trial.shoppers.users[0])
            # The switch: the first goes, its topics with it.
            n_before = len(answered(state))
            assert trial.worker.stop() == 0
            trial.admin.delete([*DERIVED, "recommendations"])
            trial.load(200)
            second.until(lambda: drained(trial, state), "drained", 180)
            assert len(answered(state, n_before)) > 0
            assert not second.ends
            trial.note = f"{len(states_of(state))} users"
        finally:
            second.end()


def test_33_an_encoder_is_changed_in_place_by_the_steps_of_the_guide(arena):
    with arena.trial("33 encoder changed in place") as trial:
        trial.load_and_drain(800)
        encoders, before = Encoders.of(trial), states_of(trial.admin)
        assert trial.worker.stop() == 0
        trial.admin.delete(DERIVED)
        shutil.rmtree(trial.worker.folder / "state")
        changed: Supervised = trial.another_worker("w2", PREFSTREAM_ENCODER=other_model(trial))
        changed.command("topics", "create")
        for group, topics in GROUPS.items():
            trial.admin.rewind(group, topics)
        changed.start()
        trial.workers.remove(trial.worker)
        assert trial.drained(120) is not None, changed.tail()
        assert not changed.ends
        assert vectors_of(trial.admin) == {encoders.other}
        after = states_of(trial.admin)
        assert {user: one["acts"] for user, one in after.items()} == {
            user: one["acts"] for user, one in before.items()
        }
        trial.note = f"{len(after)} users"
        trial.verdict = []

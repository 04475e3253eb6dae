"""Fault 1 with a large state: how long it takes until shoppers are answered again."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from faults.generator import Message
from faults.model import tiny_model
from faults.test_messages import event
from faults.trial import Trial

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

N_USERS = 100_000
TARGET_S = 10.0
#: As long as those of the default encoder: most of a row is the sum of its vectors.
DIM = 384


def crowd(items: list[str]) -> Iterator[Message]:
    """Yield, for each of many users, an impression and a click: a row of usual length."""
    for number in range(N_USERS):
        user_id = f"crowd{number:06d}"
        for act, kind in enumerate(("impression", "click")):
            item_id = items[(number + act) % len(items)]
            raw = event(user_id, item_id=item_id, type=kind)
            yield Message("clickstream", user_id.encode(), raw)


def n_bytes(trial: Trial) -> int:
    return sum(len(r.value() or b"") for r in trial.admin.read("user-state")["user-state"])


@pytest.mark.timeout(1200)
def test_01_a_worker_with_a_hundred_thousand_users_answers_again_in_time(arena, store, tmp_path):
    settings = {
        "PREFSTREAM_ENCODER": str(tiny_model(tmp_path / "model", DIM)),
        "PREFSTREAM_BATCH_MAX": "2000",
    }
    with arena.trial("01 killed with 100,000 users", store=store, settings=settings) as trial:
        started = time.monotonic()
        trial.send(crowd(trial.shoppers.items))
        # Each of them is due a list: some milliseconds a list, with all that the cores do else.
        assert trial.drained(400) is not None
        filled_s = time.monotonic() - started
        with trial.under_load(per_s=200):
            time.sleep(3)
            trial.worker.kill()
            recovered_s = trial.recovered_s(trial.worker, since=1, timeout_s=120)
        trial.finish_now(400)
        rows = len(trial.live_rows())
        trial.note = (
            f"{rows:,} rows, changelog of {n_bytes(trial) / 1e6:.0f} MB; filled in {filled_s:.0f} s"
        )
        assert rows >= N_USERS
        assert recovered_s <= TARGET_S

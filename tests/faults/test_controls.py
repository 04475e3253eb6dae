"""Negative controls: programs that lose or double. A harness that finds them innocent is blind."""

from __future__ import annotations

import time

import pytest
from faults.controls import COUNTING

pytestmark = [pytest.mark.faults, pytest.mark.kafka]


@pytest.mark.parametrize("control", ["naive", "concurrent", "exactly_once"])
def test_a_control_under_sigkill_is_found_guilty(arena, control):
    with arena.control(control, counts=control in COUNTING) as trial:
        sending = trial.load_in_background(5000, per_s=400)
        trial.answers_more(300)
        for n in range(2):
            time.sleep(1.0)
            trial.worker.kill()
            trial.worker.until(lambda n=n: len(trial.worker.starts) > n + 1, "started again")
            trial.answers_more(200)
        sending.join()

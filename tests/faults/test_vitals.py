"""The judge of memory and handles, on lives made up: noise passes, each kind of leak is found."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from faults.vitals import Sample, leaks, slope

MIB_AT_START, MIB_SETTLED, HANDLES = 40.0, 110.0, 60
#: How long each life of a soak is, in seconds.
LIVES_S = (55, 140, 38, 70, 210, 45, 12, 90, 60, 120, 41, 75)

#: (age, life's number) -> MiB, handles
Course = Callable[[float, int], tuple[float, float]]


def honest(age_s: float, life: int) -> tuple[float, float]:
    """A start, then a plateau: what caches and tables that fill look like."""
    return MIB_SETTLED - (MIB_SETTLED - MIB_AT_START) * 0.5 ** (age_s / 6), HANDLES


def lived(course: Course, lives_s: Sequence[float] = LIVES_S) -> list[Sample]:
    """Return samples a second apart, with the noise of collections and connections."""
    rng, samples, began_s = random.Random(7), [], 0.0
    for number, life_s in enumerate(lives_s):
        for age_s in range(int(life_s)):
            mib, handles = course(age_s, number)
            samples.append(
                Sample(
                    began_s + age_s,
                    "w1",
                    "preference",
                    1000 + number,
                    mib + rng.uniform(-4, 4),
                    round(handles + rng.choice((-6, 0, 0, 0, 2, 4))),
                    20,
                )
            )
        began_s += life_s + 3
    return samples


@pytest.mark.parametrize("lives_s", [LIVES_S, (60,), (900, 800), (15, 3, 8)])
def test_workers_that_settle_leak_nothing(lives_s: Sequence[float]) -> None:
    assert leaks(lived(honest, lives_s)) == []


def a_backlog_in_the_last_life(age_s: float, life: int) -> tuple[float, float]:
    return honest(age_s, life)[0] + 40 * (life == len(LIVES_S) - 1), HANDLES


def a_backlog_in_the_middle_of_each(age_s: float, life: int) -> tuple[float, float]:
    return honest(age_s, life)[0] + 45 * (age_s > 115), HANDLES


@pytest.mark.parametrize("course", [a_backlog_in_the_last_life, a_backlog_in_the_middle_of_each])
def test_what_a_backlog_takes_is_no_leak(course: Course) -> None:
    assert leaks(lived(course)) == []


def rows_that_fill(age_s: float, life: int) -> tuple[float, float]:
    return honest(age_s, life)[0] - 60 * (life < 8), HANDLES  # the eighth ends after 600 s


def test_rows_that_grow_until_they_are_full_are_no_leak() -> None:
    assert leaks(lived(rows_that_fill, LIVES_S * 3)) == []


def a_mib_a_second(age_s: float, life: int) -> tuple[float, float]:
    return honest(age_s, life)[0] + age_s, HANDLES


def a_handle_with_every_batch(age_s: float, life: int) -> tuple[float, float]:
    return honest(age_s, life)[0], HANDLES + 100 * age_s


def a_handle_in_three_seconds(age_s: float, life: int) -> tuple[float, float]:
    return honest(age_s, life)[0], HANDLES + age_s / 3


def more_after_every_fault(age_s: float, life: int) -> tuple[float, float]:
    return honest(age_s, life)[0] + 45 * (age_s // 90), HANDLES


def more_in_every_life(age_s: float, life: int) -> tuple[float, float]:
    return honest(age_s, life)[0] + 4 * life, HANDLES


def more_handles_in_every_life(age_s: float, life: int) -> tuple[float, float]:
    return honest(age_s, life)[0], HANDLES + 3 * life


@pytest.mark.parametrize(
    ("course", "lives_s", "told"),
    [
        (a_mib_a_second, (60,), "rss_mib"),
        (a_mib_a_second, LIVES_S, "rss_mib"),
        (a_handle_with_every_batch, (60,), "handles"),
        (a_handle_in_three_seconds, LIVES_S, "handles"),
        (more_after_every_fault, (900, 800), "rss_mib"),
        (more_in_every_life, LIVES_S, "rss_mib"),
        (more_in_every_life, LIVES_S * 3, "rss_mib"),
        (more_handles_in_every_life, LIVES_S, "handles"),
    ],
)
def test_a_leak_is_found(course: Course, lives_s: Sequence[float], told: str) -> None:
    found = leaks(lived(course, lives_s))
    assert found
    assert all(told in one for one in found)


def test_a_few_points_far_off_do_not_bend_a_slope() -> None:
    values = [2.0 * t for t in range(100)]
    values[40:50] = [900.0] * 10
    assert slope(range(100), values, near_s=100) == pytest.approx(2.0)


def test_a_step_does_not_bend_a_slope_of_near_points() -> None:
    values = [0.0] * 50 + [45.0] * 50
    assert slope(range(100), values, near_s=10) == 0.0
    assert slope(range(100), values, near_s=100) > 0.4

"""Intervals, classes, splits: that they say what they say."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation import classes, intervals, splits


def test_an_interval_holds_the_mean_of_the_next_sample_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for seed in range(60):
        low, high = intervals.mean(rng.exponential(size=200), seed)[1:]
        inside += low <= 1.0 <= high
    assert 50 <= inside <= 60  # 57 expected


def test_the_difference_of_paired_values_is_surer_than_either() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=500)
    estimate = intervals.difference(hard + 0.1 + 0.01 * rng.normal(size=500), hard)
    assert 0.09 < estimate.low < 0.1 < estimate.high < 0.11


def test_a_figure_that_cannot_be_had_of_all_rows_is_not_looked_for_in_resamples() -> None:
    truth = np.array([True, False, True])
    with pytest.raises(ValueError, match="NaN"):
        intervals.of_statistic(classes.OF_PROBABILITY["auc"], truth, np.full(3, np.nan))


def test_values_that_are_not_known_are_left_out() -> None:
    assert intervals.mean(np.array([1.0, np.nan, 3.0])).value == 2.0
    assert np.isnan(intervals.mean(np.array([np.nan])).value)


def test_probabilities_are_measured_with_intervals() -> None:
    rng = np.random.default_rng(1)
    p = rng.random(2000)
    truth = rng.random(2000) < p
    found = classes.of_probabilities(truth, p)
    assert found["auc"].low < found["auc"].value < found["auc"].high
    assert found["auc"].value == pytest.approx(5 / 6, abs=0.03)  # of a uniform, calibrated p
    assert found["brier"].value == pytest.approx(1 / 6, abs=0.01)
    curve = classes.calibration(truth, p)
    assert np.abs(np.array(curve.said) - curve.true).max() < 0.1


def test_one_class_alone_cannot_be_told_apart() -> None:
    with pytest.raises(ValueError, match="both classes"):
        classes.of_probabilities(np.ones(3, bool), np.array([0.1, 0.2, 0.3]))


def test_classes_are_counted_for_the_positive_one() -> None:
    truth = np.array([True] * 40 + [False] * 60)
    said = np.array([True] * 30 + [False] * 10 + [True] * 10 + [False] * 50)
    found = {name: estimate.value for name, estimate in classes.of_classes(truth, said).items()}
    assert found == pytest.approx({"accuracy": 0.8, "precision": 0.75, "recall": 0.75, "f1": 0.75})


def test_nothing_of_the_answer_is_left_in_the_question() -> None:
    sequences = [np.array(s) for s in ([1, 2, 3, 4], [5, 6], [7])]
    test, validation = splits.leave_one_out(sequences), splits.leave_one_out(sequences, back=1)
    assert [h.tolist() for h in test.histories] == [[1, 2, 3], [5]]
    assert [t.tolist() for t in test.targets] == [[4], [6]]
    assert [h.tolist() for h in validation.histories] == [[1, 2]]
    assert [t.tolist() for t in validation.targets] == [[3]]


def test_the_last_share_is_at_least_one_act_and_never_all() -> None:
    split = splits.last_share([np.arange(10), np.arange(2)], 0.2)
    assert [t.tolist() for t in split.targets] == [[8, 9], [1]]
    assert [h.tolist() for h in split.histories] == [[*range(8)], [0]]
    with pytest.raises(ValueError, match="between 0 and 1"):
        splits.last_share([np.arange(3)], 1.0)


def test_rows_are_split_by_time_and_by_folds() -> None:
    train, test = splits.by_time(np.array([5, 1, 9, 5]), 5)
    assert (train.tolist(), test.tolist()) == ([1], [0, 2, 3])
    tests = np.concatenate([test for _, test in splits.k_fold(10, 3)])
    assert sorted(tests) == [*range(10)]


def test_a_choice_is_never_made_on_the_case_it_is_told_of() -> None:
    # Each choice is perfect on one case alone: seen from the others it is the worst.
    values = np.eye(6)
    assert splits.chosen_on_other_folds(values, k=6).tolist() == [0.0] * 6
    values[0] = 0.5
    assert splits.chosen_on_other_folds(values, k=6).tolist() == [0.5] * 6

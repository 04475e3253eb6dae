"""Metrics of classifiers and of probabilities: scikit-learn's, with intervals, under one roof."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics
from sklearn.calibration import calibration_curve

from models.evaluation.intervals import Estimate, of_statistic

Truth = NDArray[np.bool_]
Probability = NDArray[np.float64]

OF_PROBABILITY: Final[Mapping[str, Callable[[Truth, Probability], float]]] = {
    "auc": metrics.roc_auc_score,
    "pr_auc": metrics.average_precision_score,
    "brier": metrics.brier_score_loss,
    "log_loss": lambda truth, p: metrics.log_loss(truth, np.clip(p, 1e-15, 1 - 1e-15)),
}
OF_CLASSES: Final[Mapping[str, Callable[[Any, Any], float]]] = {
    "accuracy": metrics.accuracy_score,
    "precision": lambda truth, said: metrics.precision_score(truth, said, zero_division=0.0),
    "recall": lambda truth, said: metrics.recall_score(truth, said, zero_division=0.0),
    "f1": lambda truth, said: metrics.f1_score(truth, said, zero_division=0.0),
}


def of_probabilities(truth: Truth, probability: Probability) -> dict[str, Estimate]:
    """Return AUC, area under precision-recall, Brier score and log loss; lower is better for the
    last two. Raises ValueError when only one class is there."""
    if truth.all() or not truth.any():
        raise ValueError("expected both classes among the truth")
    return {
        name: of_statistic(metric, truth, probability) for name, metric in OF_PROBABILITY.items()
    }


def of_classes(truth: Truth, said: Truth) -> dict[str, Estimate]:
    """Return accuracy, precision, recall and F1 of the positive class."""
    return {name: of_statistic(metric, truth, said) for name, metric in OF_CLASSES.items()}


class Calibration(NamedTuple):
    """Mean probability said and share that was true, by bin of equal counts."""

    said: list[float]
    true: list[float]


def calibration(truth: Truth, probability: Probability, n_bins: int = 10) -> Calibration:
    """Return the reliability curve, bins of about as many cases each."""
    true, said = calibration_curve(truth, probability, n_bins=n_bins, strategy="quantile")
    return Calibration(said.tolist(), true.tolist())

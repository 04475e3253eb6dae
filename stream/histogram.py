"""A Prometheus histogram that takes a whole micro-batch at once.

The client's own Histogram walks its buckets in Python for every value. This one is a custom
collector, the client's supported way in: one sort into buckets per micro-batch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from math import isfinite
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

#: Up to this many values, Python is done before numpy has started.
_FEW = 20


class Series:
    """The buckets of one combination of label values."""

    def __init__(self, bounds: NDArray[np.float64]) -> None:
        self._bounds = bounds
        self._bound_list = bounds.tolist()
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = Lock()

    def observe(self, value: float) -> None:
        """Count one finite value."""
        with self._lock:
            self._counts[bisect_left(self._bound_list, value)] += 1
            self._sum += value

    def observe_many(self, values: Sequence[float] | NDArray[np.float64]) -> None:
        """Count every finite value; others would spoil the sum for good."""
        if len(values) <= _FEW:
            with self._lock:
                for value in values:
                    if isfinite(value):
                        self._counts[bisect_left(self._bound_list, value)] += 1
                        self._sum += value
            return
        array = np.asarray(values, np.float64)
        array = array[np.isfinite(array)]
        # side="left": a value equal to a bound belongs under it, as `le` says.
        buckets = np.searchsorted(self._bounds, array, side="left")
        counts = np.bincount(buckets, minlength=len(self._counts))
        with self._lock:
            self._counts = [n + m for n, m in zip(self._counts, counts.tolist(), strict=True)]
            self._sum += float(array.sum())

    def snapshot(self) -> tuple[NDArray[np.int64], float]:
        """Return the cumulative counts, shape (n_bounds + 1,), and the sum of the values."""
        with self._lock:
            return np.cumsum(self._counts), self._sum


class BatchHistogram(Collector):
    """A labelled family of Series; without label names, ``labels()`` is its one series."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Sequence[str],
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        if list(buckets) != sorted(set(buckets)):
            raise ValueError(f"expected rising buckets for {name}, got {buckets}")
        self.name, self.documentation, self.labelnames = name, documentation, tuple(labelnames)
        self._bounds = np.asarray(buckets, np.float64)
        self._le = [*(repr(float(bound)) for bound in buckets), "+Inf"]
        self._series: dict[tuple[str, ...], Series] = {}
        if not labelnames:
            self.labels()
        registry.register(self)

    def labels(self, *values: str) -> Series:
        """Return the series of these label values, in the order of ``labelnames``."""
        series = self._series.get(values)
        if series is None:
            if len(values) != len(self.labelnames):
                raise ValueError(f"{self.name} expects labels {self.labelnames}, got {values}")
            series = self._series.setdefault(values, Series(self._bounds))
        return series

    def describe(self) -> list[Metric]:
        """Return the family without samples: what the registry checks for duplicate names."""
        return [HistogramMetricFamily(self.name, self.documentation, labels=self.labelnames)]

    def collect(self) -> Iterator[Metric]:
        """Yield the family as the registry renders it."""
        family = HistogramMetricFamily(self.name, self.documentation, labels=self.labelnames)
        for values, series in list(self._series.items()):
            counts, total = series.snapshot()
            buckets = list(zip(self._le, counts.astype(float).tolist(), strict=True))
            family.add_metric(values, buckets, total)
        yield family

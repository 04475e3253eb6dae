"""What the panels of a dashboard would show: its queries, asked of a Prometheus as Grafana does."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

Json = dict[str, Any]
#: Points of a curve: about one to two pixels, as Grafana asks for.
POINTS = 240


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when, epoch seconds, and how often Prometheus scrapes."""

    start_s: float
    end_s: float
    scrape_s: float = 5.0

    @property
    def step_s(self) -> float:
        return max(self.scrape_s, (self.end_s - self.start_s) / POINTS)

    @property
    def rate_interval_s(self) -> float:
        """Return what Grafana puts for $__rate_interval: no rate is without two scrapes."""
        return max(self.step_s + self.scrape_s, 4 * self.scrape_s)


@dataclass(frozen=True, slots=True)
class Series:
    """One curve: its labels, its name by the legend, and its points; times in epoch seconds."""

    labels: Mapping[str, str]
    name: str
    times_s: list[float]
    values: list[float]

    @property
    def last(self) -> float:
        """Return the last value that is a number; not a number when there is none."""
        return next((v for v in reversed(self.values) if math.isfinite(v)), math.nan)


class QueryFailed(RuntimeError):
    """Prometheus does not answer a query; the text says why."""


@dataclass(slots=True)
class Prometheus:
    """Asks over HTTP; ``variables`` are the dashboard's, each a regular expression."""

    url: str
    variables: Mapping[str, str] = field(default_factory=dict)
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30, trust_env=False))

    def series(self, target: Mapping[str, Any], span: Span) -> list[Series]:
        """Return the curves of a panel's query; raises QueryFailed."""
        asked = {
            "query": self._expanded(str(target["expr"]), span),
            "start": f"{span.start_s:.3f}",
            "end": f"{span.end_s:.3f}",
            "step": f"{span.step_s:.3f}",
        }
        try:
            answer = self.http.get(f"{self.url}/api/v1/query_range", params=asked).json()
        except (httpx.HTTPError, ValueError) as error:
            raise QueryFailed(f"no answer from {self.url}: {error!r}") from error
        if answer["status"] != "success":
            raise QueryFailed(f"{answer['error']}: {asked['query']}")
        return [
            _series(one, str(target.get("legendFormat", ""))) for one in answer["data"]["result"]
        ]

    def _expanded(self, expr: str, span: Span) -> str:
        expr = expr.replace("$__rate_interval", f"{math.ceil(span.rate_interval_s)}s")
        return re.sub(r"\$(\w+)", lambda m: self.variables.get(m[1], ".*"), expr)


def _series(result: Json, legend: str) -> Series:
    labels: dict[str, str] = result["metric"]
    name = re.sub(r"\{\{(\w+)\}\}", lambda m: labels.get(m[1], ""), legend)
    times, values = zip(*((float(t), float(v)) for t, v in result["values"]), strict=True)
    return Series(labels, name, list(times), list(values))


def drawn(dashboard: Json) -> list[Json]:
    """Return the panels that ask for something: all but rows and texts."""
    return [panel for panel in dashboard["panels"] if panel["type"] not in {"row", "text"}]


def answers(dashboard: Json, prometheus: Prometheus, span: Span) -> dict[int, list[Series]]:
    """Return by panel id the curves of all its queries; raises QueryFailed."""
    return {
        panel["id"]: [
            series for target in panel["targets"] for series in prometheus.series(target, span)
        ]
        for panel in drawn(dashboard)
    }


def empty(dashboard: Json, prometheus: Prometheus, span: Span) -> list[str]:
    """Return the titles of panels of which some query gives no number; raises QueryFailed."""
    return [
        f"{panel['title']}: {target['expr']}"
        for panel in drawn(dashboard)
        for target in panel["targets"]
        if not any(math.isfinite(s.last) for s in prometheus.series(target, span))
    ]

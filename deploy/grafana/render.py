r"""Draw a dashboard into one picture without Grafana: for a report, a review, or a look.

    python -m deploy.grafana.render deploy/grafana/dashboards/shop.json \
        http://localhost:9090 shop.png

asks Prometheus what Grafana would ask it, and lays the panels out as Grafana does. Wants matplotlib
(pip install "prefstream[train]"). It shows what Grafana would show, not how: no links, no tooltips.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import textwrap
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from deploy.grafana.series import Prometheus, QueryFailed, Series, Span, answers
from deploy.grafana.units import told

Json = dict[str, Any]

#: Of Grafana's grid, in inches; a cell is a thirtieth of the page's width there too.
CELL_W, CELL_H, GAP = 0.75, 0.36, 0.06
PAGE, PANEL, LINE, INK, PALE = "#111217", "#181b1f", "#2c3235", "#d8d9da", "#8e8e93"
# fmt: off
PALETTE = ("#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#f2495c", "#b877d9", "#8ab8ff", "#37872d",
           "#fade2a", "#a352cc", "#ffb357", "#c4162a")
# fmt: on
COLOURS = {
    "green": "#73bf69",
    "semi-dark-green": "#37872d",
    "yellow": "#fade2a",
    "orange": "#ff780a",
    "red": "#f2495c",
    "blue": "#5794f2",
}
#: Behind a figure, dark enough to read it.
FILLED = {"green": "#2f6b33", "orange": "#a8540f", "red": "#a32836", "blue": "#2b4f87"}
#: A legend names so many curves; Grafana scrolls.
MOST_NAMED, COLUMNS = 8, 2
LEGEND_LINE, TITLE_H = 0.16, 0.27


def drawing(dashboard: Json, found: dict[int, list[Series]], span: Span) -> Figure:
    """Return the page of a dashboard; ``found`` has the curves by panel id."""
    panels = dashboard["panels"]
    height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels) * CELL_H + 0.5
    width = 24 * CELL_W
    page = Figure(figsize=(width, height), facecolor=PAGE)
    when = datetime.fromtimestamp(span.end_s, timezone.utc)
    title = f"{dashboard['title']}    {when:%Y-%m-%d %H:%M} UTC"
    page.text(0.1 / width, 1 - 0.25 / height, title, color=INK, fontsize=13, va="center")
    for panel in panels:
        _Frame(page, panel, width, height).draw(found.get(panel["id"], []), span)
    return page


class _Frame:
    """One panel's place on the page, in inches from its upper left corner."""

    def __init__(self, page: Figure, panel: Json, page_w: float, page_h: float) -> None:
        place = panel["gridPos"]
        self._page, self._panel = page, panel
        self._page_w, self._page_h = page_w, page_h
        self._left = place["x"] * CELL_W + GAP / 2
        self._top = 0.5 + place["y"] * CELL_H + GAP / 2
        self.width = place["w"] * CELL_W - GAP
        self.height = place["h"] * CELL_H - GAP

    def draw(self, found: Sequence[Series], span: Span) -> None:
        kind = self._panel["type"]
        if kind == "row":
            self._say(self._panel["title"], 0.05, self.height / 2, size=11, weight="bold")
            return
        if kind == "text":
            self._text()
            return
        self._background(PANEL)
        self._say(self._panel["title"], 0.1, TITLE_H / 2 + 0.02, size=9, weight="bold")
        found = [series for series in found if math.isfinite(series.last)]
        if len(found) > MOST_NAMED:
            found.sort(key=lambda series: -series.last)
        if not found:
            self._say("No data", self.width / 2, self.height / 2, size=10, colour=PALE, ha="center")
            return
        {
            "stat": self._stat,
            "timeseries": self._curves,
            "heatmap": self._heat,
            "table": self._table,
        }[kind](found, span)

    # --- kinds of panels -------------------------------------------------------------------------

    def _text(self) -> None:
        plain = re.sub(r"[*`]", "", self._panel["options"]["content"])
        folded = "\n".join(textwrap.wrap(plain, int(self.width * 11)))
        self._say(folded, 0.05, self.height / 2, size=9.5)

    def _stat(self, found: Sequence[Series], _: Span) -> None:
        defaults, options = self._panel["fieldConfig"]["defaults"], self._panel["options"]
        value = found[0].last
        colour = _limit_colour(value, defaults["thresholds"])
        filled = options["colorMode"] == "background"
        if filled:
            self._background(FILLED[colour])
            self._say(self._panel["title"], 0.1, TITLE_H / 2 + 0.02, size=9, weight="bold")
        text = told(value, defaults["unit"], defaults.get("decimals"))
        middle = TITLE_H + (self.height - TITLE_H) / 2
        shown = INK if filled else COLOURS[colour]
        self._say(text, self.width / 2, middle, size=21, colour=shown, ha="center", weight="bold")

    def _curves(self, found: Sequence[Series], span: Span) -> None:
        defaults = self._panel["fieldConfig"]["defaults"]
        n_lines = math.ceil(min(len(found), MOST_NAMED + 1) / COLUMNS)
        axes = self._axes(0.7, TITLE_H + 0.08, 0.12, 0.28 + n_lines * LEGEND_LINE)
        colours = _colours(found, self._panel["fieldConfig"]["overrides"])
        if defaults["custom"]["stacking"]["mode"] == "normal":
            _stack(axes, found, colours, span)
        else:
            for series, colour in zip(found, colours, strict=True):
                axes.plot(_dates(series.times_s), series.values, color=colour, linewidth=1.1)
        _span_of(axes, span)
        _range_of(axes, defaults)
        for step in defaults.get("thresholds", {}).get("steps", []):
            if step["value"] is not None:
                axes.axhline(
                    step["value"], color=COLOURS[step["color"]], linewidth=0.9, linestyle="--"
                )
        unit = defaults["unit"]
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: told(value, unit)))
        self._legend(found, colours, unit)

    def _heat(self, found: Sequence[Series], span: Span) -> None:
        axes = self._axes(0.7, TITLE_H + 0.08, 0.12, 0.28)
        bounds, counts, times = _buckets(found, span)
        edges = np.arange(len(bounds) + 1)
        axes.pcolormesh(_dates([*times, times[-1] + span.step_s]), edges, counts, cmap="inferno")
        axes.set_yticks(edges[1::3], [told(bound, "s") for bound in bounds[::3]])
        _span_of(axes, span)
        axes.grid(False)

    def _table(self, found: Sequence[Series], _: Span) -> None:
        columns, lines = _cells(self._panel, found)
        room = int((self.height - TITLE_H - 0.3) / 0.2)
        shares = [max(len(line[n]) for line in (columns, *lines)) + 2 for n in range(len(columns))]
        scale = (self.width - 0.2) / max(sum(shares), 1)
        for n_line, line in enumerate([columns, *lines[:room]]):
            left = 0.1
            for cell, share in zip(line, shares, strict=True):
                most = max(3, int(share * scale / 0.078))
                text = cell if len(cell) <= most else cell[: most - 1] + "…"
                place = TITLE_H + 0.18 + 0.2 * n_line
                self._say(text, left, place, size=8, colour=PALE if n_line == 0 else INK)
                left += share * scale
        if len(lines) > room:
            more = f"and {len(lines) - room} more"
            self._say(more, self.width - 0.1, TITLE_H / 2 + 0.02, size=8, colour=PALE, ha="right")

    # --- parts of them ---------------------------------------------------------------------------

    def _legend(self, found: Sequence[Series], colours: Sequence[str], unit: str) -> None:
        named = list(zip(found, colours, strict=True))[:MOST_NAMED]
        n_lines = math.ceil(min(len(found), MOST_NAMED + 1) / COLUMNS)
        column_w = (self.width - 0.2) / COLUMNS
        for n, (series, colour) in enumerate(named):
            left = 0.12 + (n % COLUMNS) * column_w
            place = self.height - 0.06 - (n_lines - n // COLUMNS - 0.5) * LEGEND_LINE
            value = told(series.last, unit)
            most = int(column_w / 0.072) - len(value) - 4
            name = series.name if len(series.name) <= most else series.name[: most - 1] + "…"
            self._say("—", left, place, size=8, colour=colour, weight="bold")
            self._say(name, left + 0.16, place, size=7.5)
            self._say(value, left + column_w - 0.12, place, size=7.5, colour=PALE, ha="right")
        if len(found) > MOST_NAMED:
            place = self.height - 0.06 - 0.5 * LEGEND_LINE
            left = 0.12 + (MOST_NAMED % COLUMNS) * column_w
            self._say(f"and {len(found) - MOST_NAMED} more", left, place, size=7.5, colour=PALE)

    def _background(self, colour: str) -> None:
        x, y = self._at(0, self.height)
        box = FancyBboxPatch(
            (x, y),
            self.width / self._page_w,
            self.height / self._page_h,
            boxstyle="square,pad=0",
            facecolor=colour,
            edgecolor=LINE,
            linewidth=0.8,
            transform=self._page.transFigure,
            zorder=-1,  # under the axes
        )
        self._page.add_artist(box)

    def _say(
        self,
        text: str,
        right: float,
        down: float,
        *,
        size: float,
        colour: str = INK,
        ha: str = "left",
        weight: str = "normal",
    ) -> None:
        # Dollars would be taken for mathematics.
        style = {"color": colour, "fontsize": size, "ha": ha, "fontweight": weight}
        self._page.text(*self._at(right, down), text, va="center", parse_math=False, **style)

    def _axes(self, left: float, top: float, right: float, bottom: float) -> Axes:
        """Return axes with so much room around them, in inches."""
        x, y = self._at(left, self.height - bottom)
        width = (self.width - left - right) / self._page_w
        height = max(0.2, self.height - top - bottom) / self._page_h
        axes = self._page.add_axes((x, y, width, height), facecolor=PANEL)
        axes.tick_params(colors=PALE, labelsize=7, length=2)
        axes.grid(True, color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        for side in axes.spines.values():
            side.set_color(LINE)
        return axes

    def _at(self, right: float, down: float) -> tuple[float, float]:
        return (self._left + right) / self._page_w, 1 - (self._top + down) / self._page_h


def _dates(times_s: Sequence[float]) -> NDArray[np.datetime64]:
    return (np.asarray(times_s) * 1000).astype("datetime64[ms]")


def _span_of(axes: Axes, span: Span) -> None:
    first, last = _dates([span.start_s, span.end_s])
    axes.set_xlim(first, last)
    locator = AutoDateLocator(minticks=3, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))


def _range_of(axes: Axes, defaults: Json) -> None:
    low, high = axes.get_ylim()
    low, high = defaults.get("min", low), defaults.get("max", high)
    high = high if high > low else low + 1
    # Or a curve along the bottom could not be told from the frame.
    axes.set_ylim(low - 0.03 * (high - low), high)


def _colours(found: Sequence[Series], overrides: Sequence[Json]) -> list[str]:
    fixed = {
        rule["matcher"]["options"]: rule["properties"][0]["value"]["fixedColor"]
        for rule in overrides
    }
    return [
        COLOURS[fixed[series.name]] if series.name in fixed else PALETTE[n % len(PALETTE)]
        for n, series in enumerate(found)
    ]


def _limit_colour(value: float, thresholds: Json) -> str:
    steps = thresholds["steps"]
    reached = [step for step in steps if step["value"] is None or value >= step["value"]]
    return str(reached[-1]["color"])


def _stack(axes: Axes, found: Sequence[Series], colours: Sequence[str], span: Span) -> None:
    times, rows = _on_one_grid(found, span)
    axes.stackplot(_dates(times), rows, colors=list(colours), alpha=0.8, linewidth=0)


def _on_one_grid(found: Sequence[Series], span: Span) -> tuple[list[float], NDArray[np.float64]]:
    """Return the steps of a span, (n,), and what each curve has there, (n_curves, n); else 0."""
    n = round((span.end_s - span.start_s) / span.step_s) + 1
    times = [span.start_s + k * span.step_s for k in range(n)]
    rows = np.zeros((len(found), n))
    for row, series in zip(rows, found, strict=True):
        for at_s, value in zip(series.times_s, series.values, strict=True):
            k = round((at_s - span.start_s) / span.step_s)
            if 0 <= k < n and math.isfinite(value):
                row[k] = value
    return times, rows


def _buckets(
    found: Sequence[Series], span: Span
) -> tuple[list[float], NDArray[np.float64], list[float]]:
    """Return the buckets' bounds, how many values lie in each at each time, and the times."""
    ordered = sorted(found, key=lambda series: float(series.labels["le"]))
    ordered = [s for s in ordered if math.isfinite(float(s.labels["le"]))]
    times, rows = _on_one_grid(ordered, span)
    counts = np.diff(rows, axis=0, prepend=0).clip(min=0)
    return [float(s.labels["le"]) for s in ordered], counts, times


def _cells(panel: Json, found: Sequence[Series]) -> tuple[list[str], list[list[str]]]:
    """Return what a table's columns are called, and its lines, as its transformations say."""
    organize = panel["transformations"][-1]["options"]
    hidden = organize["excludeByName"]
    values = organize.get("renameByName", {}).get("Value")
    lines = _merged(found) if panel["transformations"][0]["id"] == "merge" else found
    # Of an instant query there is only what there is now.
    newest_s = max(series.times_s[-1] for series in found)
    now = [series for series in lines if series.times_s[-1] == newest_s]
    names = list(dict.fromkeys(n for s in now for n in s.labels if n not in hidden))
    unit = panel["fieldConfig"]["defaults"]["unit"]
    cells = [[s.labels.get(n, "") for n in names] for s in now]
    if values:
        names.append(values)
        cells = [[*line, told(s.last, unit)] for line, s in zip(cells, now, strict=True)]
    return names, cells


def _merged(found: Sequence[Series]) -> list[Series]:
    """Return a line of all labels for each instance."""
    by_instance: dict[str, dict[str, str]] = {}
    for series in found:
        by_instance.setdefault(series.labels.get("instance", ""), {}).update(series.labels)
    last = max(found, key=lambda series: series.times_s[-1])
    return [Series(labels, "", last.times_s, last.values) for labels in by_instance.values()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw one dashboard; return 1 when Prometheus does not answer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dashboard", type=Path, help="its JSON file")
    parser.add_argument("prometheus", help="its address, http://HOST:PORT")
    parser.add_argument("picture", type=Path, help="what to write: .png, .svg or .pdf")
    parser.add_argument("--minutes", type=float, default=30, help="how far to look back")
    parser.add_argument("--scrape", type=float, default=5, help="seconds between two scrapes")
    parser.add_argument("--instance", default=".*", help="which workers, a regular expression")
    parser.add_argument("--group", default=".*", help="which consumer groups, likewise")
    asked = parser.parse_args(arguments)
    end_s = time.time_ns() / 1e9
    span = Span(end_s - 60 * asked.minutes, end_s, asked.scrape)
    variables = {"instance": asked.instance, "group": asked.group}
    dashboard = json.loads(asked.dashboard.read_text())
    try:
        found = answers(dashboard, Prometheus(asked.prometheus.rstrip("/"), variables), span)
    except QueryFailed as error:
        print(error, file=sys.stderr)
        return 1
    drawing(dashboard, found, span).savefig(asked.picture, dpi=100)
    return 0


if __name__ == "__main__":
    sys.exit(main())

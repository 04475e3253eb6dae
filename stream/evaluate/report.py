"""Evaluated: a task's table for people, its object for machines, its curves for plots."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models.evaluation.classes import Calibration
from models.evaluation.intervals import Estimate

#: Told what is being done.
OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One model's figures; ``estimates`` by metric, plain numbers in ``others``."""

    model: str
    estimates: Mapping[str, Estimate]
    others: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What was found for one task: our row first, then what it must beat.

    ``note`` says in a sentence or two how it was measured, and on which split anything was chosen.
    ``curves`` are reliability curves by model.
    """

    name: str
    rows: Sequence[Row]
    note: str
    curves: Mapping[str, Calibration] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return our figures, their intervals, and the same of every baseline."""
        ours, *others = self.rows
        return {**_figures(ours), "baselines": {row.model: _figures(row) for row in others}}


def _figures(row: Row) -> dict[str, Any]:
    return {
        **{name: estimate.value for name, estimate in row.estimates.items()},
        **row.others,
        "intervals": {name: [e.low, e.high] for name, e in row.estimates.items()},
    }


def print_evaluated(console: Console, evaluated: Evaluated) -> None:
    """Print a task's table, and under it how it was measured."""
    table = Table(title=evaluated.name, title_justify="left", caption=evaluated.note)
    table.caption_justify = "left"
    metrics = list(dict.fromkeys(name for row in evaluated.rows for name in row.estimates))
    others = list(dict.fromkeys(name for row in evaluated.rows for name in row.others))
    table.add_column("model")
    for name in (*metrics, *others):
        table.add_column(name.replace("_at_", "@").replace("_", " "), justify="right")
    for row in evaluated.rows:
        cells = [str(row.estimates[name]) if name in row.estimates else "" for name in metrics]
        cells += [f"{row.others[name]:.3f}" if name in row.others else "" for name in others]
        table.add_row(row.model, *cells)
    console.print(table)


def write_json(path: Path, evaluated: Sequence[Evaluated]) -> None:
    found = {one.name: one.to_json() for one in evaluated}
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def write_plots(folder: Path, evaluated: Evaluated) -> None:
    """Draw each metric with its intervals, model by model, and the reliability curves."""
    from matplotlib.figure import Figure

    metrics = list(dict.fromkeys(name for row in evaluated.rows for name in row.estimates))
    figure = Figure(figsize=(8, 0.6 + 0.4 * len(metrics) * len(evaluated.rows)), layout="tight")
    axes = figure.subplots(len(metrics), squeeze=False)[:, 0]
    for name, axis in zip(metrics, axes, strict=True):
        rows = [row for row in reversed(evaluated.rows) if name in row.estimates]
        values = [row.estimates[name] for row in rows]
        axis.errorbar(
            [e.value for e in values],
            [row.model for row in rows],
            xerr=[[e.value - e.low for e in values], [e.high - e.value for e in values]],
            fmt="o",
        )
        axis.set_title(name)
    figure.savefig(folder / f"{evaluated.name}.png")
    if evaluated.curves:
        figure = Figure(layout="tight")
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], linestyle=":")
        for model, curve in evaluated.curves.items():
            axis.plot(curve.said, curve.true, marker="o", label=model)
        axis.set_xlabel("probability said")
        axis.set_ylabel("share that was so")
        axis.legend()
        figure.savefig(folder / f"{evaluated.name}-calibration.png")

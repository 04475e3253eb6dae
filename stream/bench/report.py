"""Figures -> tables for people and one JSON object for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stream.bench.machine import Setup
from stream.bench.rounds import Sample


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement: ``values`` as they go into the JSON, and the table that says more.

    ``note`` says how it was measured, in a sentence.
    """

    name: str
    values: Mapping[str, Any]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


def to_json(figures: Sequence[Figure], setup: Setup) -> dict[str, Any]:
    """Return the figures by name, beside what they were measured on and how."""
    return {**{figure.name: dict(figure.values) for figure in figures}, **setup.to_json()}


def write_json(path: Path, figures: Sequence[Figure], setup: Setup) -> None:
    path.write_text(json.dumps(to_json(figures, setup), indent=2, ensure_ascii=False) + "\n")


def print_figure(console: Console, figure: Figure) -> None:
    """Print a figure's table, and under it how it was measured."""
    table = Table(title=figure.name, title_justify="left", caption=figure.note)
    table.caption_justify = "left"
    for place, column in enumerate(figure.columns):
        table.add_column(column, justify="right" if place else "left")
    for row in figure.rows:
        table.add_row(*row)
    console.print(table)


def print_setup(console: Console, setup: Setup) -> None:
    """Print machine, versions and command."""
    for line in setup.lines():
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def median_and_spread(sample: Sample, unit: str = "") -> tuple[str, str]:
    """Return the median with its unit, and half the spread in per cent: two cells of a table."""
    return f"{number(sample.median)} {unit}".rstrip(), f"{sample.spread / 2:.0%}"


def number(value: float) -> str:
    """Return a number with three digits that count, and thousands apart."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 4
    return f"{value:,.{digits}f}"

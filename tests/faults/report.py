"""One line per run, a table of all of them, and one summary line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one run; a control must be found guilty, and is green when nobody noticed."""

    fault: str
    store: str
    events: int
    lost: int
    doubled: int
    recovery_s: float | None
    green: bool
    seconds: float
    note: str = ""
    control: bool = False

    @property
    def as_expected(self) -> bool:
        return self.green != self.control

    @property
    def verdict(self) -> str:
        return "green" if self.green else "red"

    def __str__(self) -> str:
        recovery = "-" if self.recovery_s is None else f"{self.recovery_s:.1f} s"
        return (
            f"{self.fault} [{self.store}]: {self.events} events, lost {self.lost}, "
            f"doubled {self.doubled}, recovered in {recovery}, {self.verdict}"
        )


def table(rows: Sequence[Row]) -> Table:
    """Return the runs as a table, controls last."""
    table = Table(title="faults on Apache Kafka")
    for name in ("fault", "store"):
        table.add_column(name)
    for name in ("events", "lost", "doubled", "recovery", "took"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    table.add_column("note", overflow="fold")
    for row in sorted(rows, key=lambda row: (row.control, row.fault, row.store)):
        colour = "green" if row.as_expected else "bold red"
        table.add_row(
            row.fault,
            row.store,
            f"{row.events:,}",
            str(row.lost),
            str(row.doubled),
            "-" if row.recovery_s is None else f"{row.recovery_s:.1f} s",
            f"{row.seconds:.0f} s",
            f"[{colour}]{row.verdict}{' (control)' if row.control else ''}[/]",
            row.note,
        )
    return table


def summary(rows: Sequence[Row]) -> str:
    """Return the last line: how many faults are green, and what was lost and doubled in them."""
    faults = [row for row in rows if not row.control]
    controls = [row for row in rows if row.control]
    line = (
        f"faults: green {sum(row.green for row in faults)} of {len(faults)}, "
        f"lost {sum(row.lost for row in faults)}, doubled {sum(row.doubled for row in faults)}"
    )
    if controls:
        guilty = sum(not row.green for row in controls)
        line += f"; controls found guilty: {guilty} of {len(controls)}"
    return line


def show(rows: Sequence[Row], width: int) -> str:
    """Return table and summary as text."""
    console = Console(width=max(width, 120), force_terminal=False)
    with console.capture() as captured:
        console.print(table(rows))
    return captured.get() + summary(rows)

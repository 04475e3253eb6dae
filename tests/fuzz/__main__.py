"""Fuzz targets one after the other, each in a process of its own, and show what came of it.

    PYTHONPATH=.:tests python -m fuzz --seconds 60 --target all

Exits with 1 when anything was found; the inputs then lie under tests/fuzz/finds/TARGET. What the
runs learn is kept in .cache/fuzz, so that a later run goes on from there.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz.mutations import MAX_BYTES
from fuzz.targets import TARGETS
from fuzz.trying import FINDS
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / ".cache/fuzz"
#: An input that takes longer ends its run, as does one that takes more memory than the next.
TIMEOUT_S = 20
RSS_LIMIT_MIB = 2500
#: The process is given this long to load and to end.
GRACE_S = 120
_STATUS = re.compile(r"#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)")
_N_UNITS = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


@dataclass(frozen=True)
class Outcome:
    """What a run of one target did: edges and features are those covered at the end."""

    name: str
    n_executed: int
    n_edges: int
    n_features: int
    n_corpus: int
    finds: tuple[str, ...]
    exit_status: int

    @property
    def good(self) -> bool:
        return not self.finds and self.exit_status == 0


def fuzzed(name: str, seconds: int, folder: Path, corpus: Path) -> Outcome:
    """Run one target; an input that ended it is among its finds, all written to ``folder``."""
    before = set(folder.glob("*"))
    command = [
        *(sys.executable, "-m", "fuzz.child", name, str(folder), str(corpus)),
        f"-max_total_time={seconds}",
        f"-timeout={TIMEOUT_S}",
        f"-rss_limit_mb={RSS_LIMIT_MIB}",
        f"-max_len={MAX_BYTES}",
        "-print_final_stats=1",
        f"-artifact_prefix={folder}/",
    ]
    # libFuzzer writes what ended it into a folder that has to be there.
    folder.mkdir(parents=True, exist_ok=True)
    said, status = _ran(command, seconds + GRACE_S)
    new = sorted(set(folder.glob("*")) - before)
    if not any(folder.iterdir()):
        folder.rmdir()
    stories = [line for line in said.splitlines() if line.startswith("FIND ")]
    told = [path.name for path in new if not any(str(path) in story for story in stories)]
    if status:
        told.append(said[-2000:])
    statuses = _STATUS.findall(said) or [("0",) * 4]
    n_executed = _N_UNITS.search(said)
    _, edges, features, n_corpus = map(int, statuses[-1])
    return Outcome(
        name,
        int(n_executed[1] if n_executed else statuses[-1][0]),
        edges,
        features,
        n_corpus,
        (*stories, *told),
        status,
    )


def _ran(command: list[str], timeout_s: int) -> tuple[str, int]:
    """Return what a process said on standard error, and how it ended."""
    # In memory where that can be, since snapshots are synced to their disk; and here, since
    # libFuzzer ends a process without clearing up.
    with TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as room:
        paths = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
        env = {**os.environ, "PYTHONPATH": paths, "TMPDIR": room}
        try:
            ran = subprocess.run(
                command, capture_output=True, timeout=timeout_s, check=False, env=env
            )
        except subprocess.TimeoutExpired as error:
            return (error.stderr or b"").decode(errors="replace"), 124
        return ran.stderr.decode(errors="replace"), ran.returncode


def shown(outcomes: list[Outcome]) -> Table:
    table = Table("target", "executions", "edges", "features", "corpus", "finds")
    for one in outcomes:
        ended = f" (exit {one.exit_status})" if one.exit_status else ""
        numbers = (one.n_executed, one.n_edges, one.n_features, one.n_corpus)
        table.add_row(one.name, *(f"{n:,}" for n in numbers), f"{len(one.finds)}{ended}")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="of each target (default 60)")
    parser.add_argument("--target", default="all", choices=["all", *TARGETS])
    options = parser.parse_args()
    console = Console()
    outcomes = []
    for name in TARGETS if options.target == "all" else [options.target]:
        outcomes.append(outcome := fuzzed(name, options.seconds, FINDS / name, CORPUS / name))
        console.print(f"{name}: {outcome.n_executed:,} executions", highlight=False)
        for find in outcome.finds:
            console.print(find, markup=False, highlight=False, soft_wrap=True)
    console.print(shown(outcomes))
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())

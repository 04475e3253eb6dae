"""Arena: where faults are run, and what a run leaves behind in the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.cluster import Brokers
from faults.oracle import Finding, told
from faults.report import Row
from faults.trial import Trial


class Guilty(AssertionError):
    """The oracle found something; the text is its findings."""


@dataclass
class Arena:
    """Makes trials on the session's brokers and reports each."""

    one: Callable[[], Brokers]
    three: Callable[[], Brokers]
    folder: Path
    rows: list[Row] = field(default_factory=list)

    @contextmanager
    def trial(
        self, fault: str, *, brokers: int = 1, opened: bool = True, finish_s: float = 60, **options: Any
    ) -> Iterator[Trial]:
        """Run the block as the fault; judge when it is through; report whatever happens."""
        cluster = self.one() if brokers == 1 else self.three()
        number = len(self.rows)
        folder = self.folder / f"run-{number}"
        trial = Trial(cluster.address, folder, replicas=cluster.n, **options)
        started = time.monotonic()
        findings: list[Finding] = []
        note = ""
        try:
            yield trial.open() if opened else trial
            if trial.verdict is None:
                trial.verdict = trial.finish(finish_s)
            findings = trial.verdict
            if findings:
                raise Guilty(told(findings))
        except BaseException as error:
            note = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise
        finally:
            trial.close()
            self._report(
                trial, fault, findings, green=not note, seconds=time.monotonic() - started, note=note
            )

    def _report(
        self,
        trial: Trial,
        fault: str,
        findings: Sequence[Finding],
        *,
        green: bool,
        seconds: float,
        note: str,
    ) -> None:
        self.rows.append(
            Row(
                fault=fault,
                store=trial.store,
                events=len(trial.shop.log),
                lost=sum(finding.lost for finding in findings),
                doubled=sum(finding.doubled for finding in findings),
                recovery_s=max(trial.recoveries_s, default=None),
                green=green,
                seconds=seconds,
                note=note or trial.note,
            )
        )

"""Arena: where faults are run, and what a run leaves behind in the report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.cluster import Brokers
from faults.control_trial import ControlTrial
from faults.oracle import told
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
        self,
        fault: str,
        *,
        brokers: int = 1,
        at: Brokers | None = None,
        opened: bool = True,
        **options: Any,
    ) -> Iterator[Trial]:
        """Run the block as the fault, then judge; the report tells whatever happens.

        ``at`` names brokers of the test's own; the session's are used otherwise.
        """
        cluster = at or (self.one() if brokers == 1 else self.three())
        trial = Trial(
            cluster.address,
            self._folder(),
            replicas=cluster.n,
            worker_broker=cluster.worker_address,
            **options,
        )
        with self._reported(fault, trial):
            yield trial.open() if opened else trial
            if trial.verdict is None:
                trial.finish_now()

    @contextmanager
    def control(self, control: str, *, counts: bool) -> Iterator[ControlTrial]:
        """Run a control, which must be found guilty."""
        trial = ControlTrial(self.one().address, self._folder(), control, counts)
        with self._reported(f"control: {control}", trial, control=True):
            yield trial.open()
            trial.verdict = trial.finish()

    def _folder(self) -> Path:
        return self.folder / f"run-{len(self.rows)}"

    @contextmanager
    def _reported(
        self, fault: str, trial: Trial | ControlTrial, control: bool = False
    ) -> Iterator[None]:
        started = time.monotonic()
        problem = ""
        try:
            yield
            if trial.verdict and not control:
                raise Guilty(told(trial.verdict))
        except BaseException as error:
            problem = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise
        finally:
            trial.close()
            seconds = time.monotonic() - started
            self._report(fault, trial, problem, seconds, control)
        if control:
            assert trial.verdict, "the oracle found nothing wrong with a control"

    def _report(
        self,
        fault: str,
        trial: Trial | ControlTrial,
        problem: str,
        seconds: float,
        control: bool,
    ) -> None:
        findings = trial.verdict or []
        found = Counter(f"({finding.part})" for finding in findings)
        first = ", ".join(f"{n} {part}" for part, n in sorted(found.items()))
        self.rows.append(
            Row(
                fault=fault,
                store=trial.store,
                events=len(trial.shop.log),
                lost=sum(finding.lost for finding in findings),
                doubled=sum(finding.doubled for finding in findings),
                recovery_s=max(trial.recoveries_s, default=None),
                green=not problem and not findings,
                seconds=seconds,
                note="; ".join(filter(None, (trial.note, first, "" if findings else problem))),
                control=control,
            )
        )

"""Watch: samples every worker process of a trial each second, for the terminal and a CSV file."""

from __future__ import annotations

import csv
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, fields
from pathlib import Path
from statistics import median

from confluent_kafka import KafkaException
from faults.supervisor import Supervised
from faults.trial import Trial
from faults.vitals import Sample, slots
from rich.console import Console
from rich.table import Table
from running import PROCESSES

EVERY_S, TOLD_EVERY_S = 1.0, 10.0
#: Rows of the table at the end, whatever the length of the run.
N_ROWS = 30


class Watch:
    """What was seen of a trial's workers, and what was done to them, by one clock."""

    def __init__(self, trial: Trial, path: Path) -> None:
        self.samples: list[Sample] = []
        #: Faults as (seconds since the watch began, what).
        self.faults: list[tuple[float, str]] = []
        self._trial, self._path = trial, path
        self._began = time.monotonic()
        self._over = threading.Event()
        self._lag: Mapping[str, int] = {}
        #: Held while the broker is asked: librdkafka's admin client has aborted the whole process
        #: where a broker went away under its question (2.16, ``rd_kafka_enq_once``).
        self.asking = threading.Lock()

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._began

    def note(self, fault: str) -> None:
        self.faults.append((self.now_s, fault))
        self._tell(f"{self.now_s:6.0f} s  {fault}")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Sample for as long as the block runs."""
        # The broker does not answer while it is away: whoever asks it must not hold up the rest.
        threads = [threading.Thread(target=run) for run in (self._sample, self._follow_lag)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _sample(self) -> None:
        told_s = 0.0
        with self._path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(field.name for field in fields(Sample))
            while not self._over.wait(EVERY_S):
                seen = list(self._seen())
                self.samples += seen
                writer.writerows(map(astuple, seen))
                file.flush()
                if self.now_s - told_s >= TOLD_EVERY_S:
                    told_s = self.now_s
                    self._tell(f"{told_s:6.0f} s  MiB/handles/threads  {_told(seen)}")

    def _seen(self) -> Iterator[Sample]:
        for worker in list(self._trial.workers):
            if worker.process is None or worker.process.poll() is not None:
                continue
            for process in PROCESSES:
                # One that has just ended is not there to be looked at.
                with suppress(OSError, KeyError):
                    if pid := worker.pid(process):
                        yield self._look_at(worker, process, pid)

    def _look_at(self, worker: Supervised, process: str, pid: int) -> Sample:
        proc = Path(f"/proc/{pid}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        return Sample(
            round(self.now_s, 2),
            worker.folder.name,
            process,
            pid,
            round(int(status["VmRSS"].split()[0]) / 1024, 2),
            sum(1 for _ in (proc / "fd").iterdir()),
            int(status["Threads"]),
            self._lag.get(f"prefstream-{process}"),
        )

    def _follow_lag(self) -> None:
        while not self._over.wait(EVERY_S):
            lag: Counter[str] = Counter()
            with self.asking, suppress(KafkaException, KeyError):
                for (group, _, _), (committed, end) in self._trial.offsets().items():
                    lag[group] += max(0, end - max(0, committed))
            self._lag = lag

    def _tell(self, line: str) -> None:
        Console().print(line, highlight=False, soft_wrap=True)

    def show(self) -> None:
        """Print what was seen as a table, each row a span of the run."""
        Console(width=140).print(self._table())

    def _table(self) -> Table:
        seconds = max(TOLD_EVERY_S, self.now_s / N_ROWS)
        table = Table(title="RSS in MiB / handles of each process, medians; w1 + w2", box=None)
        for name in ("s", *PROCESSES, "lag"):
            table.add_column(name, justify="right")
        table.add_column("faults", overflow="fold")
        for start_s, seen in slots(self.samples, seconds):
            struck = [what for at_s, what in self.faults if start_s <= at_s < start_s + seconds]
            lags = [sample.lag for sample in seen if sample.lag is not None]
            cells = (_cell(seen, process) for process in PROCESSES)
            table.add_row(f"{start_s:.0f}", *cells, f"{max(lags, default=0):,}", "; ".join(struck))
        return table


def _told(seen: Sequence[Sample]) -> str:
    taken = "  ".join(
        f"{s.worker} {s.process} {s.rss_mib:.0f}/{s.handles}/{s.threads}" for s in seen
    )
    lag = {s.process: "?" if s.lag is None else f"{s.lag:,}" for s in seen}
    return f"{taken}  lag {'/'.join(lag.values())}"


def _cell(seen: Sequence[Sample], process: str) -> str:
    workers = sorted({sample.worker for sample in seen})
    return " + ".join(
        f"{median(s.rss_mib for s in of):.0f} / {median(s.handles for s in of):.0f}"
        for worker in workers
        if (of := [s for s in seen if (s.worker, s.process) == (worker, process)])
    )

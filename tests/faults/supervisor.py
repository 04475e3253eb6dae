"""Workers under a supervisor: what ends is started again, as systemd or Kubernetes would."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from faults.injection import DUMP_SIGNAL, DUMPS
from running import Workers

from stream.broker import die_with_parent

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: Between an end and the next start; doubles while a worker ends at once, as supervisors do.
RESTART_S, LONGEST_RESTART_S = 0.2, 5.0


@dataclass
class Supervised(Workers):
    """``prefstream worker`` in a process group of its own, started again whenever it ends.

    ``inject`` is environment for faults.injection. Times are those of time.monotonic.
    """

    inject: dict[str, str] = field(default_factory=dict)
    command_line: tuple[str, ...] = ("stream.cli", "worker")
    starts: list[float] = field(default_factory=list)
    ends: list[tuple[float, int]] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)
    _watching: threading.Thread | None = None

    @property
    def env(self) -> dict[str, str]:
        paths = [str(HERE / "injected"), str(HERE.parent), str(ROOT)]
        return {
            **super().env,
            DUMPS: str(self.folder),
            **self.inject,
            "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]),
        }

    def start(self) -> None:
        """Start under supervision, and wait until it is ready."""
        self.launch()
        self.until(self.ready, "ready", 90)

    def launch(self) -> None:
        """Start under supervision without waiting for anything."""
        self._stopping.clear()
        self._over.clear()
        self._spawn()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def _spawn(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.command_line],
                env=self.env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.starts.append(time.monotonic())

    def _watch(self) -> None:
        # Lives as long as the worker: a process ends with the thread that started it.
        pause_s = RESTART_S
        while not self._over.is_set():
            assert self.process
            try:
                code = self.process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            if self._stopping.is_set():
                return
            self.ends.append((time.monotonic(), code))
            # Whatever is left of it must not run beside its successor.
            self._signal_group(signal.SIGKILL)
            short = self.ends[-1][0] - self.starts[-1] < 10
            pause_s = min(2 * pause_s, LONGEST_RESTART_S) if short else RESTART_S
            if self._stopping.wait(pause_s):
                return
            self._spawn()

    def until(self, condition: Any, what: str, timeout_s: float = 60) -> None:
        """Wait for a condition; that a worker ends meanwhile is what the supervisor is for."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not {what} in time:\n{self.tail()}"
            time.sleep(0.1)

    # Faults -------------------------------------------------------------------------------------

    def pid(self, process: str) -> int:
        """Return the pid of one of the processes, 0 while there is none."""
        assert self.process
        for pid in _children(self.process.pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(process.encode() + b"\0"):
                    return pid
        return 0

    def is_there(self, process: str | None = None) -> bool:
        """True while one of the processes runs, or (None) the worker."""
        assert self.process
        return bool(self.pid(process)) if process else self.process.poll() is None

    def kill(self, process: str | None = None) -> None:
        """SIGKILL one process, or (None) all of them at once, as a power cut would."""
        if process is None:
            self._signal_group(signal.SIGKILL)
        else:
            self.signal(process, signal.SIGKILL)

    def signal(self, process: str, number: signal.Signals) -> None:
        if pid := self.pid(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _signal_group(self, number: signal.Signals) -> None:
        if self.process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)

    def stop(self) -> int:
        """SIGTERM; return the exit code once it has ended, and start no other."""
        self._stopping.set()
        assert self.process
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(40)
        finally:
            self._signal_group(signal.SIGKILL)
            if self._watching:
                # Started again at once, the worker would have two who watch it.
                self._watching.join(10)

    def end(self) -> None:
        """Make sure that nothing is left running."""
        self._stopping.set()
        self._over.set()
        if self._watching:
            self._watching.join(10)
        self._signal_group(signal.SIGKILL)
        if self.process:
            self.process.wait(10)

    # Eyes ---------------------------------------------------------------------------------------

    def listens(self, process: str) -> bool:
        """True while a process answers; before that, a signal for its rows would end it."""
        with contextlib.suppress(OSError):
            return bool(self.get(process, "/live")[0])
        return False

    def rows(self, process: str = "preference") -> dict[str, dict[int, dict[bytes, bytes]]]:
        """Return the rows of every table the process holds, as it holds them, by partition."""
        asked, path = 0, self.folder

        def dumped() -> bool:
            nonlocal asked, path
            pid = self.pid(process)
            # Before its port answers, the signal would end it; and it may be a new one each time.
            if pid not in (0, asked) and self.get(process, "/live")[0]:
                asked, path = pid, self.folder / f"{process}-{pid}.dump"
                path.unlink(missing_ok=True)
                os.kill(pid, DUMP_SIGNAL)
            return asked != 0 and path.exists()

        self.until(dumped, f"dump of {process}", 60)
        return msgspec.msgpack.decode(path.read_bytes(), strict=False)


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []

"""Worker processes to be measured: started, stood still, pinned, and asked for their CPU time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from stream.bench.rounds import BenchFailed
from stream.demo.processes import Child
from stream.settings import Settings
from stream.worker import ProcessName, environment

HOST = "127.0.0.1"
#: A worker that stands still while a backlog is written must not lose its partitions by it.
SESSION_S = 60.0
#: Settings that are not as this process has read them, and children read the rest themselves.
_TOLD = (
    "broker",
    "topic_prefix",
    "state_prefix",
    "partitions",
    "replication_factor",
    "state_dir",
    "store",
    "instance_id",
    "session_timeout_s",
    "commit_interval_s",
    "metrics_host",
    "metrics_port",
)
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def preference_worker(settings: Settings, folder: Path, name: str, port: int) -> Child:
    """Start a preference process; its metrics are on the port behind ``port``."""
    return _process("preference", settings, folder, name, port)


def encode_worker(settings: Settings, folder: Path, name: str, port: int) -> Child:
    """Start an encode process; its metrics are on ``port``."""
    return _process("encode", settings, folder, name, port)


def _process(kind: ProcessName, settings: Settings, folder: Path, name: str, port: int) -> Child:
    own = settings.model_copy(
        update={
            "state_dir": folder / name,
            "instance_id": name,
            "session_timeout_s": SESSION_S,
            "metrics_host": HOST,
            "metrics_port": port,
        }
    )
    command = [sys.executable, "-m", "stream.worker", kind]
    env = {**environment(kind), **child_environment(own)}
    return Child(f"worker {name}", command, env, folder / f"{name}.log")


def stock_faust(settings: Settings, folder: Path) -> Child:
    """Start the stock Faust app that counts acts in a table."""
    own = settings.model_copy(update={"state_dir": folder / "faust"})
    command = [sys.executable, "-m", "stream.bench.faust_counter"]
    return Child("Faust app", command, child_environment(own), folder / "faust.log")


def whole_worker(settings: Settings, folder: Path, port: int) -> Child:
    """Start every process of `prefstream worker`; metrics on ``port`` and the two behind it."""
    own = settings.model_copy(
        update={"state_dir": folder / "state", "metrics_host": HOST, "metrics_port": port}
    )
    command = [sys.executable, "-m", "stream.cli", "worker"]
    return Child("worker", command, child_environment(own), folder / "worker.log")


def told_by(module: str, job: Any, settings: Settings, within_s: float, who: str) -> bytes:
    """Run a module of ours with its job as JSON; return what it prints.

    Raises BenchFailed, naming ``who`` failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, msgspec.json.encode(job).decode()],
        env={**os.environ, **child_environment(settings)},
        capture_output=True,
        timeout=within_s,
        check=False,
    )
    if done.returncode:
        raise BenchFailed(f"{who} failed: {done.stderr.decode().strip()[-300:]}")
    return done.stdout


def url(port: int, path: str) -> str:
    return f"http://{HOST}:{port}/{path}"


def preference_url(port: int, path: str) -> str:
    """Return a URL of a preference process that was given ``port``."""
    return url(port + 1, path)


def child_environment(settings: Settings) -> dict[str, str]:
    """Return what a child must be told; all else it reads where this process has read it."""
    return {f"PREFSTREAM_{name.upper()}": str(getattr(settings, name)) for name in _TOLD}


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has spent so far, all threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def resident_mib(pid: int) -> float:
    """Return the memory that a process holds."""
    return _resident_mib(Path(f"/proc/{pid}/status").read_text())


def imports_mib() -> float:
    """Return the memory that a preference process holds once it has imported what it needs."""
    show = "import stream.tiers.preference; print(open('/proc/self/status').read())"
    command = [sys.executable, "-c", show]
    return _resident_mib(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _resident_mib(status: str) -> float:
    [kib] = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(kib) / 1024


@contextmanager
def standing_still(pids: Sequence[int]) -> Iterator[None]:
    """Have processes stand still for a while: what is written meanwhile is a backlog to them."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def pin(pid: int, core: int) -> None:
    """Keep a process, all of its threads, on one core."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {core})

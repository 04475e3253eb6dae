"""Child processes of the demo: started apart from the terminal, watched, always stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from stream.broker import die_with_parent

STOP_DEADLINE_S = 20.0

# A proxy of the environment has no business between us and loopback.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class ChildFailed(RuntimeError):
    """A child ended, or was not done in time; the text ends with its last words."""


class Child:
    """One child process, its output in a file. A context manager: leaving it stops the child.

    It leads a session of its own, so that Ctrl-C reaches it only through ``stop``, once.
    """

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str], log_path: Path
    ) -> None:
        self.name, self._log_path = name, log_path
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raise ChildFailed when the child has ended."""
        if self._process.poll() is not None:
            raise ChildFailed(
                f"the {self.name} ended with code {self._process.returncode}: {self.last_words()}"
            )

    def stop(self) -> None:
        """Ask the child to end; after the deadline, end it and all it has started."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                _kill_session(self._process.pid)
                self._process.wait()

    def tail(self, n_lines: int = 15) -> str:
        """Return the last lines of what the child has written."""
        return "\n".join(self._written()[-n_lines:])

    def last_words(self) -> str:
        """Return the line that says why the child ended, as well as can be told."""
        written = [line for line in self._written() if line.strip()]
        for mark in ("prefstream: ", "CRITICAL", "ERROR"):
            if said := [line for line in written if mark in line]:
                return said[-1].removeprefix("prefstream: ")
        return written[-1] if written else "it said nothing"

    def _written(self) -> list[str]:
        return self._log_path.read_text(errors="replace").splitlines()


def _kill_session(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def gauge(url: str, name: str) -> float:
    """Return the sum of a metric over its labels, as a Prometheus endpoint gives it now.

    Raises OSError when the endpoint does not answer, LookupError when it has no such metric.
    """
    with _open(url, timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    values = [float(line.rsplit(" ", 1)[1]) for line in lines if _is_sample(line, name)]
    if not values:
        raise LookupError(f"no metric {name} at {url}")
    return sum(values)


def _is_sample(line: str, name: str) -> bool:
    return line.startswith((f"{name} ", f"{name}{{"))


def why_not_ready(url: str) -> str:
    """Return an empty text when the URL answers 200, else why it does not."""
    try:
        with _open(url, timeout=2):
            return ""
    except urllib.error.HTTPError as error:
        return error.read().decode(errors="replace")
    except OSError as error:
        return str(error)


def free_ports(n: int, host: str = "127.0.0.1") -> int:
    """Return the first of n consecutive ports that are free now."""
    while True:
        with socket.socket() as probe:
            probe.bind((host, 0))
            first = int(probe.getsockname()[1])
        if first + n < 65536 and all(is_free(port, host) for port in range(first, first + n)):
            return first


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Say whether a port can be listened on now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that the children are stopped."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    # Started in the background by a shell, a program ignores Ctrl-C, and asyncio looks for this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

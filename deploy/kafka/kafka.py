#!/usr/bin/env python3
"""Start and stop a real Apache Kafka on this machine: one broker or three, loopback only.

    kafka.py start [--brokers 1|3] [--dir FOLDER] [--port N] [--lasting]
                                                                prints the bootstrap servers
    kafka.py status [--dir FOLDER]                              exits 1 when it is not running
    kafka.py stop [--dir FOLDER] [--delete]

The tests use ``Cluster`` from here as their fixture. Needs Java 17 or newer, and Maven the first
time; nothing of Python but the standard library.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import string
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBS = HERE / "target" / "libs"
DEFAULT_DIR = HERE / "target" / "cluster"
HOST = "127.0.0.1"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
# Most of a short-lived broker's work is starting: the first compiler tier and the serial
# collector start faster and leave the second core to others.
JVM = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
#: One that lasts is worth its compiling: after a minute of load it takes a fifth less of a core.
LASTING_JVM = [option for option in JVM if not option.startswith("-XX:TieredStop")]


class KafkaError(RuntimeError):
    """Kafka could not be started; the text says what was missing or what its log says."""


def ensure_jars() -> Path:
    """Return the folder of Kafka's jars, fetched by Maven unless it is complete."""
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            raise KafkaError(f"{tool} is not installed (Java 17 or newer and Maven are needed)")
    wanted = hashlib.sha256((HERE / "pom.xml").read_bytes()).hexdigest()
    stamp = LIBS / ".complete"
    LIBS.parent.mkdir(parents=True, exist_ok=True)
    with _locked(LIBS.parent / "libs.lock"):
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(LIBS, ignore_errors=True)
            command = [
                "mvn",
                "-q",
                "-B",
                "-f",
                str(HERE / "pom.xml"),
                "dependency:copy-dependencies",
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise KafkaError(f"Maven could not fetch Kafka:\n{done.stdout}{done.stderr}")
            stamp.write_text(wanted)
    return LIBS


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file lock: two clones' tests, or two sessions, may want the same folder."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass
class Node:
    """One broker: its ports, folder and process; ``started`` tells its pid from a reused one."""

    node_id: int
    port: int
    controller_port: int
    folder: str
    pid: int = 0
    started: str = ""

    @property
    def config(self) -> Path:
        return Path(self.folder) / "server.properties"

    @property
    def log(self) -> Path:
        return Path(self.folder) / "server.log"

    def alive(self) -> bool:
        return self.pid > 0 and _start_time(self.pid) == self.started


class Cluster:
    """One or three brokers that live in ``folder``; data is kept there until ``delete``."""

    def __init__(self, folder: Path, nodes: list[Node], *, die_with_parent: bool = False) -> None:
        self.folder = folder
        self.nodes = nodes
        self._die_with_parent = die_with_parent
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    @classmethod
    def create(
        cls, folder: Path, brokers: int = 1, port: int = 0, *, die_with_parent: bool = False
    ) -> Cluster:
        """Lay out and format a new cluster; ``port`` is the first broker's, 0 finds a free one.

        With ``die_with_parent`` the brokers end with the process that starts them, however it
        ends (Linux).
        """
        folder = folder.resolve()
        ensure_jars()
        if port:
            _check_free(port)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise KafkaError(f"folder {folder} cannot be made: {error.strerror}") from None
        ports = _free_ports(2 * brokers)
        ports[0] = port or ports[0]
        nodes = [
            Node(n + 1, ports[n], ports[brokers + n], str(folder / f"broker-{n + 1}"))
            for n in range(brokers)
        ]
        cluster = cls(folder, nodes, die_with_parent=die_with_parent)
        try:
            cluster._format()
        except BaseException:
            # Half a cluster would stand in the way of the next attempt.
            cluster.delete()
            raise
        cluster._save()
        return cluster

    @classmethod
    def load(cls, folder: Path) -> Cluster | None:
        """Return the cluster that lives in ``folder``, running or not."""
        folder = folder.resolve()
        with contextlib.suppress(FileNotFoundError):
            state = json.loads((folder / "cluster.json").read_text())
            return cls(folder, [Node(**node) for node in state["nodes"]])
        return None

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    @property
    def running(self) -> bool:
        return all(node.alive() for node in self.nodes)

    def start(self, timeout_s: float = START_TIMEOUT_S, *, is_lasting: bool = False) -> None:
        """Start every broker that does not run; return once all of them answer.

        One that ``is_lasting`` starts more slowly, and takes less of the machine in the end.
        """
        for node in self.nodes:
            if not node.alive():
                self._launch(node, LASTING_JVM if is_lasting else JVM)
        self._save()
        deadline = time.monotonic() + timeout_s
        for node in self.nodes:
            self._wait_ready(node, deadline)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End every broker: SIGTERM, and SIGKILL for what is left after ``timeout_s``."""
        for node in self.nodes:
            self._signal(node, signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while any(node.alive() for node in self.nodes) and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.05)
        for node in self.nodes:
            self.kill(node.node_id)

    def kill(self, node_id: int) -> None:
        """SIGKILL one broker, as a power cut would."""
        node = self.nodes[node_id - 1]
        self._signal(node, signal.SIGKILL)
        while node.alive():
            self._reap()
            time.sleep(0.01)

    def delete(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _format(self) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # An id that starts with a dash reads as an option.
        cluster_id = "k" + cluster_id[1:] if cluster_id.startswith("-") else cluster_id
        template = string.Template((HERE / "server.properties.template").read_text())
        voters = ",".join(f"{n.node_id}@{HOST}:{n.controller_port}" for n in self.nodes)
        runs = []
        for node in self.nodes:
            Path(node.folder).mkdir()
            node.config.write_text(
                template.substitute(
                    node_id=node.node_id,
                    port=node.port,
                    controller_port=node.controller_port,
                    voters=voters,
                    data_dir=Path(node.folder) / "data",
                    replication=len(self.nodes),
                    min_insync=(len(self.nodes) + 1) // 2,
                )
            )
            tool = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(node.config)]
            runs.append(
                subprocess.Popen(
                    _java(["-Xmx128m", *JVM[2:]], tool),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            )
        for run in runs:
            output, _ = run.communicate()
            if run.returncode:
                raise KafkaError(f"could not format the storage:\n{output.decode()}")

    def _launch(self, node: Node, jvm: list[str]) -> None:
        _check_free(node.port)
        with node.log.open("ab") as log:
            child = subprocess.Popen(
                _java(jvm, ["kafka.Kafka", str(node.config)]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=node.folder,
                start_new_session=True,
                preexec_fn=_end_with_parent if self._die_with_parent else None,
            )
        node.pid, node.started = child.pid, _start_time(child.pid)
        self._children[child.pid] = child

    def _wait_ready(self, node: Node, deadline: float) -> None:
        while not _answers(node.port):
            self._reap()
            if not node.alive():
                raise KafkaError(f"broker {node.node_id} ended while starting:\n{_tail(node.log)}")
            if time.monotonic() > deadline:
                self.stop()
                raise KafkaError(f"broker {node.node_id} did not get ready:\n{_tail(node.log)}")
            time.sleep(0.05)

    def _signal(self, node: Node, number: signal.Signals) -> None:
        if node.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(node.pid, number)

    def _reap(self) -> None:
        for child in self._children.values():
            child.poll()

    def _save(self) -> None:
        state = {"nodes": [asdict(node) for node in self.nodes]}
        (self.folder / "cluster.json").write_text(json.dumps(state, indent=2))


def _java(options: list[str], command: list[str]) -> list[str]:
    logging = f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"
    return ["java", *options, logging, "-cp", f"{ensure_jars()}/*", *command]


def _end_with_parent() -> None:
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _start_time(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; empty when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _answers(port: int) -> bool:
    """True when a broker answers ApiVersions, which it does once it has joined the cluster."""
    request = struct.pack(">hhih", 18, 0, 1, -1)
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1) as sock:
        sock.sendall(struct.pack(">i", len(request)) + request)
        return len(sock.recv(8)) > 0
    return False


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise KafkaError(f"port {port} is taken: {error.strerror}") from None


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for sock in sockets:
            sock.bind((HOST, 0))
        return [sock.getsockname()[1] for sock in sockets]


def _tail(path: Path, lines: int = 20) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def _start(options: argparse.Namespace) -> int:
    cluster = Cluster.load(options.dir)
    if cluster is not None and len(cluster.nodes) != options.brokers:
        raise KafkaError(
            f"{options.dir} holds {len(cluster.nodes)} broker(s), not {options.brokers}: "
            "stop it with --delete, or name another --dir"
        )
    if cluster is not None and options.port not in (0, cluster.nodes[0].port):
        raise KafkaError(
            f"{options.dir} holds a cluster on port {cluster.nodes[0].port}, not {options.port}: "
            "stop it with --delete, or name another --dir"
        )
    if cluster is None:
        cluster = Cluster.create(options.dir, options.brokers, options.port)
    cluster.start(is_lasting=options.lasting)
    print(cluster.bootstrap_servers)
    return 0


def _status(options: argparse.Namespace) -> int:
    cluster = Cluster.load(options.dir)
    if cluster is None or not any(node.alive() for node in cluster.nodes):
        print("not running")
        return 1
    for node in cluster.nodes:
        state = "running" if node.alive() else "ended"
        print(f"broker {node.node_id} {HOST}:{node.port} {state} pid {node.pid} log {node.log}")
    return 0 if cluster.running else 1


def _stop(options: argparse.Namespace) -> int:
    cluster = Cluster.load(options.dir)
    if cluster is not None:
        cluster.stop()
        if options.delete:
            cluster.delete()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Apache Kafka on this machine, loopback only.")
    commands = parser.add_subparsers(required=True)
    for name, run in (("start", _start), ("status", _status), ("stop", _stop)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--dir", type=Path, default=DEFAULT_DIR, help="data, settings, logs")
        if name == "start":
            command.add_argument("--brokers", type=int, choices=(1, 3), default=1)
            command.add_argument("--port", type=int, default=0, help="first broker's; 0 = free")
            command.add_argument("--lasting", action="store_true", help="compiled for long use")
        if name == "stop":
            command.add_argument("--delete", action="store_true", help="the data as well")
    options = parser.parse_args()
    try:
        return int(options.run(options))
    except KafkaError as error:
        print(f"kafka.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

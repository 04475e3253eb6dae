"""The brokers themselves: how they start, end, and what they keep."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.errors import UnknownTopicOrPartitionError

from stream.broker import HOST, BrokerFailed, EmbeddedBroker
from stream.cli import run
from stream.settings import Settings
from stream.topic_admin import admin_client

KAFKA = Path(__file__).parents[2] / "deploy/kafka/kafka.py"
PLACE = TopicPartition("kept", 0)
#: The embedded broker writes its file about a second after a change.
SAVED_AFTER_S = 2.0

embedded = pytest.mark.broker
kafka = pytest.mark.kafka


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        yield int(other.getsockname()[1])


async def make_topic(address: str, replicas: int = 1) -> None:
    async with admin_client(Settings(broker=address)) as admin:
        await admin.create_topics([NewTopic(PLACE.topic, 1, replicas)])


async def put(
    address: str, *values: bytes, topic: str = PLACE.topic, within_ms: int = 15_000
) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=address, acks="all", enable_idempotence=True, request_timeout_ms=within_ms
    )
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(topic, value, partition=PLACE.partition)
    finally:
        await producer.stop()


async def held(address: str) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=address, enable_auto_commit=False)
    await consumer.start()
    consumer.assign([PLACE])
    await consumer.seek_to_beginning()
    end = (await consumer.end_offsets([PLACE]))[PLACE]
    values: list[bytes] = []
    while await consumer.position(PLACE) < end:
        values += [r.value for b in (await consumer.getmany(timeout_ms=500)).values() for r in b]
    await consumer.stop()
    return values


def now(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


@embedded
def test_a_normal_stop_keeps_what_was_acknowledged(tmp_path):
    with EmbeddedBroker(tmp_path) as broker:
        now(make_topic(broker.address))
        now(put(broker.address, b"1", b"2"))
    with EmbeddedBroker(tmp_path) as broker:
        assert now(held(broker.address)) == [b"1", b"2"]


@embedded
def test_a_crash_keeps_what_was_acknowledged_a_moment_before(tmp_path):
    broker = EmbeddedBroker(tmp_path)
    broker.start()
    now(make_topic(broker.address))
    now(put(broker.address, b"1", b"2"))
    time.sleep(SAVED_AFTER_S)
    broker.kill()
    with EmbeddedBroker(tmp_path) as broker:
        assert now(held(broker.address)) == [b"1", b"2"]
        now(put(broker.address, b"3"))
        assert now(held(broker.address)) == [b"1", b"2", b"3"]


@embedded
def test_without_a_folder_nothing_is_left_behind():
    with EmbeddedBroker() as broker:
        now(make_topic(broker.address))
        folder = broker.data_dir
        assert folder.is_dir()
    assert not folder.exists()
    assert not broker.running


@embedded
def test_a_misspelt_topic_is_an_error():
    with EmbeddedBroker() as broker, pytest.raises(UnknownTopicOrPartitionError):
        now(put(broker.address, b"1", topic="klickstream", within_ms=1000))


@embedded
def test_a_port_that_is_taken_is_named(taken, tmp_path):
    with pytest.raises(BrokerFailed, match=f"port {taken} on {HOST} cannot be used: Address"):
        EmbeddedBroker(tmp_path, taken).start()


@embedded
def test_a_folder_in_use_is_named_and_its_broker_goes_on(tmp_path):
    with EmbeddedBroker(tmp_path) as broker:
        with pytest.raises(BrokerFailed, match=f"already running for {tmp_path}"):
            EmbeddedBroker(tmp_path).start()
        now(make_topic(broker.address))


@embedded
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "data"
    with pytest.raises(BrokerFailed, match=f"data folder {folder} cannot be used: Not a dir"):
        EmbeddedBroker(folder).start()


@embedded
def test_a_broken_file_is_named_and_left_as_it_is(tmp_path):
    (tmp_path / "kafka.json").write_text("{broken")
    with pytest.raises(BrokerFailed, match="failed to parse kafka snapshot"):
        EmbeddedBroker(tmp_path).start()
    assert (tmp_path / "kafka.json").read_text() == "{broken"


@embedded
def test_the_command_names_a_port_that_is_taken_in_one_line(taken, tmp_path, capsys):
    assert run(["broker", "--port", str(taken), "--data-dir", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(taken) in said


@embedded
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_command_stops_on_a_signal_with_0_and_keeps_the_data(signum, tmp_path):
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "stream.cli", "broker"]
    command += ["--port", str(port), "--data-dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert f"{HOST}:{port}" in process.stdout.readline()
    address = f"{HOST}:{port}"
    now(make_topic(address))
    now(put(address, b"1"))
    process.send_signal(signum)
    assert process.wait(10) == 0
    with EmbeddedBroker(tmp_path, port):
        assert now(held(address)) == [b"1"]


@embedded
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_killed_command_leaves_no_broker_behind(tmp_path):
    code = """
import sys
from pathlib import Path
from stream.broker import EmbeddedBroker
broker = EmbeddedBroker(Path(sys.argv[1]))
broker.start()
print(broker.port, flush=True)
broker.wait()
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    port = int(process.stdout.readline())
    now(make_topic(f"{HOST}:{port}"))
    process.kill()
    process.wait()
    # Its end frees the port and the folder, with the data in it.
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)):
                break
        time.sleep(0.05)
    with EmbeddedBroker(tmp_path, port) as broker:
        assert now(held(broker.address)) == []


def script(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(KAFKA), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


@kafka
@pytest.mark.slow
def test_three_kafka_brokers_start_survive_one_s_crash_and_stop(tmp_path):
    folder = ["--dir", str(tmp_path / "cluster")]
    assert script("status", *folder).returncode == 1
    try:
        started = script("start", "--brokers", "3", *folder)
        assert started.returncode == 0, started.stderr
        servers = started.stdout.strip()
        assert len(set(servers.split(","))) == 3
        state = script("status", *folder)
        assert state.returncode == 0
        assert [line.split()[3] for line in state.stdout.splitlines()] == ["running"] * 3
        now(make_topic(servers, replicas=3))
        now(put(servers, b"1"))

        nodes = json.loads((tmp_path / "cluster/cluster.json").read_text())["nodes"]
        subprocess.run(["kill", "-9", str(nodes[0]["pid"])], check=True)
        now(put(servers, b"2"))
        state = script("status", *folder)
        assert state.returncode == 1
        assert "broker 1" in next(line for line in state.stdout.splitlines() if "ended" in line)

        # Starting again starts only what has ended, with its data.
        assert script("start", "--brokers", "3", *folder).stdout.strip() == servers
        assert now(held(servers)) == [b"1", b"2"]
        other = script("start", "--brokers", "1", *folder)
        assert other.returncode == 1
        assert "holds 3 broker(s), not 1" in other.stderr
    finally:
        stopped = script("stop", "--delete", *folder)
    assert stopped.returncode == 0
    assert script("status", *folder).returncode == 1
    assert not (tmp_path / "cluster").exists()


@kafka
def test_kafka_names_a_port_that_is_taken(taken, tmp_path):
    failed = script("start", "--port", str(taken), "--dir", str(tmp_path / "cluster"))
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"kafka.py: port {taken} is taken")
    assert failed.stderr.count("\n") == 1
    # Nothing that would hold the next attempt to that port.
    assert not (tmp_path / "cluster").exists()


@kafka
def test_kafka_names_a_folder_that_is_not_its_own_and_leaves_it_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    failed = script("start", "--dir", str(tmp_path))
    assert failed.returncode == 1
    assert failed.stderr == f"kafka.py: folder {tmp_path} cannot be made: File exists\n"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

"""Topics on both brokers: made once, checked by name, and the worker that insists on them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka.admin import NewTopic
from running import Workers

from stream.broker import EmbeddedBroker
from stream.cli import run
from stream.settings import Settings
from stream.topic_admin import (
    BrokerAbsent,
    TopicsNotCreated,
    admin_client,
    check_topics,
    create_topics,
    delete_topics,
    wait_for_broker,
)
from stream.topics import TOPICS

HOUR_MS = "3600000"


@pytest.fixture
def settings(broker, topic_prefix):
    return Settings(broker=broker, topic_prefix=topic_prefix, partitions=2)


async def make(settings: Settings, name: str, partitions: int, **config: str) -> None:
    async with admin_client(settings) as admin:
        dotted = {key.replace("_", "."): value for key, value in config.items()}
        topic = NewTopic(settings.topic_prefix + name, partitions, 1, topic_configs=dotted)
        response = await admin.create_topics([topic])
        assert response.topic_errors[0][1] == 0
        for _ in range(100):
            if topic.name in await admin.list_topics():
                return
            await asyncio.sleep(0.05)
    raise AssertionError(f"{topic.name} is not listed")


async def problems_of(settings: Settings) -> set[str]:
    return {str(problem) for problem in await check_topics(settings) if problem.stops}


async def test_topics_are_made_once_and_are_then_as_they_must_be(settings):
    names = {settings.topic_prefix + spec.name for spec in TOPICS}
    assert set(await create_topics(settings)) == names
    assert await create_topics(settings) == []
    assert await check_topics(settings) == []


async def test_what_is_missing_is_named_and_made_without_touching_the_rest(settings):
    await make(settings, "clickstream", 2, retention_ms="60000")
    missing = {spec.name for spec in TOPICS} - {"clickstream"}
    expected = {f"topic {settings.topic_prefix}{name}: missing" for name in missing}
    assert await problems_of(settings) == expected
    assert len(await create_topics(settings)) == len(missing)
    assert await problems_of(settings) == set()


async def test_every_difference_is_named(settings):
    await make(settings, "clickstream", 3)
    await make(settings, "items", 2, cleanup_policy="delete", min_compaction_lag_ms=HOUR_MS)
    await make(settings, "users", 2, cleanup_policy="compact", min_compaction_lag_ms="1000")
    await make(settings, "user-state", 2, cleanup_policy="compact", delete_retention_ms="1000")
    by_the_broker = {"message_timestamp_type": "LogAppendTime"}
    await make(settings, "churn-risk", 2, cleanup_policy="delete,compact", **by_the_broker)
    await create_topics(settings)
    prefix = settings.topic_prefix
    assert await problems_of(settings) == {
        f"topic {prefix}clickstream: expected 2 partitions (setting partitions), got 3",
        f"topic {prefix}items: expected cleanup.policy=compact, got delete",
        f"topic {prefix}users: expected min.compaction.lag.ms=3600000 or more, got 1000",
        f"topic {prefix}user-state: expected min.compaction.lag.ms=3600000 or more, got 0",
        f"topic {prefix}user-state: expected delete.retention.ms=86400000 or more, got 1000",
        f"topic {prefix}user-state: expected message.timestamp.type=LogAppendTime, got CreateTime",
    }


@pytest.mark.kafka
async def test_erasing_without_a_bound_is_told_and_stops_nobody(apache_kafka, topic_prefix):
    settings = Settings(broker=apache_kafka, topic_prefix=topic_prefix, partitions=2)
    await make(settings, "users", 2, cleanup_policy="compact", min_compaction_lag_ms=HOUR_MS)
    await create_topics(settings)
    bound, tombstones = await check_topics(settings)
    assert str(bound).startswith(
        f"topic {topic_prefix}users: expected max.compaction.lag.ms=86400000 or less, got 92"
    )
    assert str(tombstones).startswith(
        f"topic {topic_prefix}users: expected delete.retention.ms=691200000 or more, got 86400000"
    )
    assert not bound.stops
    assert not tombstones.stops


async def test_a_run_s_topics_are_deleted_and_nobody_else_s(settings):
    other = settings.model_copy(update={"topic_prefix": f"other-{settings.topic_prefix}"})
    await create_topics(settings)
    await create_topics(other)
    await delete_topics(settings)
    missing = {f"topic {settings.topic_prefix}{spec.name}: missing" for spec in TOPICS}
    for _ in range(200):  # Kafka's controller is done before its brokers
        if await problems_of(settings) == missing:
            break
        await asyncio.sleep(0.1)
    assert await problems_of(settings) == missing
    assert await problems_of(other) == set()


async def test_topics_are_not_deleted_without_a_prefix():
    with pytest.raises(ValueError, match="prefix"):
        await delete_topics(Settings(topic_prefix=""))


@pytest.mark.kafka
async def test_a_broker_that_refuses_says_which_topic_and_why(apache_kafka, topic_prefix):
    settings = Settings(broker=apache_kafka, topic_prefix=topic_prefix, replication_factor=3)
    with pytest.raises(TopicsNotCreated) as raised:
        await create_topics(settings)
    said = str(raised.value)
    assert f"topic {topic_prefix}items: not made: InvalidReplicationFactorError: " in said
    assert said.count("not made") == len(TOPICS)


@pytest.mark.kafka
def test_the_command_says_it_in_one_line(apache_kafka, topic_prefix, monkeypatch, capsys):
    monkeypatch.setenv("PREFSTREAM_BROKER", apache_kafka)
    monkeypatch.setenv("PREFSTREAM_TOPIC_PREFIX", topic_prefix)
    monkeypatch.setenv("PREFSTREAM_REPLICATION_FACTOR", "3")
    assert run(["topics", "create"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{topic_prefix}items" in said


def test_the_commands_make_check_and_name_a_difference(settings, monkeypatch, capsys):
    monkeypatch.setenv("PREFSTREAM_BROKER", settings.broker)
    monkeypatch.setenv("PREFSTREAM_TOPIC_PREFIX", settings.topic_prefix)
    monkeypatch.setenv("PREFSTREAM_PARTITIONS", "2")
    assert run(["topics", "create"]) == 0
    assert f"created {settings.topic_prefix}items" in capsys.readouterr().out
    assert run(["topics", "create"]) == 0
    assert "all topics are there" in capsys.readouterr().out
    assert run(["topics", "check"]) == 0
    monkeypatch.setenv("PREFSTREAM_PARTITIONS", "3")
    assert run(["topics", "check"]) == 1
    said = capsys.readouterr().err
    assert f"topic {settings.topic_prefix}users: expected 3 partitions" in said


@pytest.mark.slow
def test_the_worker_refuses_topics_that_are_not_as_they_must_be(settings, tmp_path):
    asyncio.run(make(settings, "searches", 3))
    asyncio.run(create_topics(settings))
    running = Workers(settings.broker, settings.topic_prefix, tmp_path)
    for tier in ("all", "preference"):
        ended = subprocess.run(
            [sys.executable, "-m", "stream.cli", "worker", "--tier", tier],
            env=running.env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 3, ended.stderr
        assert f"topic {settings.topic_prefix}searches: expected 2 partitions" in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.slow
@pytest.mark.broker
def test_a_worker_started_before_its_broker_waits_and_says_so(tmp_path: Path, topic_prefix):
    with EmbeddedBroker(tmp_path / "broker") as broker:
        running = Workers(broker.address, topic_prefix, tmp_path)
        running.command("topics", "create")
    command = [sys.executable, "-m", "stream.cli", "worker", "--tier", "preference"]
    with running.log.open("ab") as log:
        running.process = subprocess.Popen(command, env=running.env, stdout=log, stderr=log)
    try:
        reason = f"no Kafka broker at {broker.address}"
        running.until(lambda: reason in running.get("preference", "/ready")[1], "waiting")
        status, body = running.get("preference", "/ready")
        assert status == 503
        assert json.loads(body)["checks"]["broker"] == {"ok": False, "reason": reason}
        assert running.get("preference", "/live")[0] == 200
        with EmbeddedBroker(tmp_path / "broker", broker.port):
            running.until(lambda: running.get("preference", "/ready")[0] == 200, "ready", 90)
            assert running.stop() == 0
    finally:
        running.stop()


async def test_waiting_for_a_broker_ends_when_the_settings_say_so():
    said: list[str] = []
    settings = Settings(broker="127.0.0.1:1", broker_wait_s=0.6)
    with pytest.raises(BrokerAbsent, match=r"127\.0\.0\.1:1 within 0\.6 s"):
        await wait_for_broker(settings, said.append)
    assert set(said) == {"no Kafka broker at 127.0.0.1:1"}

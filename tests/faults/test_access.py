"""Fault 26: credentials that are wrong, expire, or lose a right, on a broker with TLS and SASL."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiokafka import TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AclOperation, AdminClient, ConfigResource
from faults.arena import Arena
from faults.cluster import Admin, Brokers, until
from faults.generator import Message, Mix, Shop
from faults.proxy import Proxy
from faults.secured import Guard, TokenGuard
from faults.trial import Trial
from token_server import serving

from stream.acls import Role, Rule, rules_of
from stream.latest import reading
from stream.settings import Settings
from stream.topic_admin import admin_client

pytestmark = [pytest.mark.faults, pytest.mark.kafka, pytest.mark.timeout(300)]

EXIT_REFUSED = 5


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    return Guard(tmp_path_factory.mktemp("guard"))


@pytest.fixture(scope="module")
def brokers(
    guard: Guard, clusters: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Brokers]:
    running = Brokers(tmp_path_factory.mktemp("secured") / "cluster", 1, Proxy, guard)
    guard.admit(running.address)
    yield running
    running.stop()


def says_nothing_secret(trial: Trial, guard: Guard) -> None:
    for worker in trial.workers:
        assert guard.password not in worker.log.read_text(errors="replace")


def refused(trial: Trial, name: str, settings: dict[str, str]) -> str:
    """Start a worker that is not let in; return what it said when it ended, as it must at once."""
    worker = trial.another_worker(name, **settings)
    worker.launch()
    worker.until(lambda: bool(worker.ends), "ended", 60)
    took_s = worker.ends[0][0] - worker.starts[0]
    worker.end()
    assert worker.ends[0][1] == EXIT_REFUSED, worker.tail()
    assert took_s < 15, f"it took {took_s:.0f} s"
    return worker.tail()


def other_authority(folder: Path) -> str:
    path = folder / "other-ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return str(path)


@pytest.mark.short
def test_26_wrong_credentials_end_a_worker_at_once_and_name_the_setting(
    arena: Arena, brokers: Brokers, guard: Guard, tmp_path: Path
) -> None:
    with arena.trial(
        "26 wrong credentials", at=brokers, opened=False, settings=guard.settings()
    ) as trial:
        guard.allow_all(brokers.address, trial.prefix)
        wrong = refused(trial, "w2", guard.settings(sasl_password="not-the-password"))
        assert "sasl_password" in wrong
        assert "not-the-password" not in wrong
        unknown = refused(trial, "w3", guard.settings(sasl_username="nobody"))
        assert "'nobody'" in unknown
        mechanism = refused(trial, "w4", guard.settings(sasl_mechanism="SCRAM-SHA-256"))
        assert "sasl_mechanism" in mechanism
        untrusted = guard.settings(ssl_ca_file=other_authority(tmp_path))
        assert "ssl_ca_file" in refused(trial, "w5", untrusted)
        # The same with the right ones works, from topics to the judged outcome.
        trial.workers[1:] = []
        trial.open()
        trial.load(1000)
        trial.finish_now()
        assert trial.worker.command("topics", "check")
        assert trial.worker.command("explain", trial.shoppers.users[0])
        says_nothing_secret(trial, guard)


def test_26_credentials_that_expire_stop_nothing_for_good(
    arena: Arena, brokers: Brokers, guard: Guard
) -> None:
    with arena.trial(
        "26 credentials expired", at=brokers, opened=False, settings=guard.settings()
    ) as trial:
        guard.allow_all(brokers.address, trial.prefix)
        trial.open()
        sending = trial.load_in_background(6000, per_s=200)
        time.sleep(3)
        guard.expel(brokers.address)
        assert brokers.proxy
        brokers.proxy.cut()
        try:
            trial.worker.until(lambda: not trial.worker.ready(), "no longer ready", 15)
            time.sleep(10)
        finally:
            guard.admit(brokers.address)
        back = time.monotonic()
        trial.worker.until(trial.worker.ready, "ready again", 60)
        trial.recoveries_s.append(time.monotonic() - back)
        sending.join()
        trial.finish_now(90)
        trial.note = f"{len(trial.worker.ends)} ends"
        says_nothing_secret(trial, guard)


@pytest.mark.parametrize(
    ("topic", "operation"),
    [
        ("recommendations", AclOperation.WRITE),
        ("user-state", AclOperation.WRITE),
        ("clickstream", AclOperation.READ),
    ],
)
def test_26_a_right_that_is_revoked_holds_everything_back_until_it_is_given_again(
    arena: Arena, brokers: Brokers, guard: Guard, topic: str, operation: AclOperation
) -> None:
    with arena.trial(
        f"26 no right to {operation.name.lower()} {topic}",
        at=brokers,
        opened=False,
        settings=guard.settings(),
    ) as trial:
        guard.allow_all(brokers.address, trial.prefix)
        trial.open()
        trial.load_and_drain(300)
        with guard.denied(brokers.address, trial.prefix + topic, operation):
            before = trial.admin.committed("prefstream-preference")
            trial.load(1500)
            trial.worker.until(lambda: not trial.worker.ready(), "no longer ready", 45)
            said = trial.worker.get("preference", "/ready")[1]
            during = trial.admin.committed("prefstream-preference")
        given = time.monotonic()
        assert trial.drained(60) is not None, trial.worker.tail()
        trial.recoveries_s.append(time.monotonic() - given)
        trial.finish_now(90)
        clicks = [place for place in before if place[0] == "clickstream"]
        ahead = {p: (before[p], during[p]) for p in clicks if during[p] - before[p] > 200}
        assert not ahead, f"committed without delivery: {ahead}"
        # Some rights the client cannot be without: then the worker ends, and its log says why.
        told = said + trial.worker.log.read_text(errors="replace")
        assert "TopicAuthorizationFailed" in told
        trial.note = f"{len(trial.worker.ends)} ends"
        says_nothing_secret(trial, guard)


def test_26_tokens_are_renewed_while_acts_come_and_their_server_fails(
    arena: Arena, clusters: object, tmp_path: Path
) -> None:
    guard = TokenGuard(tmp_path / "guard", life_s=20)
    brokers = Brokers(tmp_path / "cluster", 1, Proxy, guard)
    with (
        serving(guard.server) as server,
        closing_brokers(brokers),
        arena.trial("26 tokens", at=brokers, opened=False, settings=guard.settings()) as trial,
    ):
        guard.allow_all(brokers.address, trial.prefix)
        wrong = refused(trial, "w2", guard.settings(oauth_client_secret="not-the-secret"))
        assert "oauth_client_secret" in wrong
        assert "not-the-secret" not in wrong
        trial.workers[1:] = []
        trial.open()
        asked = len(server.forms)
        # Two and a half lives of a token; in the last fifth of one a new one is asked for.
        sending = trial.load_in_background(10_000, per_s=200)
        time.sleep(14)
        server.status = 503
        time.sleep(4)
        server.status = 200
        sending.join()
        trial.finish_now(90)
        trial.note = f"{len(server.forms) - asked} tokens, {len(trial.worker.ends)} ends"
        assert len(server.forms) - asked >= 2
        says_nothing_secret(trial, guard)


@contextmanager
def closing_brokers(brokers: Brokers) -> Iterator[None]:
    try:
        yield
    finally:
        brokers.stop()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "n_tried", [pytest.param(6, marks=pytest.mark.short, id="six"), pytest.param(99, id="all")]
)
def test_26_the_least_rights_are_enough_and_each_of_them_is_needed(
    arena: Arena, brokers: Brokers, guard: Guard, n_tried: int
) -> None:
    with arena.trial(
        "26 least rights", at=brokers, opened=False, settings=guard.settings()
    ) as trial:
        settings = Settings(topic_prefix=trial.prefix)
        guard.allow(brokers.address, rules_of("operator", settings))
        trial.worker.command("topics", "create")
        rules = rules_of("worker", settings)
        guard.allow(brokers.address, rules)
        trial.open()
        trial.load(1000)
        trial.finish_now()
        # A few from all over the list, or every one.
        tried = rules[:: max(len(rules) // n_tried, 1)]
        each_is_needed(tried, rules, brokers, guard)
        trial.note = f"{len(tried)} of {len(rules)} rules"
        says_nothing_secret(trial, guard)


@pytest.mark.timeout(600)
def test_26_the_edge_has_the_rights_it_needs_and_needs_each(
    arena: Arena, brokers: Brokers, guard: Guard, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"k {'0a' * 32}\n")
    with arena.trial("26 rights of the edge", at=brokers, opened=False) as trial:
        raw = f"{trial.prefix}raw-"
        own = {
            "PREFSTREAM_PSEUDONYM_KEY_FILE": str(keys),
            "PREFSTREAM_PSEUDONYM_RAW_PREFIX": raw,
        }
        trial.worker.broker = brokers.address  # by the listener that trusts
        trial.worker.command("topics", "create")
        beside = Admin(trial.broker, raw)
        for topic in EDGE_TOPICS:
            beside.create(topic, 2, {})
        shop = Shop(trial.broker, raw)
        shop.send([trial.shoppers.record(user_id) for user_id in trial.shoppers.users])
        shop.send(trial.shoppers.events(300, Mix(poison=0.1, texts=0.5)))
        shop.flush()
        settings = Settings(
            topic_prefix=trial.prefix, pseudonym_raw_prefix=raw, pseudonym_key_file=keys
        )
        rules = rules_of("edge", settings)
        guard.allow(brokers.address, rules)
        command = [sys.executable, "-m", "stream.cli", "pseudonymise"]
        env = {**trial.worker.env, **guard.settings(), **own}
        env["PREFSTREAM_BROKER"] = brokers.worker_address
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as edge:
            try:
                until(lambda: beside.ends(["dead-letters"])["dead-letters", 0] > 0, "a poison", 90)
                copied = ("clickstream", "searches", "reviews", "users")
                until(lambda: all(_size(trial.admin, t) for t in copied), "all copied", 60)
            finally:
                edge.terminate()
                said = edge.communicate(timeout=30)[1]
        assert "Authorization" not in said
        each_is_needed(rules, rules, brokers, guard)
        trial.note = f"{len(rules)} rules"
        trial.verdict = []


EDGE_TOPICS = ("clickstream", "searches", "reviews", "users", "dead-letters")


def _size(admin: Admin, topic: str) -> int:
    return sum(admin.ends([topic]).values())


def each_is_needed(tried: list[Rule], rules: list[Rule], brokers: Brokers, guard: Guard) -> None:
    """Fail unless each right of ``tried`` that is taken away alone is what is then refused."""
    for rule in tried:
        of_it = {other for other in rules if other[:2] == rule[:2]}
        with guard.without(brokers.address, rule):
            refused_now = {r for r in of_it if not may(r, brokers.worker_address, guard)}
        assert refused_now == {rule}


@pytest.mark.timeout(600)
def test_26_commands_do_with_the_rights_of_their_roles(
    arena: Arena, brokers: Brokers, guard: Guard, tmp_path: Path
) -> None:
    acts = tmp_path / "acts.jsonl"
    with arena.trial("26 rights of commands", at=brokers, opened=False) as trial:
        trial.worker.broker = brokers.address  # by the listener that trusts
        trial.open()
        trial.load_and_drain(600)
        settings = Settings(topic_prefix=trial.prefix)
        env = {**trial.worker.env, **guard.settings()}
        env["PREFSTREAM_BROKER"] = brokers.worker_address

        def command(*words: str) -> subprocess.CompletedProcess[str]:
            line = [sys.executable, "-m", "stream.cli", *words]
            return subprocess.run(line, env=env, capture_output=True, text=True, timeout=120)

        def as_role(role: Role, *commands: tuple[str, ...]) -> list[Rule]:
            rules = rules_of(role, settings)
            guard.allow(brokers.address, rules)
            for words in commands:
                done = command(*words)
                assert done.returncode == 0, (role, words, done.stdout + done.stderr)
            return rules

        acts.write_bytes(b"".join(m.value + b"\n" for m in _clicks(trial, 5)))
        replay = ("replay", str(acts), "--format", "jsonl", "--topic", "clickstream")
        user_id, other = trial.shoppers.users[:2]
        as_role(
            "operator",
            ("topics", "create"),
            ("topics", "check"),
            ("dead-letters", "list"),
            ("dead-letters", "redrive", "--topic", "clickstream"),
            ("explain", user_id),
            ("forget", user_id),
            replay,
        )
        as_role("shop", replay)
        assert command("forget", other).returncode == 1
        # By the operator's rights alone they were in no need of any other: the narrower ones.
        rules = as_role("eraser", ("explain", other), ("forget", other))
        assert command(*replay).returncode == 1
        assert command("dead-letters", "list").returncode == 1
        each_is_needed(rules, rules, brokers, guard)
        trial.note = f"eraser: {len(rules)} rules"
        trial.verdict = []


def _clicks(trial: Trial, n: int) -> list[Message]:
    events = trial.shoppers.events(1000, Mix(texts=0.0))
    return [event for event in events if event.topic == "clickstream"][:n]


def may(rule: Rule, broker: str, guard: Guard) -> bool:
    """True when a client with the workers' credentials may do what a rule is for."""
    client = {
        "bootstrap.servers": broker,
        "security.protocol": guard.protocol,
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": guard.settings()["PREFSTREAM_SASL_USERNAME"],
        "sasl.password": guard.password,
        "ssl.ca.location": str(guard.ca_file),
    }
    problem = _PROBES[rule.resource, rule.operation](client, rule.name)
    assert problem in (None, KafkaError.TOPIC_AUTHORIZATION_FAILED, _NO_GROUP), problem
    return problem is None


_NO_GROUP = KafkaError.GROUP_AUTHORIZATION_FAILED


def _reads(client: dict[str, Any], topic: str) -> int | None:
    """By then there is something in all that the workers read; without the right, nothing comes."""
    found: list[object] = []

    async def ask() -> None:
        async with reading(_settings(client)) as consumer:
            place = TopicPartition(topic, 0)
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            found.extend(await consumer.getmany(timeout_ms=3000))

    refused = _refused_to(ask)
    return None if found else refused or KafkaError.TOPIC_AUTHORIZATION_FAILED


def _reads_with_group(client: dict[str, Any], group: str) -> int | None:
    async def ask() -> None:
        async with admin_client(_settings(client)) as admin:
            await admin.list_consumer_group_offsets(group)

    return _refused_to(ask)


def _refused_to(ask: Callable[[], Coroutine[Any, Any, None]]) -> int | None:
    # librdkafka tries again and again where it is told to go away.
    try:
        asyncio.run(ask())
    except (GroupAuthorizationFailedError, TopicAuthorizationFailedError) as error:
        return int(error.errno)
    return None


def _settings(client: dict[str, Any]) -> Settings:
    return Settings(
        broker=client["bootstrap.servers"],
        security_protocol=client["security.protocol"],
        sasl_mechanism=client["sasl.mechanism"],
        sasl_username=client["sasl.username"],
        sasl_password=client["sasl.password"],
        ssl_ca_file=client["ssl.ca.location"],
    )


def _writes(client: dict[str, Any], topic: str) -> int | None:
    problems: list[int | None] = []
    producer = Producer({**client, "enable.idempotence": True, "message.timeout.ms": 10_000})
    # It has been judged: what the probe writes is nothing to anybody.
    try:
        producer.produce(
            topic, b"", b"probe", on_delivery=lambda error, _: problems.append(_code(error))
        )
        producer.flush(15)
    except (KafkaException, SystemError) as error:
        # Who may write no topic at all is given no producer's id, whatever it asks to write. Where
        # a delivery is told of at the same time, the bindings put that error behind one of theirs.
        cause = error if isinstance(error, KafkaException) else error.__cause__
        refused = isinstance(cause, KafkaException) and cause.args[0].code()
        if refused != KafkaError.CLUSTER_AUTHORIZATION_FAILED:
            raise
        return int(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    return problems[0]


def _described(client: dict[str, Any], topic: str) -> int | None:
    return _code(AdminClient(client).list_topics(topic, 10).topics[topic].error)


def _configs_described(client: dict[str, Any], topic: str) -> int | None:
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    admin = AdminClient(client)  # what is asked of it ends with it
    [answer] = admin.describe_configs([resource]).values()
    try:
        answer.result(10)
    except KafkaException as error:
        return int(error.args[0].code())
    return None


def _code(error: Any) -> int | None:
    return None if error is None else error.code()


_PROBES = {
    ("topic", "Read"): _reads,
    ("topic", "Write"): _writes,
    ("topic", "Describe"): _described,
    ("topic", "DescribeConfigs"): _configs_described,
    ("group", "Read"): _reads_with_group,
}

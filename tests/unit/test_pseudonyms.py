"""Pseudonyms: what they are, and what becomes of a raw message at the edge."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError
from builders import NOW_MS, interaction, message, review, search, user
from fakes import Killed, Outbox

from stream.acls import Rule, rules_of
from stream.cli import run
from stream.core.events import BadEvent, parse_interaction, parse_user
from stream.dead_letters import DeadLetters
from stream.pseudonymise import Pseudonymise, pseudonymous
from stream.pseudonyms import BadKeys, Pseudonymiser
from stream.settings import load_settings

NEW, OLD = "00" * 31 + "01", bytes(range(32)).hex()
FIRST, SECOND = f"2026a {OLD}\n", f"2026b {NEW}\n"


def named(text: str, folder: Path) -> Pseudonymiser:
    file = folder / "keys"
    file.write_text(text)
    return Pseudonymiser.read(file)


@pytest.fixture
def names(tmp_path: Path) -> Pseudonymiser:
    return named(FIRST, tmp_path)


@pytest.fixture
def rotated(tmp_path: Path) -> Pseudonymiser:
    return named("# since March\n" + SECOND + "\n" + FIRST, tmp_path)


@pytest.mark.parametrize(
    ("user_id", "expected"),
    # By `printf ID | openssl dgst -sha256 -mac HMAC -macopt hexkey:KEY -binary | head -c 16 |
    # base64 | tr '+/' '-_' | tr -d '='`.
    [("anna", "2026a.Tpwl6wryNCMpB-fzXq4_cA"), ("安娜", "2026a.e11ib6woazzJml0r4wjqJw")],
)
def test_any_language_makes_the_same_pseudonym(names, user_id, expected):
    assert names.of(user_id) == expected


def test_a_new_key_names_everybody_anew_and_finds_the_old_names(names, rotated):
    assert rotated.key_ids == ["2026b", "2026a"]
    assert rotated.of("anna").startswith("2026b.")
    assert rotated.all_of("anna") == [rotated.of("anna"), names.of("anna")]


def test_a_session_is_not_the_user_of_the_same_id(names):
    assert names.of_session("anna") != names.of("anna")


def test_no_key_is_shown(names):
    shown = repr(names) + repr(vars(names))
    assert OLD not in shown
    assert repr(bytes.fromhex(OLD)) not in shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a line `ID HEX`"),
        ("# nothing\n", "expected a line `ID HEX`"),
        (f"{OLD}\n", "line 1: expected an id"),
        (f"A {OLD}\n", "line 1: expected an id"),
        (f"a.b {OLD}\n", "line 1: expected an id"),
        ("\na xyzzy\n", "line 2: the key of a is not in hex"),
        ("a 00ff00\n", "line 1: expected 32 bytes or more of a, got 3"),
        (f"a {OLD}\na {NEW}\n", "two keys of one id"),
    ],
)
def test_a_bad_file_of_keys_is_told_without_its_keys(tmp_path, text, said):
    with pytest.raises(BadKeys, match=said) as error:
        named(text, tmp_path)
    for hidden in (OLD, NEW, "xyzzy", "00ff00"):
        assert hidden not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadKeys, match=r"absent: No such file"):
        Pseudonymiser.read(tmp_path / "absent")


# --- a message at the edge -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "event"),
    [
        ("clickstream", interaction(user_id="anna", session_id="web-1")),
        ("searches", search(user_id="anna", session_id="web-1")),
        ("reviews", review(user_id="anna")),
        ("users", user(user_id="anna", interests=["tea"])),
    ],
)
def test_an_event_goes_on_as_it_is_under_another_name(names, topic, event):
    (out,) = pseudonymous(message(topic, event), names)
    assert (out.topic, out.key) == (topic, names.of("anna").encode())
    before, after = msgspec.to_builtins(event), json.loads(out.value or b"")
    assert after.pop("user_id") == names.of("anna")
    if session_id := before.pop("session_id", None):
        assert after.pop("session_id") == names.of_session(session_id)
    del before["user_id"]
    assert after == before


def test_what_the_schema_does_not_know_is_left_behind(names):
    raw = json.dumps({**msgspec.to_builtins(interaction(user_id="anna")), "email": "anna@example"})
    headers = (("traceparent", b"00-1"), ("user", b"anna"), ("tracestate", b"a=1"))
    (out,) = pseudonymous(message("clickstream", raw.encode(), key=b"anna", headers=headers), names)
    assert b"anna" not in (out.value or b"")
    assert out.headers == (("traceparent", b"00-1"), ("tracestate", b"a=1"))
    assert parse_interaction(out.value, out.key).event_id == "e1"


def test_a_repeat_is_the_same_to_the_byte(names):
    raw = message("clickstream", interaction(user_id="anna", session_id="web-1"))
    assert pseudonymous(raw, names) == pseudonymous(raw, names)


def test_who_is_erased_or_declines_is_so_under_every_key(rotated):
    everywhere = [name.encode() for name in rotated.all_of("u1")]
    tombstones = pseudonymous(message("users", None), rotated)
    assert [(o.key, o.value) for o in tombstones] == [(key, None) for key in everywhere]
    declined = pseudonymous(message("users", user(personalize=False)), rotated)
    assert [o.key for o in declined] == everywhere
    assert not any(parse_user(o.value, o.key).personalize for o in declined)
    assert len(pseudonymous(message("users", user()), rotated)) == 1


@pytest.mark.parametrize(
    ("topic", "value", "key"),
    [
        ("clickstream", b"{", b"anna"),
        ("clickstream", None, b"anna"),
        ("clickstream", interaction(user_id="anna"), b"ben"),
        ("users", None, b""),
        ("users", None, b"\xff"),
    ],
)
def test_what_cannot_be_read_is_refused_as_the_workers_would(names, topic, value, key):
    with pytest.raises(BadEvent):
        pseudonymous(message(topic, value, key=key), names)


@pytest.mark.parametrize("where", ["text", "header"])
def test_what_no_broker_would_take_is_refused_too(names, where):
    event = review(text="ab", title=None)
    if where == "text":
        event = review(text="a" * 90_000, title="\x00" * 99_000, locale="\x00" * 60_000)
    headers = (("tracestate", b"a" * (1_000_000 if where == "header" else 0)),)
    with pytest.raises(BadEvent, match="expected at most 1000000 bytes, got 1"):
        pseudonymous(message("reviews", event, key=b"u1", headers=headers), names)


# --- copying -------------------------------------------------------------------------------------


class Log:
    """A Reader of one partition in memory: what is not committed is read again by the next."""

    place = TopicPartition("raw-clickstream", 0)

    def __init__(self, messages: list[Any]) -> None:
        self.records = [
            SimpleNamespace(
                topic=f"raw-{m.topic}",
                partition=0,
                offset=offset,
                timestamp=NOW_MS,
                key=m.key,
                value=m.value,
                headers=m.headers,
            )
            for offset, m in enumerate(messages)
        ]
        self.at = self.committed = 0
        self.refuses = False

    def restarted(self) -> None:
        self.at = self.committed

    async def getmany(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, Any]:
        batch = self.records[self.at : self.at + 3]
        self.at += len(batch)
        return {self.place: batch} if batch else {}

    def assignment(self) -> Collection[TopicPartition]:
        return [self.place]

    async def position(self, place: TopicPartition) -> int:
        return self.at

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        if self.refuses:
            raise CommitFailedError
        self.committed = offsets[self.place]


def copying(names: Pseudonymiser, ours: Outbox, beside: Outbox) -> Pseudonymise:
    letters = DeadLetters(beside, "1", lambda *_: None)
    return Pseudonymise(names, ours, letters, "raw-", lambda *_: None)


async def copy_all(edge: Pseudonymise, log: Log) -> None:
    while await edge.step(log):
        pass


def clicks(n: int) -> list[Any]:
    return [message("clickstream", interaction(event_id=f"e{number}")) for number in range(n)]


async def test_what_arrived_is_committed_and_a_bad_message_stays_beside_the_raw_ones(names):
    log = Log([*clicks(2), message("clickstream", b"{", key=b"anna"), *clicks(1)])
    ours, beside = Outbox(), Outbox()
    edge = copying(names, ours, beside)
    assert [await edge.step(log) for _ in range(3)] == [3, 1, 0]
    assert log.committed == 4
    assert [json.loads(o.value or b"")["event_id"] for o in ours.sent] == ["e0", "e1", "e0"]
    (letter,) = beside.sent
    assert (letter.topic, letter.key, letter.value) == ("dead-letters", b"anna", b"{")


async def test_killed_at_any_point_every_event_arrives_and_in_order(names):
    for dies_after in range(9):
        log, ours, beside = Log(clicks(9)), Outbox(), Outbox()
        ours.dies_after = dies_after
        with pytest.raises(Killed):
            await copy_all(copying(names, ours, beside), log)
        assert log.committed <= len(ours.sent)
        log.restarted()
        ours.dies_after = None
        await copy_all(copying(names, ours, beside), log)
        arrived = [json.loads(o.value or b"")["event_id"] for o in ours.sent]
        # Repeats of an event follow their first; each event's bytes are always the same.
        assert list(dict.fromkeys(arrived)) == [f"e{n}" for n in range(9)]
        assert len({o.value for o in ours.sent}) == 9


async def test_a_broker_that_refuses_holds_the_commit_back(names):
    log, ours = Log(clicks(3)), Outbox()
    ours.failures = 1
    assert await copying(names, ours, Outbox()).step(log) == 3
    assert len(ours.sent) == 4
    assert log.committed == 3


async def test_partitions_that_were_taken_away_are_anothers_to_commit(names):
    log, ours = Log(clicks(4)), Outbox()
    log.refuses = True
    edge = copying(names, ours, Outbox())
    assert await edge.step(log) == 3
    assert log.committed == 0
    log.refuses = False
    assert await edge.step(log) == 1
    assert log.committed == 4


# --- commands and rights -------------------------------------------------------------------------


def test_the_command_prints_a_users_names(tmp_path, monkeypatch, capsys, rotated):
    monkeypatch.setenv("PREFSTREAM_PSEUDONYM_KEY_FILE", str(tmp_path / "keys"))
    assert run(["pseudonym", "anna"]) == 0
    assert capsys.readouterr().out.split() == rotated.all_of("anna")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["pseudonym", "anna"], "pseudonym_key_file"),
        (["pseudonymise"], "pseudonym_key_file"),
        (["forget"], "'--key'"),
        (["forget", "anna", "--key", "a"], "'--key'"),
        (["forget", "anna", "--gone", "--no-wait"], "'--gone'"),
        (["forget", "--key", "a", "--no-wait"], "'--key'"),
        (["topics", "acls", "edge", "--user", "edge"], "pseudonym_key_file"),
    ],
)
def test_a_command_says_what_it_lacks(command, said, capsys):
    assert run(command) == 2
    assert said in capsys.readouterr().err


def test_raw_topics_must_be_others_than_ours(tmp_path, monkeypatch, capsys, names):
    monkeypatch.setenv("PREFSTREAM_PSEUDONYM_KEY_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("PREFSTREAM_PSEUDONYM_RAW_PREFIX", "")
    assert run(["pseudonymise"]) == 2
    assert "pseudonym_raw_prefix=''" in capsys.readouterr().err


def test_the_edge_may_read_raw_topics_and_write_ours_and_no_more(tmp_path, names):
    settings = load_settings(
        topic_prefix="shop-",
        pseudonym_raw_prefix="web-",
        pseudonym_key_file=tmp_path / "keys",
    )
    topics = {"clickstream", "searches", "reviews", "users"}
    assert set(rules_of("edge", settings)) == {
        *(Rule("topic", f"web-{topic}", "Read") for topic in topics),
        *(Rule("topic", f"shop-{topic}", "Write") for topic in topics),
        Rule("topic", "web-dead-letters", "Write"),
        Rule("group", "shop-prefstream-pseudonymise", "Read"),
        Rule("group", "shop-prefstream-pseudonymise-users-2026a", "Read"),
    }

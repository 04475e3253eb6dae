"""What a log line looks like, and who is kept quiet."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.core.events import BadEvent
from stream.logs import OURS, QUIET, setup_logging, tell_uncaught

ROOT = Path(__file__).resolve().parents[2]
LOGGERS = ("log.", "self.log.")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    names = ("", *QUIET, *OURS)
    root = logging.getLogger()
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_a_json_line_is_one_object_with_the_error_inside(capsys):
    setup_logging("info", "json", tier="encode")
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        logging.getLogger("stream.agents").exception("dead letter: topic=%s n=%d", "搜索", 2)

    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert record["message"] == "dead letter: topic=搜索 n=2"
    assert (record["level"], record["logger"]) == ("error", "encode/stream.agents")
    assert record["time"].endswith("+00:00")
    assert "RuntimeError: two\nlines" in record["error"]


def test_a_console_line_has_level_logger_and_message(capsys):
    setup_logging("info")
    logging.getLogger("stream.app").warning("no broker yet: retry_s=%s", 1)
    assert "WARNING stream.app: no broker yet: retry_s=1" in capsys.readouterr().err


def test_below_the_level_nothing_is_written(capsys):
    setup_logging("warning")
    logging.getLogger("stream.app").info("hello")
    logging.getLogger("faust").info("hello")
    assert capsys.readouterr().err == ""


def test_a_root_logger_at_debug_does_not_wake_the_libraries():
    setup_logging("warning")
    logging.getLogger().setLevel(logging.DEBUG)  # as Faust's spinner does
    for name in ("aiokafka.consumer.fetcher", "faust.tables", "mode.worker", "stream.app"):
        assert not logging.getLogger(name).isEnabledFor(logging.INFO)


def test_debug_is_for_our_own_code():
    setup_logging("debug")
    assert logging.getLogger("stream.agents.encode").isEnabledFor(logging.DEBUG)
    assert not logging.getLogger("aiokafka.conn").isEnabledFor(logging.INFO)


def test_a_second_call_does_not_double_the_lines(capsys):
    setup_logging("info")
    setup_logging("info")
    logging.getLogger("stream.app").info("ready")
    assert capsys.readouterr().err.count("ready") == 1


def test_the_client_says_one_thing_once_in_ten_seconds_and_how_often_it_was(capsys):
    setup_logging("info")
    client = logging.getLogger("aiokafka.conn")

    def say(at_s: float, text: str, node: int) -> None:
        record = client.makeRecord(client.name, logging.ERROR, "", 0, text, (node,), None)
        record.created = 1_000_000 + at_s
        client.handle(record)

    for at_s in (0, 1, 5):
        say(at_s, "no connection to node %d", int(at_s))
    say(5, "no metadata from node %d", 2)
    say(10, "no connection to node %d", 7)
    say(11, "no connection to node %d", 8)
    lines = [line.split(": ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "no connection to node 0",
        "no metadata from node 2",
        "no connection to node 7 (2 more like this before)",
    ]


def test_our_own_loggers_are_never_cut_short(capsys):
    setup_logging("info")
    for _ in range(3):
        logging.getLogger("stream.worker").error("the same")
    assert capsys.readouterr().err.count("the same") == 3


def json_line(capsys) -> dict[str, object]:
    (line,) = capsys.readouterr().err.splitlines()
    found: dict[str, object] = json.loads(line)
    return found


def test_topic_partition_and_offset_are_fields_of_their_own(capsys):
    setup_logging("info", "json")
    logging.getLogger("stream.dead_letters").warning(
        "dead letter: reason=%s stage=%s topic=%s partition=%s offset=%s n_batch=%s: %s",
        *("bad_event", "preferences", "clickstream", 3, 41, 7, "topic=other lacks `item_id`"),
    )
    record = json_line(capsys)
    told = ("reason", "stage", "topic", "partition", "offset", "n_batch")
    assert [record[name] for name in told] == ["bad_event", "preferences", "clickstream", 3, 41, 7]


def test_what_a_message_does_not_tell_is_no_field(capsys):
    setup_logging("info", "json")
    logging.getLogger("stream.worker").info("running: topics=a,b subtopic=c topic=")
    assert set(json_line(capsys)) == {"time", "level", "logger", "message"}


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize(
    "error", [KeyError("anna"), ValueError("bad int: 'anna'"), AssertionError("anna")], ids=repr
)
def test_an_error_that_may_quote_an_event_is_told_by_kind_and_place(capsys, style, error):
    setup_logging("debug", style)

    def look_up() -> None:
        raise error

    try:
        try:
            look_up()
        except Exception as cause:
            raise RuntimeError("the batch failed") from cause
    except RuntimeError:
        logging.getLogger("stream.worker").exception("Crashed reason=%r (%s)", error, error)
    said = capsys.readouterr().err
    assert "anna" not in said
    assert said.count(type(error).__name__) >= 3
    assert "look_up" in said
    assert "RuntimeError: the batch failed" in said


def test_what_ends_a_process_is_told_so_too(capsys):
    setup_logging("info", "json")
    tell_uncaught(KeyError, KeyError("anna"), None)
    record = json_line(capsys)
    assert (record["level"], record["error"]) == ("critical", "KeyError")


def test_our_own_errors_speak_for_themselves(capsys):
    setup_logging("info")
    try:
        raise BadEvent("expected `item_id`")
    except BadEvent as error:
        logging.getLogger("stream.worker").exception("refused: %s", error)
    said = capsys.readouterr().err
    assert "refused: expected `item_id`" in said
    assert "BadEvent: expected `item_id`" in said


def test_no_log_line_is_given_what_users_are_or_say():
    """Of the syntax: what is named so holds ids, texts or payloads."""
    private = {"user_id", "user", "users", "query", "text", "title", "value", "key", "raw", "row"}
    private |= {"payload", "event", "message", "interests", "record", "draft", "settings"}
    found, n_calls = [], 0
    for path in sorted([*(ROOT / "stream").rglob("*.py"), *(ROOT / "models").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func).startswith(LOGGERS)):
                continue
            n_calls += 1
            # A part of a message that is no content of it may be told: its place.
            given = {ast.unparse(argument).split(".")[-1] for argument in node.args[1:]}
            found += [f"{path.name}: {name}" for name in sorted(given & private)]
    assert n_calls > 20
    # What is wrong with a changelog, by topic and offset.
    assert found == ["wholeness.py: text"]

"""What a log line looks like, and who is kept quiet."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from stream.logs import OURS, QUIET, setup_logging


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
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("stream.agents").exception("dead letter: topic=%s n=%d", "搜索", 2)

    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert record["message"] == "dead letter: topic=搜索 n=2"
    assert (record["level"], record["logger"]) == ("error", "encode/stream.agents")
    assert record["time"].endswith("+00:00")
    assert "ValueError: two\nlines" in record["error"]


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

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

import json
import subprocess
import sys

import pytest

from stream.bench.sizes import FULL
from stream.cli import run
from stream.commands.logs import LogFormat
from stream.formats import FORMATS

COMMANDS = [
    ["demo"],
    ["broker"],
    ["worker"],
    ["topics", "create"],
    ["topics", "check"],
    ["topics", "list"],
    ["replay"],
    ["validate"],
    ["dead-letters", "list"],
    ["dead-letters", "redrive"],
    ["explain"],
    ["forget"],
    ["schema"],
    ["train", "churn"],
    ["train", "encoder"],
    ["train", "sentiment"],
    *(["bench", figure.replace("_", "-")] for figure in (*FULL, "all")),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command, capsys):
    assert run([*command, "--help"]) == 0
    assert f"Usage: prefstream {' '.join(command)}" in capsys.readouterr().out


def test_the_help_names_every_command(capsys):
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert {command[0] for command in COMMANDS} <= set(shown.split())


def test_without_arguments_the_help_is_the_message(capsys):
    assert run([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_the_version_is_the_package_s(capsys):
    assert run(["--version"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("prefstream 0.")
    assert told.endswith(("(native fold)\n", "(Python fold)\n"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nonsense"], "'nonsense'"),
        (["demo", "--rate", "fast"], "'--rate'"),
        (["demo", "--seed", "-1"], "'--seed'"),
        (["worker", "--tier", "third"], "'encode', 'preference', 'users', 'neighbours', 'all'"),
        (["explain"], "'USER'"),
        (["schema", "orders"], "clickstream, searches, reviews"),
        (["validate", "/no/such/file"], "/no/such/file"),
        (["replay", "/no/such/file", "--format", "jsonl"], "/no/such/file"),
        (["replay", __file__], "'--format'"),
        (["replay", __file__, "--format", "csv"], "'jsonl', 'amazon'"),
        (["validate", __file__, "--topic", "orders"], "'orders'"),
        (["dead-letters", "list", "--limit", "0"], "'--limit'"),
        (["bench", "ingest", "--rounds", "0"], "'--rounds'"),
        (["bench", "nothing"], "'nothing'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_argument_is_one_line_that_names_it(arguments, named, capsys):
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("prefstream: ")
    assert named in said.err


@pytest.mark.parametrize("command", [["explain", "u1"], ["worker"], ["demo"]], ids=" ".join)
def test_a_bad_setting_is_one_line_that_names_it_and_its_value(command, capsys, monkeypatch):
    monkeypatch.setenv("PREFSTREAM_PARTITIONS", "many")
    assert run(command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "partitions='many'" in said


@pytest.mark.parametrize(
    "command",
    [["explain", "u1"], ["forget", "u1"], ["topics", "check"], ["dead-letters", "list"]],
    ids=" ".join,
)
def test_an_absent_broker_is_one_line_that_names_it(command, capsys, monkeypatch):
    # Nobody may listen below 1024 without being asked to: refused at once.
    monkeypatch.setenv("PREFSTREAM_BROKER", "127.0.0.1:1")
    assert run(command) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "127.0.0.1:1" in said


def test_the_schema_of_a_topic_is_json(capsys):
    assert run(["schema", "clickstream"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"event_id", "user_id", "item_id"} <= set(schema["required"])


def test_the_help_loads_nothing_heavy():
    heavy = ["torch", "faust", "transformers", "aiokafka", "numpy", "pydantic_settings", "faiss"]
    code = f"""
import sys
from stream.cli import run
run(["--help"])
assert not [module for module in {heavy} if module in sys.modules]
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_the_formats_offered_are_those_that_can_be_read():
    assert {each.value for each in LogFormat} == set(FORMATS)


def test_validate_counts_by_topic_and_names_the_line_of_each_error(tmp_path, capsys):
    good = {"event_id": "1", "user_id": "u", "item_id": "i", "type": "view", "event_time_ms": 5}
    file = tmp_path / "clicks.jsonl"
    file.write_text("\n".join(map(json.dumps, [good, {**good, "type": "stare"}])))
    assert run(["validate", str(file), "--topic", "clickstream"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("line 2: clickstream: ")
    assert "1 ok (clickstream)" in said.out
    file.write_text(json.dumps(good))
    assert run(["validate", str(file), "--topic", "clickstream"]) == 0

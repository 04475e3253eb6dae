"""The operations guide names what there is, and its dump of a topic is read back as it says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from builders import NOW_MS

from stream.core import item_rows, user_rows
from stream.groups import group_of
from stream.settings import Settings
from stream.topics import DAY_MS, TOPICS, TopicSpec
from stream.worker import PROCESSES

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "deploy/OPERATIONS.md").read_text()
VALUES = yaml.safe_load((ROOT / "deploy/helm/prefstream/values.yaml").read_text())
CODE = "\n".join(
    [*re.findall(r"`([^`]+)`", GUIDE), *re.findall(r"^ {4,}(.+)$", GUIDE, re.MULTILINE)]
)


def commands() -> list[str]:
    """Return every line that begins with our program, without what is said of it."""
    lines = re.findall(r"(?:^|\n)\s*(prefstream [^\n#]+)", CODE)
    return sorted({line.strip() for line in lines if " worker` " not in line})


@pytest.mark.parametrize("line", commands())
def test_every_command_is_there_with_its_options(line):
    words = shlex.split(line)[1:]
    options = [word for word in words if word.startswith("--")]
    n_names = 2 if words[0] in {"topics", "dead-letters", "bench", "train", "models"} else 1
    asked = [sys.executable, "-m", "stream.cli", *words[:n_names], "--help"]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [option for option in options if option not in done.stdout] == []


def test_every_setting_that_it_names_is_one():
    named = {name.lower() for name in re.findall(r"PREFSTREAM_([A-Z_]+)", GUIDE)}
    assert named <= set(Settings.model_fields)


def test_every_value_that_it_sets_is_one_of_the_chart_s():
    for path in re.findall(r"--set ([\w.]+)=", GUIDE):
        first, *rest = path.split(".")
        assert first in VALUES
        assert rest[0] in (Settings.model_fields if first == "settings" else VALUES[first])


def test_every_test_and_file_that_it_names_is_there():
    paths = re.findall(r"`((?:tests|deploy|prometheus)/[\w/.]+)`", GUIDE)
    assert paths
    there = [(ROOT / path).exists() or (ROOT / "deploy" / path).exists() for path in paths]
    assert [path for path, is_there in zip(paths, there, strict=True) if not is_there] == []


def test_every_fault_that_it_names_has_its_test():
    numbers = re.findall(r"`tests/faults` ([\d, ]+)", GUIDE)
    sources = "".join(path.read_text() for path in (ROOT / "tests/faults").glob("test_*.py"))
    for number in re.findall(r"\d+", " ".join(numbers)):
        assert f"def test_{int(number):02d}_" in sources


def test_every_alert_that_it_names_is_there():
    alerts = (ROOT / "deploy/prometheus/alerts.yml").read_text()
    named = set(re.findall(r"\bPrefstream[A-Z]\w+", GUIDE))
    assert named
    assert [alert for alert in named if f"alert: {alert}\n" not in alerts] == []


def test_the_groups_that_it_resets_are_ours():
    loops = re.findall(
        r"for tier in ([a-z ]+); do\n\s+kafka-consumer-groups\.sh .*?--group (\S+)", GUIDE
    )
    assert len(loops) == 2
    for tiers, group in loops:
        for tier in tiers.split():
            assert tier in PROCESSES
            assert group.replace("$tier", tier) == group_of(Settings(), tier)


def test_what_it_deletes_before_a_change_of_encoder_is_what_holds_vectors_or_follows_from_them():
    (before, _) = re.findall(r"for topic in ([a-z -]+); do\n\s+kafka-topics\.sh", GUIDE)
    derived = {spec.name for spec in TOPICS if spec.role == "derived"}
    assert set(before.split()) == derived


def kept(spec: TopicSpec) -> str:
    days = spec.retention_ms / DAY_MS
    told = f"{days:g} day{'s' if days != 1 else ''}"
    return {"delete": told, "compact": "latest", "compact,delete": f"latest, {told}"}[spec.cleanup]


@pytest.mark.parametrize("spec", TOPICS, ids=lambda spec: spec.name)
def test_what_is_personal_and_how_long_it_is_kept_is_told_of_every_topic(spec):
    (line,) = re.findall(rf"^\| `{spec.name}` \| (?:yes|no) \|.*$", GUIDE, re.MULTILINE)
    _, personal, _, how_long, erased = (cell.strip() for cell in line.strip("|").split("|"))
    assert how_long == kept(spec)
    # Who is named in a key can be erased by a tombstone where the topic is compacted.
    if spec.key == "user_id":
        assert personal == "yes"
        assert erased == ("tombstone" if "compact" in spec.cleanup else "expires")


def test_versions_of_rows_are_told_by_the_line_that_it_shows():
    (line,) = re.findall(r"^    (python -c '.*')$", GUIDE, re.MULTILINE)
    command = [sys.executable, *shlex.split(line)[1:]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == [str(user_rows.VERSION), str(item_rows.VERSION)], done.stderr


def test_a_dump_of_a_topic_is_what_replay_reads(tmp_path):
    # As kcat prints values, one a line; an erased user's is an empty one.
    acts = [
        {
            "event_id": f"e{n}",
            "user_id": f"u{n}",
            "item_id": "boots",
            "type": "click",
            "event_time_ms": NOW_MS,
        }
        for n in range(3)
    ]
    dump = tmp_path / "clickstream.jsonl"
    dump.write_text("".join(json.dumps(act) + "\n" for act in acts) + "\n")
    (line,) = {line for line in commands() if line.startswith("prefstream validate ")}
    words = [word.replace("$topic", "clickstream") for word in shlex.split(line)[1:]]
    command = [sys.executable, "-m", "stream.cli", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 ok (clickstream)" in done.stdout

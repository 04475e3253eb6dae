"""What the README names must be what the program has."""

from __future__ import annotations

import re
from pathlib import Path

from stream.settings import Settings
from stream.topics import TOPICS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_every_setting_is_in_the_readme_with_its_meaning():
    for name, field in Settings.model_fields.items():
        row = re.search(rf"^\| `PREFSTREAM_{name.upper()}` \|.*$", README, re.MULTILINE)
        assert row, name
        assert field.description
        assert field.description in row.group(), name


def test_every_variable_in_the_readme_is_a_setting():
    named = set(re.findall(r"PREFSTREAM_([A-Z0-9_]+)", README)) - {"CONFIG", "DATA", "NATIVE"}
    assert named <= {name.upper() for name in Settings.model_fields}


def test_every_topic_is_in_the_readme():
    assert [topic.name for topic in TOPICS if f"`{topic.name}`" not in README] == []


def test_every_file_that_the_readme_names_is_there():
    paths = re.findall(r"`((?:stream|models|deploy|tests)/[\w/.]+)`", README)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []

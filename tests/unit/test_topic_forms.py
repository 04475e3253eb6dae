"""The table of topics in others' forms: nothing of it is lost or made up on the way."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise
from typing import Any

import pytest

from stream.cli import run
from stream.settings import Settings
from stream.topic_forms import resource_name, to_commands, to_lines, to_strimzi
from stream.topics import TOPICS

SETTINGS = Settings(topic_prefix="Shop_", partitions=12, replication_factor=3, broker="b:1")


def kafka_topics() -> list[dict[str, Any]]:
    return json.loads(to_strimzi(SETTINGS, "events"))["items"]  # type: ignore[no-any-return]


def test_a_kafka_topic_of_strimzi_is_the_topic_of_the_table() -> None:
    for spec, topic in zip(TOPICS, kafka_topics(), strict=True):
        assert topic["spec"] == {
            "topicName": f"Shop_{spec.name}",
            "partitions": 12,
            "replicas": 3,
            "config": spec.config(),
        }
        assert topic["metadata"]["labels"] == {"strimzi.io/cluster": "events"}


def test_kubernetes_takes_the_resources_names_and_no_two_are_the_same() -> None:
    names = [topic["metadata"]["name"] for topic in kafka_topics()]
    assert names[0] == "shop-clickstream"
    assert len({*names}) == len(TOPICS)


@pytest.mark.parametrize(
    ("topic", "name"), [("a.b-c", "a.b-c"), ("A_b", "a-b"), ("_x_", "x"), ("..x", "x")]
)
def test_what_kubernetes_does_not_take_in_a_name_is_replaced(topic: str, name: str) -> None:
    assert resource_name(topic) == name


def test_a_command_makes_each_topic_with_its_settings() -> None:
    for spec, line in zip(TOPICS, map(shlex.split, to_commands(SETTINGS)), strict=True):
        told = dict(pairwise(line))
        assert told["--topic"] == f"Shop_{spec.name}"
        assert (told["--partitions"], told["--replication-factor"]) == ("12", "3")
        configs = [after for word, after in pairwise(line) if word == "--config"]
        assert configs == [f"{name}={value}" for name, value in spec.config().items()]


def test_the_list_names_every_topic(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["topics", "list"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == to_lines(Settings())
    assert [line.split()[0] for line in printed] == [spec.name for spec in TOPICS]


def test_strimzi_s_form_is_asked_for_with_the_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["topics", "list", "--format", "strimzi", "--cluster", "events"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "List"

"""Rights: what the table of topics gives each role, and nothing else. On Kafka: tests/faults."""

from __future__ import annotations

import json
import shlex

import pytest

from stream.acls import ROLES, Rule, rules_of, to_commands, to_strimzi
from stream.settings import Settings
from stream.topics import TOPICS

SETTINGS = Settings(topic_prefix="shop-", group_prefix="p")


def topics_with(role: str, operation: str) -> set[str]:
    rules = rules_of(role, SETTINGS)  # type: ignore[arg-type]
    return {rule.name for rule in rules if (rule.resource, rule.operation) == ("topic", operation)}


def test_a_shop_writes_its_events_and_sees_nothing_of_others() -> None:
    assert topics_with("shop", "Write") == {
        f"shop-{spec.name}" for spec in TOPICS if spec.role == "in"
    }
    assert {rule.operation for rule in rules_of("shop", SETTINGS)} == {"Write"}


def test_who_takes_our_outputs_reads_them_with_a_group_of_its_own() -> None:
    rules = rules_of("downstream", SETTINGS, group="mailer")
    assert Rule("group", "mailer", "Read") in rules
    assert topics_with("downstream", "Read") == {
        "shop-recommendations",
        "shop-churn-risk",
        "shop-search-results",
        "shop-review-insights",
    }
    assert not topics_with("downstream", "Write")


def test_a_tier_alone_may_no_more_than_it_does() -> None:
    assert "shop-user-state" not in topics_with("encode", "Read")
    assert topics_with("encode", "Write") == {
        "shop-item-embeddings",
        "shop-embedded-texts",
        "shop-dead-letters",
    }
    assert not topics_with("preference", "Write") & {"shop-clickstream", "shop-item-embeddings"}


def test_a_worker_is_all_of_its_tiers() -> None:
    both = {*rules_of("encode", SETTINGS), *rules_of("preference", SETTINGS)}
    assert {rule for rule in both if rule.operation != "Describe"} == {
        rule for rule in rules_of("worker", SETTINGS) if rule.operation != "Describe"
    }


def test_who_erases_users_writes_nothing_but_tombstones_and_reads_nobody_s_acts() -> None:
    assert topics_with("eraser", "Write") == {"shop-users"}
    assert topics_with("eraser", "Read") == {
        *("shop-items", "shop-users", "shop-user-state"),
        *("shop-recommendations", "shop-churn-risk", "shop-search-results"),
    }


def test_nobody_but_the_operator_makes_topics() -> None:
    assert [role for role in ROLES if topics_with(role, "Create")] == ["operator"]


@pytest.mark.parametrize("role", ROLES)
def test_no_right_is_told_twice(role: str) -> None:
    rules = rules_of(role, SETTINGS)  # type: ignore[arg-type]
    assert len(set(rules)) == len(rules)
    read_or_written = {rule[:2] for rule in rules if rule.operation in ("Read", "Write")}
    assert not [r for r in rules if r.operation == "Describe" and r[:2] in read_or_written]


def test_every_topic_has_someone_who_writes_it_and_someone_who_reads_it() -> None:
    assert [spec.name for spec in TOPICS if not (spec.written_by and spec.read_by)] == []


def test_commands_name_the_broker_the_user_and_each_resource_once() -> None:
    rules = rules_of("encode", SETTINGS)
    lines = [shlex.split(line) for line in to_commands(rules, "it's me", "b:1")]
    assert all(
        line[1:6] == ["--bootstrap-server", "b:1", "--add", "--allow-principal", "User:it's me"]
        for line in lines
    )
    assert len(lines) == len({rule[:2] for rule in rules})


def test_a_kafka_user_of_strimzi_holds_the_same_rights() -> None:
    rules = rules_of("preference", SETTINGS)
    user = json.loads(to_strimzi(rules, "u", "shop"))
    assert user["metadata"]["labels"] == {"strimzi.io/cluster": "shop"}
    acls = user["spec"]["authorization"]["acls"]
    found = [
        Rule(acl["resource"]["type"], acl["resource"]["name"], operation)
        for acl in acls
        for operation in acl["operations"]
    ]
    assert found == rules

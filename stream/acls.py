"""The least rights that each role needs on the brokers, from the table of topics.

Topics by whole names, so that a user is let into nothing that is not ours. Nobody but the operator
makes topics. An idempotent producer needs no right on the cluster: to write one topic is enough
(KIP-679, since Kafka 2.8).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from stream.groups import group_of, group_of_acts, group_of_users
from stream.pseudonyms import Pseudonymiser
from stream.topic_forms import STRIMZI_API, STRIMZI_CLUSTER
from stream.topic_names import full_name
from stream.topics import DEAD_LETTERS, ITEMS, TOPICS, USERS, Party

if TYPE_CHECKING:
    from stream.settings import Settings

Resource = Literal["topic", "group"]
Operation = Literal["Read", "Write", "Create", "Describe", "DescribeConfigs"]
Format = Literal["commands", "strimzi"]

Role = Literal["shop", "edge", "worker", "encode", "preference", "downstream", "operator", "eraser"]

TIERS: tuple[Party, ...] = ("encode", "preference", "neighbours")
#: Whom a user on the brokers stands for; the processes of a worker, or of a tier, share one.
ROLES: dict[Role, tuple[Party, ...]] = {
    "shop": ("shop",),
    "edge": (),
    "worker": TIERS,
    "encode": ("encode",),
    "preference": ("preference", "neighbours"),
    "downstream": ("downstream",),
    "operator": ("operator",),
    "eraser": (),
}


class Rule(NamedTuple):
    """A right; ``name`` is the resource's full name."""

    resource: Resource
    name: str
    operation: Operation


def rules_of(role: Role, settings: Settings, group: str = "") -> list[Rule]:
    """Return what a role needs, in order; ``group`` is the full name of one that it reads with
    and that is not ours."""
    rules = {rule for party in ROLES[role] for rule in _of_party(party, settings)}
    if role == "edge":
        rules |= set(_of_edge(settings))
    if role == "eraser":
        rules |= set(_of_eraser(settings))
    if group:
        rules.add(Rule("group", group, "Read"))
    # Whoever may read or write a topic, or read with a group, is told of it anyhow.
    told = {(resource, name) for resource, name, may in rules if may in ("Read", "Write")}
    return sorted(r for r in rules if r.operation != "Describe" or r[:2] not in told)


def _of_party(party: Party, settings: Settings) -> Iterator[Rule]:
    yield from _on_topics(party, settings)
    if party in TIERS:
        # The group also tells how far it has come, which readiness goes by.
        yield Rule("group", group_of(settings, party), "Read")
    if party == "operator":
        for tier in TIERS:
            yield Rule("group", group_of(settings, tier), "Describe")


def _of_edge(settings: Settings) -> Iterator[Rule]:
    """What `prefstream pseudonymise` needs; with the group of the key in use, if there is one."""
    raw, ours = settings.pseudonym_raw_prefix, settings.topic_prefix
    for spec in TOPICS:
        if spec.role == "in" and spec.key == "user_id":
            yield Rule("topic", raw + spec.name, "Read")
            yield Rule("topic", ours + spec.name, "Write")
    yield Rule("topic", raw + DEAD_LETTERS.name, "Write")
    yield Rule("group", group_of_acts(settings), "Read")
    if settings.pseudonym_key_file:
        key_id = Pseudonymiser.read(settings.pseudonym_key_file).key_ids[0]
        yield Rule("group", group_of_users(settings, key_id), "Read")


def _of_eraser(settings: Settings) -> Iterator[Rule]:
    """What `prefstream forget` and `explain` need: who answers users need not run anything."""
    yield Rule("topic", full_name(settings, USERS.name), "Write")
    yield Rule("topic", full_name(settings, ITEMS.name), "Read")
    for spec in TOPICS:
        if spec.personal:
            name = full_name(settings, spec.name)
            # Of the others it tells only until when they are kept.
            yield Rule("topic", name, "Read" if spec.is_erasable else "Describe")
            yield Rule("topic", name, "DescribeConfigs")


def _on_topics(party: Party, settings: Settings) -> Iterator[Rule]:
    for spec in TOPICS:
        name = full_name(settings, spec.name)
        if party in spec.read_by:
            yield Rule("topic", name, "Read")
        if party in spec.written_by:
            yield Rule("topic", name, "Write")
        if party in (*TIERS, "operator"):
            # Before it begins, a worker checks that all topics are as they must be.
            yield Rule("topic", name, "Describe")
            yield Rule("topic", name, "DescribeConfigs")
        if party == "operator":
            yield Rule("topic", name, "Create")


def to_commands(rules: Iterable[Rule], user: str, broker: str) -> list[str]:
    """Return a ``kafka-acls.sh`` command line per resource that adds the rules."""
    return [
        shlex.join(
            [
                "kafka-acls.sh",
                *("--bootstrap-server", broker),
                "--add",
                *("--allow-principal", f"User:{user}"),
                *(part for operation in operations for part in ("--operation", operation)),
                *(f"--{resource}", name),
            ]
        )
        for (resource, name), operations in _by_resource(rules)
    ]


def to_strimzi(rules: Iterable[Rule], user: str, cluster: str) -> str:
    """Return a Strimzi ``KafkaUser`` in JSON, which ``kubectl apply`` takes as it takes YAML.

    ``cluster`` is the name of the ``Kafka`` resource on whose brokers the user is.
    """
    acls = [
        {
            "resource": {"type": resource, "name": name, "patternType": "literal"},
            "operations": operations,
        }
        for (resource, name), operations in _by_resource(rules)
    ]
    found: dict[str, Any] = {
        "apiVersion": STRIMZI_API,
        "kind": "KafkaUser",
        "metadata": {"name": user, "labels": {STRIMZI_CLUSTER: cluster}},
        "spec": {
            "authentication": {"type": "scram-sha-512"},
            "authorization": {"type": "simple", "acls": acls},
        },
    }
    return json.dumps(found, indent=2)


def _by_resource(rules: Iterable[Rule]) -> Sequence[tuple[tuple[Resource, str], list[str]]]:
    found: dict[tuple[Resource, str], list[str]] = {}
    for rule in rules:
        found.setdefault((rule.resource, rule.name), []).append(rule.operation)
    return [*found.items()]

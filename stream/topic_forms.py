"""The table of topics as others make topics from it: Kafka's own tool, or Strimzi's operator."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

from stream.topic_names import full_name
from stream.topics import TOPICS, TopicSpec

if TYPE_CHECKING:
    from stream.settings import Settings

#: Since Strimzi 0.49; the versions before it are gone with 1.0.
STRIMZI_API = "kafka.strimzi.io/v1"
#: Its operators look after what names their cluster in this label, and after nothing else.
STRIMZI_CLUSTER = "strimzi.io/cluster"


def to_lines(settings: Settings) -> list[str]:
    """Return a line per topic: full name, partitions, who it is for, and its Kafka settings."""
    return [
        f"{full_name(settings, spec.name)} partitions={partitions_of(spec, settings)} "
        f"role={spec.role} {' '.join(f'{k}={v}' for k, v in spec.config().items())}"
        for spec in TOPICS
    ]


def to_commands(settings: Settings) -> list[str]:
    """Return a ``kafka-topics.sh`` command line per topic that makes it where it is missing."""
    return [
        shlex.join(
            [
                "kafka-topics.sh",
                *("--bootstrap-server", settings.broker),
                *("--create", "--if-not-exists", "--topic", full_name(settings, spec.name)),
                *("--partitions", str(partitions_of(spec, settings))),
                *("--replication-factor", str(settings.replication_factor)),
                *(part for pair in spec.config().items() for part in ("--config", "=".join(pair))),
            ]
        )
        for spec in TOPICS
    ]


def to_strimzi(settings: Settings, cluster: str) -> str:
    """Return a list of Strimzi's ``KafkaTopic`` in JSON, which ``kubectl apply`` takes as YAML.

    ``cluster`` is the name of the ``Kafka`` resource whose brokers they are for.
    """
    found = {
        "apiVersion": "v1",
        "kind": "List",
        "items": [_kafka_topic(spec, settings, cluster) for spec in TOPICS],
    }
    return json.dumps(found, indent=2)


def partitions_of(spec: TopicSpec, settings: Settings) -> int:
    """Return how many partitions a topic has."""
    return spec.partitions or settings.partitions


def resource_name(topic: str) -> str:
    """Return a name that Kubernetes takes for the resource of a topic: Kafka allows more."""
    return re.sub(r"[^a-z0-9.-]", "-", topic.lower()).strip("-.")


def _kafka_topic(spec: TopicSpec, settings: Settings, cluster: str) -> dict[str, Any]:
    name = full_name(settings, spec.name)
    return {
        "apiVersion": STRIMZI_API,
        "kind": "KafkaTopic",
        "metadata": {"name": resource_name(name), "labels": {STRIMZI_CLUSTER: cluster}},
        "spec": {
            "topicName": name,
            "partitions": partitions_of(spec, settings),
            "replicas": settings.replication_factor,
            "config": spec.config(),
        },
    }

"""What the chart knows of the program, from the program: its topics, rights, ports and settings.

python deploy/helm/generate.py    # writes both files; a test says when that is due
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stream.acls import Rule, rules_of
from stream.settings import Settings
from stream.tiers.encode import EncodeTier
from stream.tiers.neighbours import NeighboursTier
from stream.tiers.preference import PreferenceTier
from stream.topic_forms import STRIMZI_API
from stream.topic_names import SOURCES
from stream.topics import TOPICS
from stream.worker import PROCESSES, TIERS, metrics_port

CHART = Path(__file__).parent / "prefstream"
PROGRAM = CHART / "files/program.json"
SCHEMA = CHART / "values.schema.json"
#: Those that the templates set by themselves: names, folders, ports and credentials.
OWNED = {
    "instance_id",
    "state_dir",
    "metrics_host",
    "metrics_port",
    "sasl_username",
    "sasl_password",
    "sasl_password_file",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_key_file",
    "ssl_key_password",
}
_READ_BY = {"encode": EncodeTier, "preference": PreferenceTier, "neighbours": NeighboursTier}
_KEPT = {"type", "enum", "minimum", "exclusiveMinimum", "maximum", "additionalProperties"}


def program() -> dict[str, Any]:
    """Return what the templates look up; names are without prefixes, which are settings."""
    return {
        "processes": {name: _process(name) for name in PROCESSES},
        "topics": [
            {"name": spec.name, "partitions": spec.partitions, "config": spec.config()}
            for spec in TOPICS
        ],
        # Those that a second state shares with the first.
        "sources": sorted(SOURCES),
        "rights": {role: _rights(role) for role in ("encode", "preference", "operator")},
        "strimzi": STRIMZI_API,
    }


def settings_schema() -> dict[str, Any]:
    """Return the JSON Schema of the settings that a person may give the chart."""
    described = Settings.model_json_schema()["properties"]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: {"description": field.description, **_bounds(described[name])}
            for name, field in Settings.model_fields.items()
            if name not in OWNED
        },
    }


def schema() -> dict[str, Any]:
    """Return the schema of the values: what is written by hand, and the settings."""
    found: dict[str, Any] = json.loads(SCHEMA.read_text())
    found["$defs"]["settings"] = settings_schema()
    return found


def _process(name: Any) -> dict[str, Any]:
    (tier,) = [tier for tier, names in TIERS.items() if names == (name,)]
    return {
        "tier": tier,
        "port": metrics_port(Settings(), name),
        "topics": list(_READ_BY[name].topics),
    }


def _rights(role: Any) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], list[str]] = {}
    for rule in rules_of(role, Settings(topic_prefix="", group_prefix="")):
        found.setdefault(_resource(rule), []).append(rule.operation)
    return [
        {"resource": resource, "name": name, "operations": operations}
        for (resource, name), operations in found.items()
    ]


def _resource(rule: Rule) -> tuple[str, str]:
    return rule.resource, rule.name


def _bounds(described: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in described.items() if key in _KEPT}
    if kept.get("additionalProperties") is True:
        del kept["additionalProperties"]
    return kept


def main() -> None:
    """Write both files."""
    for path, value in ((PROGRAM, program()), (SCHEMA, schema())):
        path.write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main()

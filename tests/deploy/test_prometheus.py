"""Scrape config, alert rules and the dashboard name what exists and are what Prometheus takes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream.metrics import Metrics

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DESCRIBED = {d.name: d for d in Metrics.describe()}
#: What Prometheus adds to every series, and what an alert carries.
ADDED = {"instance", "job", "tier", "le"}
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (package prometheus)"
)


def dashboard() -> dict[str, Any]:
    path = DEPLOY / "grafana/dashboards/prefstream.json"
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def panel_expressions() -> Iterator[tuple[str, str]]:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


EXPRESSIONS = [
    *panel_expressions(),
    *((alert["alert"], alert["expr"]) for alert in alerts()),
]


def base(name: str) -> str:
    """The described metric that a series belongs to."""
    if name in DESCRIBED:
        return name
    return re.sub(r"_(bucket|sum|count)$", "", name)


@pytest.mark.parametrize(("where", "expr"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_every_metric_in_a_panel_or_alert_exists_with_its_labels(where, expr):
    used = re.findall(r"\b(prefstream_\w+)(?:\{([^}]*)\})?", expr)
    assert used or re.match(r"up|rate\(process_|process_", expr)
    for name, matchers in used:
        metric = DESCRIBED[base(name)]
        assert (metric.type == "histogram") == (base(name) != name)
        labels = set(re.findall(r"(\w+)\s*[=!]", matchers))
        assert labels <= {*metric.labels, *ADDED}
    grouped = {
        label.strip() for group in re.findall(r"by \(([^)]*)\)", expr) for label in group.split(",")
    }
    every_label = {label for name, _ in used for label in DESCRIBED[base(name)].labels}
    assert grouped <= {*every_label, *ADDED}


def test_every_metric_is_on_the_dashboard():
    shown = {
        base(n) for _, expr in panel_expressions() for n in re.findall(r"prefstream_\w+", expr)
    }
    assert set(DESCRIBED) - shown == set()


def test_panels_have_their_own_ids_and_do_not_overlap():
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_legends_name_labels_that_the_expression_keeps():
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            groups = re.findall(r"by \(([^)]*)\)", target["expr"])
            if groups:
                kept = {label.strip() for label in groups[0].split(",")}
                assert legend <= kept | {"le"}, panel["title"]


def test_the_dashboard_is_provisioned_where_compose_mounts_it():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    mounts = dict(
        mount.split(":")[:2] for mount in compose["services"]["grafana"]["volumes"] if "./" in mount
    )
    provider = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/dashboards/prefstream.yml").read_text()
    )["providers"][0]
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    home = compose["services"]["grafana"]["environment"][
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"
    ]
    assert home == f"{provider['options']['path']}/prefstream.json"


def test_grafana_asks_the_prometheus_of_compose_as_often_as_it_scrapes():
    source = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"][0]
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]


def test_every_alert_says_what_to_do_and_has_a_test():
    tests = (DEPLOY / "prometheus/alerts.test.yml").read_text()
    for alert in alerts():
        assert set(alert["annotations"]) == {"summary", "description", "runbook"}
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["alert"] in tests


@needs_promtool
@pytest.mark.parametrize(
    "command", [["check", "config", "prometheus.yml"], ["test", "rules", "alerts.test.yml"]]
)
def test_promtool_takes_the_config_and_the_alerts_do_as_their_tests_say(command):
    done = subprocess.run(
        ["promtool", *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_every_panel_expression_is_valid(tmp_path):
    rules = [
        {"record": f"panel:{n}", "expr": expr.replace("$__rate_interval", "1m")}
        for n, (_, expr) in enumerate(panel_expressions())
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

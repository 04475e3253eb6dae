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

from deploy.grafana import generate
from stream.metrics import Metrics
from stream.settings import Settings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DESCRIBED = {d.name: d for d in Metrics.describe()}
RULE_TESTS = sorted((DEPLOY / "prometheus").glob("*.test.yml"))
FIRING = re.compile(r'ALERTS\{alertname="(\w+)", alertstate="firing"\}')
#: What Prometheus adds to every series, and what an alert carries.
ADDED = {"instance", "job", "tier", "le"}
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (package prometheus)"
)


GRAFANA = DEPLOY / "grafana/dashboards"
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.name: json.loads(path.read_text()) for path in sorted(GRAFANA.glob("*.json"))
}
every_dashboard = pytest.mark.parametrize("name", DASHBOARDS)


def panels(name: str) -> list[dict[str, Any]]:
    """Return what draws something: all but rows and texts."""
    found = DASHBOARDS[name]["panels"]
    return [panel for panel in found if panel["type"] not in {"row", "text"}]


def panel_expressions() -> Iterator[tuple[str, str]]:
    for name in DASHBOARDS:
        for panel in panels(name):
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target["expr"]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


EXPRESSIONS = [
    *panel_expressions(),
    *((rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()),
]


def base(name: str) -> str:
    """The described metric that a series belongs to."""
    if name in DESCRIBED:
        return name
    return re.sub(r"_(bucket|sum|count)$", "", name)


@pytest.mark.parametrize(("where", "expr"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_every_metric_in_a_panel_or_alert_exists_with_its_labels(where, expr):
    used = re.findall(r"\b(prefstream_\w+)(?:\{([^}]*)\})?", expr)
    others = re.findall(r"\b(up\{|process_\w+|ALERTS\{|prefstream:[\w:]+)", expr)
    assert used or others
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert {name for name in others if name.startswith("prefstream:")} <= recorded
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


def test_every_metric_is_on_a_dashboard():
    shown = {
        base(n) for _, expr in panel_expressions() for n in re.findall(r"prefstream_\w+", expr)
    }
    assert set(DESCRIBED) - shown == set()


def test_the_dashboards_are_as_their_modules_say():
    assert set(DASHBOARDS) == set(generate.DASHBOARDS)
    for name, dashboard in generate.DASHBOARDS.items():
        text = (GRAFANA / name).read_text()
        assert text == generate.written(dashboard), "run: python -m deploy.grafana.generate"


@every_dashboard
def test_panels_have_their_own_ids_and_do_not_overlap(name):
    placed = DASHBOARDS[name]["panels"]
    assert len({panel["id"] for panel in placed}) == len(placed)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in placed):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


@every_dashboard
def test_legends_name_labels_that_the_expression_keeps(name):
    for panel in panels(name):
        for target in panel["targets"]:
            legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            groups = re.findall(r"by \(([^)]*)\)", target["expr"])
            if groups:
                kept = {label.strip() for label in groups[0].split(",")}
                assert legend <= kept | {"le"}, panel["title"]


@every_dashboard
def test_a_panel_says_its_unit_and_what_to_do_and_has_a_name_of_its_own(name):
    titles = [panel["title"] for panel in panels(name)]
    assert len(set(titles)) == len(titles)
    for panel in panels(name):
        assert len(panel["description"]) > 5, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        if panel["type"] == "stat":
            assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"]


@every_dashboard
def test_links_lead_to_the_other_dashboards_and_variables_are_all_used(name):
    uids = {dashboard["uid"] for dashboard in DASHBOARDS.values()}
    assert len(uids) == len(DASHBOARDS)
    dashboard = DASHBOARDS[name]
    (link,) = dashboard["links"]
    assert all(set(link["tags"]) <= set(other["tags"]) for other in DASHBOARDS.values())
    for panel in panels(name):
        for link in panel.get("links", []):
            assert link["url"].removeprefix("/d/").split("?")[0] in uids - {dashboard["uid"]}
    text = json.dumps(dashboard["panels"])
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert {used for used in variables if f"${used}" in text or f"${{{used}}}" in text} == variables
    asked = set(re.findall(r"\$\{?(\w+)", " ".join(e for _, e in panel_expressions())))
    assert asked <= {"instance", "group", "__rate_interval"}


def test_settings_that_panels_name_are_ours():
    text = " ".join((GRAFANA / name).read_text() for name in DASHBOARDS)
    named = {name.lower() for name in re.findall(r"PREFSTREAM_([A-Z_]+)", text)}
    assert named
    assert named <= set(Settings.model_fields)


def test_the_dashboards_are_provisioned_where_compose_mounts_them():
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
    folder, name = home.rsplit("/", 1)
    assert folder == provider["options"]["path"]
    assert name in DASHBOARDS


def test_grafana_asks_the_prometheus_of_compose_as_often_as_it_scrapes():
    source = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"][0]
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]


def test_every_alert_says_what_to_do():
    for alert in alerts():
        assert set(alert["annotations"]) == {"summary", "description", "runbook"}
        assert len(alert["annotations"]["runbook"]) > 100, alert["alert"]
        assert alert["labels"]["severity"] in {"page", "ticket"}


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_quiet():
    firing: set[str] = set()
    quiet: set[str] = set()
    for path in RULE_TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test.get("alert_rule_test", []):
                (firing if case["exp_alerts"] else quiet).add(case["alertname"])
            for case in test.get("promql_expr_test", []):
                if named := FIRING.fullmatch(case["expr"]):
                    (firing if case["exp_samples"] else quiet).add(named[1])
    names = {alert["alert"] for alert in alerts()}
    assert len(names) == len(alerts())
    assert firing == names
    assert quiet == names


@needs_promtool
@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "prometheus.yml"],
        *(["test", "rules", path.name] for path in RULE_TESTS),
    ],
    ids=lambda command: command[-1],
)
def test_promtool_takes_the_config_and_the_alerts_do_as_their_tests_say(command):
    done = subprocess.run(
        ["promtool", *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_every_panel_expression_is_valid(tmp_path):
    recorded = [
        {"record": f"panel:{n}", "expr": expr.replace("$__rate_interval", "1m")}
        for n, (_, expr) in enumerate(panel_expressions())
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

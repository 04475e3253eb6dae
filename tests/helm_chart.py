"""The chart as a cluster would be given it: rendered by Helm's own library, or by its program."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

try:
    import helm_python
except ImportError:  # no wheel for this machine
    helm_python = None

CHART = Path(__file__).resolve().parents[1] / "deploy/helm/prefstream"
NAMESPACE, RELEASE = "recommending", "shop"

needs_helm = pytest.mark.skipif(
    helm_python is None and shutil.which("helm") is None,
    reason="neither the package helm-python-sdk nor the program helm is installed",
)


class Refused(Exception):
    """Helm does not take the values; the text says why."""


def rendered(**values: Any) -> list[dict[str, Any]]:
    """Return every resource of the chart with these values; raise Refused."""
    return [resource for resource in yaml.safe_load_all(_text(json.dumps(values))) if resource]


@cache
def _text(values: str) -> str:
    return _by_library(json.loads(values)) if helm_python else _by_program(values)


def _by_library(values: dict[str, Any]) -> str:
    try:
        with helm_python.Chart.load(str(CHART)) as chart:
            chart.validate_schema(values)
            files = chart.render(values, name=RELEASE, namespace=NAMESPACE)
    except helm_python.HelmError as error:
        raise Refused(str(error)) from None
    return "\n---\n".join(text for name, text in files.items() if name.endswith(".yaml"))


def _by_program(values: str) -> str:
    command = ["helm", "template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--values", "-"]
    done = subprocess.run(command, input=values, capture_output=True, text=True)
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def complaints() -> list[str]:
    """Return what `helm lint --strict` has against the chart, but for a picture that it lacks."""
    if helm_python:
        said = [m["error"] for m in helm_python.lint(str(CHART))["messages"]]
        return [text for text in said if text != "icon is recommended"]
    command = ["helm", "lint", "--strict", "--quiet", str(CHART)]
    done = subprocess.run(command, capture_output=True, text=True)
    return [done.stdout + done.stderr] if done.returncode else []

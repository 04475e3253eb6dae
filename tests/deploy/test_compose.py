"""What compose and the image say agrees with the settings, the topics' version and itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream.settings import Settings, load_settings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
GPU: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.gpu.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ["topics", "encode", "preference"]
SETTING_NAMES = {f"PREFSTREAM_{name.upper()}" for name in Settings.model_fields}


def settings_of(service: str) -> Settings:
    environment = {**SERVICES[service]["environment"]}
    environment.update(GPU["services"].get(service, {}).get("environment", {}))
    return load_settings(
        _env_file=None,
        **{name.removeprefix("PREFSTREAM_").lower(): value for name, value in environment.items()},
    )


@pytest.mark.parametrize("service", OURS)
def test_every_variable_is_a_setting_and_its_value_is_allowed(service):
    names = set(SERVICES[service]["environment"])
    names |= set(GPU["services"].get(service, {}).get("environment", {}))
    assert names <= SETTING_NAMES
    settings_of(service)


def test_the_images_variables_are_settings_too():
    text = (DEPLOY / "Dockerfile").read_text()
    named = set(re.findall(r"PREFSTREAM_\w+", text))
    assert named <= SETTING_NAMES
    assert named


def test_workers_reach_the_broker_by_the_address_it_gives_out():
    listeners = dict(
        listener.split("://")
        for listener in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    )
    assert {settings_of(service).broker for service in OURS} == {listeners["INTERNAL"]}
    port = listeners["HOST"].split(":")[1]
    assert f"127.0.0.1:{port}:{port}" in SERVICES["kafka"]["ports"]


def test_tiers_agree_on_everything_but_their_own_name():
    encode, preference = (settings_of(name).model_dump() for name in ("encode", "preference"))
    differing = {name for name in encode if encode[name] != preference[name]}
    assert differing == {"instance_id", "encoder_device", "encoder_batch"}  # the last two: gpu


def test_prometheus_scrapes_the_port_of_each_tier():
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    scraped = {
        static["labels"]["tier"]: static["targets"]
        for static in config["scrape_configs"][0]["static_configs"]
    }
    first = settings_of("encode").metrics_port
    assert scraped == {
        "encode": [f"encode:{first}"],
        "preference": [f"preference:{first + 1}"],
        "neighbours": [f"preference:{first + 2}"],
    }
    for tier in ("encode", "preference"):
        assert SERVICES[tier]["command"] == ["worker", "--tier", tier]


def test_nothing_is_published_but_on_loopback():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert not any("ports" in SERVICES[name] for name in OURS)  # they bind to all addresses


def test_each_worker_has_a_state_volume_of_its_own():
    volumes = [SERVICES[name]["volumes"] for name in ("encode", "preference")]
    sources, targets = zip(*(volume.split(":") for (volume,) in volumes), strict=True)
    assert len(set(sources)) == 2
    assert set(targets) == {str(settings_of("encode").state_dir)}
    assert f"VOLUME {targets[0]}" in (DEPLOY / "Dockerfile").read_text()


def test_every_volume_file_and_service_that_is_named_is_there():
    for service in SERVICES.values():
        for source in (volume.split(":")[0] for volume in service.get("volumes", [])):
            assert (DEPLOY / source).exists() if "/" in source else source in COMPOSE["volumes"]
        assert set(service.get("depends_on", [])) <= set(SERVICES)
    assert set(GPU["services"]) <= set(SERVICES)


def test_workers_start_only_after_the_topics_are_there():
    assert SERVICES["topics"]["command"] == ["topics", "create"]
    for tier in ("encode", "preference"):
        condition = SERVICES[tier]["depends_on"]["topics"]["condition"]
        assert condition == "service_completed_successfully"


@pytest.mark.parametrize("service", OURS)
def test_the_program_takes_the_command(service):
    command = [sys.executable, "-m", "stream.cli", *SERVICES[service]["command"], "--help"]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_kafka_is_the_version_that_the_tests_run_on():
    pom = (DEPLOY / "kafka/pom.xml").read_text()
    (tested,) = re.findall(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([\d.]+)<", pom)
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{tested}"


def test_builds_name_targets_of_the_dockerfile_and_it_does_not_run_as_root():
    text = (DEPLOY / "Dockerfile").read_text()
    targets = set(re.findall(r"^FROM \S+ AS (\w[\w-]*)", text, re.MULTILINE))
    wanted = {SERVICES[name]["build"]["target"] for name in OURS}
    wanted.add(GPU["services"]["encode"]["build"]["target"])
    assert wanted == {"cpu", "gpu"}
    assert wanted <= targets
    assert re.search(r"^USER (?!0\b|root\b)\S+$", text, re.MULTILINE)


def test_the_image_gets_every_file_it_copies():
    text = (DEPLOY / "Dockerfile").read_text()
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        for source in line.split()[:-1]
    }
    kept = {
        line.removeprefix("!")
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copied == kept

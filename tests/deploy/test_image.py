"""The image: what linters and its schema say, its health check, and the order of its steps."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from deploy import healthcheck, image
from stream.edge import edge_port
from stream.health import HealthServer, Progress, Readiness
from stream.settings import Settings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
BIN = Path(sys.executable).parent
STAGES = image.parse((DEPLOY / "Dockerfile").read_text())


def program(name: str) -> str:
    """Return a program of the environment, wherever it is found."""
    found = shutil.which(name, path=str(BIN)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.mark.parametrize(
    "command",
    [
        ["hadolint", "Dockerfile"],
        ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"],
        ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.gpu.yaml"],
    ],
    ids=lambda command: command[-1],
)
def test_linters_and_schemas_have_nothing_against_it(command):
    done = subprocess.run([program(command[0]), *command[1:]], cwd=DEPLOY, capture_output=True)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_target_is_the_runtime_and_what_was_built_for_it(target):
    assert [stage.name for stage in image.chain(STAGES, target)] == ["runtime", target]
    (copy,) = image.chain(STAGES, target)[-1].steps
    assert copy.text == f"--from=build-{target} /opt/prefstream /opt/prefstream"
    built = image.chain(STAGES, f"build-{target}")
    assert [stage.name for stage in built] == ["build", f"build-{target}"]
    installed = [step.text for step in built[-1].steps if step.name == "RUN"]
    extras = {"cpu": "cpu,openvino", "gpu": "gpu"}[target]
    assert f'pip install --only-binary :all: --no-binary jieba ".[{extras}]"' in installed[0]


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_final_stage_installs_nothing_and_ends_as_a_user(target):
    steps = [step for stage in image.chain(STAGES, target) for step in stage.steps]
    ran = [step.text for step in steps if step.name == "RUN"]
    assert len(ran) == 1
    assert ran[0].startswith("useradd --system --uid 10001 ")
    assert [step.text for step in steps if step.name == "USER"] == ["10001"]


def test_versions_are_those_that_were_tested():
    (env,) = [s for s in image.chain(STAGES, "build")[0].steps if "PIP_CONSTRAINT" in s.text]
    assert env.text == "PIP_CONSTRAINT=/src/constraints.txt"


def test_a_step_that_nobody_knows_is_told():
    with pytest.raises(ValueError, match="ADD"):
        image.parse("FROM x\nADD a b\n")


def test_what_one_stage_takes_of_another_is_on_the_disk_once(tmp_path):
    stages = image.parse(
        "FROM x AS build\nCOPY LICENSE /opt/one/\nCOPY deploy/kafka/pom.xml /opt/one/two/\n"
        "FROM x AS final\nWORKDIR /opt\nCOPY --from=build /opt/one one\n"
    )
    base, out = tmp_path / "base", tmp_path / "out"
    base.mkdir()
    out.mkdir()
    root, state = image.Maker(stages, base, out, []).make("final")
    assert (root, state.workdir) == (out / "final", "/opt")
    for path in ("opt/one/LICENSE", "opt/one/two/pom.xml"):
        assert (out / "final" / path).samefile(out / "build" / path)


def test_lines_are_joined_and_comments_left_out():
    (stage,) = image.parse("FROM x AS y\n# why\nRUN a \\\n  # of b\n  && b\n")
    assert [step.text.split() for step in stage.steps] == [["a", "&&", "b"]]


@pytest.fixture
async def servers(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Readiness]]:
    """Two processes side by side; the third port is nobody's."""
    readinesses = [
        Readiness(["broker"], Progress(lambda: 0.0, not_ready_after_s=30, dead_after_s=300))
        for _ in range(2)
    ]
    running = [HealthServer(CollectorRegistry(), readinesses[0], "127.0.0.1", 0)]
    await running[0].start()
    first = running[0].port
    running.append(HealthServer(CollectorRegistry(), readinesses[1], "127.0.0.1", first + 1))
    await running[1].start()
    monkeypatch.setenv("PREFSTREAM_METRICS_PORT", str(first))
    yield readinesses
    for server in running:
        await server.stop()


@pytest.mark.parametrize(
    ("ready", "code"), [((True, True), 0), ((True, False), 1), ((False, False), 1)]
)
async def test_a_container_is_healthy_when_all_of_its_processes_are_ready(servers, ready, code):
    for readiness, is_ready in zip(servers, ready, strict=True):
        readiness.set("broker", is_ready)
        if is_ready:
            readiness._progress.update([])
    assert await asyncio.to_thread(healthcheck.main) == code


def test_a_container_that_does_not_listen_yet_is_not_healthy(monkeypatch):
    monkeypatch.setenv("PREFSTREAM_METRICS_PORT", "1")  # nobody listens below 1024
    assert healthcheck.main() == 1


def test_the_health_check_asks_every_process():
    settings = Settings()
    assert edge_port(settings) == settings.metrics_port + healthcheck.N_PORTS - 1

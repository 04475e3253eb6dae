"""Fixtures of the faults, and the table at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from faults.arena import Arena
from faults.cluster import Brokers
from faults.report import Row, show

HERE = Path(__file__).parent
ROWS: list[Row] = []


def pytest_configure(config: pytest.Config) -> None:
    """``pytest tests/faults -k name`` means it: the default selection would leave all out."""
    paths = [Path(arg.split("::")[0]).resolve() for arg in config.args]
    only_faults = all(path.is_relative_to(HERE) for path in paths)
    asked = any(str(arg).startswith("-m") for arg in config.invocation_params.args)
    if only_faults and not asked:
        config.option.markexpr = ""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if ROWS:
        terminalreporter.write_line(show(ROWS, terminalreporter._tw.fullwidth))


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Brokers]]:
    """Kafka of one and of three brokers, each started when first asked for."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    # In CI a machine without Java is a broken machine, not a reason to pass.
    if missing and not os.environ.get("CI"):
        pytest.skip(f"Apache Kafka needs {' and '.join(missing)}")
    running: list[Brokers] = []

    @cache
    def start(brokers: int) -> Brokers:
        folder = tmp_path_factory.mktemp("kafka") / "cluster"
        running.append(Brokers(folder, brokers))
        return running[-1]

    yield start
    for cluster in running:
        cluster.stop()


@pytest.fixture
def arena(clusters: Callable[[int], Brokers], tmp_path: Path) -> Arena:
    """Where this test's trials run; their rows go into the table of the session."""
    return Arena(lambda: clusters(1), lambda: clusters(3), tmp_path, ROWS)


@pytest.fixture(params=["rocksdb", "memory"])
def store(request: pytest.FixtureRequest) -> str:
    """Either store: for faults that are about state."""
    return str(request.param)

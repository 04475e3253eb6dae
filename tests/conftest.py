"""Brokers for the tests: a real Apache Kafka and the embedded one, once per session."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest

from stream.broker import EmbeddedBroker

# What a shell starts in the background ignores Ctrl-C, and so would all that is started here.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more of what else the machine does; pytest has a limit of its own.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

ROOT = Path(__file__).resolve().parents[1]


def _kafka_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kafka_script", ROOT / "deploy/kafka/kafka.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap servers of an Apache Kafka that ends with the session."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    # In CI a machine without Java is a broken machine, not a reason to pass.
    if missing and not os.environ.get("CI"):
        pytest.skip(f"Apache Kafka needs {' and '.join(missing)}")
    cluster = _kafka_script().Cluster.create(
        tmp_path_factory.mktemp("kafka") / "cluster", die_with_parent=True
    )
    cluster.start()
    yield cluster.bootstrap_servers
    cluster.stop()


@pytest.fixture(scope="session")
def embedded_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the embedded broker."""
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker.address


@pytest.fixture(
    params=[
        pytest.param("apache_kafka", marks=pytest.mark.kafka),
        pytest.param("embedded_broker", marks=pytest.mark.broker),
    ]
)
def broker(request: pytest.FixtureRequest) -> str:
    """Either broker: what must hold on both."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def topic_prefix() -> str:
    """Topics of one test: nobody else's."""
    return f"t{uuid.uuid4().hex[:8]}-"

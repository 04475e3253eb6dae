"""Act sent to list received stays below a limit, on Apache Kafka on a quiet machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.bench, pytest.mark.kafka]

P99_MS = 250.0


@pytest.mark.timeout(600)
def test_ten_thousand_items_and_two_hundred_acts_a_second(
    apache_kafka: str, tmp_path: Path
) -> None:
    file = tmp_path / "latency.json"
    command = [sys.executable, "-m", "stream.cli", "bench", "latency", "--broker", apache_kafka]
    sizes = ["--items", "10000", "--rate", "200", "--users", "2000", "--seconds", "40"]
    done = subprocess.run(
        [*command, *sizes, "--json", str(file)], capture_output=True, text=True, timeout=590
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sys.stdout.write(done.stdout)
    found = json.loads(file.read_text())["latency"]
    assert found["events_per_s"] == pytest.approx(200, rel=0.02)
    # Acts of one user that came close together share a list.
    own = re.search(r"acts with a list of their own *│ *([\d.]+)%", done.stdout)
    assert own
    assert float(own[1]) > 90
    assert found["p99_ms"] <= P99_MS

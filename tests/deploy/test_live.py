"""A real Prometheus scrapes a real health server: every panel of the dashboard draws something."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import aiohttp
import pytest
import yaml
from builders import NOW_MS
from prometheus_client.parser import text_string_to_metric_families

from stream.health import HealthServer, Progress, Readiness
from stream.lag import PartitionLag
from stream.metrics import Metrics, Stage

DASHBOARD = Path(__file__).resolve().parents[2] / "deploy/grafana/dashboards/prefstream.json"


def touch(metrics: Metrics, second: int) -> None:
    """What a worker does in some second of its life, through the same calls."""
    for topic in ("clickstream", "searches"):
        metrics.count_events(topic, "folded", 200)
        metrics.count_dead_letters(topic, "bad_event", 1)
        metrics.count_lost(topic, 1)
    for topic in ("recommendations", "churn-risk"):
        metrics.count_outputs([topic] * 20)
        metrics.published(topic, [NOW_MS - 80, NOW_MS + 9], [NOW_MS - 60] * 2, NOW_MS)
    for stage in get_args(Stage):
        with metrics.stage(stage, 20):
            pass
    metrics.count_recommended(["popular", "taken_together"])
    metrics.coalesced.inc(3)
    metrics.put_off.set(7)
    metrics.cold_starts.inc()
    metrics.count_churn_risk("high", "timer")
    metrics.churn_assessments.labels("timer").inc(4)
    metrics.encoder_info.labels("all-MiniLM-L6-v2", "cpu").set(1)
    metrics.encoder_seconds.labels().observe(0.03)
    metrics.encoder_truncated.inc()
    metrics.count_texts("search", 20)
    metrics.count_cache(16, 4)
    metrics.count_refused_vectors("encoder")
    metrics.index_info.labels("exact", "all-MiniLM-L6-v2").set(1)
    metrics.show_index(900, 1000, f"version {second}", NOW_MS)
    metrics.follower_lag.labels("items").set(3)
    metrics.state_rows.labels("user-state").set(500)
    metrics.state_bytes.labels("user-state").set(1e6)
    metrics.assigned.set(4)
    metrics.rebalances.inc()
    metrics.recovery_seconds.set(2)
    metrics.observe_lag("preference", [PartitionLag("clickstream", 0, 0, 9, 5, 4, 1, 3.0)])


@pytest.fixture
async def worker() -> AsyncIterator[tuple[Metrics, HealthServer]]:
    metrics = Metrics("preference")
    readiness = Readiness(["broker"], Progress(lambda: 0.0, 30, 300))
    metrics.watch_readiness(readiness)
    server = HealthServer(metrics.registry, readiness, "127.0.0.1", 0)
    await server.start()
    yield metrics, server
    await server.stop()


def queries() -> list[tuple[str, str]]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [(p["title"], target["expr"]) for p in panels for target in p.get("targets", [])]


async def test_every_described_metric_is_on_the_endpoint_with_its_labels(worker):
    metrics, server = worker
    touch(metrics, 0)
    url = f"http://127.0.0.1:{server.port}/metrics"
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        text = await answer.text()
    scraped: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            scraped.setdefault(sample.name, set()).update(sample.labels)

    for name, kind, labels, _help in Metrics.describe():
        sample = f"{name}_bucket" if kind == "histogram" else name
        assert scraped[sample] == {*labels, *(["le"] if kind == "histogram" else [])}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
async def test_every_panel_draws_something_in_a_real_prometheus(worker, tmp_path):
    metrics, server = worker
    with prometheus_scraping(server.port, tmp_path) as url:
        async with aiohttp.ClientSession() as http:
            for second in range(60):
                touch(metrics, second)
                await asyncio.sleep(1)
                empty = [where for where, expr in queries() if not await results(http, url, expr)]
                if not empty:
                    break
    assert empty == [], (tmp_path / "log").read_text()[-2000:]


@contextmanager
def prometheus_scraping(target_port: int, folder: Path) -> Iterator[str]:
    """Prometheus as a child process that scrapes one port every second; yields its address."""
    target = {"targets": [f"127.0.0.1:{target_port}"]}
    job = {"job_name": "prefstream", "static_configs": [target]}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield f"http://{address}"
        finally:
            process.kill()
            process.wait()


async def results(http: aiohttp.ClientSession, url: str, expr: str) -> list[Any]:
    query = expr.replace("$__rate_interval", "10s").replace("$instance", ".*")
    try:
        async with http.get(f"{url}/api/v1/query", params={"query": query}) as answer:
            body = await answer.json(content_type=None)
    except (aiohttp.ClientError, json.JSONDecodeError):  # not up yet
        return []
    assert body["status"] in {"success", "error"}
    assert body.get("errorType") != "bad_data", body
    return body.get("data", {}).get("result", [])  # type: ignore[no-any-return]

"""A real Prometheus scrapes a real shop: every panel of every dashboard draws something."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import aiohttp
import pytest
from builders import NOW_MS
from prometheus_client.parser import text_string_to_metric_families
from watched_shop import watched_shop

from deploy.grafana.render import drawing
from deploy.grafana.series import Prometheus, Span, answers, drawn, empty
from stream.delivery import Output
from stream.health import HealthServer, Progress, Readiness
from stream.lag import PartitionLag
from stream.metrics import Metrics, Stage

DASHBOARDS = Path(__file__).resolve().parents[2] / "deploy/grafana/dashboards"


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
    metrics.count_churn_risk("high", "low", "timer")
    metrics.count_pseudonymised("clickstream", "copied", 3)
    metrics.pseudonymise_seconds.labels("clickstream").observe(0.02)
    metrics.count_sent([Output("user-state", b"u1", b"row")])
    metrics.row_bytes.labels().observe(700)
    metrics.churn_assessments.labels("timer").inc(4)
    metrics.encoder_info.labels("all-MiniLM-L6-v2", "cpu").set(1)
    metrics.encoder_seconds.labels().observe(0.03)
    metrics.encoder_truncated.inc()
    metrics.count_texts("search", 20)
    metrics.count_cache(16, 4)
    metrics.count_refused_vectors("encoder")
    metrics.show_index_kind("flat", "all-MiniLM-L6-v2")
    metrics.show_index(900, 1000, f"version {second}", NOW_MS)
    metrics.follower_lag.labels("items").set(3)
    metrics.state_rows.labels("user-state").set(500)
    metrics.state_bytes.labels("user-state").set(1e6)
    metrics.show_model("churn", "churn-1", "first", NOW_MS)
    metrics.model_pending.labels("churn").set(0)
    metrics.refuse_model("churn", "damaged")
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
@pytest.mark.broker
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
def test_every_panel_of_a_busy_shop_draws_something_and_is_drawn(
    embedded_broker, topic_prefix, tmp_path
):
    dashboards = [json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))]
    with watched_shop(embedded_broker, topic_prefix, tmp_path) as (shop, url):
        asked = Prometheus(url)
        begun_s, deadline_s = time.time_ns() / 1e9, time.monotonic() + 90
        bare = ["not asked yet"]
        while bare and time.monotonic() < deadline_s:
            shop.round()
            time.sleep(1)
            span = Span(begun_s, time.time_ns() / 1e9, scrape_s=1)
            bare = [where for one in dashboards for where in empty(one, asked, span)]
        assert bare == [], (tmp_path / "prometheus.log").read_text()[-2000:]
        assert shop.running.get("preference", "/table")[0] == 404
        for dashboard in dashboards:
            picture = tmp_path / f"{dashboard['uid']}.png"
            page = drawing(dashboard, answers(dashboard, asked, span), span)
            said = [text.get_text() for text in page.texts]
            assert "No data" not in said
            assert [p["title"] for p in drawn(dashboard) if p["title"] not in said] == []
            page.savefig(picture, dpi=30)
            assert picture.read_bytes().startswith(b"\x89PNG")

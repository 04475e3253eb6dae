"""How a dashboard is drawn without Grafana: numbers, grids, buckets; the rest wants eyes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from deploy.grafana.series import Series, Span
from deploy.grafana.units import told

render = pytest.importorskip("deploy.grafana.render", reason="needs prefstream[train]")
DASHBOARDS = Path(__file__).resolve().parents[2] / "deploy/grafana/dashboards"


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (0.0213, "s", None, "21.3 ms"),
        (90, "s", None, "1.5 min"),
        (0, "s", None, "0 s"),
        (0.9876, "percentunit", 1, "98.8 %"),
        (5000, "bytes", None, "4.88 KiB"),
        (2_000_000, "Bps", None, "1.91 MiB/s"),
        (1234, "short", None, "1.23 k"),
        (12, "reqps", None, "12 /s"),
        (14.4, "suffix:x", 1, "14.4x"),
        (math.nan, "s", None, "-"),
    ],
)
def test_numbers_are_told_in_the_unit_of_their_panel(value, unit, decimals, text):
    assert told(value, unit, decimals) == text


def test_a_rate_looks_back_over_four_scrapes_or_a_step_and_one():
    assert Span(0, 60, scrape_s=5).rate_interval_s == 20
    assert Span(0, 240 * 60, scrape_s=5).rate_interval_s == 65


def curve(values: list[float], start_s: float = 0, **labels: str) -> Series:
    return Series(labels, "", [start_s + 5 * n for n in range(len(values))], values)


def test_areas_on_one_another_share_their_times_and_a_gap_is_nothing():
    times, rows = render._on_one_grid(
        [curve([1, 2, 3]), curve([4, math.nan], start_s=5)], Span(0, 10)
    )
    assert times == [0, 5, 10]
    assert rows.tolist() == [[1, 2, 3], [0, 4, 0]]


def test_a_heatmap_shows_what_lies_between_two_bounds():
    found = [curve([9.0], le="+Inf"), curve([5.0], le="0.5"), curve([2.0], le="0.1")]
    bounds, counts, _ = render._buckets(found, Span(0, 5))
    assert bounds == [0.1, 0.5]
    assert counts[:, 0].tolist() == [2, 3]


def test_a_line_of_the_table_of_versions_is_a_process():
    dashboard = json.loads((DASHBOARDS / "engineer.json").read_text())
    (panel,) = [p for p in dashboard["panels"] if p["title"] == "Versions"]
    found = [
        curve([1], __name__="prefstream_build_info", instance="a", version="1"),
        curve([1], __name__="prefstream_encoder_info", instance="a", device="cpu"),
        curve([1], __name__="prefstream_build_info", instance="b", version="2"),
    ]
    columns, lines = render._cells(panel, found)
    assert columns == ["instance", "version", "device"]
    assert lines == [["a", "1", "cpu"], ["b", "2", ""]]


def test_without_a_prometheus_it_says_so(tmp_path, capsys):
    asked = [str(DASHBOARDS / "shop.json"), "http://127.0.0.1:1", str(tmp_path / "shop.png")]
    assert render.main(asked) == 1
    assert "no answer from http://127.0.0.1:1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

"""Chinese titles, a Chinese search and a click, through both tiers, seen from outside."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e5_model import e5_folder
from running import Outside, Workers, next_of, workers

pytestmark = [pytest.mark.slow, pytest.mark.kafka]

TITLES = {
    "dress": "红色连衣裙",
    "skirt": "碎花半身裙",
    "earphones": "蓝牙耳机",
    "pot": "紫砂茶壶",
    "tea": "西湖龙井茶叶",
    "shoes": "男士篮球鞋",
    "ball": "室内外通用篮球",
    "book": "儿童绘本",
    "wok": "不锈钢炒锅",
    "keyboard": "机械键盘",
}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def act(number: int, user_id: str, **fields: object) -> dict[str, object]:
    return {"event_id": f"e{number}", "user_id": user_id, "event_time_ms": now_ms(), **fields}


@pytest.fixture
def shop(apache_kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[Outside]:
    settings = {"PREFSTREAM_ENCODER": str(e5_folder()), "PREFSTREAM_MIN_INTERVAL_MS": "0"}
    with workers(apache_kafka, topic_prefix, tmp_path, **settings) as running:
        outside = Outside(apache_kafka, topic_prefix)
        for item_id, title in TITLES.items():
            item = {"item_id": item_id, "title": title, "updated_ms": now_ms(), "locale": "zh-CN"}
            outside.send("items", item_id, item)
        outside.flush()
        indexed(running)
        yield outside


def indexed(running: Workers) -> None:
    running.until(
        lambda: running.metric("preference", "prefstream_index_items") == len(TITLES),
        "indexed",
        timeout_s=120,
    )


def answer(consumer: Any, event_id: str) -> dict[str, Any]:
    """Return the recommendation that an event caused."""
    while True:
        found: dict[str, Any] = json.loads(next_of(consumer, 60).value())
        if found["trigger"]["event_id"] == event_id:
            return found


def said(item: dict[str, Any]) -> set[tuple[str, str | None]]:
    """Return the kind of each reason with the query or item that it names."""
    return {(r["kind"], r.get("query") or r.get("item_id")) for r in item["reasons"]}


def test_a_chinese_search_and_a_click_find_what_is_meant(shop: Outside) -> None:
    consumer = shop.follow(["recommendations"])

    shop.send("searches", "王芳", act(1, "王芳", query="喝茶用的壶", locale="zh-CN"))
    searched = answer(consumer, "e1")
    assert searched["user_id"] == "王芳"
    assert searched["model"]["encoder"].startswith("multilingual-e5-small-")
    first, second = searched["items"][:2]
    assert (first["item_id"], second["item_id"]) == ("pot", "tea")
    assert ("matches_search", "喝茶用的壶") in said(first)

    shop.send("clickstream", "李娜", act(2, "李娜", item_id="ball", type="click"))
    clicked = answer(consumer, "e2")
    assert clicked["items"][0]["item_id"] == "shoes"
    assert ("similar_to_item", "ball") in said(clicked["items"][0])

    shop.send("clickstream", "王芳", act(3, "王芳", item_id="ball", type="click"))
    both = answer(consumer, "e3")
    reasons = set().union(*(said(item) for item in both["items"][:3]))
    assert {("matches_search", "喝茶用的壶"), ("similar_to_item", "ball")} <= reasons
    consumer.close()

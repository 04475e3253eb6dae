"""Real logs through the whole program on Apache Kafka, counted and judged from outside."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from running import Outside, workers

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]

DATA = Path(os.environ.get("PREFSTREAM_DATA", Path(__file__).parents[3] / "shared/data"))
GIFT_CARDS = DATA / "amazon_gift_cards/Gift_Cards_5.json.gz"
ONLINE_RETAIL = DATA / "online_retail/online_retail_2009_2010.parquet"
EXCLUSION_MS = 90 * 86_400_000


def needs(path: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not path.exists(), reason=f"no {path.name} in {DATA}")


class Seen:
    """What an outside consumer finds in the topics after a replay."""

    def __init__(self, outside: Outside) -> None:
        self.clicks = [
            (m.partition(), m.offset(), json.loads(m.value())) for m in outside.read("clickstream")
        ]
        self.reviews = [json.loads(m.value()) for m in outside.read("reviews")]
        self.messages = outside.read("recommendations")
        self.recommendations: list[dict[str, Any]] = [json.loads(m.value()) for m in self.messages]
        self.risks = [json.loads(m.value()) for m in outside.read("churn-risk")]
        self.dead_letters = outside.read("dead-letters")
        self.items = {m.key() for m in outside.read("items")}
        self.embedded = {m.key() for m in outside.read("item-embeddings")}

    def users(self) -> set[str]:
        return {event["user_id"] for _, _, event in self.clicks} | {
            review["user_id"] for review in self.reviews
        }

    def last_offsets(self) -> dict[str, int]:
        """The offset of each user's last act in clickstream, impressions left out."""
        return {event["user_id"]: offset for _, offset, event in self.clicks}

    def judge(self, top_k: int = 20) -> None:
        """What every recommendation and churn risk must hold, whatever the log."""
        assert self.dead_letters == []
        assert self.embedded == self.items
        ids = Counter(r["recommendation_id"] for r in self.recommendations)
        assert max(ids.values()) == 1
        items = {key.decode() for key in self.items}
        for recommendation in self.recommendations:
            shown = [item["item_id"] for item in recommendation["items"]]
            assert 0 < len(shown) <= top_k
            assert len(set(shown)) == len(shown)
            assert set(shown) <= items
            assert all(item["reasons"] for item in recommendation["items"])
        assert {r["user_id"] for r in self.recommendations} == self.users()
        assert {r["user_id"] for r in self.risks} == self.users()
        self._nothing_bought_is_shown()
        self._the_last_act_is_answered()
        self._bands_change()

    def _nothing_bought_is_shown(self) -> None:
        bought: dict[str, list[tuple[int, int, str]]] = {}
        for _, offset, event in self.clicks:
            if event["type"] == "purchase":
                purchase = (offset, event["event_time_ms"], event["item_id"])
                bought.setdefault(event["user_id"], []).append(purchase)
        for recommendation in self.recommendations:
            trigger = recommendation["trigger"]
            if trigger["topic"] != "clickstream":
                continue
            shown = {item["item_id"] for item in recommendation["items"]}
            for offset, at_ms, item_id in bought.get(recommendation["user_id"], []):
                recent = at_ms > trigger["event_time_ms"] - EXCLUSION_MS / 2
                assert not (offset <= trigger["offset"] and recent and item_id in shown)

    def _the_last_act_is_answered(self) -> None:
        answered: dict[str, int] = {}
        for recommendation in self.recommendations:
            trigger = recommendation["trigger"]
            if trigger["topic"] == "clickstream":
                user_id = recommendation["user_id"]
                answered[user_id] = max(answered.get(user_id, -1), trigger["offset"])
        if not self.reviews:
            assert answered == self.last_offsets()

    def _bands_change(self) -> None:
        band: dict[str, str] = {}
        for risk in self.risks:
            assert risk.get("previous_band") == band.get(risk["user_id"])
            assert risk["band"] != band.get(risk["user_id"])
            band[risk["user_id"]] = risk["band"]


@needs(GIFT_CARDS)
def test_all_gift_card_reviews_and_purchases(apache_kafka, topic_prefix, tmp_path):
    with workers(
        apache_kafka,
        topic_prefix,
        tmp_path,
        PREFSTREAM_CLOCK="stream",
        PREFSTREAM_ENCODER_MAX_TOKENS="64",
    ) as running:
        running.command("replay", str(GIFT_CARDS), "--format", "amazon")
        running.drain(300)
        seen = Seen(Outside(apache_kafka, topic_prefix))
    assert len(seen.items) == 1_547
    assert len(seen.reviews) == 2_972
    assert len(seen.clicks) == 2_838
    assert len(seen.users()) == 458
    seen.judge()


@needs(ONLINE_RETAIL)
def test_a_month_of_online_retail(apache_kafka, topic_prefix, tmp_path):
    with workers(
        apache_kafka,
        topic_prefix,
        tmp_path,
        PREFSTREAM_CLOCK="stream",
        PREFSTREAM_ENCODER_MAX_TOKENS="64",
    ) as running:
        month = ("--since", "2009-12-01", "--until", "2010-01-01")
        running.command("replay", str(ONLINE_RETAIL), "--format", "online_retail", *month)
        running.drain(600)
        seen = Seen(Outside(apache_kafka, topic_prefix))
    assert len(seen.clicks) == 31_180
    assert len(seen.items) == 4_082
    assert len(seen.users()) == 1_040
    seen.judge()

"""One shopper's act from topic to topic, on both brokers, seen from outside."""

from __future__ import annotations

import json
import time

import pytest
from running import Outside, Workers, next_of, workers

pytestmark = pytest.mark.slow

TITLES = {
    "shoe": "Trail running shoes",
    "road": "Road running shoes",
    "sock": "Running socks",
    "cup": "Espresso cup",
    "bean": "Espresso coffee beans",
    "yarn": "Knitting yarn",
}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def item(item_id: str, **fields: object) -> dict[str, object]:
    return {"item_id": item_id, "title": TITLES[item_id], "updated_ms": now_ms(), **fields}


def act(number: int, user_id: str = "anna", **fields: object) -> dict[str, object]:
    base = {"event_id": f"e{number}", "user_id": user_id, "event_time_ms": now_ms()}
    return {**base, **fields}


@pytest.fixture
def shop(broker, topic_prefix, tmp_path):
    with workers(broker, topic_prefix, tmp_path, PREFSTREAM_MIN_INTERVAL_MS="0") as running:
        outside = Outside(broker, topic_prefix)
        for item_id in TITLES:
            outside.send("items", item_id, item(item_id))
        outside.flush()
        running.until(
            lambda: running.metric("preference", "prefstream_index_items") == len(TITLES),
            "indexed",
        )
        yield running, outside


def recommendation(consumer) -> dict:
    while True:
        message = next_of(consumer)
        if message.topic().endswith("recommendations") and message.value():
            return json.loads(message.value())


def test_acts_become_recommendations_with_reasons_and_churn_risks(shop):
    running, outside = shop
    consumer = outside.follow(["recommendations", "churn-risk", "dead-letters"])

    outside.send("clickstream", "anna", act(1, item_id="shoe", type="click"))
    first = recommendation(consumer)
    assert first["user_id"] == "anna"
    assert first["trigger"]["event_id"] == "e1"
    assert first["items"][0]["item_id"] in ("road", "sock")
    assert {r.get("item_id") for r in first["items"][0]["reasons"]} >= {"shoe"}

    outside.send("searches", "anna", act(2, query="coffee"))
    searched = recommendation(consumer)
    reasons = [r for i in searched["items"] for r in i["reasons"]]
    assert "coffee" in {r.get("query") for r in reasons}
    assert searched["trigger"]["topic"] == "searches"
    running.until(lambda: bool(outside.read("search-results")), "the search answered")
    (answer,) = (json.loads(m.value()) for m in outside.read("search-results"))
    assert answer["search_event_id"] == "e2"
    assert answer["items"][0]["item_id"] == "bean"

    outside.send("reviews", "anna", act(3, item_id="bean", text="Wonderful", rating=5))
    assert recommendation(consumer)["trigger"]["topic"] == "reviews"

    outside.send("clickstream", "anna", act(4, item_id="sock", type="purchase", price=9.5))
    bought = recommendation(consumer)
    assert "sock" not in [i["item_id"] for i in bought["items"]]

    risks = [json.loads(m.value()) for m in outside.read("churn-risk")]
    assert {risk["user_id"] for risk in risks} == {"anna"}
    assert all(0 <= risk["probability"] <= 1 and risk["drivers"] for risk in risks)
    forbids_removed_and_sold_out(outside, consumer)
    survives_poison(running, outside, consumer)
    forgets_who_asks(running, outside, consumer)


def forbids_removed_and_sold_out(outside: Outside, consumer) -> None:
    outside.send("items", "road", None)
    outside.send("items", "cup", item("cup", in_stock=False))
    outside.flush()
    time.sleep(2)
    outside.send("clickstream", "anna", act(5, item_id="shoe", type="view"))
    shown = {i["item_id"] for i in recommendation(consumer)["items"]}
    assert shown
    assert not shown & {"road", "cup", "sock"}


def survives_poison(running: Workers, outside: Outside, consumer) -> None:
    poison = [b"{", b"\xff\xfe", b"[1]", b'{"event_id": "x"}', b"[" * 50_000]
    for raw in poison:
        outside.send("clickstream", "anna", raw)
    outside.send("clickstream", "anna", None)
    outside.send("searches", "anna", b"nonsense")
    outside.send("items", "shoe", b"nonsense")
    outside.send("clickstream", "anna", act(6, item_id="yarn", type="view"))
    assert recommendation(consumer)["trigger"]["event_id"] == "e6"
    running.until(lambda: len(outside.read("dead-letters")) == len(poison) + 3, "dead")
    letters = outside.read("dead-letters")
    assert {m.value() for m in letters} >= set(poison)
    headers = dict(letters[0].headers())
    assert {"dlq.original.topic", "dlq.original.offset", "dlq.error.message"} <= set(headers)


def kept_of(outside: Outside, user_id: str) -> dict[str, bytes | None]:
    """Return the last that there is of a user in each topic."""
    topics = ("recommendations", "churn-risk", "search-results", "user-state")
    return {
        topic: {m.key(): m.value() for m in outside.read(topic)}[user_id.encode()]
        for topic in topics
    }


def forgets_who_asks(running: Workers, outside: Outside, consumer) -> None:
    assert all(kept_of(outside, "anna").values())
    outside.send("users", "anna", None)
    outside.flush()
    running.until(lambda: not any(kept_of(outside, "anna").values()), "forgotten")
    outside.send("clickstream", "anna", act(7, item_id="shoe", type="click"))
    outside.send("clickstream", "ben", act(8, user_id="ben", item_id="shoe", type="click"))
    assert recommendation(consumer)["user_id"] == "ben"
    assert not any(kept_of(outside, "anna").values())
    outside.send(
        "users",
        "anna",
        {"user_id": "anna", "updated_ms": now_ms(), "interests": ["knitting"]},
    )
    back = recommendation(consumer)
    assert (back["user_id"], back["cold_start"]) == ("anna", True)
    assert back["items"][0]["item_id"] == "yarn"


def views(outside: Outside, numbers: range, item_id: str) -> None:
    for number in numbers:
        user_id = f"u{number % 5}"
        outside.send("clickstream", user_id, act(number, user_id, item_id=item_id, type="view"))
    outside.flush()


def test_a_restart_loses_nothing_and_repeats_nothing(shop):
    running, outside = shop
    views(outside, range(20), "shoe")
    running.until(lambda: len(outside.read("recommendations")) >= 5, "answered")
    assert running.stop() == 0
    views(outside, range(20, 40), "cup")
    running.start()
    running.until(
        lambda: (
            {json.loads(m.value())["trigger"]["event_id"] for m in outside.read("recommendations")}
            >= {f"e{n}" for n in range(35, 40)}
        ),
        "caught up",
    )
    out = [json.loads(m.value()) for m in outside.read("recommendations")]
    by_id: dict[str, set[str]] = {}
    for message in out:
        by_id.setdefault(message["recommendation_id"], set()).add(json.dumps(message))
    assert all(len(versions) == 1 for versions in by_id.values())

import msgspec
import pytest
from builders import interaction, review, search, user

from stream.core.events import Item
from stream.demo.observer import Observer, Report
from stream.demo.shop import Shop, ShopItem
from stream.demo.shoppers import Act, Crowd, Shopper
from stream.demo.summary import act_text, churn_line, recommendation_line, summary_table

NOW_MS = 1_760_000_000_000
SWITCH_MS = NOW_MS + 1000


def shop() -> Shop:
    """Two tastes, three items each: t1..t3 for tea, c1..c3 for cats."""
    names = [("t", "tea"), ("c", "cats")]
    return Shop(
        [
            ShopItem(
                Item(item_id=f"{letter}{n}", title=f"{taste} {n}", updated_ms=NOW_MS), taste, 1 / 6
            )
            for letter, taste in names
            for n in (1, 2, 3)
        ]
    )


def observer(k: int = 2) -> Observer:
    shopper = Shopper(
        user(user_id="u1"), ((0, ("tea",)), (SWITCH_MS, ("cats",))), activity=1.0, past="regular"
    )
    return Observer(Crowd(shop(), [shopper]), k)


def click(event_id: str, item_id: str = "t1", at_ms: int = NOW_MS, **fields: object) -> Act:
    return Act(
        "clickstream",
        interaction(event_id=event_id, item_id=item_id, event_time_ms=at_ms, **fields),
    )


def published(event_id: str, *item_ids: str, rec_id: str | None = None, topic="clickstream"):
    return msgspec.json.encode(
        {
            "recommendation_id": rec_id or f"r-{event_id}",
            "user_id": "u1",
            "trigger": {"topic": topic, "event_id": event_id},
            "items": [
                {
                    "item_id": item_id,
                    "reasons": [{"kind": "similar_to_item", "weight": 1, "item_id": "t1"}],
                }
                for item_id in item_ids
            ],
            "cold_start": False,
            "model": {"ranker": "hybrid-1"},
        }
    )


def test_latency_is_from_the_send_of_the_act_to_the_receipt_of_its_list():
    watch = observer()
    watch.sent(click("e1"), sent_ms=100.0)
    seen = watch.recommended(published("e1", "t2", "t3"), received_ms=140.0)
    assert seen.latency_ms == 40.0
    assert seen.act.event_id == "e1"
    assert (watch.report().p50_ms, watch.report().p99_ms) == (40.0, 40.0)
    assert watch.report().text_p99_ms is None


def test_the_latency_of_acts_with_text_is_also_told_apart():
    watch = observer()
    watch.sent(click("e1"), sent_ms=0.0)
    watch.recommended(published("e1", "t2"), received_ms=10.0)
    watch.sent(Act("searches", search(event_id="s1")), sent_ms=20.0)
    watch.recommended(published("s1", "t2", topic="searches"), received_ms=80.0)
    assert watch.report().p50_ms == 35.0
    assert watch.report().text_p50_ms == 60.0


def test_a_repeat_a_tombstone_and_a_list_of_another_time_do_not_count():
    watch = observer()
    watch.sent(click("e1"), 0.0)
    watch.recommended(published("e1", "t2"), 10.0)
    assert watch.recommended(published("e1", "t2"), 5000.0) is None
    assert watch.recommended(None, 20.0) is None
    assert watch.recommended(published("of another run", "t2"), 20.0) is None
    assert watch.report().n_recommendations == 1
    assert watch.report().p99_ms == 10.0


def test_a_list_answers_the_earlier_acts_of_its_shopper_but_no_later_one():
    watch = observer()
    for n in (1, 2, 3):
        watch.sent(click(f"e{n}"), sent_ms=n * 10.0)
    watch.recommended(published("e2", "t2"), received_ms=50.0)
    assert [act.event_id for act in watch.unanswered()] == ["e3"]


def test_acts_on_two_topics_may_stand_for_each_other_only_when_they_lie_close():
    watch = observer()
    watch.sent(Act("searches", search(event_id="s1")), sent_ms=0.0)
    watch.sent(click("close"), sent_ms=30.0)
    watch.sent(click("far"), sent_ms=3000.0)
    watch.recommended(published("s1", "t2", topic="searches"), received_ms=3500.0)
    assert [act.event_id for act in watch.unanswered()] == ["far"]


def test_hit_rate_is_the_share_of_the_first_k_that_fit_the_taste_of_the_moment():
    watch = observer(k=2)
    watch.sent(click("e1", at_ms=NOW_MS), 0.0)
    watch.recommended(published("e1", "t2", "c1", "t3"), 1.0)
    assert watch.report().hit_rate == 0.5
    watch.sent(click("e2", at_ms=SWITCH_MS), 2.0)
    watch.recommended(published("e2", "t2", "t3"), 3.0)
    assert watch.report().hit_rate == 0.25


def test_the_baseline_is_what_was_popular_at_that_moment_less_what_the_shopper_bought():
    watch = observer(k=1)
    for _ in range(3):
        watch.past(click("h", "t1", user_id="someone else"))
    watch.past(click("h", "c1", user_id="someone else"))
    watch.sent(click("e1", "t2"), 0.0)
    watch.recommended(published("e1", "t3"), 1.0)
    assert watch.report().popular_hit_rate == 1.0  # t1 leads
    watch.sent(click("e2", "t1", type="purchase"), 2.0)
    watch.recommended(published("e2", "t3"), 3.0)
    assert watch.report().popular_hit_rate == 0.5  # t1 is bought: c1 leads, or t2 by a tie
    assert watch.report().hit_rate == 1.0


def test_the_popularity_baseline_holds_more_items_than_it_began_with():
    watch = observer(k=1)
    for number in range(3000):
        watch.past(click("h", f"other {number}", user_id="someone else"))
    watch.past(click("h", "c1", user_id="someone else"))
    watch.past(click("h", "c1", user_id="someone else"))
    watch.sent(click("e1", "t2", at_ms=SWITCH_MS), 0.0)
    watch.recommended(published("e1", "t3"), 1.0)
    assert watch.report().popular_hit_rate == 1.0  # c1 leads, the 3,001st to come


def test_it_counts_the_acts_until_the_list_follows_a_changed_taste():
    watch = observer(k=2)
    lists = {"e1": ("t2", "t3"), "e2": ("t2", "t3"), "e3": ("c1", "t3"), "e4": ("c1", "c2")}
    times = {"e1": NOW_MS, "e2": SWITCH_MS, "e3": SWITCH_MS + 1, "e4": SWITCH_MS + 2}
    for event_id, shown in lists.items():
        watch.sent(click(event_id, "c1", at_ms=times[event_id]), 0.0)
        watch.recommended(published(event_id, *shown), 1.0)
    report = watch.report()
    assert (report.n_switched, report.n_followed, report.acts_to_follow) == (1, 1, 2.0)


def test_a_shopper_whose_list_never_follows_is_counted_as_such():
    watch = observer()
    watch.sent(click("e1", "c1", at_ms=SWITCH_MS), 0.0)
    watch.recommended(published("e1", "t2", "t3"), 1.0)
    report = watch.report()
    assert (report.n_switched, report.n_followed, report.acts_to_follow) == (1, 0, None)


def test_churn_risks_are_counted_by_the_last_band_of_each_shopper():
    watch = observer()
    for number, (band, before) in enumerate([("low", None), ("high", "low")]):
        message = {"assessment_id": str(number), "user_id": "u1", "band": band, "drivers": []}
        message["model"] = f"churn-{number}"
        risk = watch.assessed(
            msgspec.json.encode({**message, "probability": 0.8, "previous_band": before})
        )
    assert (risk.band, risk.previous_band) == ("high", "low")
    assert watch.report().bands == {"high": 1}
    assert watch.report().n_assessed == 2
    assert watch.report().churn_models == {"churn-0", "churn-1"}


def test_dead_letters_are_counted_by_topic_and_reason():
    watch = observer()
    headers = [("dlq.original.topic", b"clickstream"), ("dlq.error.message", b"no item_id")]
    assert watch.dead_letter(headers) == "clickstream: no item_id"
    assert watch.dead_letter([]) == "?: no reason given"
    assert watch.report().n_dead_letters == 2


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (click("e1", "t1", type="purchase"), "bought “tea 1”"),
        (Act("searches", search(query="盖碗")), "searched “盖碗”"),
        (Act("reviews", review(item_id="c1", rating=4)), "gave 4 of 5 stars to “cats 1”"),
    ],
    ids=["purchase", "search", "review"],
)
def test_an_act_reads_as_a_sentence(act, words):
    assert act_text(act, shop().title) == words


def test_a_line_says_who_did_what_what_came_why_and_how_fast():
    watch = observer()
    watch.sent(click("e1", "t1"), 0.0)
    line = recommendation_line(watch.recommended(published("e1", "t2", "t3"), 38.2), shop().title)
    assert line.plain == ("u1 clicked “tea 1” → tea 2, tea 3  because similar to “tea 1”  38 ms")


def test_a_churn_line_names_the_band_before_and_the_strongest_drivers():
    watch = observer()
    drivers = [
        {"feature": "gap", "value": 3.0, "contribution": 0.1},
        {"feature": "recency_days", "value": 40.0, "contribution": 1.5},
        {"feature": "value", "value": 1.0, "contribution": -0.01},
    ]
    raw = {
        "assessment_id": "a",
        "user_id": "u1",
        "probability": 0.812,
        "band": "high",
        "model": "m",
    }
    risk = watch.assessed(msgspec.json.encode({**raw, "previous_band": "low", "drivers": drivers}))
    assert churn_line(risk).plain == (
        "u1 churn risk low → high (0.81)  because recency_days 40, gap 3"
    )


def test_the_summary_of_a_run_without_any_list_says_so():
    table = summary_table(observer().report(), n_poison=2, first_s=None)
    cells = dict(zip(table.columns[0]._cells, table.columns[1]._cells, strict=True))
    assert cells["first recommendation after"] == "none came"
    assert cells["act sent to list received, p99"] == "-"
    assert cells["dead letters (poison messages sent)"] == "0 (2)"
    assert isinstance(observer().report(), Report)

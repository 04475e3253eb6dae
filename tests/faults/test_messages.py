"""Faults 8, 9, 12, 13, 14, 32: poison, late, sent again, of a newer schema; a bug for one key."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from faults.generator import DAY_MS, HOSTILE, Message, Mix, now_ms
from faults.injection import faketime
from faults.trial import Trial

from stream.messages import read_embedded_text

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

MIB = 1024 * 1024
CLOCK_SKEW = 'prefstream_clock_skew_events_total{clock="broker"}'
#: What Kafka takes of one message where the operator allows it.
LARGE = {"max.message.bytes": str(20 * MIB)}


def event(user_id: str, **fields: object) -> bytes:
    base = {"event_id": f"x{time.monotonic_ns()}", "user_id": user_id, "event_time_ms": now_ms()}
    return json.dumps({**base, "item_id": "i001", "type": "view", **fields}).encode()


def poisons(user_id: str) -> list[Message]:
    """Return one of each kind of message that can never be processed."""
    raws: dict[str, bytes | None] = {
        "null": None,
        "empty": b"",
        "cut off": event(user_id)[:-9],
        "not UTF-8": b'{"user_id": "\xc3\x28"}',
        "binary": bytes(range(256)),
        "an array": b"[1]",
        "nested deeply": b'{"a":' * 100_000,
        "nested in a field": event(user_id, context="@").replace(b'"@"', b"[" * 50_000),
        "NaN": event(user_id, price="@").replace(b'"@"', b"NaN"),
        "infinite": event(user_id, price="@").replace(b'"@"', b"1e999"),
        "a huge int": event(user_id, event_time_ms="@").replace(b'"@"', b"9" * 400),
        "wrong type": event(user_id, event_id=7),
        "unknown act": event(user_id, type="teleport"),
        "no time": event(user_id, event_time_ms=0),
        "a bool as time": event(user_id, event_time_ms=True),
        "an id too long": event(user_id, item_id="i" * 300),
        "another user": event("somebody-else"),
        "10 MB": event(user_id, type="x" * 10 * MIB),
    }
    headers = (("trace", b"\x00\xff"), ("kind", b"poison"))
    topics = ("clickstream", "searches", "reviews", "items")
    key = user_id.encode()
    # Null in ``items`` is a tombstone, and items keyed otherwise are what they are keyed by.
    return [
        Message(topic, key, raw, "dead", headers)
        for topic in topics
        for kind, raw in raws.items()
        if not (topic == "items" and raw is None)
    ]


@pytest.mark.short
def test_08_poison_is_dead_lettered_whole_and_its_neighbours_are_processed(arena):
    with arena.trial("08 poison messages") as trial:
        for topic in ("clickstream", "searches", "reviews", "items"):
            trial.admin.configure(topic, LARGE)
        poison = [m for user in ("u001", "u002") for m in poisons(user)]
        good = list(trial.shoppers.events(10 * len(poison)))
        mixed = [m for n, one in enumerate(poison) for m in (*good[10 * n : 10 * n + 10], one)]
        trial.shop.send(mixed)
        trial.note = f"{len(poison)} poison messages"
        trial.finish_now()
        assert not trial.worker.ends, "a worker ended"


def test_09_a_bug_for_one_key_costs_that_keys_events_and_no_other(arena):
    victim = "u007"
    with arena.trial("09 a bug for one key", inject={"FAULT_BUG_FOR": victim}) as trial:
        trial.failing = {victim}
        trial.load(2000)
        trial.finish_now()
        assert not trial.worker.ends, "a restart storm"


@pytest.mark.short
def test_12_what_is_sent_twice_counts_once(arena, store):
    with arena.trial("12 duplicates", store=store) as trial:
        trial.load(3000, Mix(duplicates=0.10))
        again = sum(sent.message.fate == "duplicate" for sent in trial.shop.log)
        trial.note = f"{again} sent again"
        assert again > 200


def test_13_late_and_shuffled_events_give_what_the_rule_says(arena, store):
    with arena.trial("13 late and out of order", store=store) as trial:
        events = list(trial.shoppers.events(3000, Mix(late=0.4, texts=0.2)))
        trial.shoppers.shuffle(events)
        trial.send(events)


def test_14_times_from_the_future_are_cut_and_expire_nobody(arena):
    with arena.trial("14 event times in the future") as trial:
        trial.load(2000, Mix(future=0.2))
        trial.finish_now()
        cut = trial.worker.metric("preference", "prefstream_clock_skew_events_total")
        trial.note = f"{cut:.0f} cut"
        assert cut > 100


@pytest.mark.timeout(200)
@pytest.mark.parametrize(("off_by", "off_ms"), [("+1d", DAY_MS), ("-1d", -DAY_MS)])
def test_14_a_worker_whose_clock_is_a_day_wrong_and_then_set_right(arena, store, off_by, off_ms):
    if faketime() is None:
        pytest.skip("libfaketime is not installed (Debian: faketime)")
    with arena.trial(f"14 worker's clock off by {off_by}", store=store) as trial:
        worker = trial.worker
        trial.load_and_drain(1000)
        assert worker.stop() == 0
        worker.inject["FAULT_CLOCK"] = off_by
        worker.start()
        skewed_ms = now_ms() + off_ms
        trial.load(1000, Mix(duplicates=0.1, records=0.02, future=0.1), per_s=300)
        assert trial.drained(60) is not None
        time.sleep(3)  # the timer looks at the silent, and at who is long gone
        assert worker.metric("preference", "prefstream_user_rows_expired_total") == 0
        for name in ("end_to_end_seconds", "broker_to_publish_seconds"):
            latency_s = worker.metric("preference", f"prefstream_{name}_sum")
            n = worker.metric("preference", f"prefstream_{name}_count")
            # What comes from the future counts as 0; a day is seen, and no more than a day.
            assert n > 100
            assert latency_s == 0 if off_ms < 0 else n * 86_000 < latency_s
        in_future = worker.metric("preference", CLOCK_SKEW)
        assert in_future > 100 if off_ms < 0 else in_future == 0
        assert abs(lists(trial)[-1]["generated_ms"] - skewed_ms) < 100_000
        assert worker.stop() == 0
        worker.inject.clear()
        worker.start()
        # Nobody waits until it is again as late as it has been.
        trial.load(1000, per_s=500)
        trial.finish_now()
        assert abs(lists(trial)[-1]["generated_ms"] - now_ms()) < 60_000
        assert {one["expires_ms"] - one["generated_ms"] for one in lists(trial)} == {DAY_MS}
        assert not worker.ends, f"a worker ended\n{worker.tail()}"
        trial.note = f"{in_future:.0f} outputs of events from the future"


def lists(trial: Trial) -> list[dict[str, Any]]:
    """Return the lists of a partition, in the order in which they came."""
    records = trial.admin.read("recommendations")["recommendations"]
    return [json.loads(r.value()) for r in records if r.value() and r.partition() == 0]


def of_a_newer_schema(message: Message) -> Message:
    """Return a message as a producer sends it whose schema has fields that we do not know."""
    if message.fate != "good" or message.value is None:
        return message
    newer = {**json.loads(message.value), "loyalty": {"tier": "gold", "since": [2019, 4]}}
    return replace(message, value=json.dumps(newer).encode())


@pytest.mark.timeout(200)
def test_32_a_newer_schema_comes_while_workers_are_replaced_one_by_one(arena):
    with arena.trial("32 rolling upgrade, schema N+1") as trial:
        trial.load(500)
        other = trial.another_worker("w2")
        other.start()
        trial.send(map(of_a_newer_schema, trial.shoppers.events(1500, HOSTILE)))
        assert trial.worker.stop() == 0
        trial.send(map(of_a_newer_schema, trial.shoppers.events(1000, HOSTILE)))
        trial.worker.start()
        assert other.stop() == 0
        trial.send(map(of_a_newer_schema, trial.shoppers.events(500, HOSTILE)))
        trial.finish_now(90)
        embedded = trial.admin.read("embedded-texts")["embedded-texts"]
        kept = [b"loyalty" in read_embedded_text(record.value()).event for record in embedded]
        sent = [s for s in trial.shop.log if b"loyalty" in (s.message.value or b"")]
        texts = sum(s.message.topic in ("searches", "reviews") for s in sent)
        trial.note = f"{len(sent):,} of the newer schema, {texts} with text"
        assert sum(kept) >= texts > 100

"""Faults 4, 5, 17, 18, 23, 24, 25: brokers, topics and connections that fail the worker."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from faults.cluster import Brokers
from faults.generator import HOSTILE
from faults.proxy import Proxy

pytestmark = [pytest.mark.faults, pytest.mark.kafka]


@pytest.mark.timeout(240)
def test_04_no_worker_ends_though_the_only_broker_is_away_for_half_a_minute(arena):
    # As by default, and not as short as elsewhere: a broker that comes back counts sessions for
    # seconds before it listens.
    settings = {"PREFSTREAM_SESSION_TIMEOUT_S": "10"}
    with arena.trial("04 broker killed for 30 s", settings=settings) as trial:
        sending = trial.load_in_background(8000, per_s=200)
        time.sleep(3)
        arena.one().kill(1)
        time.sleep(30)
        arena.one().start()
        back = time.monotonic()
        again = trial.outputs.first_after(back, 60) - back
        sending.join()
        trial.finish_now(90)
        trial.note = f"first output {again:.1f} s after the broker was back"
        assert not trial.worker.ends, f"a worker ended\n{trial.worker.tail()}"


@pytest.mark.timeout(240)
def test_04_one_of_three_brokers_is_killed_and_the_pause_is_short(arena):
    with arena.trial("04 one of three brokers killed", brokers=3) as trial:
        sending = trial.load_in_background(9000, per_s=200)
        time.sleep(3)
        pauses = []
        for node_id in (1, 2):
            killed = time.monotonic()
            arena.three().kill(node_id)
            time.sleep(16)
            pauses.append(trial.outputs.longest_pause_s(killed, time.monotonic()))
            arena.three().start()
            time.sleep(3)
        sending.join()
        trial.finish_now(90)
        trial.recoveries_s += pauses
        assert not trial.worker.ends, f"a worker ended\n{trial.worker.tail()}"
        assert max(pauses) <= 15, f"pauses of {pauses} s"


@pytest.mark.timeout(240)
def test_05_a_worker_waits_for_kafka_is_not_ready_and_then_drains(arena):
    with arena.trial("05 Kafka down at start", opened=False) as trial:
        trial.worker.command("topics", "create")
        trial.shop.send(trial.shoppers.catalogue())
        trial.load(1000, replace(HOSTILE, impressions=False))
        arena.one().kill(1)
        try:
            trial.worker.launch()
            time.sleep(12)
            assert not trial.worker.ends, f"it did not wait\n{trial.worker.tail()}"
            assert trial.worker.get("preference", "/ready")[0] == 503
            assert trial.worker.get("preference", "/live")[0] == 200
        finally:
            arena.one().start()
        trial.worker.until(trial.worker.ready, "ready", 60)
        trial.until_served()
        # What was acted on before its item was served is folded by the next act.
        trial.send(trial.shoppers.closing())


@pytest.mark.timeout(240)
def test_17_slow_half_open_and_reset_connections_commit_nothing_undelivered(arena, tmp_path):
    brokers = Brokers(tmp_path / "proxied", 1, proxy=Proxy)
    try:
        with arena.trial("17 bad connections", at=brokers) as trial:
            proxy = brokers.proxy
            assert proxy
            assert proxy.n_connections > 3, "the workers do not go through the proxy"
            sending = trial.load_in_background(9000, per_s=250)
            for _ in range(2):
                time.sleep(2)
                proxy.cut()
                time.sleep(2)
                proxy.delay_s = 0.05
                time.sleep(4)
                proxy.delay_s = 0.0
                proxy.silent = True
                time.sleep(5)
                # Bytes were swallowed: no connection can go on from there.
                proxy.silent = False
                proxy.cut()
            sending.join()
            trial.finish_now(90)
            trial.note = f"{proxy.n_connections} connections"
    finally:
        brokers.stop()


@pytest.mark.timeout(240)
def test_18_what_cannot_be_delivered_is_not_committed(arena):
    with arena.trial("18 delivery refused") as trial:
        trial.load_and_drain(300)
        before = trial.admin.committed("prefstream-preference")
        trial.admin.configure("recommendations", {"max.message.bytes": "300"})
        trial.load(1500)
        time.sleep(20)
        during = trial.admin.committed("prefstream-preference")
        ready = trial.worker.get("preference", "/ready")[0]
        reflected = trial.to_be_read_again()
        trial.admin.configure("recommendations", {"max.message.bytes": "1048588"})
        trial.finish_now(90)
        clicks = [place for place in before if place[0] == "clickstream"]
        trial.note = f"ready said {ready}; {reflected} acts held back"
        ahead = {p: (before[p], during[p]) for p in clicks if during[p] - before[p] > 200}
        assert not ahead, f"committed without delivery: {ahead}"


@pytest.mark.timeout(120)
def test_24_a_worker_refuses_topics_whose_partitions_differ(arena):
    with arena.trial("24 partition counts differ") as trial:
        trial.load_and_drain(300)
        assert trial.worker.stop() == 0
        trial.admin.grow("clickstream", 3)
        trial.worker.launch()
        trial.worker.until(lambda: len(trial.worker.ends) > 0, "refused", 30)
        trial.worker.end()
        code = trial.worker.ends[0][1]
        text = trial.worker.tail()
        trial.finish_now(live=False)
        assert code == 3, f"exit {code}\n{text}"
        assert "clickstream" in text
        assert "expected 2 partitions" in text


@pytest.mark.timeout(200)
def test_23_a_topic_deleted_and_made_again_is_seen_and_recovered_from(arena):
    with arena.trial("23 a topic deleted and made again") as trial:
        trial.load_and_drain(500)
        trial.admin.delete(["searches"])
        time.sleep(12)
        ready = [trial.worker.get(process, "/ready")[0] for process in ("encode", "preference")]
        trial.worker.command("topics", "create")
        again = time.monotonic()
        trial.shop.log[:] = [s for s in trial.shop.log if s.message.topic != "searches"]
        trial.send(m for m in trial.shoppers.events(300) if m.topic == "clickstream")
        assert trial.drained(60) is not None
        trial.note = f"/ready said {ready}; drained {time.monotonic() - again:.0f} s after"
        trial.verdict = []
        assert 503 in ready, f"ready while a source topic is gone: {ready}"


@pytest.mark.timeout(120)
def test_25_what_was_trimmed_before_it_was_read_is_counted_as_lost(arena):
    with arena.trial("25 offsets out of range") as trial:
        trial.load_and_drain(500)
        assert trial.worker.stop() == 0
        before = trial.admin.committed("prefstream-preference")
        trial.load(1000)
        ends = trial.admin.ends(["clickstream"])
        half = {place: (before[place] + end) // 2 for place, end in ends.items()}
        trial.admin.trim(half)
        gone = {
            (topic, partition, offset)
            for (topic, partition), first in half.items()
            for offset in range(max(0, before[topic, partition]), first)
        }
        trial.worker.start()
        assert trial.drained(60) is not None
        counted = trial.worker.metric("preference", "prefstream_events_lost_total")
        trial.verdict = []
        trial.note = f"{len(gone)} trimmed, {counted:.0f} counted"
        assert counted == len(gone)

"""Faults 10, 11, 15, 16, 28, 29, 33: what fails for a while, is too large or too much."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from faults.generator import CLEAN, THINGS, WORDS, Message, now_ms
from faults.test_messages import event
from faults.trial import ROOMY_BYTES

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

MIB = 1024 * 1024
SMALLER_BATCH, ON_CPU = (
    f'prefstream_encoder_fallbacks_total{{to="{to}"}}' for to in ("smaller_batch", "cpu")
)


def rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def test_10_an_encoder_that_fails_for_a_while_is_tried_again_and_nothing_is_given_up(arena):
    with arena.trial("10 a dependency fails 3 times", inject={"FAULT_ENCODER_FAILS": "3"}) as trial:
        trial.load(1500, CLEAN)
        trial.finish_now()
        assert not trial.worker.ends, "a worker ended"
        assert not trial.admin.read("dead-letters")["dead-letters"]


def test_11_oversized_messages_and_long_histories_end_no_worker(arena, store):
    with arena.trial("11 oversized state and output", store=store) as trial:
        user_id = "u005"
        trial.overfull = {user_id}
        long_ids = [f"{n:04d}" + "x" * 250 for n in range(1500)]
        big = [
            Message("searches", b"u005", event(user_id, query="wool " * 19_000)),
            Message("reviews", b"u005", event(user_id, text="warm " * 19_000, rating=5)),
            Message("searches", b"u005", event(user_id, query="shoe", clicked_item_ids=long_ids)),
            *(
                Message("clickstream", b"u005", event(user_id, item_id=one, type="purchase"))
                for one in long_ids
            ),
        ]
        trial.send(big)
        trial.load(1500)
        trial.finish_now()
        largest = max(len(row) for row in trial.live_rows().values())
        trial.note = f"largest row {largest:,} bytes"
        assert largest <= ROOMY_BYTES
        assert not trial.worker.ends, f"a worker ended\n{trial.worker.tail()}"


@pytest.mark.timeout(280)
def test_15_ten_times_the_input_is_worked_off_in_bounded_memory(arena):
    with arena.trial("15 slow consumer", n_users=300) as trial:
        trial.load_and_drain(2000)
        pid = trial.worker.pid("preference")
        before, most, lag = rss_mib(pid), 0.0, 0.0
        sending = threading.Thread(target=trial.load, args=(30_000,))
        sending.start()
        deadline = time.monotonic() + 150
        while time.monotonic() < deadline:
            most = max(most, rss_mib(pid))
            lag = max(lag, trial.worker.metric("preference", "prefstream_consumer_lag"))
            if not sending.is_alive() and trial.drained(1) is not None:
                break
            time.sleep(0.2)
        sending.join()
        trial.finish_now(90)
        trial.note = f"lag seen {lag:,.0f}; memory {before:.0f} MiB, {most:.0f} MiB at most"
        assert lag > 1000, "no lag was ever shown"
        assert most < before + 250
        assert not trial.worker.ends, "a worker ended"


def test_16_an_encoder_that_blocks_beyond_the_session_timeout_is_not_evicted(arena):
    with arena.trial("16 a model call that blocks", inject={"FAULT_BLOCK_S": "15"}) as trial:
        trial.load(1500)
        trial.finish_now(90)
        assert not trial.worker.ends, "a worker ended"
        trial.note = "15 s, with a session of 6 s"


def item(item_id: str, title: str) -> Message:
    fields = {"item_id": item_id, "title": title, "updated_ms": now_ms()}
    return Message("items", item_id.encode(), json.dumps(fields).encode())


def test_28_every_list_names_one_index_version_though_items_change_all_the_time(arena):
    with arena.trial("28 index swapped under load") as trial:
        sending = trial.load_in_background(4000, per_s=400)
        for second in range(8):
            # Others than those acted on: their vectors would depend on when they are looked at.
            trial.send(item(f"new{second}-{n}", f"{WORDS[n]} {THINGS[second]}") for n in range(10))
            if second:
                keys = [f"new{second - 1}-{n}".encode() for n in range(5)]
                trial.send(Message("items", key, None) for key in keys)
            time.sleep(1)
        sending.join()
        trial.finish_now()
        versions = trial.index_versions()
        trial.note = f"{len(versions)} versions"
        assert len(versions) > 3
        assert all(versions)


def test_29_a_gpu_without_room_and_then_lost_costs_no_text(arena, tmp_path):
    from failing_device import small_bert  # torch takes seconds to import

    with arena.trial(
        "29 GPU out of memory, then lost",
        inject={"FAULT_ENCODER": "real", "FAULT_DEVICE": "4,120"},
        settings={"PREFSTREAM_ENCODER": str(small_bert(tmp_path / "bert"))},
    ) as trial:
        # The catalogue alone has more than the device has room for at once.
        trial.worker.until(lambda: trial.worker.metric("encode", SMALLER_BATCH), "a smaller batch")
        assert trial.worker.metric("encode", ON_CPU) == 0
        trial.load(2500, CLEAN, per_s=250)
        trial.worker.until(lambda: trial.worker.metric("encode", ON_CPU), "the device lost")
        trial.finish_now()
        halved = trial.worker.metric("encode", SMALLER_BATCH)
        trial.note = f"{halved:.0f} batches halved, then the CPU"
        assert trial.worker.metric("encode", ON_CPU) == 1
        assert 'device="cpu"' in trial.worker.get("encode", "/metrics")[1]
        assert not trial.worker.ends, f"a worker ended\n{trial.worker.tail()}"
        assert not trial.admin.read("dead-letters")["dead-letters"]


def test_33_metrics_scraped_hard_and_ports_probed_change_nothing(arena):
    with arena.trial("33 metrics scraped hard") as trial:
        stop = threading.Event()
        scrapes = 0

        def scrape() -> None:
            nonlocal scrapes
            while not stop.is_set():
                scrapes += trial.worker.get("preference", "/metrics")[0] == 200

        threads = [threading.Thread(target=scrape, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        trial.load(3000, per_s=400)
        drained_s = trial.drained(60)
        stop.set()
        assert drained_s is not None
        for path in ("/table", "/table/user-state/u001/", "/", "/metrics/..", "/router"):
            assert trial.worker.get("preference", path)[0] == 404, path
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(
                f"http://{own_address()}:{trial.worker.port + 1}/metrics", timeout=2
            )
        trial.note = f"{scrapes} scrapes; drained {drained_s:.1f} s after the load"


def own_address() -> str:
    """Return an address of this machine that is not the loopback's."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: asks which address would be used
        return str(probe.getsockname()[0])

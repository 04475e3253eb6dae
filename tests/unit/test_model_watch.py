"""A model's folder that changes under a worker: what is taken, what is not, and what is told."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders import NOW_MS

from models.model_folder import MANIFEST
from models.trained_sentiment import SentimentParts, save_sentiment
from models.versions import chosen, rollback, switch
from models.weights import ModelError, WrongEncoder
from stream.metrics import Metrics
from stream.model_watch import ModelWatch, Ready, Watched, watched_encoder
from stream.trained import open_sentiment_model

DIM = 4


def save(folder: Path, slope: float = 1.0, encoder: str = "hash-4", dim: int = DIM) -> str:
    """Write a model that differs from others by its slope; return its name."""
    parts = SentimentParts(
        np.ones(8, np.float32), np.ones(8, np.float32), np.ones(dim, np.float32), slope, 0.0
    )
    return save_sentiment(folder, parts, encoder, {})


class Worker:
    """A worker that reads reviews, whose watch looks when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics = Metrics()
        self.now_s = 0.0
        self.given_up: list[str] = []
        self.threads: set[int] = set()
        self.on_load: Callable[[], None] = lambda: None
        model = open_sentiment_model(chosen(folder), "hash-4", DIM)
        self.in_use = [model.name]
        self.watch = ModelWatch(self.metrics, 1.0, lambda: NOW_MS, lambda: self.now_s)
        self.watch.add(Watched("sentiment", folder, model.name, self.load))

    def load(self, folder: Path) -> Ready:
        self.threads.add(threading.get_ident())
        model = open_sentiment_model(folder, "hash-4", DIM)
        self.on_load()

        async def use() -> None:
            self.in_use.append(model.name)

        return Ready(model.name, use, lambda: self.given_up.append(model.name))

    async def look(self, n: int = 2) -> None:
        """Look so many times, ten seconds apart."""
        for _ in range(n):
            self.now_s += 10
            await self.watch.look()

    def value(self, name: str, /, **labels: str) -> float | None:
        told = {"kind": "sentiment", **labels}
        return self.metrics.registry.get_sample_value(f"prefstream_model_{name}", told)

    @property
    def refusals(self) -> dict[str, float]:
        reasons = ("damaged", "encoder", "failed")
        counts = {r: self.value("refusals_total", reason=r) or 0.0 for r in reasons}
        return {reason: n for reason, n in counts.items() if n}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two versions, the first of them in use."""
    folder = tmp_path / "my-reviews"
    save(folder / "1", 1.0)
    save(folder / "2", 2.0)
    switch(folder, "1")
    return folder


@pytest.fixture
async def worker(folder: Path) -> Worker:
    worker = Worker(folder)
    await worker.look(2)
    return worker


async def test_what_does_not_change_is_left_alone(worker: Worker) -> None:
    await worker.look(5)
    assert len(worker.in_use) == 1
    assert worker.threads == set()
    assert (worker.value("pending_seconds"), worker.value("swaps_total")) == (0, 0)
    assert worker.value("info", name=worker.in_use[0], version="1") == 1
    assert worker.value("taken_timestamp_seconds") == NOW_MS / 1000


async def test_a_switch_is_followed_and_so_is_the_way_back(worker: Worker, folder: Path) -> None:
    switch(folder, "2")
    await worker.look(1)
    # It must stand still for one look.
    assert (len(worker.in_use), worker.value("pending_seconds")) == (1, 0)
    await worker.look(1)
    first, second = worker.in_use
    assert first != second
    assert worker.value("info", name=second, version="2") == 1
    assert worker.value("info", name=first, version="1") is None
    assert (worker.value("swaps_total"), worker.value("pending_seconds")) == (1, 0)
    assert threading.get_ident() not in worker.threads
    rollback(folder)
    await worker.look(2)
    assert worker.in_use == [first, second, first]
    assert worker.value("swaps_total") == 2


async def test_a_folder_replaced_in_place_is_taken_too(tmp_path: Path) -> None:
    save(tmp_path / "m", 1.0)
    worker = Worker(tmp_path / "m")
    await worker.look(2)
    save(tmp_path / "new", 2.0)
    shutil.rmtree(tmp_path / "m")
    await worker.look(1)
    (tmp_path / "new").rename(tmp_path / "m")
    await worker.look(2)
    assert len(worker.in_use) == 2
    assert worker.refusals == {}


async def test_a_half_written_folder_is_left_alone_until_it_is_whole(
    worker: Worker, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path / "whole", 3.0)
    (folder / "3").mkdir()
    switched = tmp_path / "link"
    switched.symlink_to("3")
    switched.rename(folder / "current")
    for file in (MANIFEST, "calibration.json"):
        await worker.look(3)
        shutil.copy(tmp_path / "whole" / file, folder / "3" / file)
    await worker.look(3)
    assert (len(worker.in_use), worker.refusals) == (1, {})
    assert worker.value("pending_seconds") == 80
    told = [record.message for record in caplog.records if "not whole" in record.message]
    assert "lacks=linear.safetensors" in told[-1]
    assert len(told) == 3  # once for each state that it was in
    # Copied slowly: there, but short of its end.
    content = (tmp_path / "whole/linear.safetensors").read_bytes()
    for end in (10, 20, len(content)):
        (folder / "3/linear.safetensors").write_bytes(content[:end])
        await worker.look(1)
    await worker.look(1)
    assert (len(worker.in_use), worker.refusals) == (2, {})
    assert worker.value("pending_seconds") == 0


async def test_a_wrong_digest_is_refused_once_and_the_old_one_stays(
    worker: Worker, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "2/calibration.json"
    path.write_bytes(path.read_bytes().replace(b"2", b"3"))
    switch(folder, "2")
    await worker.look(6)
    assert (len(worker.in_use), worker.refusals) == (1, {"damaged": 1})
    assert worker.value("pending_seconds") == 50
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    for words in ("model refused", "damaged", worker.in_use[0], str(path)):
        assert words in record.message
    rollback(folder)
    await worker.look(2)
    assert (len(worker.in_use), worker.value("pending_seconds")) == (1, 0)


async def test_a_refused_folder_that_is_mended_is_taken(worker: Worker, folder: Path) -> None:
    path = folder / "2/calibration.json"
    content = path.read_bytes()
    path.write_bytes(b"{}")
    switch(folder, "2")
    await worker.look(2)
    path.write_bytes(content)
    await worker.look(2)
    assert (len(worker.in_use), worker.refusals) == (2, {"damaged": 1})


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        pytest.param({"encoder": "other-4"}, "encoder", "encoder other-4", id="other encoder"),
        pytest.param({"dim": 7}, "damaged", "does not work", id="fails its trial"),
    ],
)
async def test_a_sound_folder_that_does_not_fit_is_refused(
    worker: Worker,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    fields: dict[str, object],
    reason: str,
    words: str,
) -> None:
    save(folder / "3", 3.0, **fields)  # type: ignore[arg-type]
    switch(folder, "3")
    await worker.look(4)
    assert (len(worker.in_use), worker.refusals) == (1, {reason: 1})
    assert words in caplog.text


@pytest.mark.parametrize("error", [MemoryError(), ZeroDivisionError("a bug")])
async def test_a_thread_that_fails_costs_the_new_model_alone(
    worker: Worker, folder: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail() -> None:
        raise error

    worker.on_load = fail
    switch(folder, "2")
    await worker.look(4)
    assert (len(worker.in_use), worker.refusals) == (1, {"failed": 1})
    assert "Traceback" in caplog.text
    # What is switched to next is tried again.
    worker.on_load = lambda: None
    save(folder / "3", 3.0)
    switch(folder, "3")
    await worker.look(2)
    assert len(worker.in_use) == 2


async def test_what_was_taken_back_while_it_was_being_loaded_is_not_used(
    worker: Worker, folder: Path
) -> None:
    worker.on_load = lambda: switch(folder, "1")
    switch(folder, "2")
    await worker.look(4)
    assert (len(worker.in_use), len(worker.given_up)) == (1, 1)
    assert (worker.value("pending_seconds"), worker.value("swaps_total")) == (0, 0)


async def test_the_same_model_in_another_place_is_no_other_model(
    worker: Worker, folder: Path
) -> None:
    shutil.copytree(folder / "1", folder / "copy")
    switch(folder, "copy")
    await worker.look(3)
    assert (len(worker.in_use), worker.threads, worker.value("pending_seconds")) == (1, set(), 0)


async def test_a_switch_that_the_worker_missed_at_its_start_is_found(folder: Path) -> None:
    worker = Worker(folder)
    switch(folder, "2")
    await worker.look(2)
    assert len(worker.in_use) == 2


async def test_a_swap_that_fails_is_not_hidden(worker: Worker, folder: Path) -> None:
    model = worker.watch._watched[0]
    load = model.load

    def broken(at: Path) -> Ready:
        async def use() -> None:
            raise ZeroDivisionError("a bug")

        ready = load(at)
        assert ready is not None
        return Ready(ready.name, use)

    model.load = broken
    switch(folder, "2")
    with pytest.raises(ZeroDivisionError):
        await worker.look(2)


async def test_looking_is_switched_off_and_has_nothing_to_do_without_models(folder: Path) -> None:
    await ModelWatch(Metrics(), 1.0, lambda: NOW_MS).run()
    worker = Worker(folder)
    worker.watch._every_s = 0
    await worker.watch.run()


async def test_another_encoder_in_the_folder_is_never_swapped_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held = {"id": "bert-1"}
    monkeypatch.setattr("stream.model_watch.resolve", lambda *_, **__: None)
    monkeypatch.setattr("stream.model_watch.encoder_id", lambda _: held["id"])
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    metrics = Metrics()
    watch = ModelWatch(metrics, 1.0, lambda: NOW_MS)
    encoder = watched_encoder(str(folder), "", "bert-1")
    assert encoder is not None
    watch.add(encoder)
    for _ in range(3):
        await watch.look()
    assert "refused" not in caplog.text
    held["id"] = "bert-2"
    (folder / "config.json").write_text('{"other": 1}')
    for _ in range(4):
        await watch.look()
    labels = {"kind": "encoder", "reason": "encoder"}
    value = metrics.registry.get_sample_value("prefstream_model_refusals_total", labels)
    assert value == 1
    assert "holds the encoder bert-2: an encoder is never swapped" in caplog.text
    assert "OPERATIONS.md" in caplog.text


def test_an_encoder_that_is_no_folder_is_not_watched(tmp_path: Path) -> None:
    assert watched_encoder("all-MiniLM-L6-v2", "", "any") is None
    broken = watched_encoder(str(tmp_path), "", "any")
    assert broken is not None
    with pytest.raises(WrongEncoder, match="does not hold the encoder any more"):
        broken.load(tmp_path)
    assert issubclass(WrongEncoder, ModelError)

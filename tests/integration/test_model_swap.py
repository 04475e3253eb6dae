"""Models change under workers that go on: what they publish names the next, then the old."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from churn_shops import END_MS, simulated_acts
from running import Outside, Workers, next_of, workers

from models.evaluation import intervals
from models.ranking_features import FEATURES
from models.sequence_model import SequenceParts, save_sequence
from models.sequence_network import SequenceNetwork, Shape
from models.trained_churn import save_churn
from models.trained_ranker import Conditions, RankerParts, save_ranker
from models.trained_sentiment import SentimentParts, save_sentiment
from models.versions import rollback, switch
from models.weights import encoder_id, resolve
from stream.settings import load_settings
from stream.training.churn import train_on

pytestmark = [pytest.mark.broker, pytest.mark.slow]

ENCODER = encoder_id(resolve("all-MiniLM-L6-v2"))
TITLES = {"shoe": "Running shoes", "sock": "Running socks", "bean": "Coffee beans"}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def ranker_of(version: int) -> RankerParts:
    """Return a ranker that prefers what resembles the history."""
    n = len(FEATURES)
    settings = load_settings()
    conditions = Conditions(ENCODER, settings.text_share, settings.step_decay, user_model=True)
    bounds = {"lows": (-9.0,) * n, "highs": (9.0,) * n, "slope": 1.0, "diversity": 0.0}
    weights = tuple(float(name == "text") for name in FEATURES)
    return RankerParts(
        weights, (0.0,) * n, intercept=-float(version), conditions=conditions, **bounds
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[str]]]:
    """By kind a folder of two versions, the first in use, and their names."""
    root, made = tmp_path_factory.mktemp("models"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "N_RESAMPLES", 20)
        churn, _ = train_on(simulated_acts(), END_MS)
    ones = np.ones(8, np.float32)
    for kind in ("user", "ranker", "churn", "sentiment"):
        names = []
        for version in (1, 2):
            folder = root / kind / str(version)
            if kind == "user":
                network = SequenceNetwork(Shape(384, 1, 8, 1, 1, 4, by_text=True))
                mean = np.zeros(384, np.float32)
                parts = SequenceParts(network, [str(version)], mean, ENCODER, 0.1)
                names.append(save_sequence(folder, parts, {}))
            elif kind == "ranker":
                names.append(save_ranker(folder, ranker_of(version), {}))
            elif kind == "churn":
                names.append(save_churn(folder, replace(churn, typical_order=float(version)), {}))
            else:
                of_text = SentimentParts(ones, ones, np.ones(384, np.float32), version, 0.0)
                names.append(save_sentiment(folder, of_text, ENCODER, {}))
        switch(root / kind, "1")
        made[kind] = (root / kind, names)
    return made


@pytest.fixture
def shop(
    embedded_broker: str,
    topic_prefix: str,
    tmp_path: Path,
    models: dict[str, tuple[Path, list[str]]],
) -> Iterator[tuple[Workers, Outside]]:
    settings = {
        "PREFSTREAM_MIN_INTERVAL_MS": "0",
        "PREFSTREAM_MODEL_CHECK_S": "0.2",
        **{f"PREFSTREAM_{kind.upper()}_MODEL": str(folder) for kind, (folder, _) in models.items()},
    }
    with workers(embedded_broker, topic_prefix, tmp_path, **settings) as running:
        outside = Outside(embedded_broker, topic_prefix)
        for item_id, title in TITLES.items():
            item = {"item_id": item_id, "title": title, "updated_ms": now_ms()}
            outside.send("items", item_id, item)
        outside.flush()
        running.until(
            lambda: running.metric("preference", "prefstream_index_items") == len(TITLES),
            "indexed",
        )
        yield running, outside


class Shopper:
    """Acts and writes reviews, and says which models have made what came of it."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._n = 0
        self._consumer = outside.follow(["recommendations", "churn-risk", "review-insights"])

    def models(self) -> dict[str, str]:
        """Have a new shopper buy and review something; return the model by kind."""
        self._n += 1
        user_id = f"u{self._n}"
        base = {"user_id": user_id, "item_id": "shoe", "event_time_ms": now_ms()}
        bought = {**base, "event_id": "b", "type": "purchase", "price": 9.0}
        self._outside.send("clickstream", user_id, bought)
        self._outside.send("reviews", user_id, {**base, "event_id": "r", "text": "Worth it"})
        self._outside.flush()
        made: dict[str, str] = {}
        while len(made) < 4:
            message = next_of(self._consumer)
            value = json.loads(message.value())
            if value["user_id"] != user_id:
                continue
            model = value["model"]
            if message.topic().endswith("recommendations"):
                _, made["user"], made["ranker"] = model["ranker"].split("+")
            else:
                kind = "churn" if message.topic().endswith("churn-risk") else "sentiment"
                made[kind] = model
        return made


def test_outputs_name_the_next_model_without_a_restart(
    shop: tuple[Workers, Outside], models: dict[str, tuple[Path, list[str]]]
) -> None:
    running, outside = shop
    assert running.process is not None
    pid, shopper = running.process.pid, Shopper(outside)
    first, second = ({kind: names[n] for kind, (_, names) in models.items()} for n in (0, 1))
    tiers = ("preference", "encode")

    def swapped(n: int) -> bool:
        counts = {t: running.metric(t, "prefstream_model_swaps_total") for t in tiers}
        return counts == {"preference": 3 * n, "encode": n}

    assert shopper.models() == first
    for folder, _ in models.values():
        switch(folder, "2")
    running.until(lambda: swapped(1), "swapped")
    assert shopper.models() == second
    for folder, _ in models.values():
        rollback(folder)
    running.until(lambda: swapped(2), "swapped back")
    assert shopper.models() == first

    # What is damaged is refused, and all goes on as it was.
    folder, _ = models["churn"]
    shutil.copytree(folder / "2", folder / "3")
    (folder / "3/additive.json").write_text("{}")
    switch(folder, "3")
    running.until(
        lambda: running.metric("preference", "prefstream_model_refusals_total") == 1, "refused"
    )
    assert shopper.models() == first
    assert "model refused" in running.tail()
    assert running.process.pid == pid
    assert running.process.poll() is None

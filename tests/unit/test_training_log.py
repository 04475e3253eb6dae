"""From a log to what churn is learnt from: the workers' own activities, and no look ahead."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from builders import NOW_MS, interaction, review, search
from churn_shops import FIRST_MS, simulated_acts

from models.activity import DAY_MS
from models.churn import churn_inputs
from models.evaluation import intervals
from models.trained_churn import load_churn
from models.training.churn import TooLittle
from stream.cli import run
from stream.core.fold import Sourced, fold
from stream.core.user_state import Rules, UserState
from stream.formats import Record
from stream.settings import load_settings
from stream.tiers.preference import churn_model
from stream.training.churn import Act, moments, plan, read_acts

RULES = Rules.of(load_settings())


def record(topic: str, event) -> Record:
    return Record(topic, event.user_id.encode(), msgspec.json.encode(event), event.event_time_ms)


def a_log() -> list[tuple[str, object]]:
    """Return events of three users in time order, of all kinds that there are."""
    rng = np.random.default_rng(0)
    kinds = ["impression", "view", "purchase", "dislike", "search", "review", "favorite"]
    log: list[tuple[str, object]] = []
    for n in range(150):
        kind = kinds[rng.integers(len(kinds))]
        at_ms = NOW_MS + n * DAY_MS // 3
        facts = {"event_id": f"e{n}", "user_id": f"u{n % 3}", "event_time_ms": at_ms}
        if kind == "search":
            log.append(("searches", search(clicked_item_ids=["i1"], **facts)))
        elif kind == "review":
            rating = None if n % 4 == 0 else float(rng.integers(1, 6))
            log.append(("reviews", review(rating=rating, **facts)))
        else:
            price = float(rng.uniform(1, 9)) if n % 2 else None
            log.append(("clickstream", interaction(type=kind, price=price, quantity=2.0, **facts)))
    return log


def test_what_is_learnt_from_is_what_the_workers_fold() -> None:
    log = a_log()
    cut_ms = NOW_MS + 150 * DAY_MS
    [moment] = moments(read_acts(record(topic, event) for topic, event in log), [cut_ms])
    live = []
    for user in ("u0", "u1", "u2"):
        told = [
            Sourced(topic, 0, offset, event.event_time_ms, event)
            for offset, (topic, event) in enumerate(log)
            if event.user_id == user
        ]
        live.append(fold(UserState(), told, {}, RULES).state.activity)
    assert list(moment.activities) == live
    served = churn_inputs(live, cut_ms, 30.0, 50.0)
    learnt = churn_inputs(moment.activities, cut_ms, 30.0, 50.0)
    np.testing.assert_array_equal(served, learnt)


def test_an_event_told_twice_counts_once_and_a_bad_one_not_at_all() -> None:
    good = record("clickstream", interaction(type="purchase"))
    bad = Record("clickstream", b"u1", b"{}", NOW_MS)
    item = Record("items", b"i1", b"{}", NOW_MS)
    gone = Record("clickstream", b"u1", None, 0)
    assert len(read_acts([good, bad, item, gone, good])) == 1


def test_a_moment_knows_what_was_before_it_and_when_the_next_purchase_came() -> None:
    acts = [
        Act(FIRST_MS, "a", "purchase"),
        Act(FIRST_MS, "b", "view"),
        Act(FIRST_MS, "c", "impression"),
        Act(FIRST_MS + 3 * DAY_MS, "a", "view"),
        Act(FIRST_MS + 4 * DAY_MS, "a", "purchase"),
        Act(FIRST_MS + 4 * DAY_MS, "d", "purchase"),
        Act(FIRST_MS + 6 * DAY_MS, "a", "purchase"),
        Act(FIRST_MS + 9 * DAY_MS, "b", "purchase"),
    ]
    cuts = [FIRST_MS + days * DAY_MS for days in (1, 4, 5, 20)]
    early, at_purchase, between, late = moments(acts, cuts)
    assert early.silent_days.tolist() == [3.0, 8.0]
    assert [activity.n_acts for activity in early.activities] == [1, 1]
    assert at_purchase.silent_days.tolist() == [0.0, 5.0]
    assert [activity.n_acts for activity in at_purchase.activities] == [2, 1]
    assert between.silent_days.tolist() == [1.0, 4.0, math.inf]
    assert between.users.tolist() == [0, 1, 3]
    assert late.silent_days.tolist() == [math.inf] * 3


def test_cuts_and_horizons_lie_within_the_log() -> None:
    end_ms = FIRST_MS + 100 * DAY_MS
    cuts, horizons = plan(FIRST_MS, end_ms, 30.0)
    assert cuts == sorted(cuts)
    assert cuts[0] == FIRST_MS + 50 * DAY_MS
    assert cuts[-1] + horizons[0] * DAY_MS == pytest.approx(end_ms)
    assert 30.0 in horizons
    assert max(plan(FIRST_MS, end_ms, 365.0)[1]) == pytest.approx(50)
    with pytest.raises(TooLittle, match=r"two weeks at least, got 10\.0 days"):
        plan(FIRST_MS, FIRST_MS + 10 * DAY_MS)


@pytest.fixture(scope="module")
def log_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    lines = []
    for number, act in enumerate(simulated_acts()):
        facts = {"event_id": str(number), "user_id": act.user_id, "item_id": "i1"}
        facts["event_time_ms"] = act.event_time_ms
        topic = "reviews" if act.kind == "review" else "clickstream"
        kind = {"text": "", "rating": act.rating} if act.kind == "review" else {"type": act.kind}
        price = {} if act.price is None else {"price": act.price}
        lines.append(json.dumps({"topic": topic, "value": {**facts, **kind, **price}}))
    path.write_text("\n".join(lines))
    return path


def test_the_command_writes_a_folder_that_the_workers_can_be_given(
    log_file, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(intervals, "N_RESAMPLES", 50)
    out = tmp_path / "model"
    command = ["train", "churn", str(log_file), "--format", "jsonl", "--out", str(out)]
    assert run(command) == 0
    said = capsys.readouterr().out
    name = load_churn(out).name
    assert f"{name} written to {out}" in said
    assert "auc 0." in said
    assert churn_model(load_settings(churn_model=str(out))).name == name
    assert json.loads((out / "manifest.json").read_text())["data"]["n_users"] == 400
    assert run(command) == 1
    assert "something already" in capsys.readouterr().err


def test_a_log_too_short_is_one_line(log_file, tmp_path, capsys) -> None:
    out = tmp_path / "model"
    command = ["train", "churn", str(log_file), "--format", "jsonl", "--out", str(out)]
    assert run([*command, "--until", "2023-11-20"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "two weeks" in said
    assert not out.exists()


def test_without_a_folder_the_built_in_model_serves() -> None:
    assert churn_model(load_settings()).name == "churn-baseline-1"

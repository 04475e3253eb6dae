"""TrainedChurn: what it learns, why it says it, and that its folder is what it was."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from churn_shops import END_MS, simulated_acts

from models.activity import DAY_MS, NO_ACTIVITY, Activity, fold_activity
from models.evaluation import intervals
from models.model_folder import MANIFEST, write_folder
from models.trained_churn import FEATURES, KIND, TrainedChurn, load_churn, save_churn
from models.training.churn import Moment, TooLittle, train_churn
from models.weights import ModelError
from stream.training.churn import moments, train_on

HORIZON = 30.0


@pytest.fixture(scope="module", autouse=True)
def _narrow_enough() -> Iterator[None]:
    """Intervals of fewer resamples: a thousand take most of the time, and none is looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "N_RESAMPLES", 50)
        yield


@pytest.fixture(scope="module")
def trained():
    return train_on(simulated_acts(), END_MS)


@pytest.fixture(scope="module")
def model(trained) -> TrainedChurn:
    return TrainedChurn(trained[0], "churn-test")


@pytest.fixture(scope="module")
def strangers() -> Moment:
    """Customers of the same shop whom the model has not met, and what they do."""
    return moments(simulated_acts(300, seed=5), [END_MS - 40 * DAY_MS])[0]


@pytest.fixture
def folder(trained, tmp_path: Path) -> Path:
    save_churn(tmp_path / "model", trained[0], {"data": {"n_acts": 3}})
    return tmp_path / "model"


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def regular(*days_ago: float) -> Activity:
    activity = NO_ACTIVITY
    for days in days_ago:
        at_ms = END_MS - round(days * DAY_MS)
        activity = fold_activity(activity, "view", at_ms)
        activity = fold_activity(activity, "purchase", at_ms, 20.0, 1.0)
        activity = fold_activity(activity, "review", at_ms, rating=4.0)
    return activity


def test_strangers_are_ranked_and_their_probabilities_are_meant(model, strangers) -> None:
    said = np.array(
        [
            assessment.probability
            for assessment in model.predict(strangers.activities, strangers.cut_ms, HORIZON)
        ]
    )
    silent = strangers.silent_days >= HORIZON
    chance = (said[silent][:, None] > said[~silent][None, :]).mean()
    assert chance > 0.75
    assert said.mean() == pytest.approx(silent.mean(), abs=0.08)


def test_the_validation_lies_behind_what_it_was_fitted_on(trained) -> None:
    _, validation = trained
    assert validation.cut_ms + validation.horizon_days * DAY_MS <= END_MS
    assert validation.figures["auc"].low > 0.6
    assert validation.n_customers > 100


def test_it_is_the_same_model_each_time(trained) -> None:
    assert train_on(simulated_acts(), END_MS)[0] == trained[0]


def test_acts_behind_the_end_teach_nothing(trained) -> None:
    end_ms = END_MS - 60 * DAY_MS
    cuts = [END_MS - days * DAY_MS for days in (120, 110, 90, 80)]
    known = [act for act in simulated_acts() if act.event_time_ms < end_ms]
    horizons = [7.0, 20.0]
    knowing_more = train_churn(moments(simulated_acts(), cuts), end_ms, horizons)
    assert knowing_more == train_churn(moments(known, cuts), end_ms, horizons)


@pytest.mark.parametrize("horizon", [7.0, 30.0, 365.0])
def test_silence_never_lowers_the_risk(model, strangers, horizon: float) -> None:
    people = strangers.activities[:100]
    later = [strangers.cut_ms + round(days * DAY_MS) for days in (0, 1, 3, 10, 30, 90, 400)]
    said = np.array(
        [[a.probability for a in model.predict(people, now_ms, horizon)] for now_ms in later]
    )
    assert (np.diff(said, axis=0) >= -1e-12).all()


def test_a_longer_horizon_never_raises_the_risk(model, strangers) -> None:
    said = np.array(
        [
            [a.probability for a in model.predict(strangers.activities, strangers.cut_ms, horizon)]
            for horizon in (1.0, 7.0, 30.0, 100.0, 1000.0)
        ]
    )
    assert (np.diff(said, axis=0) <= 1e-12).all()


def test_what_drives_it_adds_up(model) -> None:
    # Never bought and dislikes are not known of anybody here.
    [assessment] = model.predict([regular(90, 60, 30)], END_MS, HORIZON)
    drivers = assessment.drivers
    assert {"frequency", "gap", "recency_in_gaps", "satisfaction"} <= {d.feature for d in drivers}
    total = sum(driver.contribution for driver in drivers)
    assert model.base + total == pytest.approx(logit(assessment.probability), abs=1e-6)
    sizes = [abs(driver.contribution) for driver in drivers]
    assert sizes == sorted(sizes, reverse=True)


def test_what_is_not_known_is_no_driver(model) -> None:
    activity = fold_activity(NO_ACTIVITY, "purchase", END_MS - DAY_MS)
    [assessment] = model.predict([activity], END_MS, HORIZON)
    named = {driver.feature for driver in assessment.drivers}
    assert not named & {"order_value", "satisfaction", "dislikes", "never_bought"}
    assert all(math.isfinite(driver.contribution) for driver in assessment.drivers)


def test_somebody_without_any_act_is_assessed(model) -> None:
    [assessment] = model.predict([NO_ACTIVITY], END_MS, HORIZON)
    assert 0 < assessment.probability < 1
    assert model.predict([], END_MS, HORIZON) == []
    with pytest.raises(ValueError, match="horizon_days"):
        model.predict([NO_ACTIVITY], END_MS, 0)


# The folder -------------------------------------------------------------------------------------


def test_a_folder_gives_the_model_back(model, strangers, folder) -> None:
    again = load_churn(folder)
    people, now_ms = strangers.activities, strangers.cut_ms
    assert again.predict(people, now_ms, HORIZON) == model.predict(people, now_ms, HORIZON)
    assert again.name.startswith("churn-")
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["name"] == again.name
    assert manifest["data"] == {"n_acts": 3}


def test_a_folder_holds_nothing_that_can_be_run(folder) -> None:
    assert {path.name for path in folder.iterdir()} == {MANIFEST, "additive.json", "trees.txt"}
    for path in folder.iterdir():
        path.read_text(encoding="utf-8")


def test_another_fit_has_another_name(trained, folder, tmp_path) -> None:
    parts = train_on(simulated_acts(seed=1), END_MS)[0]
    assert save_churn(tmp_path / "other", parts, {}) != load_churn(folder).name
    assert save_churn(tmp_path / "same", trained[0], {}) == load_churn(folder).name


def test_nothing_is_written_over(trained, folder) -> None:
    with pytest.raises(ModelError, match="something already"):
        save_churn(folder, trained[0], {})


def test_a_damaged_file_is_named(folder) -> None:
    text = (folder / "trees.txt").read_text()
    (folder / "trees.txt").write_text(text.replace("1", "2", 1))
    with pytest.raises(ModelError, match=r"trees\.txt: damaged"):
        load_churn(folder)


def test_a_missing_file_is_named(folder) -> None:
    (folder / "additive.json").unlink()
    with pytest.raises(ModelError, match=r"additive\.json: cannot be read"):
        load_churn(folder)


def test_a_folder_that_is_none_is_named(tmp_path) -> None:
    with pytest.raises(ModelError, match=r"manifest\.json: .*expected a trained model"):
        load_churn(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "ranker"}, "expected a model of kind churn, got 'ranker'"),
        ({"version": 9}, "expected version 1, got 9"),
        ({"features": ["age"]}, "made for other features"),
        ({"files": {"../secret": {"sha256": "0"}}}, "not beside it"),
        ({"files": {}}, "lacks additive.json and trees.txt"),
        ({"files": None}, "lacks name or files"),
    ],
    ids=["another-kind", "another-version", "other-features", "outside", "no-files", "no-object"],
)
def test_a_foreign_manifest_is_refused(folder, change, said: str) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **change}))
    with pytest.raises(ModelError, match=said):
        load_churn(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[" * 100_000], ids=["empty", "list", "cut", "deep"]
)
def test_a_manifest_that_is_none_is_refused(folder, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(ModelError, match=MANIFEST):
        load_churn(folder)


@pytest.mark.parametrize(
    "change",
    [{"weights": [1.0]}, {"slope": -1.0}, {"intercept": "x"}, {"typical_order": math.inf}],
    ids=["too-few", "upside-down", "no-number", "infinite"],
)
def test_numbers_that_cannot_be_are_refused(trained, tmp_path, change) -> None:
    numbers = {"weights": [0.0] * 11, "centres": [0.0] * 11, "slope": 1.0, "intercept": 0.0}
    text = json.dumps({**numbers, "typical_order": 1.0, **change}).encode()
    files = {"additive.json": text, "trees.txt": trained[0].trees.encode()}
    write_folder(tmp_path / "bad", KIND, {"features": list(FEATURES)}, files)
    with pytest.raises(ModelError, match=r"additive\.json: not a churn model"):
        load_churn(tmp_path / "bad")


@pytest.mark.filterwarnings("ignore")
def test_trees_of_somebody_else_are_refused(trained) -> None:
    with pytest.raises(ModelError, match=r"trees\.txt is not LightGBM's text"):
        TrainedChurn(replace(trained[0], trees="not trees"), "x")


def test_without_lightgbm_it_is_said_what_to_install(trained, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ModelError, match=r"pip install prefstream\[train\]"):
        TrainedChurn(trained[0], "x")


# Too little -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("acts", "said"),
    [
        (simulated_acts()[:1], "two weeks"),
        ([act for act in simulated_acts() if act.kind == "view"], "nothing is left to validate"),
        (simulated_acts(2), "nothing is left to validate"),
    ],
    ids=["one-act", "no-purchases", "two-customers"],
)
def test_a_log_with_too_little_to_learn_from_is_refused(acts, said: str) -> None:
    end_ms = END_MS if len(acts) > 1 else acts[0].event_time_ms + 1
    with pytest.raises(TooLittle, match=said):
        train_on(acts, end_ms)


def test_no_moment_is_refused() -> None:
    with pytest.raises(TooLittle, match="no horizon ends within the log"):
        train_churn([], END_MS, [30.0])

"""From a log to a ranker's folder, and from the folder to a worker's ranking."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from builders import NOW_MS, interaction, item
from fakes import HashEncoder

from models.learnt_ranking import Choices
from models.model_folder import MANIFEST
from models.ranking_features import FEATURES
from models.trained_ranker import TrainedRanker
from models.training.ranker import Questions, TooLittle, calibrate, fit_ranker, joined
from stream.core.events import Interaction
from stream.evaluate.shop import LiveShop
from stream.formats import Record
from stream.settings import DEFAULT_WEIGHTS, load_settings
from stream.tiers.preference import ranker
from stream.training import ranker as training
from stream.training.ranker import (
    MadeRanker,
    Question,
    read_log,
    shown_lists,
    train_into,
)

NAMES = list(FEATURES)
N_USERS, MINUTE_MS = 80, 60_000


def record(topic: str, event) -> Record:
    key = event.item_id if topic == "items" else event.user_id
    return Record(topic, key.encode(), msgspec.json.encode(event), NOW_MS)


def act(item_id: str, minute: float, **fields) -> Record:
    at_ms = NOW_MS + round(minute * MINUTE_MS)
    event_id = f"{fields.get('user_id')}-{item_id}-{at_ms}-{fields.get('type')}"
    fields = {"event_id": event_id, "event_time_ms": at_ms, **fields}
    return record("clickstream", interaction(item_id=item_id, **fields))


def shop_log() -> list[Record]:
    """Everyone walks through the shop on one of two ways, and nothing in a name says which."""
    rng = np.random.default_rng(3)
    item_ids = [f"thing-{n}" for n in range(60)]
    records = [record("items", item(item_id=i, title=f"A {i}", price=9.0)) for i in item_ids]
    ways = rng.permutation(item_ids).reshape(2, -1).tolist()
    for user in range(N_USERS):
        way, start = ways[user % 2], int(rng.integers(30))
        for step in range(24):
            records.append(
                act(way[(start + step) % 30], step * 60 + user, user_id=f"u{user}", type="purchase")
            )
    return records


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, MadeRanker]:
    encoder, out = HashEncoder(), tmp_path_factory.mktemp("trained") / "ranker"
    settings = load_settings()
    found = train_into(out, shop_log(), settings, encoder.encode, encoder.encoder_id, None)
    return out, found


def test_a_ranker_learns_what_the_hybrid_score_does_not_know(made: tuple[Path, MadeRanker]) -> None:
    reached = made[1].reached
    assert made[1].by == "acts"
    assert reached.gain.low > 0
    assert reached.ranked["ndcg_at_10"].value > reached.hybrid["ndcg_at_10"].value


def test_the_manifest_says_what_it_was_learnt_from_and_how_good_it_was(
    made: tuple[Path, MadeRanker],
) -> None:
    manifest = json.loads((made[0] / MANIFEST).read_text())
    assert (manifest["kind"], manifest["encoder"]) == ("ranker", "hash-32")
    assert manifest["data"]["n_items"] == 60
    assert manifest["data"]["first_ms"] < manifest["data"]["asked_from_ms"]
    assert manifest["features"] == NAMES
    assert manifest["user_model"] is None
    assert len(manifest["validation"]["ranker"]["ndcg_at_10"]) == 3


def test_a_worker_takes_the_folder(made: tuple[Path, MadeRanker]) -> None:
    settings = load_settings(ranker_model=str(made[0]))
    found = ranker(settings, "hash-32", None)
    assert found is not None
    assert found.name == made[1].name
    assert ranker(load_settings(), "hash-32", None) is None


class Recording(TrainedRanker):
    """Keeps the features that it is asked to rate."""

    def __init__(self, like: TrainedRanker) -> None:
        super().__init__(like._parts, like.name)
        self.seen: list[np.ndarray] = []

    def rate(self, features: np.ndarray) -> np.ndarray:
        self.seen.append(features)
        return super().rate(features)


def test_what_is_learnt_from_is_what_a_worker_ranks_by(
    made: tuple[Path, MadeRanker], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One log, played for training and played to a recommender with a ranker: equal to the bit."""
    settings, encoder = load_settings(ranker_model=str(made[0])), HashEncoder()
    learnt: list[Choices] = []
    monkeypatch.setattr(training, "questions_of", lambda choices, asked: choices)
    monkeypatch.setattr(training, "joined", lambda parts: learnt.extend(parts))

    def stop(*_: object) -> None:
        raise TooLittle("seen")

    monkeypatch.setattr(training, "fit_ranker", stop)
    with pytest.raises(TooLittle, match="seen"):
        train_into(tmp_path / "no", shop_log(), settings, encoder.encode, encoder.encoder_id, None)
    log = read_log(shop_log())
    shop = LiveShop(settings, log.facts, encoder.encode(log.texts))
    served = Recording(ranker(settings, encoder.encoder_id, None))
    shop.use(None, served)
    start = round(len(log.events) * 0.6)
    for at in range(0, start, 500):
        shop.learn(log.events[at : min(at + 500, start)])
    first = log.events[start]
    of_batch = [e for e in log.events[start : start + 500] if isinstance(e, Interaction)]
    users = list(dict.fromkeys(event.user_id for event in of_batch))
    new = [
        u
        for u in users
        if any(not shop.has_taken(u, e.item_id) for e in of_batch if e.user_id == u)
    ]
    shop.recommend(new[:32], settings.top_k, first.event_time_ms)
    assert len(learnt[0].features) > 500
    assert np.array_equal(learnt[0].features, served.seen[0], equal_nan=True)


def test_lists_shown_tell_what_was_passed_over() -> None:
    shown = [
        act(i, 1, user_id="u1", type="impression", recommendation_id="r1", position=place)
        for place, i in enumerate(("a", "b", "c"))
    ]
    acts = [
        *(act(i, 1, user_id="u2", type="impression", session_id="s") for i in ("a", "b")),
        act("b", 2, user_id="u1", type="click"),
        act("c", 40, user_id="u1", type="click"),
        act("a", 3, user_id="u1", type="dislike"),
    ]
    log = read_log([record("items", item(item_id="a")), *shown, *acts])
    [of_list] = [q for some in shown_lists(log.events, DEFAULT_WEIGHTS).values() for q in some]
    # The second click came too late, and of the other list nothing was taken.
    assert of_list == Question("u1", frozenset({"b"}), {"a": 0, "b": 1, "c": 2})


def asked(seed: int, by_position: float, n: int = 400) -> Questions:
    """Shoppers who go by texts with a weight of 1, and look at what stands first."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(n):
        text = rng.standard_normal(6)
        # What is shown first was shown there because its text fits.
        places = np.argsort(np.argsort(-(text + rng.standard_normal(6) * 0.5)))
        odds = 1.0 * text - by_position * np.log2(2 + places)
        taken = np.zeros(6, bool)
        taken[rng.choice(6, p=np.exp(odds) / np.exp(odds).sum())] = True
        features = np.zeros((6, len(NAMES)), np.float32)
        features[:, NAMES.index("text")] = text
        parts.append(
            Questions(np.zeros(6, np.int64), features, taken, places.astype(np.float32), 1)
        )
    return joined(parts)


def test_weights_are_the_likeliest_and_being_shown_first_is_no_merit() -> None:
    questions = asked(0, by_position=1.5)
    fitted = fit_ranker(questions)
    text = NAMES.index("text")
    assert fitted.weights[text] == pytest.approx(1.0, abs=0.25)
    assert fitted.by_position == pytest.approx(-1.5, abs=0.4)
    blind = Questions(questions.owners, questions.features, questions.is_taken, None, questions.n)
    assert fit_ranker(blind).weights[text] > fitted.weights[text] + 0.3
    assert not fitted.weights[NAMES.index("price_gap")]


def test_what_few_take_counts_for_more_the_rarer_it_is() -> None:
    """Half of the shoppers take what is known to all, half what is rare and resembles more."""
    n = len(NAMES)
    features = np.zeros((400, 2, n), np.float32)
    features[:, :, NAMES.index("users")] = [10.0, 1.0]
    features[:, :, NAMES.index("text")] = np.random.default_rng(0).random((400, 2))
    features[:, 1, NAMES.index("text")] += 0.2
    is_taken = np.zeros((400, 2), bool)
    is_taken[:200, 0] = is_taken[200:, 1] = True
    owners = np.repeat(np.arange(400), 2)
    questions = Questions(owners, features.reshape(-1, n), is_taken.ravel(), None, 400)
    known, rare = (
        fit_ranker(questions, rarity).weights[NAMES.index("users")] for rarity in (0.0, 0.5)
    )
    assert rare < known - 0.1


def test_chances_are_calibrated() -> None:
    rng = np.random.default_rng(1)
    owners = np.repeat(np.arange(3000), 5)
    scores = rng.standard_normal(15_000).astype(np.float32)
    # Shoppers take what is likeliest by the softmax, and half of them take nothing at all.
    shares = np.exp(scores) / np.bincount(owners, np.exp(scores))[owners]
    starts = np.cumsum(shares.reshape(-1, 5), axis=1)
    which = (rng.random((3000, 1)) < starts).argmax(axis=1)
    taken = np.zeros((3000, 5), bool)
    taken[np.arange(3000), which] = rng.random(3000) < 0.5
    slope, intercept = calibrate(scores, owners, taken.ravel())
    chances = 1 / (1 + np.exp(-(slope * np.log(shares) + intercept)))
    assert chances.mean() == pytest.approx(taken.mean(), abs=2e-3)
    for low, high in pairwise(np.quantile(chances, [0, 0.5, 0.8, 1])):
        of_it = (chances >= low) & (chances <= high)
        assert chances[of_it].mean() == pytest.approx(taken.ravel()[of_it].mean(), abs=0.03)


def test_without_anything_taken_there_is_too_little() -> None:
    with pytest.raises(TooLittle, match="there are none"):
        joined([])
    nothing = Questions(
        np.zeros(2, np.int64), np.zeros((2, len(NAMES)), np.float32), np.zeros(2, bool), None, 1
    )
    with pytest.raises(TooLittle, match="took one of their candidates"):
        fit_ranker(nothing)
    with pytest.raises(TooLittle, match="kept aside"):
        calibrate(np.zeros(2, np.float32), nothing.owners, nothing.is_taken)


def test_a_user_model_must_not_have_seen_what_is_asked(tmp_path: Path) -> None:
    from models.model_folder import write_folder

    class Learnt:
        name, dim, weight, history_items = "sequence-1", 4, 0.1, 5

    write_folder(tmp_path / "m", "sequence", {"data": {"last_ms": NOW_MS + 10**9}}, {"f": b""})
    settings, encoder = load_settings(user_model=str(tmp_path / "m")), HashEncoder()
    with pytest.raises(TooLittle, match="train it with '--until'"):
        train_into(
            tmp_path / "no", shop_log(), settings, encoder.encode, encoder.encoder_id, Learnt()
        )

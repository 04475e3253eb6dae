"""Profiles: native code tells the same of users as Python does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from builders import NOW_MS

from models.catalogue import Catalogue
from models.packed_vector import PackedSum, to_four_bits
from models.profile import Profile
from stream.core import profiles
from stream.core.kept import NOTHING, Kept, PythonUser, is_native, native_users
from stream.core.profiles import profiles_of, profiles_of_kept
from stream.core.user_state import (
    DAY_MS,
    NO_PERIOD,
    Act,
    Faded,
    Interest,
    Rules,
    Stated,
    TextAct,
    UserState,
    fade,
)
from stream.settings import load_settings

RULES = Rules.of(load_settings())
DIM = 70
WEIGHTS = {"view": 0.3, "add_to_cart": 1.0, "favorite": 1.0, "purchase": 1.5, "dislike": -2.0}

needs_native = pytest.mark.skipif(not is_native(), reason="native code is not built")


def vector(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(DIM).astype(np.float32) / np.float32(DIM**0.5)


def shop(rng: np.random.Generator) -> Catalogue:
    catalogue = Catalogue(DIM)
    catalogue.put_vectors([f"i{n}" for n in range(9)], np.stack([vector(rng) for _ in range(9)]))
    return catalogue


def state(rng: np.random.Generator) -> UserState:
    """A user with up to 20 acts on ten items, one of which has no vector; some at one time."""
    kinds = rng.choice(list(WEIGHTS), rng.integers(0, 21)).tolist()
    acts = {
        Act(
            NOW_MS - int(rng.integers(0, 60)) * 2 * DAY_MS,
            f"i{rng.integers(0, 10)}",
            kind,
            WEIGHTS[kind],
            bool(rng.integers(0, 2)),
        )
        for kind in kinds
    }
    texts = [
        TextAct(NOW_MS - n * DAY_MS, f"boots {n}", to_four_bits(vector(rng)), 0.8, n == 1)
        for n in range(rng.integers(0, 3))
    ]
    summed = PackedSum.of(vector(rng), 1)
    long = Interest(summed.values, summed.steps, summed.unit, 2.0, NOW_MS - 5 * DAY_MS)
    gone = [(NO_PERIOD, "i2"), (NOW_MS // (30 * DAY_MS), "i3")]
    faded: Sequence[Faded] = fade((), gone[: rng.integers(0, 3)])
    stated = Stated(region="north", interests="tea", interests_vector=to_four_bits(vector(rng)))
    return UserState(
        acts=tuple(sorted(acts)),
        texts=tuple(sorted(texts)),
        long=long if rng.integers(0, 2) else None,
        faded=tuple(faded),
        stated=stated if rng.integers(0, 2) else Stated(),
        seen_region="south",
    )


def assert_same(mine: Profile, theirs: Profile) -> None:
    assert mine.items == theirs.items
    assert [text.text for text in mine.texts] == [text.text for text in theirs.texts]
    assert (mine.exclude, mine.exclude_hashed) == (theirs.exclude, theirs.exclude_hashed)
    assert (mine.region, mine.cold_start) == (theirs.region, theirs.cold_start)
    assert mine.long_weight == pytest.approx(theirs.long_weight)
    assert mine.short_weight == pytest.approx(theirs.short_weight)
    for one, other in (
        (mine.long_interest, theirs.long_interest),
        (mine.short_interest, theirs.short_interest),
    ):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            np.testing.assert_allclose(one, other, atol=1e-5)


@needs_native
def test_native_code_knows_of_users_what_python_does(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    catalogue, states = shop(rng), [state(rng) for _ in range(60)]
    users = native_users([PythonUser(one) for one in states])
    assert users is not None
    natively = profiles_of_kept(users, catalogue, NOW_MS, RULES)
    monkeypatch.setenv("PREFSTREAM_NATIVE", "0")
    for mine, theirs in zip(
        natively, profiles_of(states, catalogue.raw_vectors, NOW_MS, RULES), strict=True
    ):
        assert_same(mine, theirs)
    assert len({bool(one.exclude) for one in natively}) == 2
    assert len({one.short_interest is None for one in natively}) == 2


@pytest.mark.parametrize("kind", ["view", "a kind of old"])
def test_users_that_native_code_does_not_keep_are_among_the_others(kind: str) -> None:
    rng = np.random.default_rng(1)
    catalogue = shop(rng)
    strange = UserState(acts=(Act(NOW_MS, "i1", kind, 1.0),))
    kept: list[Kept] = [*(native_users([NOTHING]) or [NOTHING]), PythonUser(strange)]
    nobody, found = profiles_of_kept(kept, catalogue, NOW_MS, RULES)
    assert nobody.cold_start
    [expected] = profiles_of([strange], catalogue.raw_vectors, NOW_MS, RULES)
    assert_same(found, expected)


def test_nobody_has_no_profile() -> None:
    assert profiles_of_kept([], shop(np.random.default_rng(2)), NOW_MS, RULES) == []
    assert (
        profiles.profiles_of(
            [], lambda _: (np.zeros((0, 0), np.float32), np.zeros(0, bool)), 0, RULES
        )
        == []
    )

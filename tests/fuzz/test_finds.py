"""What fuzzing found stays mended, and inputs near the valid ones do no harm; without atheris."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzz import trying
from fuzz.targets import BROKEN, TARGETS, Target
from fuzz.trying import known, quick_inputs, tried

#: These load torch and transformers.
SLOW = ("model-tokenizer", "model-weights", "sequence-model")
MAX_DATA_BYTES = 6 << 30

targets = pytest.mark.parametrize(
    "target",
    [
        pytest.param(target, id=target.name, marks=pytest.mark.slow if target.name in SLOW else ())
        for target in TARGETS.values()
    ],
)


@pytest.fixture(autouse=True, scope="module")
def bounded_memory() -> Iterator[None]:
    """What asks for more than that is a find, and not the end of the machine."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = [MAX_DATA_BYTES, *(limit for limit in before if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(allowed), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


@targets
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_was_found_once_and_what_is_near_the_valid_does_no_harm(target: Target):
    for seed in target.seeds():
        # What is loaded at the first use takes its time and its memory now.
        target.check(seed)
    inputs = [path.read_bytes() for path in known(target)]
    finds = [find for raw in (*inputs, *quick_inputs(target)) if (find := tried(target, raw))]
    assert {find.place: find.story for find in finds} == {}


def test_every_find_belongs_to_a_target():
    assert {folder.name for folder in trying.FINDS.iterdir()} <= set(TARGETS)


@pytest.mark.parametrize(
    ("check", "place"),
    [
        (lambda raw: raw.decode(), "UnicodeDecodeError at "),
        (lambda raw: [][len(raw)], "IndexError at "),
        (lambda raw: bytearray(1 << 62), "MemoryError at "),
    ],
)
def test_a_broken_target_is_a_find(check: Any, place: str):
    broken = Target("broken", check, TARGETS["user-row"].seeds)
    finds = [find for raw in quick_inputs(broken) if (find := tried(broken, raw))]
    assert finds
    assert finds[0].place.startswith(place)


@pytest.mark.parametrize(("limit", "place"), [("MAX_S", "time"), ("MAX_GROWTH_BYTES", "memory")])
def test_a_target_that_takes_too_much_is_a_find(
    monkeypatch: pytest.MonkeyPatch, limit: str, place: str
):
    assert tried(TARGETS["stamp"], b"") is None
    monkeypatch.setattr(trying, limit, -1)
    find = tried(TARGETS["stamp"], b"")
    assert find
    assert find.place == place


@pytest.mark.slow
def test_atheris_finds_what_is_broken_and_writes_it_down(tmp_path: Path):
    pytest.importorskip("atheris", reason="atheris has no wheel for this Python")
    from fuzz.__main__ import fuzzed

    outcome = fuzzed(BROKEN.name, 3, tmp_path / "finds", tmp_path / "corpus")
    assert not outcome.good
    assert outcome.n_executed > 100
    assert "FIND" in outcome.finds[0]
    [written] = (tmp_path / "finds").iterdir()
    assert tried(BROKEN, written.read_bytes())

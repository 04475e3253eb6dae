from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from builders import NOW_MS, interaction, search

from stream.core.fold import Sourced
from stream.core.kept import NOTHING, Kept, PythonUser, is_native, read_kept, step
from stream.core.user_rows import BadRow, NewerRow, to_row
from stream.core.user_state import Act, Rules, UserState
from stream.settings import load_settings

RULES = Rules.of(load_settings())
VECTORS = {"boots": np.ones(4, np.float32)}

needs_native = pytest.mark.skipif(not is_native(), reason="native code is not built")


def click(offset: int) -> Sourced:
    event = interaction(event_id=f"e{offset}", item_id="boots", event_time_ms=NOW_MS + offset)
    return Sourced("clickstream", 0, offset, NOW_MS + offset, event)


def folded(kept: Kept, *events: Sourced) -> Kept:
    return step(kept, list(events), VECTORS, RULES).kept


def test_without_native_code_python_does_it() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "from stream.core.kept import is_native; print(is_native())"],
        env={**os.environ, "PREFSTREAM_NATIVE": "0", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=True,
    )
    assert told.stdout == b"False\n"


@needs_native
def test_interactions_are_folded_by_native_code_and_all_else_by_python() -> None:
    clicked = folded(NOTHING, click(1))
    assert not isinstance(clicked, PythonUser)
    searched = folded(clicked, Sourced("searches", 0, 1, NOW_MS, search()), click(2))
    assert isinstance(searched, PythonUser)
    again = folded(searched, click(3))
    assert not isinstance(again, PythonUser)
    assert len(again.state().acts) == 3


@needs_native
def test_a_state_that_native_code_has_no_numbers_for_is_left_to_python() -> None:
    strange = PythonUser(UserState(acts=(Act(NOW_MS, "boots", "a kind of old", 1.0),)))
    after = folded(strange, click(1))
    assert isinstance(after, PythonUser)
    assert [act.kind for act in after.state().acts] == ["a kind of old", "click"]
    assert isinstance(read_kept(to_row(UserState(offsets=(2**63,) * 5))), PythonUser)


@pytest.mark.parametrize("is_wanted", [True, False])
def test_what_was_loaded_stays_as_it_was(is_wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_wanted:
        monkeypatch.setattr("stream.core.kept.is_native", lambda: False)
    loaded = folded(NOTHING, click(1))
    before = loaded.row()
    after = folded(loaded, click(2)).copy()
    after.pending, after.recommended_ms, after.band = None, NOW_MS, "low"
    assert (after.recommended_ms, after.band, loaded.band) == (NOW_MS, "low", None)
    assert loaded.row() == before
    assert read_kept(after.row()).state() == after.state()


@pytest.mark.parametrize(
    ("row", "error"), [(b"", BadRow), (b"\x03\x00", BadRow), (b"\x63\x00", NewerRow)]
)
def test_a_row_that_nobody_can_read_is_refused(row: bytes, error: type[BadRow]) -> None:
    with pytest.raises(error):
        read_kept(row)


@needs_native
@pytest.mark.parametrize("n", [1, 115, 116, 117, 243, 244, 245, 256])
def test_event_ids_are_hashed_as_by_the_library(n: int) -> None:
    from stream.core._native import event_hash

    event_id = "aé" * (n // 3) + "x" * (n % 3)
    name = f"clickstream\x1f{event_id}".encode()
    assert event_hash(event_id) == hashlib.blake2b(name, digest_size=8).digest()[:6]

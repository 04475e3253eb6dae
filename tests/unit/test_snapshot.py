"""Snapshots: what is saved comes back, and what is not as it was written is refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.catalogue import Catalogue
from models.items import ItemFacts
from models.neighbours import NeighbourFacts
from models.snapshot import BadSnapshot, load_latest, load_snapshot, save_snapshot

NOW_MS = 1_760_000_000_000
DIM = 8
OFFSETS = {("items", 0): 7, ("item-embeddings", 3): 1}


def shop() -> Catalogue:
    rng = np.random.default_rng(5)
    catalogue = Catalogue(DIM)
    ids = [f"鞋 {i}" for i in range(30)]
    catalogue.put_items(
        [
            ItemFacts(i, "红靴", NOW_MS, in_stock=n % 3 > 0, categories=("靴", "x"), price=2.5)
            for n, i in enumerate(ids)
        ]
    )
    vectors = rng.standard_normal((25, DIM)).astype(np.float32)
    catalogue.put_vectors(ids[5:], vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    for n, i in enumerate(ids[:20]):
        others = [(ids[(n + step) % 30], 1.0 + step) for step in range(1, n % 4)]
        catalogue.put_neighbours(
            NeighbourFacts(
                i, NOW_MS - n, 5.0 + n, [*others, ("unseen", 1.0)], n + 1.0, {"n": 1.0}, 20.0
            )
        )
    catalogue.remove([ids[7]])
    return catalogue


def save(parent: Path, catalogue: Catalogue | None = None, **fields: Any) -> Path:
    options: dict[str, Any] = {"encoder_id": "e", "offsets": OFFSETS, "created_ms": NOW_MS}
    state = (shop() if catalogue is None else catalogue).state()
    return save_snapshot(parent, state, **{**options, **fields})


def load(folder: Path, **fields: Any) -> Any:
    return load_snapshot(folder, **{"dim": DIM, "encoder_id": "e", **fields})


def answers(catalogue: Catalogue) -> list[Any]:
    """What a catalogue answers, by item id, since row numbers may differ."""
    ids = [f"鞋 {i}" for i in range(30)]
    rows = [row for row in catalogue.rows(ids).tolist() if row >= 0]
    neighbours = {}
    for row in rows:
        others, _, strengths = catalogue.neighbours(np.array([row]))
        pairs = [(catalogue.item_id(o), s) for o, s in zip(others, strengths, strict=True)]
        neighbours[catalogue.item_id(row)] = sorted(pairs)
    found = catalogue.search(catalogue.centred(catalogue.rows(ids[8:])), 4)[1]
    return [
        [catalogue.facts(i) for i in ids],
        catalogue.raw_vectors(ids)[0].tolist(),
        catalogue.recommendable(catalogue.rows(ids)).tolist(),
        [[catalogue.item_id(row) for row in line] for line in found.tolist()],
        neighbours,
        [catalogue.item_id(row) for row in catalogue.popular(9, "n", NOW_MS).tolist()],
        catalogue.trends(np.array(rows), 1.0).tolist(),
    ]


def test_a_restored_catalogue_answers_as_the_saved_one(tmp_path: Path) -> None:
    saved, restored = shop(), Catalogue(DIM)
    state, manifest = load(save(tmp_path, saved))
    restored.restore(state)
    assert answers(restored) == answers(saved)
    assert {(o.topic, o.partition): o.offset for o in manifest.offsets} == OFFSETS
    assert (manifest.created_ms, manifest.n_vectors) == (NOW_MS, 24)


def test_restoring_replaces_what_was_there(tmp_path: Path) -> None:
    restored = Catalogue(DIM)
    restored.put_item(ItemFacts("stranger", "t", NOW_MS))
    restored.put_vectors(["stranger"], np.eye(1, DIM, dtype=np.float32))
    restored.restore(load(save(tmp_path))[0])
    assert restored.facts("stranger") is None
    assert restored.row("stranger") == -1
    assert answers(restored) == answers(shop())


def test_a_neighbour_that_arrives_after_a_restore_is_resolved(tmp_path: Path) -> None:
    restored = Catalogue(DIM)
    restored.restore(load(save(tmp_path))[0])
    before = len(restored.neighbours(np.array([restored.row("鞋 8")]))[0])
    restored.put_neighbours(NeighbourFacts("unseen", NOW_MS, 4.0))
    assert len(restored.neighbours(np.array([restored.row("鞋 8")]))[0]) == before + 1


def test_an_empty_catalogue_can_be_saved_and_restored(tmp_path: Path) -> None:
    restored = Catalogue(DIM)
    restored.restore(load(save(tmp_path, Catalogue(DIM)))[0])
    assert len(restored) == 0


def edit_manifest(**fields: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return edit


def flip_a_byte(name: str) -> Callable[[Path], None]:
    def flip(folder: Path) -> None:
        raw = bytearray((folder / name).read_bytes())
        raw[-1] ^= 1
        (folder / name).write_bytes(raw)

    return flip


def delete(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def truncate(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-9])


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (flip_a_byte("arrays.safetensors"), "sha256 of arrays.safetensors"),
        (flip_a_byte("items.msgpack"), "sha256 of items.msgpack"),
        (truncate("arrays.safetensors"), "sha256 of arrays.safetensors"),
        (delete("items.msgpack"), "unreadable items.msgpack"),
        (delete("manifest.json"), "no usable manifest.json"),
        (truncate("manifest.json"), "no usable manifest.json"),
        (edit_manifest(n_vectors=3), r"expected vectors of shape \(3, 8\), got \(24, 8\)"),
        (edit_manifest(format_version=99), "expected format version 2, got 99"),
        (edit_manifest(sha256={}), "expected files"),
    ],
)
def test_a_damaged_snapshot_is_refused_by_name(
    tmp_path: Path, damage: Callable[[Path], None], why: str
) -> None:
    folder = save(tmp_path)
    damage(folder)
    with pytest.raises(BadSnapshot, match=why) as refused:
        load(folder)
    assert str(folder) in str(refused.value)


def test_ends_whose_differences_overflow_are_out_of_order(tmp_path: Path) -> None:
    state = shop().state()
    n = len(state.neighbours.others)
    ends = np.array([2**63 - 1, -(2**63), -1] + [n] * (len(state.neighbours.ends) - 3), np.int64)
    neighbours = replace(state.neighbours, ends=ends)
    folder = save_snapshot(
        tmp_path,
        replace(state, neighbours=neighbours),
        encoder_id="e",
        offsets=OFFSETS,
        created_ms=NOW_MS,
    )
    with pytest.raises(BadSnapshot, match="ends in order"):
        load(folder)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"encoder_id": "another"}, "expected encoder another, got e"),
        ({"dim": 9}, "expected dimension 9, got 8"),
    ],
)
def test_a_snapshot_of_another_encoder_is_refused(
    tmp_path: Path, wanted: dict[str, Any], why: str
) -> None:
    with pytest.raises(BadSnapshot, match=why):
        load(save(tmp_path), **wanted)


def test_the_last_good_one_is_used_when_the_newest_is_bad(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, created_ms=NOW_MS)
    newest = save(tmp_path, created_ms=NOW_MS + 5)
    flip_a_byte("items.msgpack")(newest)
    with caplog.at_level(logging.WARNING):
        loaded = load_latest(tmp_path, dim=DIM, encoder_id="e")
    assert loaded is not None
    assert loaded[1].created_ms == NOW_MS
    assert "sha256 of items.msgpack" in caplog.text


def test_without_a_good_snapshot_there_is_none(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "absent", dim=DIM, encoder_id="e") is None


def test_only_the_newest_are_kept_and_half_written_ones_are_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".writing-deadbeef").mkdir()
    folders = [save(tmp_path, created_ms=NOW_MS + i) for i in range(4)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [p.name for p in folders[2:]]


def test_after_the_clock_was_set_back_a_new_snapshot_is_the_newest_still(tmp_path: Path) -> None:
    for _ in range(2):
        save(tmp_path, created_ms=NOW_MS + 86_400_000)
    newest = save(tmp_path, created_ms=NOW_MS)
    loaded = load_latest(tmp_path, dim=DIM, encoder_id="e")
    assert newest.exists()
    assert loaded is not None
    assert loaded[1].created_ms == NOW_MS
    assert len(list(tmp_path.iterdir())) == 2

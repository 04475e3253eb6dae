"""Snapshots: a catalogue's state in a folder, verified before it is used.

A snapshot is a folder of ``arrays.safetensors`` (vectors and counts), ``items.msgpack`` (ids,
facts, regions) and ``manifest.json`` with the sha256 of both, the encoder, and the offsets up to
which each topic is in it. It holds no code and no FAISS file: the index is built from the vectors.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import uuid
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from models.catalogue_state import CatalogueState, NeighbourState
from models.items import ItemFacts

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
_MANIFEST, _ARRAYS, _ITEMS = "manifest.json", "arrays.safetensors", "items.msgpack"
_NEIGHBOUR_ARRAYS = (
    "places",
    "n_users",
    "as_of_ms",
    "popularity",
    "lasting",
    "ends",
    "others",
    "counts",
)
_DTYPES = {
    "vectors": np.float16,
    "vector_places": np.int32,
    "places": np.int32,
    "n_users": np.float64,
    "as_of_ms": np.int64,
    "popularity": np.float64,
    "lasting": np.float64,
    "ends": np.int64,
    "others": np.int32,
    "counts": np.float32,
}


#: What msgspec raises for bytes that it did not write.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class BadSnapshot(ValueError):
    """A snapshot that must not be used; the text names the folder and what was wrong."""


class TopicOffset(msgspec.Struct, frozen=True):
    """The next offset to read of one partition."""

    topic: str
    partition: Annotated[int, msgspec.Meta(ge=0)]
    offset: Annotated[int, msgspec.Meta(ge=0)]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot is of. ``n_vectors`` of ``dim`` numbers come from ``encoder_id``."""

    format_version: int
    encoder_id: str
    dim: int
    n_vectors: int
    created_ms: int
    offsets: list[TopicOffset]
    sha256: dict[str, str]


class _Items(msgspec.Struct, frozen=True):
    ids: list[str]
    facts: list[ItemFacts]
    regions: list[dict[str, float]]


def save_snapshot(
    parent: Path,
    state: CatalogueState,
    *,
    encoder_id: str,
    offsets: dict[tuple[str, int], int],
    created_ms: int,
    keep: int = 2,
) -> Path:
    """Write a snapshot into a new folder of ``parent`` and return it; keep the newest ``keep``.

    It appears under its name complete or not at all. Raises OSError when it cannot be written.
    """
    parent.mkdir(parents=True, exist_ok=True)
    # What a crash left half written.
    for leftover in parent.glob(".writing-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    unique = uuid.uuid4().hex[:8]
    writing = parent / f".writing-{unique}"
    writing.mkdir()
    save_file(_arrays_of(state), writing / _ARRAYS)
    regions = [dict(regions) for regions in state.neighbours.regions]
    (writing / _ITEMS).write_bytes(msgspec.msgpack.encode(_Items(state.ids, state.facts, regions)))
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        encoder_id=encoder_id,
        dim=state.vectors.shape[1],
        n_vectors=len(state.vectors),
        created_ms=created_ms,
        offsets=[TopicOffset(*place, offset) for place, offset in sorted(offsets.items())],
        sha256={name: _sha256(writing / name) for name in (_ARRAYS, _ITEMS)},
    )
    (writing / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    for path in (*writing.iterdir(), writing):
        _sync(path)
    folder = parent / f"snapshot-{_number(parent, created_ms):015d}-{unique}"
    writing.rename(folder)
    _sync(parent)
    for old in _newest_first(parent)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def load_snapshot(folder: Path, *, dim: int, encoder_id: str) -> tuple[CatalogueState, Manifest]:
    """Read and verify one snapshot; raise BadSnapshot when anything is not as it should be."""
    manifest = _manifest(folder)
    _check(folder, "format version", FORMAT_VERSION, manifest.format_version)
    _check(folder, "encoder", encoder_id, manifest.encoder_id)
    _check(folder, "dimension", dim, manifest.dim)
    _check(folder, "files", [_ARRAYS, _ITEMS], sorted(manifest.sha256))
    for name, digest in manifest.sha256.items():
        _check(folder, f"sha256 of {name}", digest, _sha256_or_bad(folder, name))
    try:
        # An AttributeError is a type of numbers that numpy lacks.
        arrays = load_file(folder / _ARRAYS)
        items = msgspec.msgpack.decode((folder / _ITEMS).read_bytes(), type=_Items)
    except (OSError, SafetensorError, AttributeError, *_UNREADABLE) as error:
        raise BadSnapshot(f"{folder}: unreadable: {error}") from None
    _check_arrays(folder, arrays, manifest, len(items.ids), len(items.regions))
    state = CatalogueState(
        ids=items.ids,
        facts=items.facts,
        vector_places=arrays["vector_places"],
        vectors=arrays["vectors"],
        neighbours=NeighbourState(
            **{name: arrays[name] for name in _NEIGHBOUR_ARRAYS}, regions=list(items.regions)
        ),
    )
    return state, manifest


def load_latest(
    parent: Path, *, dim: int, encoder_id: str
) -> tuple[CatalogueState, Manifest] | None:
    """Return the newest good snapshot of a folder, None without one; bad ones are logged."""
    for folder in _newest_first(parent):
        try:
            return load_snapshot(folder, dim=dim, encoder_id=encoder_id)
        except BadSnapshot as error:
            logger.warning("snapshot refused: %s", error)
    return None


def _number(parent: Path, created_ms: int) -> int:
    """Return a new snapshot's place among the others: that of its time, and behind all of them.

    After a clock was set back their times lie ahead, and the new one would be taken for the oldest.
    """
    numbers = (folder.name.split("-")[1] for folder in _newest_first(parent))
    return max([created_ms, *(int(number) + 1 for number in numbers if number.isdecimal())])


def _newest_first(parent: Path) -> list[Path]:
    # Their numbers are zero-padded, so that names sort by age.
    return sorted(parent.glob("snapshot-*"), reverse=True)


def _arrays_of(state: CatalogueState) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {
        "vectors": state.vectors,
        "vector_places": state.vector_places,
        **{name: getattr(state.neighbours, name) for name in _NEIGHBOUR_ARRAYS},
    }
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _manifest(folder: Path) -> Manifest:
    try:
        return msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=Manifest)
    except (OSError, *_UNREADABLE) as error:
        raise BadSnapshot(f"{folder}: no usable {_MANIFEST}: {error}") from None


def _check(folder: Path, what: str, expected: object, found: object) -> None:
    if expected != found:
        raise BadSnapshot(f"{folder}: expected {what} {expected}, got {found}")


def _check_arrays(
    folder: Path, arrays: dict[str, NDArray[Any]], manifest: Manifest, n_ids: int, n_counted: int
) -> None:
    """Hold shapes, types and places against each other, so that no index leads outside."""
    _check(folder, "arrays", sorted(_DTYPES), sorted(arrays))
    for name, dtype in _DTYPES.items():
        _check(folder, f"type of {name}", np.dtype(dtype), arrays[name].dtype)
        _check(folder, f"dimensions of {name}", 1 + (name == "vectors"), arrays[name].ndim)
    n, n_pairs = manifest.n_vectors, len(arrays["counts"])
    _check(folder, "vectors of shape", (n, manifest.dim), arrays["vectors"].shape)
    lengths = {"vector_places": n, "others": n_pairs, "counts": n_pairs}
    for name in ("vector_places", *_NEIGHBOUR_ARRAYS):
        _check(folder, f"{name} of shape", (lengths.get(name, n_counted),), arrays[name].shape)
    for name in ("vector_places", "places", "others"):
        inside = (arrays[name] >= 0) & (arrays[name] < n_ids)
        _check(folder, f"{name} inside the ids", True, bool(inside.all()))
    ends = np.concatenate([[0], arrays["ends"]])
    # Not by their differences: those of numbers far apart overflow.
    in_order = bool((ends[1:] >= ends[:-1]).all()) and int(ends[-1]) == n_pairs
    _check(folder, "ends in order", True, in_order)
    _check(folder, "finite vectors", True, bool(np.isfinite(arrays["vectors"]).all()))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sha256_or_bad(folder: Path, name: str) -> str:
    try:
        return _sha256(folder / name)
    except OSError as error:
        raise BadSnapshot(f"{folder}: unreadable {name}: {error}") from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

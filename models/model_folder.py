"""A trained model's folder: its files, and a manifest that says what they are and came from.

Files are data only (JSON, text, safetensors): nothing of a folder is ever run.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.weights import ModelError

MANIFEST = "manifest.json"
#: Of the manifest; a folder of another one is refused.
VERSION = 1


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What a folder holds; ``facts`` are its maker's: data span, features, metrics."""

    name: str
    facts: Mapping[str, Any]
    files: Mapping[str, bytes]


def write_folder(
    folder: Path, kind: str, facts: Mapping[str, Any], files: Mapping[str, bytes]
) -> str:
    """Write a folder whole or not at all; return the model's name, which its files decide.

    Raises ModelError when there is something already, OSError when it cannot be written.
    """
    check_new(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unfinished-") as unfinished:
        new = Path(unfinished) / "model"
        new.mkdir()
        for file, content in files.items():
            (new / file).write_bytes(content)
        return finish_folder(new, folder, kind, facts)


def check_new(folder: Path) -> None:
    """Raise ModelError when there is something at a folder that is to be written."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder}: there is something already; name a new folder")


def finish_folder(made: Path, folder: Path, kind: str, facts: Mapping[str, Any]) -> str:
    """Add a manifest to the files in ``made``, move it to ``folder``, on the same disk, and return
    the model's name. Raises ModelError when there is something already, and OSError."""
    check_new(folder)
    found = sorted(path for path in made.rglob("*") if path.is_file())
    digests = {path.relative_to(made).as_posix(): _digest_of(path) for path in found}
    name = f"{kind}-{_digest(json.dumps(digests, sort_keys=True).encode())[:12]}"
    manifest = {
        "version": VERSION,
        "kind": kind,
        "name": name,
        "files": {file: {"sha256": digest} for file, digest in digests.items()},
        **facts,
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (made / MANIFEST).write_text(text, encoding="utf-8")
    # On the disk before it has its name: after a crash there is the whole folder or none.
    for path in (*found, made / MANIFEST):
        _sync(path)
    for path in (*(path for path in made.rglob("*") if path.is_dir()), made):
        sync_folder(path)
    os.replace(made, folder)
    sync_folder(folder.parent)
    return name


def missing_files(folder: Path) -> list[str]:
    """Return what a folder still lacks of what its manifest names, the manifest first; looks at
    names alone. A manifest that cannot be read is for ``read_folder`` to refuse."""
    if not (folder / MANIFEST).is_file():
        return [MANIFEST]
    try:
        files = read_manifest(folder).get("files")
    except ModelError:
        return []
    named = files if isinstance(files, dict) else {}
    return [file for file in named if not os.path.lexists(folder / file)]


def model_name(folder: Path) -> str | None:
    """Return the name that a folder's manifest says; None where there is none to be read."""
    try:
        name = read_manifest(folder).get("name")
    except ModelError:
        return None
    return name if isinstance(name, str) else None


def sync_folder(folder: Path) -> None:
    """Have the disk know the names in a folder; raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def check_files(folder: Path) -> None:
    """Raise ModelError where a folder has a manifest and a file is not as it says.

    A folder without one, such as a model that was downloaded, passes.
    """
    if not (folder / MANIFEST).is_file():
        return
    files = read_manifest(folder).get("files")
    if not isinstance(files, dict):
        raise ModelError(f"{folder / MANIFEST}: lacks files")
    for file, stated in files.items():
        path = Path(file)
        if path.is_absolute() or ".." in path.parts:
            raise ModelError(f"{folder / MANIFEST}: names {file!r}, which is not below it")
        try:
            digest = _digest_of(folder / path)
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder / file}: cannot be read: {error}") from None
        if not isinstance(stated, dict) or stated.get("sha256") != digest:
            raise ModelError(f"{folder / file}: damaged: its sha256 is not the manifest's")


def read_folder(folder: Path, kind: str) -> ModelFolder:
    """Return a folder's files, each as its manifest says; raises ModelError naming what is not."""
    manifest = read_manifest(folder)
    if manifest.get("version") != VERSION:
        raise ModelError(
            f"{folder / MANIFEST}: expected version {VERSION}, got {manifest.get('version')!r}"
        )
    if manifest.get("kind") != kind:
        raise ModelError(f"{folder}: expected a model of kind {kind}, got {manifest.get('kind')!r}")
    name, files = manifest.get("name"), manifest.get("files")
    if not isinstance(name, str) or not isinstance(files, dict):
        raise ModelError(f"{folder / MANIFEST}: lacks name or files")
    facts = {
        key: value
        for key, value in manifest.items()
        if key not in ("version", "kind", "name", "files")
    }
    return ModelFolder(name, facts, {file: _read(folder, file, files[file]) for file in files})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what a folder's manifest says, unchecked; raises ModelError where there is none."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; expected a trained model's folder") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON: {error}") from None
    if not isinstance(manifest, dict):
        raise ModelError(f"{path}: expected a JSON object")
    return manifest


def _read(folder: Path, file: str, stated: object) -> bytes:
    # A manifest of somebody else's making must not reach outside its folder.
    if Path(file).name != file:
        raise ModelError(f"{folder / MANIFEST}: names {file!r}, which is not beside it")
    try:
        content = (folder / file).read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / file}: cannot be read: {error}") from None
    expected = stated.get("sha256") if isinstance(stated, dict) else None
    if _digest(content) != expected:
        raise ModelError(f"{folder / file}: damaged: its sha256 is not the manifest's")
    return content


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

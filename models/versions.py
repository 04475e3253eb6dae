"""Versions of a model side by side in one folder, and which of them is in use.

    my-shoppers/20261128T101500Z/                 a model folder, whole as soon as it is there
    my-shoppers/20261201T090000Z/
    my-shoppers/current -> 20261201T090000Z       what is in use
    my-shoppers/previous -> 20261128T101500Z      what was before: the way back

A switch makes a new link beside and renames it over ``current``, as Kubernetes does with mounted
volumes: whoever looks finds the old version or the new one, never none and never half of each.
"""

from __future__ import annotations

import os
import tempfile
from datetime import datetime
from pathlib import Path

from models.model_folder import MANIFEST, sync_folder
from models.weights import ModelError

CURRENT, PREVIOUS = "current", "previous"


def chosen(folder: Path) -> Path:
    """Return the model folder that ``folder`` means now: the version in use, or itself.

    Without links in it, so that all files are read from one version though another is switched to
    meanwhile. It need not be there.
    """
    folder = folder.expanduser()
    link = folder / CURRENT
    return Path(os.path.realpath(link if os.path.lexists(link) else folder))


def new_version(folder: Path, now: datetime) -> Path:
    """Return where a version made now belongs; raises ModelError where ``folder`` is a model."""
    if (folder / MANIFEST).exists():
        raise ModelError(f"{folder}: is a model itself; expected a folder that holds versions")
    return folder / now.strftime("%Y%m%dT%H%M%SZ")


def versions(folder: Path) -> list[str]:
    """Return the names of the versions that are there, in order of name, which is that of time."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: there is no such folder")
    return sorted(
        path.name
        for path in folder.iterdir()
        if not path.is_symlink() and (path / MANIFEST).is_file()
    )


def require(folder: Path, version: str) -> None:
    """Raise ModelError where a folder holds no version of that name."""
    if version not in versions(folder):
        raise ModelError(f"{folder}: holds no version {version!r}")


def pointed(folder: Path, link: str) -> str | None:
    """Return the version that ``current`` or ``previous`` names; None where there is no link."""
    path = folder / link
    return os.readlink(path) if path.is_symlink() else None


def switch(folder: Path, version: str) -> None:
    """Put a version in use; raises ModelError where there is none of that name, and OSError."""
    require(folder, version)
    before = pointed(folder, CURRENT)
    if before == version:
        return
    if before is not None:
        _point(folder, PREVIOUS, before)
    _point(folder, CURRENT, version)


def rollback(folder: Path) -> str:
    """Put the version in use that was so before, and return it; a second time goes forward again.

    Raises ModelError where no other was in use before, and OSError.
    """
    before = pointed(folder, PREVIOUS)
    if before is None or before == pointed(folder, CURRENT):
        raise ModelError(f"{folder}: no other version was in use before")
    switch(folder, before)
    return before


def _point(folder: Path, link: str, version: str) -> None:
    # Relative, so that it holds wherever the folder is mounted.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as beside:
        new = Path(beside) / link
        new.symlink_to(version)
        os.replace(new, folder / link)
    sync_folder(folder)

"""``prefstream models``: versions of trained models, side by side in one folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.commands.common import one_line, settings_of

if TYPE_CHECKING:
    from stream.settings import Settings

models = typer.Typer(
    help="Versions of trained models in a folder: which there are, and which is in use.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[
    Path,
    typer.Argument(metavar="DIR", exists=True, file_okay=False, help="As the settings name it."),
]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="One of `prefstream models list`.")]


@models.command("list")
def list_versions(folder: Folder) -> None:
    """Print the versions in a folder: name, model, what it learnt from, and which is in use."""
    from models.model_folder import read_manifest
    from models.versions import CURRENT, PREVIOUS, pointed, versions
    from models.weights import ModelError

    with one_line(ModelError, OSError):
        marks = {pointed(folder, PREVIOUS): "previous", pointed(folder, CURRENT): "in use"}
        for version in versions(folder):
            manifest = read_manifest(folder / version)
            mark = marks.get(version, "")
            typer.echo(f"{version}\t{manifest.get('name')}\t{_data(manifest)}\t{mark}".rstrip())


@models.command()
def verify(folder: Folder) -> None:
    """Check a model as a worker would: digests, content, encoder, one trial.

    DIR is a model, or holds versions, of which the one in use is checked. Prints its manifest.
    Exits 1 when a worker with these settings would refuse it.
    """
    from models.model_folder import read_manifest
    from models.versions import chosen
    from models.weights import ModelError

    settings = settings_of()
    with one_line(ModelError, OSError):
        at = chosen(folder)
        manifest = read_manifest(at)
        told = {key: value for key, value in manifest.items() if key != "files"}
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
        typer.echo(f"{at}: as the manifest says; {_verified(at, settings)}")


@models.command()
def switch(folder: Folder, version: Version) -> None:
    """Put a version in use, once it has been verified; workers follow by themselves."""
    from models import versions
    from models.weights import ModelError

    settings = settings_of()
    with one_line(ModelError, OSError):
        versions.require(folder, version)
        _verified(folder / version, settings)
        versions.switch(folder, version)
    _tell(folder, version)


@models.command()
def rollback(folder: Folder) -> None:
    """Put the version in use that was so before; a second time goes forward again.

    Nothing is verified: workers have used it.
    """
    from models import versions
    from models.weights import ModelError

    with one_line(ModelError, OSError):
        version = versions.rollback(folder)
    _tell(folder, version)


def _tell(folder: Path, version: str) -> None:
    typer.echo(f"{folder}: {version} is in use; workers that run take it by themselves")


def _verified(folder: Path, settings: Settings) -> str:
    """Return what a model fits; raises ModelError where a worker would refuse it."""
    from models.model_folder import check_files, read_manifest
    from models.weights import ModelError, encoder_id, resolve
    from stream.trained import (
        open_churn_model,
        open_ranker,
        open_sentiment_model,
        open_user_model,
    )

    kind = read_manifest(folder).get("kind")
    if kind == "churn":
        open_churn_model(folder, settings.churn_horizon_days)
        return "loaded and tried; it reads no vectors, so any encoder will do"
    if kind == "encoder":
        check_files(folder)
        found = encoder_id(resolve(str(folder), sha256=settings.encoder_sha256))
        return f"it is the encoder {found}"
    openers = {"sequence": open_user_model, "sentiment": open_sentiment_model}
    if kind not in (*openers, "ranker"):
        raise ModelError(f"{folder}: a model of kind {kind!r}, which no worker takes")
    encoder = resolve(settings.encoder, sha256=settings.encoder_sha256)
    running = encoder_id(encoder)
    if kind == "ranker":
        open_ranker(folder, settings, running, bool(settings.user_model))
    else:
        openers[kind](folder, running, encoder.dim)
    return f"loaded and tried with the encoder {running}"


def _data(manifest: dict[str, Any]) -> str:
    """Return what a model has learnt from, in a few words."""
    from datetime import datetime, timezone

    data = manifest.get("data")
    if not isinstance(data, dict):
        return ""
    counts = [f"{data[key]} {key[2:]}" for key in data if key.startswith("n_")]
    if isinstance(last_ms := data.get("last_ms"), int):
        counts.append(f"until {datetime.fromtimestamp(last_ms / 1000, timezone.utc):%Y-%m-%d}")
    return ", ".join(counts)

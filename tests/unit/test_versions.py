"""Versions of a model in one folder: which is meant, how another one comes, and the way back."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import pytest

from models.model_folder import MANIFEST, missing_files, model_name, write_folder
from models.versions import CURRENT, chosen, new_version, pointed, rollback, switch, versions
from models.weights import ModelError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "my-churn"
    for version in ("2", "1"):
        write_folder(folder / version, "churn", {}, {"a.json": version.encode()})
    return folder


def test_a_folder_without_versions_is_itself_the_model(tmp_path: Path) -> None:
    write_folder(tmp_path / "m", "churn", {}, {"a.json": b"{}"})
    assert chosen(tmp_path / "m") == tmp_path / "m"
    (tmp_path / "link").symlink_to("m")
    assert chosen(tmp_path / "link") == tmp_path / "m"


def test_what_is_switched_to_is_meant_and_the_way_back_is_kept(folder: Path) -> None:
    assert (versions(folder), pointed(folder, CURRENT)) == (["1", "2"], None)
    switch(folder, "1")
    assert chosen(folder) == folder / "1"
    switch(folder, "2")
    switch(folder, "2")
    assert chosen(folder) == folder / "2"
    assert [rollback(folder), rollback(folder)] == ["1", "2"]
    assert chosen(folder) == folder / "2"
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "current", "previous"]


def test_the_folder_may_be_moved_with_what_it_points_to(folder: Path, tmp_path: Path) -> None:
    switch(folder, "1")
    os.rename(folder, tmp_path / "elsewhere")
    assert chosen(tmp_path / "elsewhere") == tmp_path / "elsewhere/1"


def test_a_version_that_is_gone_is_still_what_is_meant(folder: Path) -> None:
    # Falling back to the folder itself would hide it.
    (folder / CURRENT).symlink_to("3")
    assert chosen(folder) == folder / "3"
    assert missing_files(chosen(folder)) == [MANIFEST]


@pytest.mark.parametrize("version", ["3", "", "..", "current", "../my-churn/1"])
def test_only_a_version_that_is_there_can_be_put_in_use(folder: Path, version: str) -> None:
    switch(folder, "1")
    with pytest.raises(ModelError, match="holds no version"):
        switch(folder, version)
    assert chosen(folder) == folder / "1"


def test_without_another_one_before_there_is_no_way_back(folder: Path) -> None:
    for _ in range(2):
        with pytest.raises(ModelError, match="no other version"):
            rollback(folder)
        switch(folder, "1")


def test_a_new_version_is_named_by_its_time(folder: Path, tmp_path: Path) -> None:
    now = datetime(2026, 11, 28, 10, 15, tzinfo=timezone.utc)
    assert new_version(folder, now) == folder / "20261128T101500Z"
    with pytest.raises(ModelError, match="is a model itself"):
        new_version(folder / "1", now)
    with pytest.raises(ModelError, match="no such folder"):
        versions(tmp_path / "nowhere")


def test_a_folder_says_what_it_lacks_and_its_name(folder: Path) -> None:
    assert missing_files(folder / "1") == []
    assert (model_name(folder / "1") or "").startswith("churn-")
    (folder / "1/a.json").unlink()
    assert missing_files(folder / "1") == ["a.json"]
    (folder / "1" / MANIFEST).write_text("{")
    assert missing_files(folder / "1") == []
    assert model_name(folder / "1") is None

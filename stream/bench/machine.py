"""What a figure was measured on: machine, versions and command line."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stream.core.kept import is_native

#: By the name that a reader knows; of the two wheels of FAISS one is installed.
_PACKAGES = {
    "prefstream": ("prefstream",),
    "faust": ("faust-streaming",),
    "aiokafka": ("aiokafka",),
    "torch": ("torch",),
    "transformers": ("transformers",),
    "openvino": ("openvino",),
    "faiss": ("faiss-cpu", "faiss-gpu"),
    "numpy": ("numpy",),
}
NOT_TOLD, NOT_USED = "not told (--kafka-version)", "not used"


@dataclass(frozen=True, slots=True)
class Setup:
    """``machine`` and ``versions`` by name, and the command as it was typed."""

    machine: dict[str, Any]
    versions: dict[str, str]
    command: str

    @classmethod
    def here(cls, arguments: Sequence[str], kafka: str) -> Setup:
        """Return that of this process; a broker does not tell its version, ``kafka``."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        machine = {
            "cores": n_cores(),
            "cpu": _cpu_model(),
            "memory_gib": round(memory / 2**30, 1),
            "gpu": _gpu_model(),
            "system": f"{platform.system()} {platform.machine()}",
        }
        versions = {"python": platform.python_version()}
        versions |= {name: _installed(packages) for name, packages in _PACKAGES.items()}
        versions["kafka"] = kafka
        versions["fold"] = "native" if is_native() else "Python"
        return cls(machine, versions, shlex.join(["prefstream", *arguments]))

    def to_json(self) -> dict[str, Any]:
        return {"machine": self.machine, "versions": self.versions, "command": self.command}

    def lines(self) -> list[str]:
        """Return the same for people, a line each."""
        machine = self.machine
        return [
            f"machine: {machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, "
            f"GPU {machine['gpu']}, {machine['system']}",
            "versions: " + ", ".join(f"{name} {text}" for name, text in self.versions.items()),
            f"command: {self.command}",
        ]


def n_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _gpu_model() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def _installed(packages: Sequence[str]) -> str:
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "not installed"

"""Which runtime computes a model on a device: OpenVINO on a CPU where it is installed, or torch."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING, Literal

from models.bert_network import BadDevice, BertNetwork, Dtype, choose_device, open_network
from models.weights import ModelError, ModelFiles, NotConverted

if TYPE_CHECKING:
    from models.openvino_network import OpenVinoNetwork

log = logging.getLogger(__name__)

Runtime = Literal["auto", "torch", "openvino"]


class RuntimeNotInstalled(ModelError):
    """A runtime was asked for by name that is not installed; the text says what to install."""


def device_for(wanted: str, runtime: Runtime) -> str:
    """Return the device that ``choose_device`` would, of those that the runtime computes on.

    Raises BadDevice.
    """
    if runtime != "openvino":
        return choose_device(wanted)
    if wanted not in ("auto", "cpu"):
        raise BadDevice(f"the runtime openvino computes on the CPU, not on {wanted!r}")
    return "cpu"


def open_by_runtime(
    files: ModelFiles, device: str, runtime: Runtime = "auto", dtype: Dtype = "auto"
) -> BertNetwork | OpenVinoNetwork:
    """Load a model onto a device; ``auto`` takes the quickest runtime that computes it there.

    Vectors of all runtimes lie in one space: one that moves them is not taken. Raises OutOfMemory,
    DeviceLost, UnsupportedModel or RuntimeNotInstalled.
    """
    if device != "cpu" or runtime == "torch" or (runtime == "auto" and not has_openvino()):
        return open_network(files, device, dtype)
    if not has_openvino():
        raise RuntimeNotInstalled(
            'the runtime openvino is not installed: pip install "prefstream[openvino]"'
        )
    from models.openvino_network import open_openvino

    try:
        return open_openvino(files, dtype)
    except NotConverted as error:
        if runtime == "openvino":
            raise
        log.warning("going on with torch: %s", error)
    return open_network(files, device, dtype)


def runtimes_on(device: str) -> list[Runtime]:
    """Return the runtimes that are installed here and compute on a device."""
    return ["torch", "openvino"] if device == "cpu" and has_openvino() else ["torch"]


def has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None

"""OpenVINO on the CPU: the same space as torch's, chosen where it is installed, silent."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from failing_device import small_bert

from models import runtimes
from models.bert_encoder import BertEncoder
from models.bert_network import BadDevice, Dtype, OutOfMemory, open_network
from models.runtimes import RuntimeNotInstalled, open_by_runtime
from models.weights import ModelFiles, NotConverted, Pooling, read_folder

pytestmark = [
    # torch alone takes seconds to import.
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("openvino") is None, reason="openvino is not installed"
    ),
]

MIN_COSINE = 0.9995
TEXTS = [f"{'warm wool ' * (n % 9)}sock {n}" for n in range(40)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return read_folder(small_bert(tmp_path_factory.mktemp("models") / "small"), "small")


def tokens(lengths: Sequence[int]) -> list[list[int]]:
    """Texts of random tokens of the small model."""
    rng = np.random.default_rng(1)
    return [rng.integers(0, 70, n).tolist() for n in lengths]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_its_vectors_are_torchs_at_any_number_and_length_of_texts(
    files: ModelFiles, pooling: Pooling, dtype: Dtype
) -> None:
    files = replace(files, pooling=pooling)
    network = open_by_runtime(files, "cpu", "openvino", dtype)
    exact = open_network(files, "cpu", "float32")
    for lengths in ([1], [128], [3, 3, 3], [2, 9, 40, 128], range(1, 60), [7]):
        texts = tokens(lengths)
        a, b = network(texts), exact(texts)
        assert a.shape == b.shape
        assert a.dtype == np.float32
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        assert ((a * b).sum(axis=1) / norms).min() > MIN_COSINE


def test_a_pass_leaves_the_vectors_of_the_one_before_alone(files: ModelFiles) -> None:
    network = open_by_runtime(files, "cpu", "openvino")
    first = network(tokens([5, 6]))
    kept = first.copy()
    network(tokens([6, 7])[::-1])
    np.testing.assert_array_equal(first, kept)


def test_both_runtimes_make_vectors_of_one_space(files: ModelFiles) -> None:
    ours = BertEncoder(files, device="cpu", runtime="openvino")
    torchs = BertEncoder(files, device="cpu", runtime="torch", dtype="float32")
    assert (ours.runtime, torchs.runtime) == ("openvino", "torch")
    assert ours.encoder_id == torchs.encoder_id
    assert (ours.encode(TEXTS) * torchs.encode(TEXTS)).sum(axis=1).min() > MIN_COSINE


def test_it_is_chosen_on_a_cpu_where_it_is_installed(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_by_runtime(files, "cpu").runtime == "openvino"
    monkeypatch.setattr(runtimes, "has_openvino", lambda: False)
    assert open_by_runtime(files, "cpu").runtime == "torch"
    with pytest.raises(RuntimeNotInstalled, match=r"prefstream\[openvino\]"):
        open_by_runtime(files, "cpu", "openvino")


def test_it_computes_on_no_gpu(files: ModelFiles) -> None:
    with pytest.raises(BadDevice, match="'cuda:0'"):
        BertEncoder(files, device="cuda:0", runtime="openvino")


def test_where_its_vectors_lie_elsewhere_torch_computes_them(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.openvino_network.MIN_COSINE", 1.1)
    assert open_by_runtime(files, "cpu").runtime == "torch"
    with pytest.raises(NotConverted, match="small"):
        open_by_runtime(files, "cpu", "openvino")


def test_without_room_a_batch_is_refused_and_what_there_is_room_for_goes_on(
    files: ModelFiles,
) -> None:
    """Memory is limited for a whole process: one of its own, then."""
    command = [sys.executable, "-c", FULL, str(files.folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True"]


FULL = """
import resource, sys
import numpy as np
from models.bert_network import OutOfMemory
from models.runtimes import open_by_runtime
from models.weights import resolve

network = open_by_runtime(resolve(sys.argv[1]), "cpu", "openvino")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
smalls = ([[1, 2, 3]], [[7]])
befores = [network(small) for small in smalls]
resource.setrlimit(resource.RLIMIT_AS, (used + 16 * 2**20, -1))
# How much of what is mapped already is free, nobody knows: more is asked for until it is refused.
n = 4096
for small, before in zip(smalls, befores):
    network(small)
    while True:
        try:
            network([[5] * 120] * n)
        except OutOfMemory:
            break
        n *= 2
    print(np.allclose(network(small), before))
"""


def test_an_allocation_that_failed_in_a_node_is_want_of_memory() -> None:
    from models.openvino_network import _memory_errors  # it imports openvino

    with pytest.raises(OutOfMemory), _memory_errors():
        raise RuntimeError("[CPU] Reorder node with name 'attention' can't alloc\n")


def test_it_reports_to_nobody() -> None:
    done = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "False"]


SILENT = """
import sys
import models.openvino_network
from openvino.tools.ovc import telemetry
print(type(telemetry).__module__)
print(any(name.startswith("openvino_telemetry.") for name in sys.modules))
"""

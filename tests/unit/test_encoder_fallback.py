"""What becomes of texts when the device has no room or is lost: real torch, a device that fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from failing_device import FailingModel, failing_network, small_bert
from numpy.typing import NDArray

from models.bert_encoder import SMALLER_FOR_S, BertEncoder
from models.bert_network import BertNetwork, DeviceLost, OutOfMemory, open_network
from models.encoder import EncoderUnavailable
from models.weights import ModelFiles, read_folder, resolve

# torch alone takes seconds to import.
pytestmark = pytest.mark.slow

MIN_COSINE = 0.9995
MIB = 1024**2
TEXTS = [f"{'warm wool ' * (n % 7)}sock {n}" for n in range(16)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return read_folder(small_bert(tmp_path_factory.mktemp("models") / "small"), "small")


@pytest.fixture(scope="module")
def sound(files: ModelFiles) -> BertEncoder:
    return BertEncoder(files, device="cpu", dtype="float32")


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def on_device(
    files: ModelFiles, device: BertNetwork, clock: Clock | None = None
) -> tuple[BertEncoder, FailingModel]:
    """Return an encoder that begins on a device which fails, and the device's model."""
    devices = [device]

    def open_on(name: str) -> BertNetwork:
        return devices.pop() if devices else open_network(files, name, "float32")

    encoder = BertEncoder(files, device="cpu", open_on=open_on, monotonic=clock or Clock())
    model = device.model
    assert isinstance(model, FailingModel)
    return encoder, model


def lowest_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float((a * b).sum(axis=1).min())


def test_without_room_batches_are_halved_and_stay_small_for_a_while(
    files: ModelFiles, sound: BertEncoder
) -> None:
    clock = Clock()
    encoder, model = on_device(files, failing_network(files, room=4), clock)
    vectors = encoder.encode(TEXTS)
    assert lowest_cosine(vectors, sound.encode(TEXTS)) > MIN_COSINE
    assert model.sizes == [16, 8, 4, 4, 8, 4, 4]
    assert encoder.fallbacks == {"smaller_batch": 3}
    model.sizes.clear()
    encoder.encode(TEXTS)
    assert model.sizes == [4, 4, 4, 4]
    model.sizes.clear()
    clock.now_s, model.room = SMALLER_FOR_S + 1, 1000
    encoder.encode(TEXTS)
    assert model.sizes == [16]
    assert encoder.device != "cpu"


def test_one_text_without_room_goes_to_the_cpu(files: ModelFiles, sound: BertEncoder) -> None:
    encoder, _ = on_device(files, failing_network(files, room=0))
    assert lowest_cosine(encoder.encode(TEXTS), sound.encode(TEXTS)) > MIN_COSINE
    assert encoder.fallbacks["cpu_once"] == len(TEXTS)
    assert encoder.device != "cpu"


def test_a_failed_pass_gives_its_memory_back_before_the_next(files: ModelFiles) -> None:
    encoder, model = on_device(files, failing_network(files, room=1))
    encoder.encode(TEXTS)
    assert len(model.sizes) > len(TEXTS)
    assert not model.leaked


def test_a_lost_device_is_left_for_the_cpu_in_the_middle_of_a_call(
    files: ModelFiles, sound: BertEncoder
) -> None:
    encoder, model = on_device(files, failing_network(files, room=4, lost_after=2))
    vectors = encoder.encode(TEXTS)
    assert lowest_cosine(vectors, sound.encode(TEXTS)) > MIN_COSINE
    assert encoder.device == "cpu"
    assert encoder.fallbacks["cpu"] == 1
    n_asked = len(model.sizes)
    encoder.encode(TEXTS)
    assert len(model.sizes) == n_asked


def test_a_device_that_does_not_take_the_model_is_left_at_once(
    files: ModelFiles, sound: BertEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_on(device: str) -> BertNetwork:
        if device != "cpu":
            raise OutOfMemory(f"{device} is out of memory")
        return open_network(files, device, "float32")

    monkeypatch.setattr("models.bert_encoder.device_for", lambda wanted, runtime: wanted)
    encoder = BertEncoder(files, device="cuda", open_on=open_on)
    assert (encoder.device, encoder.fallbacks) == ("cpu", {"cpu": 1})
    assert lowest_cosine(encoder.encode(TEXTS), sound.encode(TEXTS)) > MIN_COSINE


def test_only_without_the_cpu_too_is_the_encoder_unavailable(files: ModelFiles) -> None:
    devices = [failing_network(files, lost_after=0), failing_network(files, lost_after=0)]
    devices[0].device = "cpu"
    encoder = BertEncoder(files, device="cpu", open_on=lambda _: devices.pop())
    with pytest.raises(EncoderUnavailable):
        encoder.encode(TEXTS)


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), OutOfMemory),
        (torch.AcceleratorError("CUDA error: out of memory"), OutOfMemory),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `x`"), OutOfMemory),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), OutOfMemory),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), DeviceLost),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `x`"), DeviceLost),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DeviceLost),
        (RuntimeError("device lost"), DeviceLost),
        (RuntimeError("shapes cannot be multiplied"), RuntimeError),
    ],
)
def test_what_torch_says_is_told_apart(
    files: ModelFiles, error: Exception, meaning: type[Exception]
) -> None:
    network = open_network(files, "cpu", "float32")

    def fail(**_: object) -> None:
        raise error

    network.model.forward = fail
    with pytest.raises(meaning) as raised:
        network([[2, 3]])
    assert type(raised.value) is meaning


# --- a real GPU ----------------------------------------------------------------------------------


@pytest.fixture
def gpu_bytes() -> Iterator[Callable[[int], None]]:
    """Limit the memory of the GPU that this process may have."""

    def limit(n_bytes: int) -> None:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, n_bytes / total))

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.gpu
def test_a_gpu_with_little_room_takes_smaller_batches(gpu_bytes: Callable[[int], None]) -> None:
    model = resolve("all-MiniLM-L6-v2")
    gpu_bytes(256 * MIB)  # the model, twice while it is loaded, and no 4096 long texts beside it
    encoder = BertEncoder(model, device="cuda", batch_size=4096)
    texts = [f"{'warm wool socks ' * 60}{n}" for n in range(1000)]
    vectors = encoder.encode(texts)
    assert encoder.fallbacks["smaller_batch"]
    assert encoder.device == "cuda"
    exact = BertEncoder(model, device="cpu", dtype="float32")
    assert lowest_cosine(vectors[::50], exact.encode(texts[::50])) > MIN_COSINE


@pytest.mark.gpu
def test_a_gpu_without_room_for_the_model_is_left(gpu_bytes: Callable[[int], None]) -> None:
    gpu_bytes(MIB)
    encoder = BertEncoder(resolve("all-MiniLM-L6-v2"), device="cuda")
    assert (encoder.device, encoder.fallbacks) == ("cpu", {"cpu": 1})
    assert encoder.encode(["sock"]).shape == (1, encoder.dim)


@pytest.mark.gpu
def test_a_gpu_that_is_lost_is_left_for_the_cpu() -> None:
    """An assertion that fails on the device spoils it for the process: one of its own, then."""
    done = subprocess.run([sys.executable, "-c", LOSING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["cuda", "cpu", "True"]


LOSING = """
import numpy as np, torch
from models.bert_encoder import BertEncoder
from models.weights import resolve

encoder = BertEncoder(resolve("all-MiniLM-L6-v2"), device="cuda")
before = encoder.encode(["warm wool socks"])
print(encoder.device)
words = encoder._network.model.embeddings.word_embeddings
forward = words.forward
words.forward = lambda ids: forward(ids + 10_000_000)
after = encoder.encode(["warm wool socks"])
print(encoder.device, float((before * after).sum()) > 0.9995)
"""

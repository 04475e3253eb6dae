"""How texts become micro-batches, whose turn it is, and what happens when the GPU fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

from models.bert_encoder import BertEncoder
from models.bert_network import BadDevice, DeviceLost, OutOfMemory
from models.encoder import EncoderUnavailable
from models.weights import ModelFiles, UnsupportedModel, read_folder

# torch alone takes seconds to import.
pytestmark = pytest.mark.slow

WORDS = {"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3, "find": 4, "this": 5}
DIM = 4


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """A model folder with a real tokenizer of six words; its weights are never loaded."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    texts = {
        "config.json": {"model_type": "bert", "hidden_size": DIM},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
        "sentence_encoder.json": {"pooling": "mean", "query_prefix": "find "},
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "model.safetensors").write_bytes(b"not loaded")
    return read_folder(folder, "tiny")


class Counting:
    """A network whose vector counts each of the first words; it has room for ``room`` texts."""

    runtime = "torch"
    dtype = "float32"

    def __init__(self, device: str = "cpu", *, room: int = 1000, tokens_at_once: int = 1000):
        self.device = device
        self.room = room
        self.tokens_at_once = tokens_at_once
        self.lost = False
        self.passes: list[list[list[int]]] = []

    def __call__(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        if self.lost:
            raise DeviceLost(f"{self.device} failed")
        if len(texts) > self.room:
            raise OutOfMemory(f"{self.device} is out of memory")
        self.passes.append([list(text) for text in texts])
        counts = [[1 + text.count(word) for word in range(DIM)] for text in texts]
        return np.array(counts, np.float32)

    @property
    def sizes(self) -> list[int]:
        return [len(texts) for texts in self.passes]


def encoder(files: ModelFiles, network: Counting, **options: int) -> BertEncoder:
    return BertEncoder(files, device="cpu", open_on=lambda _: network, **options)


def on_gpu(files: ModelFiles, gpu: Counting, cpu: Counting) -> BertEncoder:
    """An encoder that starts on a GPU and finds a CPU when it asks for one."""
    devices = [gpu, cpu]
    return BertEncoder(files, device="cpu", open_on=lambda _: devices.pop(0))


# --- micro-batches -------------------------------------------------------------------------------


def test_texts_of_like_length_share_a_pass(files: ModelFiles) -> None:
    network = Counting()
    encoder(files, network, batch_size=2).encode(["a a a a", "a", "a a a", "a a", "b"])
    assert [[len(text) for text in texts] for texts in network.passes] == [[1, 1], [2, 3], [4]]


def test_a_pass_is_no_larger_than_keeps_the_device_busy(files: ModelFiles) -> None:
    network = Counting(tokens_at_once=6)
    encoder(files, network).encode(["a", "a a", "a a a", "a a a a a a a a"])
    # Padded to the longest: two of three tokens fit; one text always does.
    assert [len(texts) * len(texts[-1]) for texts in network.passes] == [4, 3, 8]


def test_a_prefix_goes_before_the_texts_of_its_side(files: ModelFiles) -> None:
    network = Counting()
    both = encoder(files, network)
    both.encode(["this"], "query")
    both.encode(["this"], "passage")
    assert network.passes == [[[4, 5]], [[5]]]


def test_the_models_own_limit_cuts_texts_too(files: ModelFiles) -> None:
    network = Counting()
    few = encoder(files, network, max_tokens=3)
    few.encode(["a a a a", "a a a"], "query")
    assert network.passes == [[[4, 2, 2], [4, 2, 2]]]
    assert few.n_truncated == 2


# --- whose turn it is ----------------------------------------------------------------------------


class Gate(Counting):
    """Stops in its first pass until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        vectors = super().__call__(texts)
        self.entered.set()
        assert self.open.wait(10)
        return vectors


def test_a_query_goes_before_the_rest_of_a_catalogue(files: ModelFiles) -> None:
    network = Gate()
    shared = encoder(files, network, batch_size=1)
    catalogue = threading.Thread(target=shared.encode, args=(["a", "a", "a", "a"],))
    catalogue.start()
    assert network.entered.wait(10)
    search = threading.Thread(target=shared.encode, args=(["b"], "query"))
    search.start()
    search.join(1)  # time to line up; it cannot get through
    assert search.is_alive()
    network.open.set()
    search.join(10)
    catalogue.join(10)
    assert network.passes.index([[4, 3]]) == 1
    assert len(network.passes) == 5


# --- devices -------------------------------------------------------------------------------------


def test_without_room_a_batch_is_halved(files: ModelFiles) -> None:
    gpu, cpu = Counting("cuda", room=3), Counting()
    texts = ["a", "b", "a b", "b a a", "a a a a"]
    found = on_gpu(files, gpu, cpu).encode(texts)
    np.testing.assert_array_equal(found, encoder(files, Counting()).encode(texts))
    assert gpu.sizes == [2, 3]
    assert cpu.passes == []


def test_what_has_no_room_at_all_goes_to_the_cpu(files: ModelFiles) -> None:
    gpu, cpu = Counting("cuda", room=0), Counting()
    full = on_gpu(files, gpu, cpu)
    found = full.encode(["a", "a b"])
    np.testing.assert_array_equal(found, encoder(files, Counting()).encode(["a", "a b"]))
    # It may pass, so the GPU is asked again.
    assert full.device == "cuda"
    gpu.room = 10
    full.encode(["a", "b"])
    assert (gpu.sizes, cpu.sizes) == ([1, 1], [1, 1])


def test_a_lost_gpu_is_not_asked_again(files: ModelFiles) -> None:
    gpu, cpu = Counting("cuda"), Counting()
    lost = on_gpu(files, gpu, cpu)
    gpu.lost = True
    found = lost.encode(["a", "a b"])
    np.testing.assert_array_equal(found, encoder(files, Counting()).encode(["a", "a b"]))
    gpu.lost = False
    lost.encode(["b"])
    assert (lost.device, gpu.passes, cpu.sizes) == ("cpu", [], [2, 1])


@pytest.mark.parametrize("fail", [lambda n: setattr(n, "room", 0), lambda n: setattr(n, "lost", 1)])
def test_without_any_device_a_later_try_may_succeed(
    files: ModelFiles, fail: Callable[[Counting], None]
) -> None:
    gpu, cpu = Counting("cuda"), Counting()
    both = on_gpu(files, gpu, cpu)
    fail(gpu)
    fail(cpu)
    with pytest.raises(EncoderUnavailable):
        both.encode(["a"])
    gpu.room, gpu.lost, cpu.room, cpu.lost = 10, False, 10, False
    assert both.encode(["a"]).shape == (1, DIM)


def test_an_unknown_device_is_named(files: ModelFiles) -> None:
    with pytest.raises(BadDevice, match=r"'cuda:99'.*auto, cpu"):
        BertEncoder(files, device="cuda:99", open_on=Counting)


def test_weights_that_are_none_are_named(files: ModelFiles) -> None:
    with pytest.raises(UnsupportedModel, match="tiny"):
        BertEncoder(files, device="cpu")


def test_a_tokenizer_that_is_none_is_named(tmp_path: Path) -> None:
    for name, content in {"config.json": {"hidden_size": DIM}, "tokenizer.json": {}}.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "model.safetensors").write_bytes(b"not loaded")
    with pytest.raises(UnsupportedModel, match="broken"):
        BertEncoder(read_folder(tmp_path, "broken"), device="cpu", open_on=Counting)

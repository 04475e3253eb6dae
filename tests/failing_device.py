"""A device that fails, and a BERT small enough to be made in a test: real torch, no GPU."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import torch

from models.bert_network import BertNetwork, open_network
from models.weights import ModelFiles

#: A name for the CPU that is not the one by which it is asked for when all else has failed.
NOT_THE_CPU = "cpu:0"


class FailingModel(torch.nn.Module):
    """A model on a device with room for ``room`` texts, which is lost after ``lost_after`` passes.

    Raises what torch raises on CUDA. ``sizes`` holds the texts of each pass, those that failed
    among them.
    """

    def __init__(self, model: Any, room: int, lost_after: int) -> None:
        super().__init__()
        self.model, self.config, self.dtype = model, model.config, model.dtype
        self.room, self.lost_after = room, lost_after
        self.sizes: list[int] = []
        self.n_passed = 0
        self._of_failed_pass: weakref.ref[torch.Tensor] | None = None
        #: What a failed pass had allocated was still there in the next one.
        self.leaked = False

    def forward(self, input_ids: torch.Tensor, **inputs: Any) -> Any:
        self.leaked |= self._of_failed_pass is not None and self._of_failed_pass() is not None
        self.sizes.append(len(input_ids))
        if self.n_passed >= self.lost_after:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        if len(input_ids) > self.room:
            allocated = torch.zeros(len(input_ids))
            self._of_failed_pass = weakref.ref(allocated)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.n_passed += 1
        return self.model(input_ids=input_ids, **inputs)


def failing_network(
    files: ModelFiles, room: int = 1000, lost_after: int = 1_000_000
) -> BertNetwork:
    """Return a model's real network behind a device that fails as ``FailingModel`` says."""
    sound = open_network(files, "cpu", "float32")
    model = FailingModel(sound.model, room, lost_after)
    return BertNetwork(model, files.pooling, NOT_THE_CPU)


def small_bert(folder: Path, dim: int = 32) -> Path:
    """Make a model folder with a real BERT of random weights, and return it."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    if folder.exists():
        return folder
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    digits = [str(n) for n in range(10)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *digits]
    words += [f"##{sign}" for sign in (*letters, *digits)]
    # Given as a file it is ignored since transformers 5, and every word unknown.
    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(words)})
    tokenizer.save_pretrained(folder)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=dim,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * dim,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)
    return folder

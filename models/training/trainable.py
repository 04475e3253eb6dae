"""What of an encoder is trained, and how it becomes a plain model again.

``full`` trains every weight; ``frozen`` leaves embeddings and lower layers as they are; ``lora``
(Hu et al., 2022), ``adalora`` (Zhang et al., 2023) and ``ia3`` (Liu et al., 2022) add small
weights beside the model's, through PEFT, which are merged into them in the end: of adapters only
such as can be merged are there. ``projection`` trains one linear layer behind the encoder, on
vectors that are made once, so it takes seconds where the others take hours of a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch

from models.bert_network import BertNetwork, fast_bfloat16, open_network
from models.training.examples import Floats, Numbers
from models.weights import ModelFiles, UnsupportedModel

Mode = Literal["full", "frozen", "lora", "adalora", "ia3", "projection"]
Precision = Literal["auto", "float32", "bfloat16"]
Tensors = dict[str, torch.Tensor]

#: Texts in one pass without gradients.
_ENCODED_AT_ONCE = 128
#: Of a vector's numbers so many are left out in each step of a projection.
_PROJECTION_DROPOUT = 0.1


@dataclass(frozen=True, slots=True)
class How:
    """What is trained. ``n_frozen`` lower layers of ``frozen`` (None: half of them); ``rank`` of
    LoRA's matrices, and of AdaLoRA's on average; ``n_steps`` in all, by which AdaLoRA plans."""

    mode: Mode
    n_steps: int
    rank: int = 16
    n_frozen: int | None = None
    precision: Precision = "auto"
    checkpointing: bool = False


class Tuned(Protocol):
    """A model in training. ``parameters`` are those that are trained, by name."""

    @property
    def device(self) -> str: ...

    @property
    def parameters(self) -> Mapping[str, torch.nn.Parameter]: ...

    def vectors(self, texts: Numbers) -> torch.Tensor:
        """Return the vectors of texts in training, shape (n, dim), with gradients."""

    def encode(self, texts: Numbers) -> Floats:
        """Return the unit vectors of texts as they will be served, shape (n, dim)."""

    def penalty(self) -> torch.Tensor:
        """Return what is added to the loss, a scalar."""

    def stepped(self, step: int) -> None:
        """Note that a step has been made, before its gradients are dropped; ``step`` from 0."""

    def memory(self) -> Tensors:
        """Return what it must know to go on, beside its parameters."""

    def remember(self, memory: Tensors) -> None: ...

    def merged(self) -> tuple[Any, torch.nn.Linear | None]:
        """Return the plain model and the layer behind its pooling; ends the training."""


def prepare(
    files: ModelFiles, tokens: Sequence[Sequence[int]], how: How, device: str, seed: int
) -> Tuned:
    """Return a model ready for training on texts given as token ids.

    Raises UnsupportedModel where it cannot be trained so, and ImportError without PEFT.
    """
    network = open_network(files, device, "float32")
    if how.mode == "projection":
        return TunedProjection(files, network, tokens, how)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)  # PEFT draws its first weights on the CPU
        model, allocator = _with_trainable(network.model, how, files.name)
    network.model = model
    return TunedBert(files, network, tokens, how, allocator)


# The encoder itself ------------------------------------------------------------------------------


class TunedBert:
    """An encoder whose own weights, or some beside them, are trained."""

    def __init__(
        self,
        files: ModelFiles,
        network: BertNetwork,
        tokens: Sequence[Sequence[int]],
        how: How,
        allocator: _RankAllocator | None = None,
    ) -> None:
        self.device = network.device
        self._files = files
        self._network = network
        self._tokens = tokens
        self._allocator = allocator
        self._is_peft = how.mode in _PEFT
        self._how = how
        self.parameters = {
            name: parameter
            for name, parameter in network.model.named_parameters()
            if parameter.requires_grad
        }
        if how.checkpointing:
            # Of the two ways the newer one: the older needs inputs that have gradients.
            network.model.gradient_checkpointing_enable({"use_reentrant": False})

    def vectors(self, texts: Numbers) -> torch.Tensor:
        self._network.model.train()
        with _autocast(self._how, self.device):
            found = self._network.vectors([self._tokens[text] for text in texts.tolist()])
        return found.float()

    def encode(self, texts: Numbers) -> Floats:
        self._network.model.eval()
        with _autocast(self._how, self.device):
            return _encoded(self._network, [self._tokens[text] for text in texts.tolist()])

    def penalty(self) -> torch.Tensor:
        if self._allocator is None:
            return torch.zeros((), device=self.device)
        return self._allocator.penalty()

    def stepped(self, step: int) -> None:
        if self._allocator is not None:
            self._allocator.stepped(step)

    def memory(self) -> Tensors:
        return {} if self._allocator is None else self._allocator.memory()

    def remember(self, memory: Tensors) -> None:
        if self._allocator is not None:
            self._allocator.remember(memory)

    def merged(self) -> tuple[Any, torch.nn.Linear | None]:
        model = self._network.model.eval()
        if self._is_peft:
            model = model.merge_and_unload()
        return model, _linear(self._network)


def _with_trainable(model: Any, how: How, name: str) -> tuple[Any, _RankAllocator | None]:
    """Return the model with gradients where the mode has them, and AdaLoRA's allocator."""
    model.requires_grad_(how.mode in ("full", "frozen"))
    if how.mode == "frozen":
        _freeze(model, how.n_frozen, name)
    if how.mode not in _PEFT:
        return model, None
    from peft import get_peft_model

    try:
        wrapped: Any = get_peft_model(model, _peft_config(how))
    except ValueError as error:
        raise UnsupportedModel(f"model {name!r} by {how.mode}: {error}") from error
    return wrapped, _RankAllocator(wrapped) if how.mode == "adalora" else None


_PEFT = ("lora", "adalora", "ia3")


def _freeze(model: Any, n_frozen: int | None, name: str) -> None:
    n_layers = model.config.num_hidden_layers
    n_frozen = n_layers // 2 if n_frozen is None else n_frozen
    layers = next(
        (
            part
            for part in model.modules()
            if isinstance(part, torch.nn.ModuleList) and len(part) == n_layers
        ),
        None,
    )
    if layers is None or not 0 <= n_frozen < n_layers:
        raise UnsupportedModel(
            f"model {name!r}: expected fewer frozen layers than it has, {n_layers}, got {n_frozen}"
        )
    model.embeddings.requires_grad_(False)
    for layer in layers[:n_frozen]:
        layer.requires_grad_(False)


def _peft_config(how: How) -> Any:
    from peft import AdaLoraConfig, IA3Config, LoraConfig

    if how.mode == "lora":
        return LoraConfig(
            r=how.rank, lora_alpha=2 * how.rank, lora_dropout=0.05, target_modules="all-linear"
        )
    if how.mode == "adalora":
        # Ranks begin half as large again and are cut in the middle of the training.
        return AdaLoraConfig(
            init_r=how.rank * 3 // 2,
            target_r=how.rank,
            lora_alpha=2 * how.rank,
            lora_dropout=0.05,
            target_modules="all-linear",
            total_step=how.n_steps,
            tinit=how.n_steps // 10,
            tfinal=how.n_steps // 3,
            deltaT=max(1, how.n_steps // 100),
        )
    return IA3Config(
        target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"]
    )


class _RankAllocator:
    """AdaLoRA's own part in each step, and what it remembers: PEFT leaves both to its caller."""

    _AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")

    def __init__(self, model: Any) -> None:
        self._adalora = model.base_model
        self._config = model.peft_config["default"]
        self._matrices = [
            (matrix.mT if ".lora_B." in name else matrix)
            for name, matrix in model.named_parameters()
            if ".lora_A." in name or ".lora_B." in name
        ]

    def penalty(self) -> torch.Tensor:
        """Return how far the singular vectors are from orthogonal, as PEFT's own loss has it."""
        norms = [
            torch.linalg.norm(m @ m.mT - torch.eye(len(m), device=m.device)) for m in self._matrices
        ]
        weight: float = self._config.orth_reg_weight
        return weight * torch.stack(norms).mean()

    def stepped(self, step: int) -> None:
        self._adalora.update_and_allocate(step)

    def memory(self) -> Tensors:
        averages = {
            f"{kind}/{name}": value
            for kind in self._AVERAGES
            for name, value in getattr(self._adalora.rankallocator, kind).items()
        }
        pattern = self._config.rank_pattern or {}
        return averages | {f"pattern/{k}": torch.tensor(kept) for k, kept in pattern.items()}

    def remember(self, memory: Tensors) -> None:
        device = self._matrices[0].device
        for kind in self._AVERAGES:
            on_device = {name: t.to(device) for name, t in _below(memory, kind).items()}
            getattr(self._adalora.rankallocator, kind).update(on_device)
        kept = {name: value.tolist() for name, value in _below(memory, "pattern").items()}
        self._config.rank_pattern = kept or None


def _below(tensors: Tensors, kind: str) -> Tensors:
    start = f"{kind}/"
    return {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}


# One layer behind it -----------------------------------------------------------------------------


class TunedProjection:
    """A linear layer on vectors that are made once; it begins as the identity."""

    def __init__(
        self,
        files: ModelFiles,
        network: BertNetwork,
        tokens: Sequence[Sequence[int]],
        how: How,
    ) -> None:
        if files.dense is not None and files.dense.has_tanh:
            raise UnsupportedModel(f"model {files.name!r}: no projection fits behind its tanh")
        self.device = network.device
        self._network = network
        with _autocast(how, self.device):
            self._base = torch.from_numpy(_encoded(network, tokens)).to(self.device)
        # What is learnt is the difference to the identity, so that decay draws towards that.
        self._change = torch.nn.Parameter(torch.zeros(files.dim, files.dim, device=self.device))
        self.parameters = {"change": self._change}

    def vectors(self, texts: Numbers) -> torch.Tensor:
        base = self._base[torch.from_numpy(texts).to(self.device)]
        return base + torch.nn.functional.dropout(base, _PROJECTION_DROPOUT) @ self._change.mT

    def encode(self, texts: Numbers) -> Floats:
        with torch.inference_mode():
            base = self._base[torch.from_numpy(texts).to(self.device)]
            return _unit((base + base @ self._change.mT).cpu().numpy())

    def penalty(self) -> torch.Tensor:
        return torch.zeros((), device=self.device)

    def stepped(self, step: int) -> None:
        pass

    def memory(self) -> Tensors:
        return {}

    def remember(self, memory: Tensors) -> None:
        pass

    def merged(self) -> tuple[Any, torch.nn.Linear | None]:
        n = len(self._change)
        whole = torch.eye(n, device=self.device) + self._change.detach()
        before = _linear(self._network)
        has_bias = before is not None and before.bias is not None
        linear = torch.nn.Linear(before.in_features if before else n, n, bias=has_bias)
        with torch.no_grad():
            linear.weight.copy_(whole if before is None else whole @ before.weight)
            if before is not None and has_bias:
                linear.bias.copy_(whole @ before.bias)
        return self._network.model, linear


def _autocast(how: How, device: str) -> torch.autocast:
    half = how.precision == "bfloat16" or (how.precision == "auto" and fast_bfloat16(device))
    return torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=half)


def _linear(network: BertNetwork) -> torch.nn.Linear | None:
    """Return the layer behind the pooling."""
    if network.dense is None:
        return None
    return next(part for part in network.dense.modules() if isinstance(part, torch.nn.Linear))


def _encoded(network: BertNetwork, tokens: Sequence[Sequence[int]]) -> Floats:
    """Return unit vectors in the order given, shape (n, dim); like goes with like length."""
    order = np.argsort([len(text) for text in tokens], kind="stable")
    vectors: list[Floats] = []
    with torch.inference_mode():
        for rows in np.array_split(order, max(1, -(-len(order) // _ENCODED_AT_ONCE))):
            some = network.vectors([tokens[row] for row in rows.tolist()])
            vectors.append(some.float().cpu().numpy())
    found = np.empty((len(tokens), vectors[0].shape[1]), np.float32)
    found[order] = np.concatenate(vectors)
    return _unit(found)


def _unit(vectors: Floats) -> Floats:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)

"""A fine-tuned encoder's folder: laid out as sentence-transformers does, with our manifest."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from models.model_folder import finish_folder
from models.weights import ModelFiles

KIND = "encoder"
_TYPES = "sentence_transformers.models"
#: What a tokenizer is made of; a model has some of them.
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "merges.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
)


def save_encoder(
    folder: Path,
    model: Any,
    dense: torch.nn.Linear | None,
    base: ModelFiles,
    facts: Mapping[str, Any],
) -> str:
    """Write a plain model into a new folder, and return its name.

    ``dense`` goes behind the pooling; tokenizer, pooling and prefixes are those of ``base``.
    Raises ModelError when there is something already, OSError when it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unfinished-") as unfinished:
        made = Path(unfinished) / "model"
        made.mkdir()
        model.save_pretrained(made)
        for name in _TOKENIZER:
            if (base.folder / name).is_file():
                shutil.copyfile(base.folder / name, made / name)
        _write_layers(made, dense, base)
        return finish_folder(made, folder, KIND, facts)


def _write_layers(made: Path, dense: torch.nn.Linear | None, base: ModelFiles) -> None:
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    pooling = {
        "word_embedding_dimension": base.dim if base.dense is None else base.dense.n_in,
        "pooling_mode_cls_token": base.pooling == "cls",
        "pooling_mode_mean_tokens": base.pooling == "mean",
    }
    _write_json(made / "1_Pooling" / "config.json", pooling)
    if dense is not None:
        modules.append(("Dense", "2_Dense"))
        has_tanh = base.dense is not None and base.dense.has_tanh
        kind = "activation.Tanh" if has_tanh else "linear.Identity"
        settings = {
            "in_features": dense.in_features,
            "out_features": dense.out_features,
            "bias": dense.bias is not None,
            "activation_function": f"torch.nn.modules.{kind}",
        }
        _write_json(made / "2_Dense" / "config.json", settings)
        tensors = {f"linear.{name}": t.cpu().contiguous() for name, t in dense.state_dict().items()}
        save_file(tensors, made / "2_Dense" / "model.safetensors", {"format": "pt"})
    modules.append(("Normalize", f"{len(modules)}_Normalize"))
    listed = [
        {"idx": n, "name": str(n), "path": path, "type": f"{_TYPES}.{kind}"}
        for n, (kind, path) in enumerate(modules)
    ]
    _write_json(made / "modules.json", listed)
    if base.max_tokens is not None:
        sentences = {"max_seq_length": base.max_tokens, "do_lower_case": False}
        _write_json(made / "sentence_bert_config.json", sentences)
    prompts = {"query": base.query_prefix, "document": base.passage_prefix}
    _write_json(made / "config_sentence_transformers.json", {"prompts": prompts})


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

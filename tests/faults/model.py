"""A model folder of a few hundred bytes: what the workers read of a model besides its weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

DIM = 32


def tiny_model(folder: Path, dim: int = DIM, weight: float = 0.0) -> Path:
    """Return the folder, made if need be; the encoder itself is replaced (faults.injection).

    Of another ``weight`` it is another encoder, with vectors that look as if they were the same.
    """
    model = folder / f"tiny-model-{dim}-{weight:g}"
    if not model.exists():
        model.mkdir(parents=True)
        config = {"hidden_size": dim, "model_type": "bert"}
        (model / "config.json").write_text(json.dumps(config))
        (model / "vocab.txt").write_text("[PAD]\n[UNK]\n")
        save_file(
            {"weights": np.full((1, dim), weight, np.float32)}, str(model / "model.safetensors")
        )
    return model

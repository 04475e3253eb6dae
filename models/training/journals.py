"""Where the figures of a training go while it runs: TensorBoard, and Weights & Biases if wanted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Journal(Protocol):
    """Takes figures by name as they come; ``step`` never falls."""

    def write(self, step: int, figures: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in a folder, for ``tensorboard --logdir FOLDER``; raises ImportError without
    the package."""

    def __init__(self, folder: Path, begun_step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        make: Any = SummaryWriter  # not typed
        # What a run wrote that was cut off, behind its last checkpoint, is not to be drawn twice.
        self._writer: Any = make(str(folder), purge_step=begun_step or None)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of a project; raises ImportError without the package. Where it goes is the client's
    own setting: WANDB_MODE=offline keeps all on this machine."""

    def __init__(self, project: str, folder: Path, options: Mapping[str, Any]) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(project=project, dir=str(folder), config=dict(options))

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish()

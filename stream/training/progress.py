"""A training's figures as a bar for people."""

from __future__ import annotations

from collections.abc import Mapping

from rich.progress import Progress


class ProgressJournal:
    """A Journal that moves a bar, and says the last figures beside it."""

    def __init__(self, progress: Progress, n_steps: int) -> None:
        self._progress = progress
        self._task = progress.add_task("ranking what is held out", total=n_steps)
        self._said: dict[str, float] = {}

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        shown = ("loss", "ndcg_at_10")
        self._said |= {name: value for name, value in figures.items() if name in shown}
        said = " ".join(f"{name} {value:.4f}" for name, value in self._said.items())
        self._progress.update(self._task, completed=step, description=said)

    def close(self) -> None:
        pass

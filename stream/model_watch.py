"""Another model in the place of the one in use, without a restart, when its folder changes.

A look is a few ``stat`` calls, in a thread. What is found must stand still for one look, and be
whole, before it is read; then it is checked, loaded and tried in a thread, and put in its place
between two micro-batches. What cannot be used is refused once, and the model in use stays.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from models.model_folder import missing_files, model_name
from models.versions import chosen
from models.weights import ModelError, WrongEncoder, encoder_id, resolve
from stream.metrics import Metrics, ModelKind, ModelRefusal

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """A model that has been loaded and tried: ``use`` it, or ``give_up`` what was prepared."""

    name: str
    use: Callable[[], Awaitable[None]]
    give_up: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Seen:
    """Which folder is meant, and what ``stat`` says of its files."""

    folder: Path
    files: tuple[tuple[str, int, int, int], ...]


@dataclass(slots=True)
class Watched:
    """A model in use, by ``name``, and the folder that the settings name.

    ``load`` runs in a thread; it returns None where the folder holds what is in use, and raises
    what speaks against taking it. ``lacks`` says what a folder is still to get.
    """

    kind: ModelKind
    folder: Path
    name: str
    load: Callable[[Path], Ready | None]
    lacks: Callable[[Path], Sequence[str]] = missing_files
    #: What was seen last, and what was last dealt with: put in use or refused.
    last: Seen | None = field(default=None, init=False)
    settled: Seen | None = field(default=None, init=False)
    is_refused: bool = field(default=False, init=False)
    #: Monotonic seconds of the first look that found another model than the one in use.
    since_s: float | None = field(default=None, init=False)
    told: Seen | None = field(default=None, init=False)


def look(folder: Path) -> Seen:
    """Return what is there now; a folder that is not there has no files."""
    at = chosen(folder)
    files = []
    for path in sorted(at.rglob("*")):
        try:
            stat = path.stat()
        except OSError:  # gone, or a link to what is not there yet
            continue
        name = path.relative_to(at).as_posix()
        files.append((name, stat.st_size, stat.st_mtime_ns, stat.st_ino))
    return Seen(at, tuple(files))


class ModelWatch:
    """Looks at the folders of a worker's models, every so many seconds."""

    def __init__(
        self,
        metrics: Metrics,
        every_s: float,
        clock: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._every_s = every_s
        self._clock = clock
        self._monotonic = monotonic
        self._watched: list[Watched] = []

    def add(self, model: Watched) -> None:
        """Watch over a model that is in use."""
        self._watched.append(model)
        version = chosen(model.folder).name
        self._metrics.show_model(model.kind, model.name, version, self._clock())
        log.info("model in use: kind=%s name=%s version=%s", model.kind, model.name, version)

    async def run(self) -> None:
        """Look for as long as the worker lives; return at once where nothing is to be watched."""
        while self._watched and self._every_s:
            await asyncio.sleep(self._every_s)
            await self.look()

    async def look(self) -> None:
        """Look once at each model, and take what is there to be taken."""
        for model in self._watched:
            await self._look_at(model)
            waited_s = 0.0 if model.since_s is None else self._monotonic() - model.since_s
            self._metrics.model_pending.labels(model.kind).set(waited_s)

    async def _look_at(self, model: Watched) -> None:
        seen = await asyncio.to_thread(look, model.folder)
        if seen != model.settled:
            if model.since_s is None:
                model.since_s = self._monotonic()
            # What still changes is being written.
            if seen == model.last:
                await self._settle(model, seen)
        elif not model.is_refused:
            model.since_s = None
        model.last = seen

    async def _settle(self, model: Watched, seen: Seen) -> None:
        lacks = await asyncio.to_thread(model.lacks, seen.folder)
        if lacks:
            if model.told != seen:
                model.told = seen
                log.warning(
                    "model not whole yet: kind=%s folder=%s lacks=%s in_use=%s",
                    *(model.kind, seen.folder, ", ".join(lacks), model.name),
                )
            return
        try:
            ready = await asyncio.to_thread(self._load, model, seen.folder)
        except Exception as error:  # noqa: BLE001 - told; a bad folder must not end the worker
            self._refuse(model, seen, error)
            return
        if ready is not None:
            # It took its time: what is meant by now may be another one, or the old one again.
            if await asyncio.to_thread(look, model.folder) != seen:
                ready.give_up()
                return
            await ready.use()
            log.info(
                "model in use: kind=%s name=%s version=%s instead_of=%s",
                *(model.kind, ready.name, seen.folder.name, model.name),
            )
            model.name = ready.name
            self._metrics.show_model(model.kind, ready.name, seen.folder.name, self._clock())
        model.settled, model.is_refused, model.since_s = seen, False, None

    @staticmethod
    def _load(model: Watched, folder: Path) -> Ready | None:
        # The same model may lie elsewhere now, or have been copied anew.
        return None if model_name(folder) == model.name else model.load(folder)

    def _refuse(self, model: Watched, seen: Seen, error: Exception) -> None:
        reason: ModelRefusal = "failed"
        if isinstance(error, ModelError):
            reason = "encoder" if isinstance(error, WrongEncoder) else "damaged"
        self._metrics.refuse_model(model.kind, reason)
        log.error(
            "model refused, the one in use stays: kind=%s folder=%s reason=%s in_use=%s: %s",
            *(model.kind, seen.folder, reason, model.name, str(error) or repr(error)),
            exc_info=error if reason == "failed" else None,
        )
        model.settled, model.is_refused = seen, True


def watched_encoder(name: str, sha256: str, running: str) -> Watched | None:
    """Return the watch over the encoder, None where it is no folder: it is never swapped.

    Vectors of two encoders must not meet, so a folder that holds another one is refused for as
    long as the worker lives.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return None

    def refuse_another(at: Path) -> None:
        try:
            found = encoder_id(resolve(str(at), sha256=sha256))
        except ModelError as error:
            raise WrongEncoder(f"{folder} does not hold the encoder any more: {error}") from error
        if found != running:
            raise WrongEncoder(
                f"{folder} holds the encoder {found}: an encoder is never swapped, since users' "
                "rows and item vectors are the other's; deploy/OPERATIONS.md, 'Changing the "
                "encoder', says how it is done. Put the old one back before a restart"
            )

    return Watched("encoder", folder, running, refuse_another, lacks=lambda _: ())

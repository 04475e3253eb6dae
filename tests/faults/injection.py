"""What is put into a worker process under test: eyes, a cheap encoder, and faults of its own code.

The processes are those of ``prefstream worker``; ``injected/sitecustomize.py`` on their PYTHONPATH
calls ``install`` before they begin. Which faults is said by ``FAULT_*`` in the environment.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
from word_vectors import word_vectors

DUMP_SIGNAL = signal.SIGUSR2
#: The folder that dumps go to, one file per process and signal.
DUMPS = "FAULT_DUMPS"
#: ``real`` leaves the encoder alone; it costs seconds of imports at every start.
ENCODER = "FAULT_ENCODER"
#: Raise in the fold of this user.
BUG_FOR = "FAULT_BUG_FOR"
#: Encoding blocks once for so many seconds, holding the interpreter's event loop or a thread.
BLOCK_S = "FAULT_BLOCK_S"
#: The encoder fails so many times before it works.
ENCODER_FAILS = "FAULT_ENCODER_FAILS"
#: The preference agent never returns from a batch that holds an event of this user.
HANG_FOR = "FAULT_HANG_FOR"


def install() -> None:
    """Change this process as the environment says; called before ``stream.worker`` is run."""
    process = sys.orig_argv[-1]
    if process == "encode" and os.environ.get(ENCODER) != "real":
        _replace_encoder()
    if os.environ.get(DUMPS):
        _dump_on_signal(Path(os.environ[DUMPS]), process)
    if process == "preference" and os.environ.get(BUG_FOR):
        _raise_for(os.environ[BUG_FOR])
    if process == "preference" and os.environ.get(HANG_FOR):
        _hang_for(os.environ[HANG_FOR])


class WordEncoder:
    """A TextEncoder without a model: each word has a direction, a text is their unit sum."""

    n_truncated = 0
    device = "cpu"

    def __init__(self, files: Any, **_: object) -> None:
        from models.weights import encoder_id

        self.dim: int = files.dim
        self.encoder_id = encoder_id(files)
        self._fails = int(os.environ.get(ENCODER_FAILS, "0"))
        self._block_s = float(os.environ.get(BLOCK_S, "0"))

    def encode(self, texts: Sequence[str], side: str = "passage") -> Any:
        if self._block_s:
            block_s, self._block_s = self._block_s, 0.0
            time.sleep(block_s)
        if self._fails:
            from models.encoder import EncoderUnavailable

            self._fails -= 1
            raise EncoderUnavailable("the device is gone, says the test")
        return word_vectors(texts, self.dim)


def _replace_encoder() -> None:
    module = ModuleType("models.bert_encoder")
    module.BertEncoder = WordEncoder  # type: ignore[attr-defined]
    sys.modules["models.bert_encoder"] = module


def _dump_on_signal(folder: Path, process: str) -> None:
    """On a signal, write the rows of every table this process holds, as it holds them."""
    from stream.engine.commits import Committer

    held: list[tuple[str, Any, Committer]] = []
    original = Committer.__init__

    def remember(self: Committer, table: Any, sender: Any, changelog: str, **options: Any) -> None:
        original(self, table, sender, changelog, **options)
        held.append((changelog, table, self))

    def dump(*_: object) -> None:
        tables = {
            name: {p: dict(table.scan(p, b"", 1_000_000_000)) for p in committer.partitions}
            for name, table, committer in held
        }
        path = folder / f"{process}-{os.getpid()}.dump"
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.msgpack.encode(tables))
        part.rename(path)

    Committer.__init__ = remember  # type: ignore[method-assign]
    signal.signal(DUMP_SIGNAL, dump)


def _raise_for(user_id: str) -> None:
    from stream.core.drafts import UserDraft

    original: Callable[..., None] = UserDraft.apply

    def apply(self: UserDraft, *args: Any) -> None:
        if self.user_id == user_id:
            raise KeyError("a bug for one key, says the test")
        original(self, *args)

    UserDraft.apply = apply  # type: ignore[method-assign]


def _hang_for(user_id: str) -> None:
    import asyncio

    from stream.agents.preferences import Preferences

    original = Preferences.process

    async def process(self: Preferences, batch: Sequence[Any]) -> None:
        if any(message.key == user_id.encode() for message in batch):
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:  # it does not let itself be cancelled either
                    continue
        await original(self, batch)

    Preferences.process = process  # type: ignore[method-assign]

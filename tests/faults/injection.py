"""What is put into a worker process under test: eyes, a cheap encoder, and faults of its own code.

The processes are those of ``prefstream worker``; ``injected/sitecustomize.py`` on their PYTHONPATH
calls ``install`` before they begin. Which faults is said by ``FAULT_*`` in the environment.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import msgspec
from word_vectors import word_vectors

#: Where Debian and others install libfaketime, for programs with threads.
FAKETIME_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt/homebrew/lib")
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
#: The encoder runs on a device with room for so many texts that is lost after so many passes
#: ("ROOM,PASSES", see failing_device); for ``real`` encoders.
DEVICE = "FAULT_DEVICE"
#: The wall clock is this far off, in libfaketime's words ("+1d"); ``faketime`` must be installed.
CLOCK = "FAULT_CLOCK"
#: The worker is out of memory with the first event of this user, and from then on: in the batch it
#: is of (``fold``), in there and when that is to be told (``telling``), or before (``taking``).
TROUBLE_FOR = "FAULT_TROUBLE_FOR"
TROUBLE_AT = "FAULT_TROUBLE_AT"
#: The preference agent never returns from a batch that holds an event of this user.
HANG_FOR = "FAULT_HANG_FOR"
#: Sending what the last owner's commit left to be sent takes so many seconds more.
FINISH_S = "FAULT_FINISH_S"
#: RocksDB's write buffers, of which each partition has two.
WRITE_BUFFER_KIB = "FAULT_WRITE_BUFFER_KIB"
#: With every batch the preference agent keeps so many KiB, and a handle, for good.
LEAK_KIB = "FAULT_LEAK_KIB"


def install() -> None:
    """Change this process as the environment says; called before ``stream.worker`` is run."""
    if os.environ.get(CLOCK):
        _set_clock_wrong(os.environ[CLOCK])
    process = sys.orig_argv[-1]
    if process == "encode" and os.environ.get(ENCODER) != "real":
        _replace_encoder()
    if process == "encode" and os.environ.get(DEVICE):
        _fail_device(*map(int, os.environ[DEVICE].split(",")))
    if os.environ.get(DUMPS):
        _dump_on_signal(Path(os.environ[DUMPS]), process)
    if process == "preference":
        _install_preference()
    if process != "encode" and os.environ.get(WRITE_BUFFER_KIB):
        _set_write_buffer(int(os.environ[WRITE_BUFFER_KIB]))


def _install_preference() -> None:
    if os.environ.get(BUG_FOR):
        _raise_for(os.environ[BUG_FOR])
    if os.environ.get(TROUBLE_FOR):
        at = os.environ.get(TROUBLE_AT, "fold")
        _trouble_for(os.environ[TROUBLE_FOR], Path(os.environ[DUMPS]) / "trouble", at)
    if os.environ.get(HANG_FOR):
        _hang_for(os.environ[HANG_FOR])
    if os.environ.get(FINISH_S):
        _finish_slowly(float(os.environ[FINISH_S]))
    if os.environ.get(LEAK_KIB):
        _leak(int(os.environ[LEAK_KIB]))


def faketime() -> Path | None:
    """Return libfaketime's library, None where it is not installed."""
    # Beside the folder or, on Debian, below that of the architecture.
    patterns = ("faketime/libfaketimeMT.*", "*/faketime/libfaketimeMT.*")
    found = (path for f in FAKETIME_FOLDERS for p in patterns for path in Path(f).glob(p))
    return next(found, None)


def _set_clock_wrong(by: str) -> None:
    """Begin this process again with libfaketime, whose clock it has from then on."""
    library = str(faketime())
    if os.environ.get("LD_PRELOAD") != library:
        fake = {"LD_PRELOAD": library, "FAKETIME": by, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **fake})
    # It takes the end of a sleep by the monotonic clock for a time of the wall clock (0.9.10).
    time.sleep = _sleep


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


class WordEncoder:
    """A TextEncoder without a model: each word has a direction, a text is their unit sum."""

    n_truncated = 0
    device = "cpu"
    fallbacks: Mapping[str, int] = MappingProxyType({})

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


def _fail_device(room: int, lost_after: int) -> None:
    from failing_device import failing_network

    from models import bert_encoder

    # What takes over on the CPU is opened by another name, and sound.
    bert_encoder.open_by_runtime = lambda files, *_, **__: failing_network(files, room, lost_after)
    bert_encoder.device_for = lambda wanted, runtime: "cuda"


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


def _trouble_for(user_id: str, once: Path, at: str) -> None:
    if once.exists():
        return
    from faust.app import App

    from stream.agents.preferences import Preferences
    from stream.engine.batches import BatchStream

    process, take, crash = Preferences.process, BatchStream._take, App.crash

    async def no_process(self: Preferences, batch: Sequence[Any]) -> None:
        _exhaust(once, user_id, batch)
        await process(self, batch)

    def no_take(self: Any, run: Any, batch: list[Any], left: int) -> int:
        _exhaust(once, user_id, run.records)
        return take(self, run, batch, left)

    async def no_crash(self: Any, reason: BaseException) -> None:
        if not (once.parent / "told").exists():
            (once.parent / "told").touch()
            raise MemoryError("no memory for the crash, says the test")
        await crash(self, reason)

    if at == "taking":
        BatchStream._take = no_take  # type: ignore[method-assign]
    else:
        Preferences.process = no_process  # type: ignore[method-assign]
    if at == "telling":
        App.crash = no_crash  # type: ignore[method-assign]


def _exhaust(once: Path, user_id: str, messages: Sequence[Any]) -> None:
    """Raise with the first message of the user."""
    if not once.exists() and any(message.key == user_id.encode() for message in messages):
        once.touch()
        raise MemoryError("no memory for this, says the test")


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


def _finish_slowly(seconds: float) -> None:
    import asyncio

    from stream.engine.commits import Committer
    from stream.kafka_client import KafkaSender

    recover, send = Committer.recover, KafkaSender.send
    finishing: set[Any] = set()

    async def slow_recover(self: Committer, partition: int) -> None:
        finishing.add(asyncio.current_task())
        try:
            await recover(self, partition)
        finally:
            finishing.discard(asyncio.current_task())

    async def slow_send(self: KafkaSender, outputs: Sequence[Any]) -> list[int]:
        if asyncio.current_task() in finishing:
            await asyncio.sleep(seconds)
        return await send(self, outputs)

    Committer.recover = slow_recover  # type: ignore[method-assign]
    KafkaSender.send = slow_send  # type: ignore[method-assign]


def _set_write_buffer(kib: int) -> None:
    from stream.engine.table import ROCKSDB_OPTIONS

    ROCKSDB_OPTIONS["write_buffer_size"] = 1024 * kib


def _leak(kib: int) -> None:
    from stream.agents.preferences import Preferences

    original = Preferences.process
    kept: list[tuple[bytes, int]] = []

    async def process(self: Preferences, batch: Sequence[Any]) -> None:
        kept.append((b"x" * 1024 * kib, os.open(os.devnull, os.O_RDONLY)))
        await original(self, batch)

    Preferences.process = process  # type: ignore[method-assign]

"""Everything that reads bytes it did not write: for whatever bytes, a valid value or its error.

A target takes an input and returns when the code under it did one of two things: it raised the
error that it documents, or it gave a value that is valid and, where it is written again, comes
back equal. Anything else that is raised is a find. An input of several fields is split as
``mutations.fields`` says.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from builders import NOW_MS
from fakes import Outbox
from fuzz import seeds
from fuzz.mutations import BYTES, JSON, MSGPACK, TENSORS, Form, fields

from models.catalogue import Catalogue
from models.catalogue_state import CatalogueState, NeighbourState
from models.model_folder import write_folder
from models.snapshot import BadSnapshot, Manifest, load_snapshot, save_snapshot
from models.weights import ModelError, ModelFiles, encoder_id, resolve
from stream import formats, messages
from stream.core import item_rows, user_rows
from stream.core.events import PARSERS, BadEvent
from stream.core.intake import Erasure, intake
from stream.core.kept import read_kept
from stream.core.user_state import SOURCES, is_long_gone
from stream.dead_letters import DeadLetters, Failure
from stream.delivery import SourceMessage
from stream.engine import commits
from stream.engine.app import add_table, new_app
from stream.engine.commits import Committer
from stream.engine.stores import SEQUENCE_BYTES, stamp, unstamp
from stream.engine.table import PartitionTable, StoreFailed
from stream.formats import BadSource, Format, ReadReport, Record
from stream.messages import BadDerived
from stream.redrive import DeadLetter, Selection, places_in
from stream.settings import load_settings
from stream.spaces import OtherEncoder

Value = TypeVar("Value")
Errors = type[Exception] | tuple[type[Exception], ...]


@dataclass(frozen=True)
class Target:
    """``forms`` are those of an input's fields; ``n_quick`` inputs are tried by ``make test``."""

    name: str
    check: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    forms: tuple[Form | None, ...] = (BYTES,)
    n_quick: int = 1000


def answer(error: Errors, read: Callable[..., Value], *args: Any) -> Value | None:
    """Return what is read, None when it is refused with the error that belongs to it."""
    try:
        return read(*args)
    except error:
        return None


def alike(a: object, b: object) -> bool:
    """True for equal values, and for those that differ in nothing but a NaN's being one."""
    return a == b or repr(a) == repr(b)


# --- messages ------------------------------------------------------------------------------------


def event(topic: str, raw: bytes) -> None:
    """Value and key; an empty key is not looked at."""
    parse = PARSERS[topic]
    value, key = fields(raw, 2)
    found = answer(BadEvent, parse, value, key or ...)
    if found is not None:
        assert alike(parse(msgspec.json.encode(found), key or ...), found)


def derived(read: Callable[[bytes], msgspec.Struct], raw: bytes) -> None:
    found = answer(BadDerived, read, raw)
    if found is None:
        return
    assert alike(read(messages.to_message(found)), found)
    if isinstance(found, messages.ItemEmbedding | messages.EmbeddedText):
        vector = answer(BadDerived, messages.vector_of, found, seeds.ENCODER)
        assert vector is None or vector.shape == (found.dim,)


def taken_in(raw: bytes) -> None:
    """Topic, key, value, and a header's name and value; an empty key or value is none."""
    topic, key, value, name, content = fields(raw, 5)
    headers = ((name.decode(errors="replace"), content),) if name else ()
    message = SourceMessage(
        topic.decode(errors="replace"), 1, 70, NOW_MS, key or None, value or None, headers
    )
    taken = answer((BadEvent, BadDerived), intake, message, seeds.ENCODER)
    if taken is None:
        return
    assert taken.user_id.encode() == key
    if isinstance(taken.content, Erasure):
        return
    assert taken.content.source in {*SOURCES, message.topic}
    assert min(taken.content.partition, taken.content.offset) >= 0
    if taken.content.vector is not None:
        assert np.isfinite(taken.content.vector).all()


# --- rows and records of the state ---------------------------------------------------------------


def user_row(raw: bytes) -> None:
    answer(user_rows.BadRow, user_rows.has_pending, raw)
    state = answer(user_rows.BadRow, user_rows.from_row, raw)
    kept = answer(user_rows.BadRow, read_kept, raw)
    if state is None:
        assert kept is None
        return
    row = user_rows.to_row(state)
    assert alike(kept.state(), state)
    assert alike(user_rows.from_row(kept.row()), state)
    assert alike(user_rows.from_row(row), state)
    assert user_rows.has_pending(row) == (state.pending is not None)
    is_long_gone(state, NOW_MS, 1)


def item_row(raw: bytes) -> None:
    state = answer(item_rows.BadRow, item_rows.from_row, raw)
    if state is not None:
        assert alike(item_rows.from_row(item_rows.to_row(state)), state)


def ledger_row(raw: bytes) -> None:
    ledger = answer(item_rows.BadRow, item_rows.ledger_from_row, raw)
    if ledger is not None:
        assert item_rows.ledger_from_row(item_rows.ledger_to_row(ledger)) == ledger


def stamped(raw: bytes) -> None:
    sequence, value = unstamp(raw)
    assert sequence >= 0
    if len(raw) >= SEQUENCE_BYTES:
        assert stamp(sequence, value) == raw


@cache
def _table() -> PartitionTable:
    settings = load_settings(store="memory")
    return add_table(new_app(settings, "preference"), settings, "user-state")


def last_commit(raw: bytes) -> None:
    """Ledger, mark of delivery, chunk of effects, chunk of keys, row; an empty one is not there."""
    names = (
        commits.LEDGER_KEY,
        commits.DELIVERED_KEY,
        commits.LEDGER_KEY + b":000000",
        commits.KEYS_PREFIX + b"000000",
        b"u1",
    )
    table = _table()
    found = [record or None for record in fields(raw, len(names))]
    table.write(0, dict(zip(names, found, strict=True)))
    outbox = Outbox()
    committer = Committer(table, outbox, "user-state")
    if answer((StoreFailed, OtherEncoder), _finished, committer.recover(0)) is None:
        return
    assert committer.through(0, "nothing") == -1
    # What was finished is not sent again.
    n_sent = len(outbox.sent)
    _finished(Committer(table, outbox, "user-state").recover(0))
    assert len(outbox.sent) == n_sent


def _finished(coroutine: Any) -> bool:
    """Run what never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration:
        return True
    raise AssertionError("it waits for something")


# --- folders -------------------------------------------------------------------------------------

MANIFEST = seeds.SNAPSHOT_FILES[0]
SNAPSHOT_FORMS = (JSON, TENSORS, MSGPACK)


@cache
def _room() -> TemporaryDirectory[str]:
    return TemporaryDirectory()


def _folder(name: str) -> Path:
    folder = Path(_room().name) / name
    folder.mkdir(exist_ok=True)
    return folder


def snapshot_file(name: str, raw: bytes) -> None:
    """One file of a snapshot, the manifest's digests made to fit."""
    files = {**seeds.snapshot(), name: raw}
    if name != MANIFEST:
        manifest = json.loads(files[MANIFEST])
        manifest["sha256"][name] = hashlib.sha256(raw).hexdigest()
        files[MANIFEST] = json.dumps(manifest).encode()
    _checked_snapshot(files)


def snapshot_as_it_is(raw: bytes) -> None:
    """All files of a snapshot; a digest that does not fit is found."""
    files = dict(zip(seeds.SNAPSHOT_FILES, fields(raw, 3), strict=True))
    if (manifest := _checked_snapshot(files)) is not None:
        for name, digest in manifest.sha256.items():
            assert digest == hashlib.sha256(files[name]).hexdigest()


def _checked_snapshot(files: dict[str, bytes]) -> Manifest | None:
    """Return the manifest of a good one."""
    folder = _folder("snapshot")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    load = partial(load_snapshot, dim=seeds.DIM, encoder_id=seeds.ENCODER)
    loaded = answer(BadSnapshot, load, folder)
    if loaded is None:
        return None
    state, manifest = loaded
    catalogue = Catalogue(seeds.DIM)
    catalogue.restore(state)
    catalogue.state()
    again = save_snapshot(
        _folder("again"),
        state,
        encoder_id=manifest.encoder_id,
        offsets={(o.topic, o.partition): o.offset for o in manifest.offsets},
        created_ms=NOW_MS,
        keep=1,
    )
    read, _ = load(again)
    assert read.ids == state.ids
    assert alike(read.facts, state.facts)
    assert alike(_numbers(read), _numbers(state))
    return manifest


def _numbers(state: CatalogueState) -> list[Any]:
    neighbours = [
        getattr(state.neighbours, field.name) for field in dataclass_fields(NeighbourState)
    ]
    return [np.asarray(one).tolist() for one in (state.vectors, state.vector_places, *neighbours)]


def model_files(raw: bytes) -> None:
    """The files of MODEL_FILES, an empty one not there."""
    folder = _folder("model")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    contents = dict(zip(seeds.MODEL_FILES, fields(raw, len(seeds.MODEL_FILES)), strict=True))
    contents["part-1.safetensors"] = contents["vocab.txt"] = b"not read"
    contents["model.safetensors"] = b"" if contents[seeds.MODEL_FILES[-1]] else b"not read"
    for name, content in contents.items():
        if content:
            (folder / name).write_bytes(content)
        else:
            (folder / name).unlink(missing_ok=True)
    found = answer(ModelError, resolve, str(folder))
    if found is None:
        return
    assert found.dim >= 1
    assert found.max_tokens is None or found.max_tokens >= 1
    assert all(path.parent == found.folder for path in found.weights)
    assert encoder_id(found)


def tokenizer(raw: bytes) -> None:
    """A tokenizer.json, as far as to the tokens of a text."""
    from models.bert_encoder import BertEncoder

    folder = _folder("tokenizer")
    (folder / "config.json").write_text(json.dumps(seeds.bert_config()))
    (folder / "tokenizer.json").write_bytes(raw)
    files = ModelFiles("tiny", folder, (), seeds.DIM)
    answer(ModelError, partial(BertEncoder, files, device="cpu", open_on=_NoNetwork))


class _NoNetwork:
    runtime, dtype, tokens_at_once = "torch", "float32", 1024

    def __init__(self, device: str) -> None:
        self.device = device


def weights(raw: bytes) -> None:
    """A model.safetensors of a BERT of one layer."""
    from models.bert_network import open_network

    folder = _folder("weights")
    (folder / "config.json").write_text(json.dumps(seeds.bert_config()))
    (folder / "model.safetensors").write_bytes(raw)
    files = ModelFiles("tiny", folder, (folder / "model.safetensors",), seeds.DIM)
    answer(ModelError, open_network, files, "cpu", "float32")


def sequence_model(raw: bytes) -> None:
    """A user model's files, beside a manifest that says that they are what they should be."""
    from models.sequence_model import KIND, load_sequence

    contents = dict(zip(seeds.SEQUENCE_FILES, fields(raw, len(seeds.SEQUENCE_FILES)), strict=True))
    with TemporaryDirectory() as parent:
        folder = Path(parent) / "model"
        write_folder(folder, KIND, {}, contents)
        model = answer(ModelError, load_sequence, folder, "encoder")
    if model is not None:
        items = model.items(["i1", "new"], np.eye(2, seeds.DIM, dtype=np.float32))
        assert items.shape == (2, model.dim)
        assert model.shoppers([items[: model.history_items]]).shape == (1, model.dim)


def ranker(raw: bytes) -> None:
    """A ranker's file, beside a manifest that says that it is what it should be."""
    from models.ranking_features import FEATURES
    from models.trained_ranker import KIND, load_ranker

    with TemporaryDirectory() as parent:
        folder = Path(parent) / "model"
        write_folder(folder, KIND, {"features": list(FEATURES)}, {"weights.json": raw})
        model = answer(ModelError, load_ranker, folder, seeds.RANKER_CONDITIONS)
    if model is not None:
        scores = model.rate(np.eye(2, len(FEATURES), dtype=np.float32))
        chances = model.chances(scores, np.zeros(2, np.int64), 1)
        assert np.isfinite(scores).all()
        assert ((chances >= 0) & (chances <= 1)).all()


# --- logs ----------------------------------------------------------------------------------------


def log(format: Format, suffix: str, raw: bytes) -> None:
    path = _folder("logs") / f"log{suffix}"
    path.write_bytes(raw)
    _read_log(formats.read(path, format, ReadReport()))


def own_log(raw: bytes) -> None:
    """With messages a line, then with bare values a line: neither is checked by its reader."""
    path = _folder("logs") / "own.jsonl"
    path.write_bytes(raw)
    for topic in (None, "clickstream"):
        records = formats.read(path, "jsonl", ReadReport(), topic=topic)
        for record in answer(BadSource, list, records) or ():
            assert record.topic in PARSERS
            assert record.value is not None or record.key is not None


def amazon_logs(raw: bytes) -> None:
    """Reviews and metadata."""
    paths = [_folder("logs") / "X.json", _folder("logs") / "meta_X.json"]
    for path, content in zip(paths, fields(raw, 2), strict=True):
        path.write_bytes(content)
    _read_log(formats.read(paths[0], "amazon", ReadReport(), items=paths[1]))


def retail_columns(raw: bytes) -> None:
    """The columns as JSON: a good Parquet file of columns of any type."""
    file = io.BytesIO()
    try:
        pyarrow.parquet.write_table(pa.table(json.loads(raw)), file)
    except (
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
        pa.ArrowException,
    ):
        return  # no table at all
    log("online_retail", ".parquet", file.getvalue())


def _read_log(records: Iterator[Record]) -> None:
    """Such a reader makes no dead letter, and gives events in the order of their times."""
    time_ms = 0
    for record in answer(BadSource, list, records) or ():
        PARSERS[record.topic](record.value, record.key)
        if record.topic != "items":
            assert record.event_time_ms >= time_ms
            time_ms = record.event_time_ms


# --- dead letters --------------------------------------------------------------------------------


N_HEADERS = 10


def dead_letter(raw: bytes) -> None:
    """Key, value, and names and values of headers by turns: read, copied, and given up on again."""
    key, value, *rest = fields(raw, 2 + 2 * N_HEADERS)
    pairs = zip(rest[::2], rest[1::2], strict=True)
    headers = tuple((name.decode(errors="replace"), text) for name, text in pairs if name)
    letter = DeadLetter(0, 7, NOW_MS, key or None, value or None, headers)
    Selection(reason="x", stage="y").fits(letter)
    places_in(headers)
    copy = letter.original()
    assert copy.partition is None or copy.partition >= 0
    assert letter.attempts >= 1
    message = SourceMessage("clickstream", 3, 70, NOW_MS, copy.key, copy.value, copy.headers)
    made = _dead_letters().output_of(Failure(message, BadEvent("no"), "intake"))
    again = DeadLetter(0, 8, NOW_MS, made.key, made.value, made.headers)
    assert again.source == "clickstream/3/70"
    # Beyond nine digits they are counted anew.
    assert again.attempts in (1, letter.attempts + 1)
    if not again.truncated:
        assert (again.original().key, again.original().value) == (copy.key, copy.value)


@cache
def _dead_letters() -> DeadLetters:
    return DeadLetters(Outbox(), "1.0", lambda *_: None, max_bytes=2000)


# --- all of them ---------------------------------------------------------------------------------

ROW, STAMPED = MSGPACK.behind(1), MSGPACK.behind(SEQUENCE_BYTES)
MODEL_FORMS = (JSON,) * len(seeds.MODEL_FILES)
HEADERS = (BYTES,) * 2 * N_HEADERS

_ALL = [
    *(
        Target(f"event-{topic}", partial(event, topic), partial(seeds.events, topic), (JSON, BYTES))
        for topic in PARSERS
    ),
    *(
        Target(read.__name__.replace("_", "-"), partial(derived, read), make, (MSGPACK,))
        for read, make in (
            (messages.read_item_embedding, seeds.item_embeddings),
            (messages.read_embedded_text, seeds.embedded_texts),
            (messages.read_item_pairs, seeds.item_pairs),
            (messages.read_item_neighbours, seeds.item_neighbours),
        )
    ),
    Target("intake", taken_in, seeds.messages, (BYTES, BYTES, MSGPACK, BYTES, BYTES)),
    Target("user-row", user_row, seeds.user_row_bytes, (MSGPACK.behind(2),), 3000),
    Target("user-row-2", user_row, seeds.user_row_2_bytes, (MSGPACK.behind(2),), 3000),
    # Version 1 has no byte of flags.
    Target("user-row-1", user_row, seeds.old_user_row_bytes, (ROW,), 3000),
    Target("item-row", item_row, seeds.item_row_bytes, (ROW,)),
    Target("ledger-row", ledger_row, seeds.ledger_row_bytes, (ROW,)),
    Target("stamp", stamped, seeds.stamped),
    Target("commit", last_commit, seeds.commits, (STAMPED, BYTES, STAMPED, STAMPED, BYTES)),
    *(
        Target(
            f"snapshot-{name.partition('.')[0]}",
            partial(snapshot_file, name),
            partial(seeds.snapshot_file, name),
            (form,),
            100,
        )
        for name, form in zip(seeds.SNAPSHOT_FILES, SNAPSHOT_FORMS, strict=True)
    ),
    Target("snapshot", snapshot_as_it_is, seeds.snapshots, SNAPSHOT_FORMS, 100),
    Target("model-files", model_files, seeds.models, MODEL_FORMS, 300),
    Target("model-tokenizer", tokenizer, seeds.tokenizers, (JSON,), 50),
    Target("model-weights", weights, seeds.tensors, (TENSORS,), 10),
    Target("sequence-model", sequence_model, seeds.sequence_models, (JSON, JSON, TENSORS), 20),
    Target("ranker", ranker, seeds.rankers, (JSON,), 50),
    Target("log-jsonl", own_log, seeds.jsonl),
    Target("log-amazon", amazon_logs, seeds.amazon, (JSON, JSON)),
    Target("log-retail-csv", partial(log, "online_retail", ".csv"), seeds.retail_csv, n_quick=200),
    Target(
        "log-retail-parquet",
        partial(log, "online_retail", ".parquet"),
        seeds.retail_parquet,
        n_quick=200,
    ),
    Target("log-retail-columns", retail_columns, seeds.retail_columns, (JSON,), 200),
    Target("log-rees46", partial(log, "rees46", ".csv"), seeds.rees46),
    Target("log-taobao", partial(log, "taobao", ".csv"), seeds.taobao),
    Target("dead-letter", dead_letter, seeds.dead_letters, (BYTES, BYTES, *HEADERS)),
]
TARGETS = {target.name: target for target in _ALL}


def _broken(raw: bytes) -> None:
    assert stamp(*unstamp(raw)) == raw


#: Not so where a value is shorter than its stamp: for the harness to find.
BROKEN = Target("broken", _broken, seeds.commits)

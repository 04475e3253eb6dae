"""state: what a shopper's row takes, in the store and in the changelog."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from stream.bench.load import catalogue_of, wall_ms
from stream.bench.report import Figure, number
from stream.bench.rounds import BenchFailed, OnTurn
from stream.bench.sizes import State
from stream.bench.stage import Stage
from stream.bench.vectors import unit
from stream.core.user_state import STAMP_BYTES
from stream.delivery import Output
from stream.demo.shop import build_shop
from stream.demo.shoppers import Act, Crowd, build_shoppers
from stream.demo.tastes import TASTES
from stream.engine.app import add_table, new_app
from stream.messages import EmbeddedText, SourcePlace, to_fp16, to_message
from stream.settings import Settings
from stream.topics import EMBEDDED_TEXTS, USER_STATE

_SEED, _SCAN_ROWS = 7, 1_000
_KINDS: dict[str, Literal["search", "review"]] = {"searches": "search", "reviews": "review"}
#: Those of a batch of the worker's own producer; the record format is Kafka's second.
_BATCH_BYTES, _RECORD_FORMAT = 256 * 1024, 2

Row = tuple[bytes, bytes]  # key, stored value


def measure(size: State, settings: Settings, on_turn: OnTurn) -> Figure:
    """Fold sixty days of a simulated crowd, and weigh the rows that are left of it."""
    on_turn("folding sixty days of acts", 0, 2)
    with tempfile.TemporaryDirectory(prefix="prefstream-bench-") as folder:
        stage = Stage(settings, Path(folder))
        n_acts = asyncio.run(_fold(stage, size))
        on_turn("weighing the rows", 1, 2)
        rows = list(_rows(stage))
        if not rows:
            raise BenchFailed("state: no act became a row")
        apart = stage.settings.model_copy(update={"state_dir": Path(folder) / "apart"})
        stored = _stored_bytes(rows, apart) / len(rows)
    on_turn("", 2, 2)
    lengths = np.array([len(key) + len(value) for key, value in rows])
    p50, p99 = np.percentile(lengths, [50, 99])
    return Figure(
        "state",
        {"bytes_per_user": float(lengths.mean())},
        ("a user's row", "bytes"),
        [
            ("key, commit's stamp and row, mean", number(lengths.mean())),
            ("  the same, median", number(p50)),
            ("  the same, 99 of 100 are below", number(p99)),
            ("in the store, compacted (RocksDB files), mean", number(stored)),
            ("in the changelog, compacted, mean", number(_log_bytes(rows) / len(rows))),
            ("limit of a row (max_state_bytes)", number(settings.max_state_bytes)),
        ],
        f"{len(rows):,} of {size.users:,} simulated shoppers with {n_acts:,} acts, searches and "
        "reviews in sixty days. The ledgers, one a partition, are left out.",
    )


async def _fold(stage: Stage, size: State) -> int:
    """Have the stage process the acts of a crowd; return how many there were."""
    rng, now_ms = np.random.default_rng(_SEED), wall_ms()
    shop = build_shop(_SEED, now_ms, size.items)
    crowd = Crowd(shop, build_shoppers(_SEED, now_ms, 0, size.users))
    tastes = [taste.name for taste in TASTES]
    labels = np.array([tastes.index(each.taste) for each in shop.items.values()])
    items = [each.item for each in shop.items.values()]
    await stage.start(catalogue_of(items, labels, stage.encoder_id, stage.dim, rng))
    acts = crowd.history(rng, now_ms, size.acts)
    await stage.process(stage.messages(_messages(acts, stage, rng)))
    return len(acts)


def _messages(acts: list[Act], stage: Stage, rng: np.random.Generator) -> Iterator[Output]:
    """Yield what the preference stage gets of acts: texts with a vector, the others as they are."""
    for offset, act in enumerate(acts):
        key, raw = act.user_id.encode(), msgspec.json.encode(act.event)
        if act.topic not in _KINDS:
            yield Output(act.topic, key, raw)
            continue
        partition = stage.sender.partition_of(act.topic, key)
        text = EmbeddedText(
            kind=_KINDS[act.topic],
            source=SourcePlace(act.topic, partition, offset, wall_ms()),
            event=raw,
            encoder=stage.encoder_id,
            dim=stage.dim,
            vector=to_fp16(unit(rng.standard_normal((1, stage.dim)))[0]),
        )
        yield Output(EMBEDDED_TEXTS.name, key, to_message(text))


def _rows(stage: Stage) -> Iterator[Row]:
    """Yield every user's row as it is stored, with a stamp in front that has some number."""
    for partition in range(stage.settings.partitions):
        after = b""
        while rows := stage.table.scan(partition, after, _SCAN_ROWS):
            yield from ((key, bytes(STAMP_BYTES) + row) for key, row in rows)
            after = rows[-1][0]


def _stored_bytes(rows: list[Row], settings: Settings) -> int:
    """Return the size of a worker's store that holds these rows and no ledger, compacted."""
    table = add_table(new_app(settings, "preference"), settings, USER_STATE.name)
    table.write(0, dict(rows))
    database: Any = table._partitions._dbs[0]  # type: ignore[attr-defined]
    database.flush()
    database.compact_range(None, None)
    return int(database.property_int_value("rocksdb.total-sst-files-size"))


def _log_bytes(rows: list[Row]) -> int:
    """Return what the rows take in a topic: a record each, in batches like the worker's own."""
    total, builder = 0, _batch()
    for number_, (key, value) in enumerate(rows):
        if builder.append(number_, None, key, value, []) is None:
            total, builder = total + len(builder.build()), _batch()
            builder.append(number_, None, key, value, [])
    return total + len(builder.build())


def _batch() -> Any:
    return DefaultRecordBatchBuilder(_RECORD_FORMAT, 0, False, -1, -1, 0, _BATCH_BYTES)

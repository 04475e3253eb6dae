"""Valid inputs to begin with, made from the real types."""

from __future__ import annotations

import gzip
import io
import json
import struct
from dataclasses import asdict
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from builders import NOW_MS, interaction, item, review, search, user
from fuzz.mutations import joined
from msgspec import msgpack
from safetensors.numpy import save

from models.activity import Activity
from models.catalogue import Catalogue
from models.items import ItemFacts
from models.neighbours import NeighbourFacts
from models.packed_vector import PackedSum, to_four_bits
from models.ranking_features import FEATURES
from models.snapshot import save_snapshot
from models.trained_ranker import Conditions, RankerParts
from stream.core import item_rows, user_columns, user_rows, user_rows_v1, user_rows_v2
from stream.core.events import Context
from stream.core.fold import Touch
from stream.core.item_state import ItemState, PairsLedger
from stream.core.pairs import pair_messages
from stream.core.user_state import Act, Faded, Interest, Stated, TextAct, UserState
from stream.engine.commits import Effect, Ledger
from stream.engine.stores import stamp
from stream.messages import (
    Beside,
    EmbeddedText,
    ItemEmbedding,
    ItemNeighbours,
    ItemPairs,
    ItemTouch,
    SourcePlace,
    TextSentiment,
    Trigger,
    to_fp16,
    to_message,
)

ENCODER, DIM = "e", 4
VECTOR = np.array([0.5, -0.5, 0.5, 0.5], np.float32)

EVENTS: dict[str, list[msgspec.Struct]] = {
    "clickstream": [
        interaction(),
        interaction(
            session_id="s",
            quantity=2.5,
            price=9.99,
            currency="EUR",
            dwell_ms=10,
            position=0,
            recommendation_id="r",
            context=Context("web", "phone", "north"),
        ),
    ],
    "searches": [search(), search(session_id="s", locale="zh", clicked_item_ids=["i1", "红靴"])],
    "reviews": [review(), review(rating=4.5, title="t", locale="de")],
    "items": [
        item(),
        item(
            description="d",
            categories=["a", "b"],
            brand="B",
            tags=["t"],
            price=1,
            currency="EUR",
            in_stock=False,
            created_ms=NOW_MS - 5,
            image_url="u",
            locale="en",
        ),
    ],
    "users": [user(), user(interests=["tea"], locale="en", region="north", personalize=False)],
}


def events(topic: str) -> list[bytes]:
    """Value, and once its key."""
    values = [msgspec.json.encode(event) for event in EVENTS[topic]]
    return [values[0], joined(values[1], b"i1" if topic == "items" else b"u1")]


def embedded_texts() -> list[bytes]:
    places = {"search": "searches", "review": "reviews", "user": "users"}
    return [
        to_message(
            EmbeddedText(
                kind=kind,
                source=SourcePlace(topic, 1, 70, NOW_MS),
                event=msgspec.json.encode(EVENTS[topic][1]),
                encoder=ENCODER,
                dim=DIM,
                vector=to_fp16(VECTOR),
                sentiment=TextSentiment(0.25, "sentiment-1") if kind == "review" else None,
            )
        )
        for kind, topic in places.items()
    ]


def item_embeddings() -> list[bytes]:
    embedding = ItemEmbedding(
        item_id="i1", encoder=ENCODER, dim=DIM, text_hash=b"h" * 8, vector=to_fp16(VECTOR)
    )
    return [to_message(embedding)]


def item_pairs() -> list[bytes]:
    touches = [
        ItemTouch("i1", ["i2", "i3"], 1.5, True, NOW_MS, "north"),
        ItemTouch("i2", ["i1"], 0.0, False, NOW_MS, None),
    ]
    pairs = ItemPairs(
        source_partition=1,
        sequence=1 << 20,
        touches=touches,
        beside=[Beside("i1", ["i2", "i3"], NOW_MS)],
    )
    packed = pair_messages(
        [
            Touch("i1", ("i2", "i3"), 1.5, True, NOW_MS, "north"),
            Touch("i2", (), 0.5, False, 1, None),
        ],
        lambda item_id: item_id == "i3",
        source_partition=1,
        sequence=1,
    )
    return [to_message(pairs), *(raw for _, raw in packed)]


def item_neighbours() -> list[bytes]:
    neighbours = ItemNeighbours(
        item_id="i1",
        as_of_ms=NOW_MS,
        n_users=2.5,
        neighbours=[("i2", 1.5), ("i3", 0.5)],
        popularity=3.0,
        regions={"north": 1.0},
        lasting=9.0,
    )
    return [to_message(neighbours)]


def messages() -> list[bytes]:
    """Topic, key, value, and a header's name and value."""
    return [
        joined(b"clickstream", b"u1", msgspec.json.encode(EVENTS["clickstream"][1]), b"h", b"v"),
        joined(b"users", b"u1", msgspec.json.encode(EVENTS["users"][1])),
        joined(b"users", b"u1"),
        *(joined(b"embedded-texts", b"u1", text) for text in embedded_texts()),
    ]


def user_states() -> list[UserState]:
    acts = tuple(
        Act(NOW_MS + 1000 * n, f"B000{n % 7:06}", kind, weight, n < 3)
        for n, (kind, weight) in enumerate([("click", 0.5), ("purchase", 1.5), ("view", 0.25)] * 4)
    )
    packed = PackedSum.of(VECTOR, 0)
    full = UserState(
        offsets=(5, 6, 7, 8, -1),
        long=Interest(packed.values, packed.steps, packed.unit, 1.5, NOW_MS - 7),
        acts=acts,
        texts=(TextAct(NOW_MS + 99, "red boots", to_four_bits(VECTOR), 0.5),),
        faded=(Faded(-1, 24, b"abcdef"), Faded(679, 16, b"ab")),
        activity=Activity(*[NOW_MS] * 4, 9, 5, 4, 3, 2, 9.5, 1.5, 2.5, 0.5, 0b1001),
        event_ids=b"123456" * 3,
        stated=Stated(NOW_MS, True, "north", "en", "tea", to_four_bits(VECTOR)),
        seen_region="south",
        seen_region_ms=NOW_MS - 3,
        pending=Trigger(
            topic="reviews", partition=3, offset=70, event_id="r70", event_time_ms=NOW_MS
        ),
        recommended_ms=NOW_MS - 1,
        band="high",
    )
    uuids = tuple(
        Act(NOW_MS + n, f"0000000{n}-0000-4000-8000-000000000000", "view", 0.25) for n in range(2)
    )
    return [UserState(), full, UserState(acts=uuids), UserState(acts=acts[:1])]


def old_user_row_bytes() -> list[bytes]:
    """A row of version 1."""
    interest = user_rows_v1._Interest(VECTOR.tobytes(), 1.5, NOW_MS)
    old = user_rows_v1._State(
        offsets=(5, 6, 7, 8, -1),
        long=interest,
        short=interest,
        acts=(Act(NOW_MS, "boots", "click", 0.5),),
        texts=(user_rows_v1._TextAct(NOW_MS, "hat", to_fp16(VECTOR), 0.5),),
        bought={"cup": NOW_MS},
        disliked={"lamp": NOW_MS},
        activity=user_rows_v1._ACTIVITY.pack(NOW_MS, NOW_MS, 0, 0, 1, *[0] * 8, b""),
        event_ids=b"12345678" * 2,
        stated=Stated(NOW_MS, interests="tea", interests_vector=to_fp16(VECTOR)),
        seen_region="south",
        seen_region_ms=NOW_MS,
        pending=Trigger(
            topic="users", partition=0, offset=4, event_id="users:4", event_time_ms=NOW_MS
        ),
        recommended_ms=NOW_MS,
        band="low",
    )
    return [b"\x01" + msgpack.encode(old)]


def user_row_2_bytes() -> list[bytes]:
    """A row of version 2: offsets, acts and a search, nothing due."""
    acts = user_columns.act_columns(user_states()[1].acts, NOW_MS)
    search = NOW_MS, "red boots", to_four_bits(VECTOR), 0.5, True
    row = user_rows_v2._Row(
        NOW_MS, (5, 6, 7, 8, -1), (), b"123456", acts, None, (search,), (), None, "south", 4,
        None, 0, 1,
    )  # fmt: skip
    return [b"\x02\x00" + msgpack.encode(row)]


def user_row_bytes() -> list[bytes]:
    return [*map(user_rows.to_row, user_states())]


def item_row_bytes() -> list[bytes]:
    state = ItemState("i1", NOW_MS, 2.5, {"i2": 1.5, "i3": 0.5}, 3.0, {"north": 1.0}, 7, 9.0)
    return [item_rows.to_row(state), item_rows.to_row(ItemState("i2"))]


def ledger_row_bytes() -> list[bytes]:
    return [item_rows.ledger_to_row(PairsLedger({0: 1 << 20, 3: 5}))]


def commits() -> list[bytes]:
    """Ledger, mark of delivery, chunk of effects, chunk of keys, row: as they are stored."""
    ledger = Ledger({"clickstream": 7, "users": 3}, 1, 1, NOW_MS)
    effects = [
        Effect("r1", "recommendations", b"u1", b"{}", 3, (("h", b"v"),)),
        Effect("", "item-pairs", None, b"x"),
    ]
    records = [msgpack.encode(one) for one in (ledger, effects, [b"u1"])]
    ledger_row, effect_row, key_row = (stamp(5, record) for record in records)
    row = stamp(5, user_row_bytes()[1])
    return [
        joined(ledger_row, b"", effect_row, key_row, row),
        joined(ledger_row, stamp(5, b""), effect_row, key_row, row),
    ]


SNAPSHOT_FILES = ("manifest.json", "arrays.safetensors", "items.msgpack")


@cache
def snapshot() -> dict[str, bytes]:
    """The files of a snapshot."""
    catalogue = Catalogue(DIM)
    ids = ["a", "鞋", "c", "d"]
    catalogue.put_items(
        [ItemFacts(i, "红靴", NOW_MS, categories=("靴",), brand="B", price=2.5) for i in ids]
    )
    catalogue.put_vectors(ids[:3], np.stack([VECTOR, -VECTOR, VECTOR[::-1]]))
    for n, i in enumerate(ids[1:]):
        others = [(ids[0], 2.0 + n), ("unseen", 1.0)]
        catalogue.put_neighbours(NeighbourFacts(i, NOW_MS, 5.0, others, 1.0 + n, {"north": 1.0}))
    with TemporaryDirectory() as folder:
        written = save_snapshot(
            Path(folder),
            catalogue.state(),
            encoder_id=ENCODER,
            offsets={("items", 0): 7, ("item-embeddings", 1): 9},
            created_ms=NOW_MS,
        )
        return {path.name: path.read_bytes() for path in written.iterdir()}


def snapshot_file(name: str) -> list[bytes]:
    return [snapshot()[name]]


def snapshots() -> list[bytes]:
    return [joined(*(snapshot()[name] for name in SNAPSHOT_FILES))]


#: The files of a model's folder that our own code reads, in the order of an input's fields.
MODEL_FILES = (
    "config.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "sentence_encoder.json",
    "config_sentence_transformers.json",
    "modules.json",
    "1_Pooling/config.json",
    "model.safetensors.index.json",
)


def models() -> list[bytes]:
    config = {"hidden_size": DIM, "model_type": "roberta", "max_position_embeddings": 514}
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [{"type": f"models.{kind}", "path": path} for kind, path in kinds.items()]
    pooling = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    folders: list[dict[str, Any]] = [
        {"config.json": config},
        {
            "config.json": config,
            "sentence_bert_config.json": {"max_seq_length": 128},
            "tokenizer_config.json": {"model_max_length": 10**30},
            "config_sentence_transformers.json": {"prompts": {"query": "q: ", "document": "d: "}},
            "modules.json": modules,
            "1_Pooling/config.json": pooling,
            "model.safetensors.index.json": {"weight_map": {"w": "part-1.safetensors"}},
        },
        {
            "config.json": {"dim": DIM},
            "sentence_encoder.json": {"pooling": "cls", "query_prefix": "q", "passage_prefix": "p"},
        },
        {
            "config.json": config,
            "modules.json": modules,
            "1_Pooling/config.json": {"pooling_mode": "cls", "include_prompt": True},
        },
    ]
    return [
        joined(*(json.dumps(folder[n]).encode() if n in folder else b"" for n in MODEL_FILES))
        for folder in folders
    ]


def tokenizers() -> list[bytes]:
    """A tokenizer.json of a few words, as a BERT tokenizer has it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "boots", "##s"]
    made = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return [made.to_str().encode()]


def jsonl() -> list[bytes]:
    lines = [
        {"topic": topic, "key": "i1" if topic == "items" else "u1", "value": msgspec.to_builtins(e)}
        for topic, values in EVENTS.items()
        for e in values
    ]
    tombstone = {"topic": "users", "key": "u1", "value": None}
    text = b"\n".join(json.dumps(line).encode() for line in (*lines, tombstone))
    return [text, gzip.compress(text, mtime=0), msgspec.json.encode(EVENTS["clickstream"][1])]


def amazon() -> list[bytes]:
    """Reviews and metadata."""
    row = {
        "reviewerID": "A1",
        "asin": "B1",
        "unixReviewTime": 1_500_000_000,
        "overall": 4.0,
        "verified": True,
        "reviewText": "good &amp; <b>red</b>",
        "summary": "ok",
        "style": {"Size:": "3"},
    }
    meta = {
        "asin": "B1",
        "title": "Boots",
        "description": ["a", "b"],
        "feature": ["f"],
        "category": ["Shoes"],
        "brand": "B",
        "price": "$1,250.00",
        "imageURLHighRes": ["u"],
    }
    return [joined(json.dumps(row).encode(), json.dumps(meta).encode())]


RETAIL = {
    "Invoice": ["489434", "C489435", "489436"],
    "StockCode": ["85048", "79323P", "POST"],
    "Description": ["LIGHTS", "PINK LIGHTS", None],
    "Quantity": [12, -1, 2],
    "InvoiceDate": ["2009-12-01 07:45:00", "2009-12-01 07:46:00", "2009-12-01 07:47:00"],
    "Price": [6.95, 6.75, 18.0],
    "Customer ID": [13085.0, None, 13086.0],
    "Country": ["United Kingdom", "Germany", None],
}


def retail_csv() -> list[bytes]:
    rows = zip(*([*map(str, column)] for column in RETAIL.values()), strict=True)
    lines = [",".join(RETAIL), *(",".join(row).replace("None", "") for row in rows)]
    first = (
        b"InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        b"536365,85123A,WHITE HOLDER,6,2010-12-01 08:26:00,2.55,17850,United Kingdom\n"
    )
    return ["\n".join(lines).encode(), first]


def retail_parquet() -> list[bytes]:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(RETAIL), file)
    return [file.getvalue()]


def retail_columns() -> list[bytes]:
    return [json.dumps(RETAIL).encode()]


def rees46() -> list[bytes]:
    head = b"event_time,event_type,product_id,category_id,category_code,brand,price,user_id,"
    row = b"2019-10-01 00:00:00 UTC,view,44600062,2103807459595387724,a.b_c,shiseido,35.79,5413,s"
    return [head + b"user_session\n" + row + b"\n" + row.replace(b"view", b"cart") + b"\n"]


def taobao() -> list[bytes]:
    return [b"1,2268318,2520377,pv,1511544070\n1,2333346,2520771,buy,1511561733\n"]


def dead_letters() -> list[bytes]:
    """Key, value, and names and values of headers by turns."""
    headers = {
        "dlq.original.topic": b"embedded-texts",
        "dlq.original.partition": b"3",
        "dlq.original.offset": b"70",
        "dlq.error.class": b"BadDerived",
        "dlq.error.message": b"expected something else",
        "dlq.stage": b"intake",
        "dlq.attempts": b"2",
        "h": b"v",
    }
    cut = {"dlq.original.topic": b"clickstream", "dlq.truncated": b"bytes=0;cut=null"}
    note = {"dlq.redriven": b'{"partition":1,"offsets":[1,2,3]}'}
    return [
        joined(b"u1", b"{}", *(part for n, v in each.items() for part in (n.encode(), v)))
        for each in (headers, cut, note)
    ]


def tensors() -> list[bytes]:
    """Weights of a BERT of one layer, as transformers names them."""
    return [save(bert_weights())]


SEQUENCE_FILES = ("about.json", "items.json", "weights.safetensors")


def sequence_models() -> list[bytes]:
    """A user model of three items, with their texts and without."""
    from models.sequence_model import SequenceParts, save_sequence
    from models.sequence_network import SequenceNetwork, Shape

    found = []
    for by_text in (True, False):
        shape = Shape(DIM, 3, dim=2, layers=1, heads=1, length=2, by_text=by_text)
        parts = SequenceParts(
            SequenceNetwork(shape), ["i1", "i2", "鞋"], np.zeros(DIM, np.float32), "encoder", 0.3
        )
        with TemporaryDirectory() as parent:
            save_sequence(Path(parent) / "model", parts, {})
            found.append(
                joined(*((Path(parent) / "model" / name).read_bytes() for name in SEQUENCE_FILES))
            )
    return found


RANKER_CONDITIONS = Conditions("encoder", 0.3, 0.7, False)


def rankers() -> list[bytes]:
    n = len(FEATURES)
    parts = RankerParts(
        weights=(0.5,) * n,
        centres=(0.1,) * n,
        lows=(-1.0,) * n,
        highs=(2.0,) * n,
        slope=1.0,
        intercept=-1.0,
        diversity=0.1,
        conditions=RANKER_CONDITIONS,
    )
    return [json.dumps(asdict(parts)).encode()]


def bert_config() -> dict[str, Any]:
    return {
        "model_type": "bert",
        "hidden_size": DIM,
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "intermediate_size": 4,
        "vocab_size": 8,
        "max_position_embeddings": 16,
        "type_vocab_size": 2,
    }


def bert_weights() -> dict[str, Any]:
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(**bert_config()), add_pooling_layer=False)
    return {name: np.zeros(t.shape, np.float32) for name, t in model.state_dict().items()}


def stamped() -> list[bytes]:
    return [stamp(5, b"row"), stamp(0, b""), struct.pack(">I", 7)]

"""UCI Online Retail II: what comes new into a customer's next basket, split by time.

Learnt from is all before the cut; asked for are the products of each known customer's first invoice
from then on that the customer had not bought before. Bought ones are not asked for: a shop that
knows them shows them under "buy again". So they are masked of the others' lists, and the live path
has a purchase exclusion that is longer than the data.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, TypedDict

import numpy as np
from numpy.typing import NDArray

from models.evaluation import baselines, intervals, ranking
from models.evaluation.baselines import Baseline
from models.evaluation.ranking import PADDING, Lists
from models.evaluation.splits import History
from models.items import ItemFacts
from stream.core.events import Interaction, Item, parse_interaction, parse_item
from stream.evaluate.datasets import DataMissing
from stream.evaluate.report import Evaluated, OnStep, Row
from stream.evaluate.shop import LiveShop
from stream.evaluate.vectors import Encode, encoded
from stream.formats.online_retail import read_online_retail
from stream.formats.source import BadSource, ReadReport
from stream.settings import Settings
from stream.topics import ITEMS


class _AlsSettings(TypedDict):
    factors: int
    regularisation: float
    alpha: float


FILE = "online_retail/online_retail_2009_2010.parquet"
K = (10, 20)
#: Of the data's year the last weeks before Christmas are the test; the three months before were
#: validation.
CUT_MS = int(datetime(2010, 11, 1, tzinfo=timezone.utc).timestamp() * 1000)
#: As a worker reads a backlog.
_BATCH = 10_000
#: What suits a wholesaler, chosen on August to October: orders of dozens of lines, of which rows
#: keep several and counts take in whole ones. What was bought is never asked for: longer than the
#: data.
_SHOP = {
    "history_items": 120,
    "max_state_bytes": 2048,
    "cooccurrence_items": 100,
    "neighbours_kept": 1024,
    "cooccurrence_ridge": 200.0,
    "purchase_exclusion_days": 730.0,
}
#: The best of 18 on the same months.
_ALS_SETTINGS: Final[_AlsSettings] = {"factors": 128, "regularisation": 15.0, "alpha": 1.0}
_QUICK_CUSTOMERS = 300
_OURS, _KNN, _ALS = "live path, no training", "item-kNN", "matrix factorisation (ALS)"
_EASE = "EASE"
_TO_BEAT = (_KNN, _ALS, _EASE)


@dataclass(frozen=True, slots=True)
class Baskets:
    """What was bought before the cut, and what came new into the next basket of each customer."""

    items: list[Item]
    before: list[Interaction]
    customers: list[str]
    histories: list[History]
    targets: list[History]


def evaluate(
    data: Path,
    settings: Settings,
    on_step: OnStep,
    quick: bool = False,
    encode: Encode = encoded,
) -> Iterator[Evaluated]:
    """Yield the table; ``quick`` asks of some customers alone."""
    on_step("reading")
    baskets = load(data / FILE, CUT_MS)
    every = max(1, len(baskets.customers) // _QUICK_CUSTOMERS) if quick else 1
    asked = np.arange(len(baskets.customers))[::every]
    on_step(f"encoding {len(baskets.items):,} descriptions")
    vectors = encode([item.title for item in baskets.items], settings)
    on_step("the live path")
    lists = live(baskets, asked, vectors, settings)
    histories = [baskets.histories[customer] for customer in asked]
    for name, baseline in _baselines(baskets, vectors):
        on_step(name)
        lists[name] = baselines.ranked(baseline, histories, max(K))
    targets = [baskets.targets[customer] for customer in asked]
    values = {name: ranking.per_user(of_it, targets, K) for name, of_it in lists.items()}
    wanted = ("recall_at_10", "recall_at_20", "ndcg_at_20", "mrr_at_20")
    rows = [
        Row(
            name,
            {metric: intervals.mean(of_it[metric]) for metric in wanted},
            {"coverage": ranking.coverage(lists[name], len(baskets.items))},
        )
        for name, of_it in values.items()
    ]
    ours = values[_OURS]["recall_at_20"]
    gains = [
        f"{name} {intervals.difference(ours, of_it['recall_at_20'])}"
        for name, of_it in values.items()
        if name in _TO_BEAT
    ]
    yield Evaluated(
        "online_retail",
        rows,
        f"What is new in the first basket from 2010-11-01 on of {len(asked):,} known customers, "
        f"{np.mean([len(t) for t in targets]):.1f} products each, of {len(baskets.items):,}; what "
        f"they had bought is masked. Recall@20 of the live path over {', '.join(gains)}. The power "
        f"of trends ({settings.trend}), the live path's settings ({_SHOP}), the neighbours of "
        f"item-kNN (all), what ALS has ({_ALS_SETTINGS}) and EASE's ridge (200) were chosen on the "
        "months before.",
    )


def load(path: Path, cut_ms: int) -> Baskets:
    """Return the baskets of a file; raises DataMissing."""
    items, events = list[Item](), list[Interaction]()
    try:
        for record in read_online_retail(path, ReadReport()):
            if record.topic == ITEMS.name:
                items.append(parse_item(record.value, record.key))
            elif (act := parse_interaction(record.value, record.key)).type == "purchase":
                events.append(act)
    except BadSource as error:
        raise DataMissing(f"{error}; '--data' names the folder above {FILE}") from error
    number_of = {item.item_id: number for number, item in enumerate(items)}
    bought: defaultdict[str, dict[int, None]] = defaultdict(dict)
    baskets: dict[str, tuple[str | None, dict[int, None]]] = {}
    for event in events:
        item = number_of[event.item_id]
        if event.event_time_ms < cut_ms:
            # Bought again, it counts where it was bought last.
            bought[event.user_id].pop(item, None)
            bought[event.user_id][item] = None
            continue
        invoice, basket = baskets.setdefault(event.user_id, (event.session_id, {}))
        if invoice == event.session_id:
            basket[item] = None
    asked = [
        (customer, history, new)
        for customer, history in bought.items()
        if customer in baskets and (new := [i for i in baskets[customer][1] if i not in history])
    ]
    return Baskets(
        items,
        [event for event in events if event.event_time_ms < cut_ms],
        [customer for customer, *_ in asked],
        [np.array([*history], np.int64) for _, history, _ in asked],
        [np.array(new, np.int64) for _, _, new in asked],
    )


def live(
    baskets: Baskets, asked: NDArray[np.int64], vectors: NDArray[np.float32], settings: Settings
) -> dict[str, Lists]:
    """Return what the stream's own parts would show customers when their basket begins, and what
    without regard to trends."""
    facts = [
        ItemFacts(item.item_id, item.title, item.updated_ms, price=item.price)
        for item in baskets.items
    ]
    shop = LiveShop(settings.model_copy(update={"diversity": 0.0, **_SHOP}), facts, vectors)
    for start in range(0, len(baskets.before), _BATCH):
        shop.learn(baskets.before[start : start + _BATCH])
    number_of = {item.item_id: number for number, item in enumerate(baskets.items)}
    # Together: what was bought meanwhile by others is not known to anybody here.
    customers = [baskets.customers[customer] for customer in asked]
    found: dict[str, Lists] = {}
    for name, trend in ((_OURS, settings.trend), ("live path without trends", 0.0)):
        shop.use(None, trend=trend)
        lists = found[name] = np.full((len(asked), max(K)), PADDING, np.int64)
        for row, of_customer in enumerate(shop.recommend(customers, max(K), CUT_MS)):
            lists[row, : len(of_customer)] = [number_of[item_id] for item_id in of_customer]
    return found


def _baselines(baskets: Baskets, vectors: NDArray[np.float32]) -> Iterator[tuple[str, Baseline]]:
    titles = [item.title for item in baskets.items]
    histories, n_items = _all_histories(baskets), len(titles)
    yield "popularity", baselines.popularity(histories, n_items)
    yield "recent popularity", baselines.recent_popularity(histories, n_items, last=20)
    yield _KNN, baselines.item_knn(histories, n_items, neighbours=n_items)
    yield _ALS, baselines.als(histories, n_items, **_ALS_SETTINGS)
    yield _EASE, baselines.ease(histories, n_items)
    yield "TF-IDF", baselines.tf_idf(titles)
    yield "word2vec", baselines.content(baselines.word_vectors(titles))
    yield "last item", baselines.last_item(vectors)
    yield "plain mean", baselines.content(vectors)


def _all_histories(baskets: Baskets) -> Sequence[History]:
    """Return what everyone had bought, whether they are asked or not."""
    number_of = {item.item_id: number for number, item in enumerate(baskets.items)}
    bought: defaultdict[str, dict[int, None]] = defaultdict(dict)
    for event in baskets.before:
        bought[event.user_id][number_of[event.item_id]] = None
    return [np.array([*items], np.int64) for items in bought.values()]

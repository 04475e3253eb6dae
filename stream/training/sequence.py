"""A behaviour log -> what each shopper took, in order, and from that a user model's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.evaluation.splits import History
from models.item_index import Vectors
from models.sequence_model import save_sequence
from models.training.sequence import (
    Catalogue,
    Epoch,
    Learnt,
    Mixing,
    Recipe,
    TooLittle,
    train_sequence,
)
from stream.agents.encode import item_text
from stream.core.events import PARSERS, BadEvent, Interaction, Item, Review, Search
from stream.core.fold import TAKING, UNRATED
from stream.formats import Record
from stream.settings import Settings


@dataclass(frozen=True, slots=True)
class Log:
    """Items with their texts, and what each shopper took as numbers of items, oldest first."""

    item_ids: list[str]
    texts: list[str]
    sequences: list[History]
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Made:
    """A model that was written."""

    name: str
    learnt: Learnt


def train_into(
    out: Path,
    records: Iterable[Record],
    settings: Settings,
    recipe: Recipe,
    encode: Callable[[Sequence[str]], Vectors],
    encoder_id: str,
    on_epoch: Callable[[Epoch], None],
) -> Made:
    """Learn what is taken next of a log with its catalogue, and write it into a new folder.

    ``encode`` makes unit vectors of texts, as the encoder of that id does. Raises TooLittle,
    ModelError and OSError.
    """
    log = read_log(records, settings.weights)
    catalogue = Catalogue(log.item_ids, encode(log.texts), encoder_id)
    mixing = Mixing(settings.text_share, settings.step_decay)
    learnt = train_sequence(log.sequences, catalogue, recipe, mixing, on_epoch)
    facts = {
        "data": {
            "first_ms": log.first_ms,
            "last_ms": log.last_ms,
            "n_users": len(log.sequences),
            "n_items": len(log.item_ids),
            "n_acts": sum(map(len, log.sequences)),
        },
        "recipe": asdict(recipe),
        "validation": {"n_users": learnt.n_asked, **figures_of(learnt.chosen)},
    }
    return Made(save_sequence(out, learnt.parts, facts), learnt)


def figures_of(epoch: Epoch) -> dict[str, Any]:
    """Return what was found on the items kept aside, for a manifest."""
    told = {"mixed": epoch.mixed, "alone": epoch.alone, "hybrid": epoch.hybrid}
    return {
        "epoch": epoch.number,
        "weight": epoch.weight,
        **{
            name: {"recall_at_10": list(figures.recall), "ndcg_at_10": list(figures.ndcg)}
            for name, figures in told.items()
        },
    }


def read_log(records: Iterable[Record], weights: Mapping[str, float]) -> Log:
    """Return what a log says; an item counts where a shopper took it first, as in the stream.

    What the topics' parsers refuse, and acts on items without a record, are left out. Raises
    TooLittle when there are no items or no acts on them.
    """
    items: dict[str, Item] = {}
    acts: list[tuple[int, str, str]] = []
    for record in records:
        if record.value is None or record.topic not in PARSERS:
            continue
        try:
            event = PARSERS[record.topic](record.value)
        except BadEvent:
            continue
        if isinstance(event, Item):
            items[event.item_id] = event
        else:
            acts += [
                (event.event_time_ms, event.user_id, item) for item in items_taken(event, weights)
            ]
    number_of = {item_id: number for number, item_id in enumerate(items)}
    taken: dict[str, dict[int, None]] = {}
    known = sorted((act for act in acts if act[2] in number_of), key=lambda act: act[0])
    if not known:
        raise TooLittle("expected items, and acts on them: there are none")
    for _, user_id, item_id in known:
        taken.setdefault(user_id, {}).setdefault(number_of[item_id])
    return Log(
        list(items),
        [item_text(item) for item in items.values()],
        [np.array([*of_user], np.int64) for of_user in taken.values()],
        known[0][0],
        known[-1][0],
    )


def items_taken(event: object, weights: Mapping[str, float]) -> list[str]:
    """Return the items that an event makes its shopper a taker of (stream/core/fold.py)."""
    if isinstance(event, Search):
        return list(event.clicked_item_ids) if weights["click"] > 0 else []
    if isinstance(event, Review):
        praise = UNRATED if event.rating is None else event.rating - 3
        return [event.item_id] if weights["review"] * praise > 0 else []
    if isinstance(event, Interaction) and event.type in TAKING and weights[event.type] > 0:
        return [event.item_id]
    return []

"""A behaviour log -> a ranker's folder: the log is played to the stream's own parts, which are
asked before they learn what came next.

Acts before a moment only fill users' states and items' counts. From then on the log goes by in
micro-batches: before each is folded, the recommender says what it would choose from for the
shoppers who are about to take something, as it would in a worker. The last third of these is kept
aside: on it chances are calibrated, the strength of MMR is chosen, and all is measured. Nobody is
asked of what a user model has already seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.encoder import Side
from models.evaluation import intervals, ranking
from models.evaluation.intervals import Estimate
from models.item_index import Vectors
from models.items import ItemFacts
from models.learnt_ranking import Choices
from models.model_folder import read_folder
from models.sequence_model import KIND as SEQUENCE
from models.trained_ranker import Conditions, RankerParts, TrainedRanker, save_ranker
from models.training.ranker import (
    RARITY,
    Fitted,
    Questions,
    TooLittle,
    calibrate,
    fit_ranker,
    joined,
)
from models.user_model import UserModel
from models.versions import chosen
from stream.agents.encode import item_text, text_of
from stream.catalog_writer import facts_of_item
from stream.core.events import PARSERS, BadEvent, Interaction, Item, Review, Search
from stream.evaluate.shop import LiveShop
from stream.formats import Record
from stream.settings import Settings
from stream.trained import conditions_of
from stream.training.sequence import items_taken

Event = Interaction | Search | Review
Encode = Callable[[Sequence[str], Side], Vectors]
OnStep = Callable[[str], None]

#: Events folded at once, and shoppers asked of at once (models/recommender.py ranks so many).
_BATCH, ASKED_AT_ONCE = 500, 32
#: Questions that are learnt from, and that are kept aside, at most; spread over all there are.
_MOST_LEARNT, _MOST_ASIDE = 10_000, 2_000
#: Without a user model: the share of the acts that only fills the states.
_FILLING = 0.6
#: Of the questions, those that are learnt from.
_LEARNING = 2 / 3
#: Strengths of MMR that are tried.
DIVERSITIES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
#: Lists are shown for so long: an act after that was not for the place in it.
_SHOWN_MS = 30 * 60_000
#: With fewer lists shown that were acted on, what shoppers took by themselves says more.
LEAST_SHOWN = 500
K = 10


@dataclass(frozen=True, slots=True)
class RankerLog:
    """Items as the shop describes them last, with their texts, and events in time order."""

    facts: list[ItemFacts]
    texts: list[str]
    events: list[Event]


@dataclass(frozen=True, slots=True)
class Reached:
    """Recall and NDCG at 10 on the ``n_asked`` questions kept aside: of the ranker with the
    ``diversity`` that did best, and of the hybrid score (and user model) with the settings' own."""

    ranked: Mapping[str, Estimate]
    hybrid: Mapping[str, Estimate]
    gain: Estimate
    diversity: float
    n_asked: int


@dataclass(frozen=True, slots=True)
class MadeRanker:
    """A ranker that was written; ``by`` says whether it was learnt from lists or from acts."""

    name: str
    reached: Reached
    n_questions: int
    by: str


@dataclass(frozen=True, slots=True)
class Question:
    """What a shopper took next; of lists shown, which items were in which place."""

    user_id: str
    taken: frozenset[str]
    shown: Mapping[str, int] | None = None


class NothingGained(ValueError):
    """What was learnt ranks no better than the hybrid score; the text has the figures."""


def train_into(
    out: Path,
    records: Iterable[Record],
    settings: Settings,
    encode: Encode,
    encoder_id: str,
    user_model: UserModel | None,
    on_step: OnStep = lambda _: None,
    rarity: float = RARITY,
) -> MadeRanker:
    """Learn to rank of a log with its catalogue, and write the ranker into a new folder.

    ``encode`` makes unit vectors of texts, as the encoder of that id does; ``user_model`` is the
    settings' own. Raises TooLittle, NothingGained, ModelError and OSError.
    """
    log = read_log(records)
    start = _first_unseen(log.events, settings, user_model)
    asking = _Asking(log, settings, start)
    on_step(f"encoding {len(log.facts):,} items")
    shop = LiveShop(settings, log.facts, encode(log.texts, "passage"), user_model)
    texts = _Texts(encode)
    on_step(f"playing {start:,} acts")
    _play(shop, log.events[:start], texts)
    middle = start + round((len(log.events) - start) * _LEARNING)
    on_step(f"asking before {middle - start:,} acts")
    asked = list(asking.before(log.events, start, middle, _MOST_LEARNT, shop, texts))
    fitted = fit_ranker(joined([questions_of(choices, some) for choices, some, _ in asked]), rarity)
    on_step(f"asking before {len(log.events) - middle:,} acts that were kept aside")
    conditions = conditions_of(settings, encoder_id, user_model is not None)
    trial = Trial(shop, user_model, fitted, conditions)
    for choices, some, now_ms in asking.before(
        log.events, middle, len(log.events), _MOST_ASIDE, shop, texts
    ):
        trial.ask(choices, some, now_ms)
    parts, reached = trial.best()
    if reached.gain.value <= 0:
        raise NothingGained(
            f"no better than the hybrid score on {reached.n_asked} questions kept aside: NDCG@10 "
            f"{reached.ranked['ndcg_at_10']}, the hybrid {reached.hybrid['ndcg_at_10']}"
        )
    facts = {
        "data": {
            "first_ms": log.events[0].event_time_ms,
            "asked_from_ms": log.events[start].event_time_ms,
            "last_ms": log.events[-1].event_time_ms,
            "n_items": len(log.facts),
            "n_acts": len(log.events),
        },
        "learnt_from": {"by": asking.by, "n_questions": fitted.n_questions, "rarity": rarity},
        "user_model": None if user_model is None else user_model.name,
        "validation": figures_of(reached),
    }
    return MadeRanker(save_ranker(out, parts, facts), reached, fitted.n_questions, asking.by)


def figures_of(reached: Reached) -> dict[str, Any]:
    """Return what was found on the questions kept aside, for a manifest."""
    return {
        "n_questions": reached.n_asked,
        "diversity": reached.diversity,
        "ranker": {name: list(of_it) for name, of_it in reached.ranked.items()},
        "hybrid": {name: list(of_it) for name, of_it in reached.hybrid.items()},
        "ndcg_gain": list(reached.gain),
    }


def parts_of(
    fitted: Fitted, platt: tuple[float, float], diversity: float, conditions: Conditions
) -> RankerParts:
    """Return the parts of a ranker."""
    return RankerParts(
        weights=tuple(fitted.weights.tolist()),
        centres=tuple(fitted.centres.tolist()),
        lows=tuple(fitted.lows.tolist()),
        highs=tuple(fitted.highs.tolist()),
        slope=platt[0],
        intercept=platt[1],
        diversity=diversity,
        conditions=conditions,
    )


# The log -----------------------------------------------------------------------------------------


def read_log(records: Iterable[Record]) -> RankerLog:
    """Return what a log says; what the topics' parsers refuse is left out, as are records of users.

    Raises TooLittle when there are no items or no acts.
    """
    items: dict[str, Item] = {}
    events: list[Event] = []
    for record in records:
        if record.value is None or record.topic not in PARSERS:
            continue
        try:
            event = PARSERS[record.topic](record.value)
        except BadEvent:
            continue
        if isinstance(event, Item):
            items[event.item_id] = event
        elif isinstance(event, Event):
            events.append(event)
    if not items or not events:
        raise TooLittle("expected items, and acts on them: there are none")
    return RankerLog(
        [facts_of_item(item) for item in items.values()],
        [item_text(item) for item in items.values()],
        sorted(events, key=lambda event: event.event_time_ms),
    )


def _first_unseen(events: Sequence[Event], settings: Settings, user_model: UserModel | None) -> int:
    """Return the first event that may be asked about."""
    if user_model is None:
        return round(len(events) * _FILLING)
    folder = chosen(Path(settings.user_model))
    seen_ms = read_folder(folder, SEQUENCE).facts.get("data", {}).get("last_ms")
    if not isinstance(seen_ms, int):
        raise TooLittle(f"{folder}: does not say until when it learnt")
    start = next((n for n, e in enumerate(events) if e.event_time_ms > seen_ms), len(events))
    if len(events) - start < _BATCH:
        raise TooLittle(
            f"expected {_BATCH} acts that {folder} has not learnt from, got {len(events) - start}: "
            "train it with '--until', and the ranker on what came after"
        )
    return start


class _Texts:
    """The encoder's vectors of what shoppers write, by event id."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode

    def of(self, events: Sequence[Event]) -> dict[str, NDArray[np.float32]]:
        found: dict[str, NDArray[np.float32]] = {}
        sides: tuple[tuple[type[Search] | type[Review], Side], ...] = (
            (Search, "query"),
            (Review, "passage"),
        )
        for kind, side in sides:
            of_it = [event for event in events if isinstance(event, kind) and text_of(event)]
            if of_it:
                vectors = self._encode([text_of(event) for event in of_it], side)
                found |= zip([event.event_id for event in of_it], vectors, strict=True)
        return found


def _play(shop: LiveShop, events: Sequence[Event], texts: _Texts) -> None:
    for at in range(0, len(events), _BATCH):
        some = events[at : at + _BATCH]
        shop.learn(some, texts=texts.of(some))


# Questions ---------------------------------------------------------------------------------------


class _Asking:
    """Which questions the acts of a log answer: by the lists shown, or by what was taken."""

    def __init__(self, log: RankerLog, settings: Settings, start: int) -> None:
        self._weights = settings.weights
        self._top_k = settings.top_k
        self._lists = shown_lists(log.events, settings.weights)
        is_shown = sum(len(some) for at, some in self._lists.items() if at >= start) >= LEAST_SHOWN
        self.by = "lists" if is_shown else "acts"

    def before(
        self,
        events: Sequence[Event],
        start: int,
        end: int,
        most: int,
        shop: LiveShop,
        texts: _Texts,
    ) -> Iterator[tuple[Choices, list[Question], int]]:
        """Yield what could be chosen for some shoppers, what they chose, and when; and let the shop
        learn it then."""
        rng = np.random.default_rng(0)
        batches = [range(at, min(at + _BATCH, end)) for at in range(start, end, _BATCH)]
        n_all = sum(len(self._questions(events, batch)) for batch in batches)
        for batch in batches:
            some = [
                question
                for question in self._questions(events, batch)
                if rng.random() * n_all < most
            ]
            now_ms = events[batch.start].event_time_ms
            for at in range(0, len(some), ASKED_AT_ONCE):
                asked = _new_ones(some[at : at + ASKED_AT_ONCE], shop)
                if asked:
                    users = [question.user_id for question in asked]
                    yield shop.choices(users, self._top_k, now_ms), asked, now_ms
            of_batch = events[batch.start : batch.stop]
            shop.learn(of_batch, texts=texts.of(of_batch))

    def _questions(self, events: Sequence[Event], batch: range) -> list[Question]:
        if self.by == "lists":
            return list(chain.from_iterable(self._lists.get(at, ()) for at in batch))
        of_user: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for at in batch:
            for item_id in items_taken(events[at], self._weights):
                of_user[events[at].user_id][item_id] = None
        return [Question(user_id, frozenset(items)) for user_id, items in of_user.items()]


def _new_ones(questions: Sequence[Question], shop: LiveShop) -> list[Question]:
    """Return the questions with what is new to their shoppers, if there is any."""
    found = []
    for question in questions:
        new = frozenset(i for i in question.taken if not shop.has_taken(question.user_id, i))
        if new:
            found.append(Question(question.user_id, new, question.shown))
    return found


def shown_lists(events: Sequence[Event], weights: Mapping[str, float]) -> dict[int, list[Question]]:
    """Return by the place of its first impression each list that a shopper was shown, with what was
    taken of it within half an hour; lists of which nothing was are left out.

    A list is what was shown to a shopper under one ``recommendation_id``, or, without one, in one
    session at one time.
    """
    lists: dict[tuple[str, str], tuple[int, dict[str, int], set[str]]] = {}
    latest: dict[tuple[str, str], tuple[str, str]] = {}
    for at, event in enumerate(events):
        if isinstance(event, Interaction) and event.type == "impression":
            name = event.recommendation_id or f"{event.session_id} {event.event_time_ms}"
            key = (event.user_id, name)
            _, places, _ = lists.setdefault(key, (at, {}, set()))
            places.setdefault(
                event.item_id, len(places) if event.position is None else event.position
            )
            latest[event.user_id, event.item_id] = key
            continue
        for item_id in items_taken(event, weights):
            shown_in = latest.get((event.user_id, item_id))
            if shown_in is not None:
                first, _, of_it = lists[shown_in]
                if event.event_time_ms - events[first].event_time_ms <= _SHOWN_MS:
                    of_it.add(item_id)
    found: defaultdict[int, list[Question]] = defaultdict(list)
    for (user_id, _), (first, places, of_it) in lists.items():
        if of_it and len(of_it) < len(places):
            found[first].append(Question(user_id, frozenset(of_it), places))
    return found


def questions_of(choices: Choices, asked: Sequence[Question]) -> Questions:
    """Return the candidates of some questions with what was taken of them.

    What a shopper knows already is no candidate, nor, of lists, what was not shown.
    """
    kept, is_taken, places = list[int](), list[bool](), list[int]()
    for at, (owner, item_id) in enumerate(
        zip(choices.owners.tolist(), choices.item_ids, strict=True)
    ):
        question = asked[owner]
        is_rival = question.shown is None or item_id in question.shown
        if is_rival and not choices.is_repeat[at]:
            kept.append(at)
            is_taken.append(item_id in question.taken)
            places.append(0 if question.shown is None else question.shown[item_id])
    is_shown = bool(asked) and asked[0].shown is not None
    return Questions(
        choices.owners[kept],
        choices.features[kept],
        np.array(is_taken, bool),
        np.array(places, np.float32) if is_shown else None,
        len(asked),
    )


# Choosing ----------------------------------------------------------------------------------------


class Trial:
    """What the ranker reaches on the questions kept aside, with each strength of MMR."""

    def __init__(
        self,
        shop: LiveShop,
        user_model: UserModel | None,
        fitted: Fitted,
        conditions: Conditions,
    ) -> None:
        self._shop, self._user_model = shop, user_model
        self._fitted, self._conditions = fitted, conditions
        self._parts = list[Questions]()
        self._targets = list[NDArray[np.int64]]()
        self._lists: defaultdict[float | None, list[NDArray[np.int64]]] = defaultdict(list)
        self._number_of: dict[str, int] = {}

    def ask(self, choices: Choices, asked: Sequence[Question], now_ms: int) -> None:
        """Ask once by the hybrid score and once for each strength."""
        # Of lists too, chances are of all candidates: that is what a worker tells them of.
        everything = [Question(question.user_id, question.taken) for question in asked]
        self._parts.append(questions_of(choices, everything))
        self._targets += [self._numbers(sorted(question.taken)) for question in asked]
        users = [question.user_id for question in asked]
        for diversity in (None, *DIVERSITIES):
            self._shop.use(self._user_model, self._ranker(diversity))
            for shown in self._shop.recommend(users, K, now_ms):
                self._lists[diversity].append(self._numbers(shown))
        self._shop.use(self._user_model)

    def best(self) -> tuple[RankerParts, Reached]:
        """Return the parts with what did best, and what that reached. Raises TooLittle."""
        if not self._parts:
            raise TooLittle("expected acts to be kept aside on items new to their shoppers")
        values = {diversity: self._values(diversity) for diversity in (None, *DIVERSITIES)}
        best = max(DIVERSITIES, key=lambda diversity: values[diversity]["ndcg_at_10"].mean())
        questions = joined(self._parts)
        ranker = TrainedRanker(parts_of(self._fitted, (1.0, 0.0), best, self._conditions), "")
        scores = ranker.rate(questions.features)
        platt = calibrate(scores, questions.owners, questions.is_taken)
        wanted = ("recall_at_10", "ndcg_at_10")
        reached = Reached(
            {name: intervals.mean(values[best][name]) for name in wanted},
            {name: intervals.mean(values[None][name]) for name in wanted},
            intervals.difference(values[best]["ndcg_at_10"], values[None]["ndcg_at_10"]),
            best,
            len(self._targets),
        )
        return parts_of(self._fitted, platt, best, self._conditions), reached

    def _ranker(self, diversity: float | None) -> TrainedRanker | None:
        if diversity is None:
            return None
        return TrainedRanker(parts_of(self._fitted, (1.0, 0.0), diversity, self._conditions), "")

    def _values(self, diversity: float | None) -> dict[str, ranking.PerUser]:
        lists = np.full((len(self._targets), K), ranking.PADDING, np.int64)
        for row, shown in zip(lists, self._lists[diversity], strict=True):
            row[: len(shown)] = shown
        return ranking.per_user(lists, self._targets, (K,))

    def _numbers(self, item_ids: Iterable[str]) -> NDArray[np.int64]:
        number_of = self._number_of
        return np.array([number_of.setdefault(i, len(number_of)) for i in item_ids], np.int64)

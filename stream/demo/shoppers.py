"""The shoppers: seeded people with tastes that change, and the acts that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from msgspec import Struct

from stream.core.events import Context, Interaction, InteractionType, Review, Search, User
from stream.demo.shop import Shop, ShopItem
from stream.demo.tastes import BY_NAME, REVIEWS, TASTES
from stream.topics import DAY_MS, HOUR_MS

Clock = Callable[[], int]
T = TypeVar("T")

_ENGLISH = (
    "ada ben carla dan ella finn grace hugo iris jonas kira leo maya nils olga paul quinn rosa sam "
    "tara uma vera will xenia yara zoe arno britt cyril dora emil freya"
)
_CHINESE = (
    "anqi bowen chen dandan fang guang hua jiayi kexin lan ming ning peng qing rui shan tian wei "
    "xiang yan zhe haoran siyu yiming xinyi zihan jing lei min yue bo ting"
)

#: As many as there are names.
N_SHOPPERS = 64
#: A faster shop has more shoppers, not hastier ones: each acts about this often.
ACT_EVERY_S = 3.2
# A tenth of a shopper's acts go to whatever the whole shop looks at.
_STRAY_SHARE = 0.1
# Of so many shoppers one is in the shop at any moment.
_SHOPPERS_PER_SESSION = 6


@dataclass(frozen=True, slots=True)
class Shopper:
    """One shopper. ``periods`` are (from when, tastes), oldest first; the first starts at 0.

    ``activity`` is the shopper's share of sessions; ``past`` says what is known before the run:
    ``regular``, ``lapsed`` (silent for over a month) or ``new`` (nothing at all).
    """

    user: User
    periods: tuple[tuple[int, tuple[str, ...]], ...]
    activity: float
    past: str

    @property
    def user_id(self) -> str:
        return self.user.user_id

    @property
    def switch_ms(self) -> int | None:
        """When the tastes change; None for those that stay as they are."""
        return self.periods[-1][0] if len(self.periods) > 1 else None

    def tastes(self, at_ms: int) -> tuple[str, ...]:
        """Return the names of the tastes the shopper has at a moment."""
        return next(tastes for start, tastes in reversed(self.periods) if start <= at_ms)


@dataclass(frozen=True, slots=True)
class Act:
    """One event of the simulation and the topic it belongs to."""

    topic: str
    event: Struct

    @property
    def user_id(self) -> str:
        return str(getattr(self.event, "user_id", ""))

    @property
    def event_id(self) -> str:
        return str(getattr(self.event, "event_id", ""))


def n_shoppers(rate: float) -> int:
    """Return how many shoppers make so many acts a second."""
    return max(N_SHOPPERS, round(rate * ACT_EVERY_S))


def build_shoppers(
    seed: int, start_ms: int, duration_ms: int, n: int = N_SHOPPERS
) -> list[Shopper]:
    """Return n shoppers, of whom half change taste about the middle of the run."""
    rng = np.random.default_rng([seed, 1])
    people = [
        name for pair in zip(_ENGLISH.split(), _CHINESE.split(), strict=True) for name in pair
    ]
    # Beyond these, names are given again with a number.
    names = [
        people[i % len(people)] + (f"-{i // len(people)}" if i >= len(people) else "")
        for i in range(n)
    ]
    # A few people make most of the acts, as anywhere.
    activity = rng.permutation(np.arange(1, n + 1, dtype=float) ** -0.5)
    activity /= activity.sum()
    busiest = set(np.argsort(-activity)[: n // 2].tolist())
    return [
        _shopper(name, row in busiest, float(activity[row]), start_ms, duration_ms, rng)
        for row, name in enumerate(names)
    ]


def _shopper(
    name: str,
    changes: bool,
    activity: float,
    start_ms: int,
    duration_ms: int,
    rng: np.random.Generator,
) -> Shopper:
    locale = "zh" if name.partition("-")[0] in _CHINESE.split() else "en"
    past = str(rng.choice(["regular", "lapsed", "new"], p=[0.7, 0.15, 0.15]))
    before = _draw_tastes(locale, int(rng.integers(1, 3)), (), rng)
    periods = [(0, before)]
    if changes:
        switch_ms = start_ms + int(duration_ms * rng.uniform(0.35, 0.6))
        periods.append((switch_ms, _draw_tastes(locale, 1, before, rng)))
    # Only some say what they like; the rest have to be understood from their acts.
    says = past == "new" and rng.random() < 0.6
    user = User(
        user_id=name,
        updated_ms=start_ms,
        interests=list(before) if says else [],
        locale=locale,
        region="cn" if locale == "zh" else str(rng.choice(["eu", "us"])),
    )
    return Shopper(user, tuple(periods), activity, past)


def _draw_tastes(
    locale: str, n: int, exclude: tuple[str, ...], rng: np.random.Generator
) -> tuple[str, ...]:
    names = [taste.name for taste in TASTES if taste.name not in exclude]
    shares = np.array([3.0 if BY_NAME[name].locale == locale else 1.0 for name in names])
    return tuple(str(name) for name in rng.choice(names, n, replace=False, p=shares / shares.sum()))


class _Draw(Generic[T]):
    """Draws by weight as ``Generator.choice`` does, but sums the weights once."""

    def __init__(self, of: Sequence[T], weights: Sequence[float]) -> None:
        self.of = of
        sums = np.cumsum(weights)
        self._below = sums / sums[-1]

    def __call__(self, rng: np.random.Generator) -> T:
        return self.of[int(self._below.searchsorted(rng.random(), side="right"))]


def _by_appeal(items: Sequence[ShopItem]) -> _Draw[ShopItem]:
    return _Draw(items, [each.appeal for each in items])


class Crowd:
    """All shoppers of a shop: what they like (the ground truth) and what they do."""

    def __init__(self, shop: Shop, shoppers: list[Shopper]) -> None:
        self.shop = shop
        self.meet(shoppers)
        self._of_taste = {taste: _by_appeal(items) for taste, items in shop.of_taste.items()}
        self._everything = _by_appeal(list(shop.items.values()))

    def meet(self, shoppers: list[Shopper]) -> None:
        """From now on these are the shoppers."""
        self.shoppers = {shopper.user_id: shopper for shopper in shoppers}

    def affinity(self, user_id: str, item_id: str, at_ms: int) -> float:
        """Return how much a shopper likes an item at a moment: 1 for an item of a current taste,
        otherwise 0; 0 for strangers and for what is not on sale."""
        shopper = self.shoppers.get(user_id)
        taste = self.shop.taste(item_id)
        return float(shopper is not None and taste in shopper.tastes(at_ms))

    def acts(self, rng: np.random.Generator, clock: Clock, prefix: str = "e") -> Iterator[Act]:
        """Yield acts without end, each as of the clock's time when it is asked for.

        About ten shoppers are in the shop at a time; event ids are ``prefix`` and a number.
        """
        people = list(self.shoppers.values())
        anyone = _Draw(people, [person.activity for person in people])
        number = n_sessions = 0
        visits: dict[str, Iterator[tuple[str, dict[str, object]]]] = {}
        present: list[str] = []  # the visits' keys, in their order
        while True:
            if len(visits) < len(people) // _SHOPPERS_PER_SESSION:
                person = anyone(rng)
                if person.user_id not in visits:
                    n_sessions += 1
                    session = _Session(self, person, rng, clock, f"{prefix}s{n_sessions}")
                    visits[person.user_id] = session.steps()
                    present.append(person.user_id)
            place = int(rng.integers(len(present)))
            user_id = present[place]
            step = next(visits[user_id], None)
            if step is None:
                del visits[user_id], present[place]
                continue
            number += 1
            topic, fields = step
            yield Act(topic, _EVENTS[topic](event_id=f"{prefix}{number:06d}", **fields))

    def history(
        self, rng: np.random.Generator, now_ms: int, n: int = 3000, days: int = 60
    ) -> list[Act]:
        """Return about n acts of the days before, oldest first, none younger than an hour.

        Nothing of shoppers who are new, nothing of the last 35 days of those who lapsed.
        """
        first_ms = now_ms - days * DAY_MS
        step_ms = (now_ms - HOUR_MS - first_ms) // n
        time_ms = first_ms
        past: list[Act] = []
        acts = self.acts(rng, lambda: time_ms, prefix="h")
        for _ in range(n):
            time_ms += step_ms
            act = next(acts)
            since = {"new": now_ms, "lapsed": 35 * DAY_MS, "regular": 0}
            if time_ms < now_ms - since[self.shoppers[act.user_id].past]:
                past.append(act)
        return past

    def pick(self, taste: str, rng: np.random.Generator) -> ShopItem:
        """Return an item of a taste, the popular ones more often; now and then any item."""
        return (self._everything if rng.random() < _STRAY_SHARE else self._of_taste[taste])(rng)

    def pick_disliked(self, tastes: tuple[str, ...], rng: np.random.Generator) -> ShopItem:
        """Return an item that speaks to none of the tastes."""
        while True:
            each = self._everything.of[int(rng.integers(len(self._everything.of)))]
            if each.taste not in tastes:
                return each


_EVENTS: dict[str, type[Struct]] = {
    "clickstream": Interaction,
    "searches": Search,
    "reviews": Review,
}


class _Session:
    """One visit: looks around in one taste, maybe searches, maybe buys, maybe says something."""

    def __init__(
        self, crowd: Crowd, shopper: Shopper, rng: np.random.Generator, clock: Clock, name: str
    ) -> None:
        self._crowd, self._shopper, self._rng, self._clock = crowd, shopper, rng, clock
        self._taste = str(rng.choice(shopper.tastes(clock())))
        self._id = name

    def steps(self) -> Iterator[tuple[str, dict[str, object]]]:
        """Yield (topic, fields); ends early when the shopper's taste has moved on."""
        for topic, fields in self._visit():
            if self._taste not in self._shopper.tastes(self._clock()):
                return
            yield topic, {**fields, "event_time_ms": self._clock()}

    def _visit(self) -> Iterator[tuple[str, dict[str, object]]]:
        rng = self._rng
        if rng.random() < 0.4:
            yield self._search()
        for _ in range(int(rng.integers(2, 5))):
            yield from self._look()
        if rng.random() < 0.12:
            disliked = self._crowd.pick_disliked(self._shopper.tastes(self._clock()), rng)
            yield self._touch(disliked, "dislike")

    def _look(self) -> Iterator[tuple[str, dict[str, object]]]:
        rng = self._rng
        each = self._crowd.pick(self._taste, rng)
        yield self._touch(each, "view", dwell_ms=int(rng.gamma(2.0, 4000)))
        if rng.random() < 0.55:
            yield self._touch(each, "click")
            if rng.random() < 0.45:
                yield self._touch(each, "add_to_cart")
                if rng.random() < 0.7:
                    yield self._touch(each, "purchase", quantity=1, price=each.item.price)
                    if rng.random() < 0.35:
                        yield self._review(each)

    def _search(self) -> tuple[str, dict[str, object]]:
        queries = BY_NAME[self._taste].queries
        return "searches", {
            "user_id": self._shopper.user_id,
            "session_id": self._id,
            "query": queries[int(self._rng.integers(len(queries)))],
            "locale": BY_NAME[self._taste].locale,
        }

    def _touch(
        self, each: ShopItem, act: InteractionType, **more: object
    ) -> tuple[str, dict[str, object]]:
        if "price" in more:
            more["currency"] = each.item.currency
        return "clickstream", {
            "user_id": self._shopper.user_id,
            "item_id": each.item.item_id,
            "session_id": self._id,
            "type": act,
            "context": Context(channel="web", region=self._shopper.user.region),
            **more,
        }

    def _review(self, each: ShopItem) -> tuple[str, dict[str, object]]:
        locale = self._shopper.user.locale or "en"
        rating, text = REVIEWS[locale][int(self._rng.choice(6, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.1]))]
        return "reviews", {
            "user_id": self._shopper.user_id,
            "item_id": each.item.item_id,
            "rating": rating,
            "text": text.format(each.item.title),
            "locale": locale,
        }

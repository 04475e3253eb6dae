"""What shoppers took and searched for -> examples of texts that speak for a text, in batches.

Texts are numbers. A batch is so many different texts, however many examples they make: the texts
are what costs time, and every text of a batch is a negative for the examples that it is not known
to go with. So a shopper's examples stay together, for they share their texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Numbers = NDArray[np.int64]
Floats = NDArray[np.float32]

#: How far apart two acts of a pair may lie, and how far back a history reaches.
PAIR_WINDOW, HISTORY = 3, 10
#: Of one shopper so many examples at most share a batch: others are to be their negatives.
_TOGETHER = 20


@dataclass(frozen=True, slots=True)
class Example:
    """Texts that speak for ``chosen``, the newest last, and how much each of them says."""

    anchor: tuple[int, ...]
    weights: tuple[float, ...]
    chosen: int


@dataclass(frozen=True, slots=True)
class Batch:
    """``texts`` (n,) are all different; by example, ``anchors`` (b, n) are the weights of texts,
    ``chosen`` (b,) a place in ``texts``, and ``excluded`` (b, n) what is no negative."""

    texts: Numbers
    anchors: Floats
    chosen: Numbers
    excluded: NDArray[np.bool_]


def next_items(taken: Sequence[int], decay: float, first: int = 1) -> list[Example]:
    """Return an example for each item from the place ``first`` on: what was taken before speaks
    for it.

    ``decay`` per step back in the history, as in the hybrid score that is served.
    """
    found = []
    for place in range(max(first, 1), len(taken)):
        before = tuple(taken[max(0, place - HISTORY) : place])
        weights = tuple(decay ** (len(before) - 1 - n) for n in range(len(before)))
        found.append(Example(before, weights, taken[place]))
    return [example for example in found if example.chosen not in example.anchor]


def pairs(taken: Sequence[int], window: int = PAIR_WINDOW) -> list[Example]:
    """Return an example for each two different items at most ``window`` acts apart."""
    return [
        Example((earlier,), (1.0,), later)
        for place, later in enumerate(taken)
        for earlier in taken[max(0, place - window) : place]
        if earlier != later
    ]


def together(examples: Sequence[Example]) -> list[Sequence[Example]]:
    """Return one shopper's examples in runs short enough to leave room for others'."""
    return [examples[n : n + _TOGETHER] for n in range(0, len(examples), _TOGETHER)]


class Batches:
    """Batches of groups of examples, in an order that the seed decides, again and again."""

    def __init__(
        self,
        groups: Sequence[Sequence[Example]],
        n_texts: int,
        texts_at_once: int,
        negatives: Numbers | None = None,
    ) -> None:
        """``negatives`` (n_texts, m) are hard ones of each text, -1 for none: one of them comes
        with every text that somebody's choice is asked of. Groups must not be empty."""
        self._groups = groups
        self._at_once = texts_at_once
        self._negatives = negatives
        self._known = known(groups, n_texts)

    def endless(self, seed: int) -> Iterator[Batch]:
        """Yield batches for ever; each round of the groups in another order."""
        epoch = 0
        while True:
            rng = np.random.default_rng([seed, epoch])
            yield from self._round(rng)
            epoch += 1

    def _round(self, rng: np.random.Generator) -> Iterator[Batch]:
        places: dict[int, int] = {}
        examples: list[Example] = []
        for group in rng.permutation(len(self._groups)).tolist():
            for example in self._groups[group]:
                self._take(example, places, rng)
                examples.append(example)
            if len(places) >= self._at_once:
                yield self._batch(examples, places)
                places, examples = {}, []
        if examples:
            yield self._batch(examples, places)

    def _take(self, example: Example, places: dict[int, int], rng: np.random.Generator) -> None:
        last = example.anchor[-1]
        if self._negatives is not None and last not in places:
            negative = int(rng.choice(self._negatives[last]))
            if negative >= 0:
                places.setdefault(negative, len(places))
        for text in (*example.anchor, example.chosen):
            places.setdefault(text, len(places))

    def _batch(self, examples: Sequence[Example], places: dict[int, int]) -> Batch:
        texts = np.fromiter(places, np.int64, len(places))
        rows = np.repeat(np.arange(len(examples)), [len(e.anchor) for e in examples])
        columns = np.array([places[text] for e in examples for text in e.anchor])
        weights = np.array([weight for e in examples for weight in e.weights], np.float32)
        shape = (len(examples), len(texts))
        anchors = sparse.csr_matrix((weights, (rows, columns)), shape)
        chosen = np.array([places[e.chosen] for e in examples])
        # An item of the history is no answer, and what goes with one is no wrong one.
        excluded = (anchors @ self._known[texts][:, texts] + anchors).toarray() > 0
        excluded[np.arange(len(examples)), chosen] = False
        return Batch(texts, anchors.toarray(), chosen, excluded)


def known(groups: Sequence[Sequence[Example]], n_texts: int) -> sparse.csr_matrix:
    """Return which texts go with which, either way, ones, shape (n_texts, n_texts)."""
    examples = [example for group in groups for example in group]
    rows = np.array([text for e in examples for text in e.anchor], np.int64)
    columns = np.repeat([e.chosen for e in examples], [len(e.anchor) for e in examples])
    ones = np.ones(len(rows), np.float32)
    one_way = sparse.csr_matrix((ones, (rows, columns)), (n_texts, n_texts))
    both = (one_way + one_way.T).tocsr()
    both.data[:] = 1.0
    return both


def hard_negatives(
    vectors: Floats, goes_with: sparse.csr_matrix, of: Numbers, among: Numbers, n: int = 30
) -> Numbers:
    """Return the texts nearest to each text that do not go with it, shape (len(vectors), n).

    Looked for are those of the texts ``of`` among the texts ``among``; -1 where there is none. The
    nearest third is left out: much of it is right, only nobody happened to take both. ``vectors``
    are unit.
    """
    found = np.full((len(vectors), n), -1, np.int64)
    nearest = n // 2
    depth = min(n + nearest, len(among))
    for start in range(0, len(of), 512):
        some = of[start : start + 512]
        scores = vectors[some] @ vectors[among].T  # (512, len(among))
        scores[goes_with[some][:, among].toarray() > 0] = -np.inf
        scores[some[:, None] == among] = -np.inf
        top = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
        values = np.take_along_axis(scores, top, 1)
        order = np.argsort(-values, axis=1, kind="stable")[:, nearest:]
        kept = np.where(
            np.isneginf(np.take_along_axis(values, order, 1)),
            -1,
            among[np.take_along_axis(top, order, 1)],
        )
        found[some, : kept.shape[1]] = kept
    return found

"""Chorus: products rated for queries of an electronics shop, ranked by the live search.

For each query its rated products are ranked (NDCG@10, gain 2^grade - 1). Left out are queries with
fewer than three of them, or none that anybody would want: of those nothing can be learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from models.catalogue import Catalogue
from models.cross_encoder import open_cross_encoder
from models.evaluation import intervals, ranking
from models.evaluation.ranking import PerUser
from models.evaluation.splits import chosen_on_other_folds
from models.items import ItemFacts
from models.matches import Match, Query
from models.reranking import PairScorer, Reranking, RerankRule
from models.search import ItemSearch, SearchRule
from models.text_index import TextIndex
from stream.agents.encode import item_text
from stream.core.events import Item
from stream.evaluate.datasets import Rated, Ratings, load_chorus_search
from stream.evaluate.report import Evaluated, OnStep, Row
from stream.evaluate.vectors import Encode, encoded
from stream.settings import Settings

K = 10
#: What the weights are chosen from: of words, and of the items that speak for a query.
_WORDS = (0.0, 0.1, 0.2, 0.4, 0.8)
_FEEDBACK = (0.0, 0.3, 0.5, 0.7, 0.85)
#: And beside a cross-encoder, with its own weight and that of heads: words, feedback, heads, it.
_BESIDE = ((0.1, 0.2, 0.4), (0.3, 0.5), (0.0, 0.15, 0.3), (0.0, 0.5, 1.0, 2.0))
#: Orders tried of products that a ranker holds for equally good.
_N_ORDERS = 20
_QUICK_SHARE = 3

Vectors = NDArray[np.float32]
#: A query's scores of its rated products, (n,), larger is better.
Scorer = Callable[[Rated], NDArray[np.floating]]


def evaluate(
    data: Path,
    settings: Settings,
    on_step: OnStep,
    quick: bool = False,
    encode: Encode = encoded,
) -> Iterator[Evaluated]:
    """Yield one table; ``quick`` asks every third query alone."""
    ratings = load_chorus_search(data)
    on_step(f"encoding {len(ratings.titles):,} products")
    items = encode(list(map(_text, ratings.titles, ratings.descriptions)), settings)
    queries = encode([rated.query for rated in ratings.queries], settings, "query")
    asked = [r for r in ratings.queries if len(r.items) >= 3 and r.grades.any()]
    asked = asked[:: _QUICK_SHARE if quick else 1]
    on_step("the live search")
    shop = _Shop(ratings, items, queries)
    found = {
        rule: _ndcg(shop.by_rule(rule), asked)
        for rule in (SearchRule(*weights) for weights in product(_WORDS, _FEEDBACK))
    }
    shipped = SearchRule(settings.search_words, settings.search_feedback)
    values = {
        "live search, weights chosen on other queries": chosen_on_other_folds(
            np.array(list(found.values()))
        ),
        "live search, weights of the settings": _ndcg(shop.by_rule(shipped), asked),
        "words and meaning alone, no feedback": chosen_on_other_folds(
            np.array([of_it for rule, of_it in found.items() if not rule.feedback])
        ),
        "BM25 (words alone)": _ndcg(shop.by_words, asked),
        "meaning alone (cosine)": _ndcg(shop.by_meaning, asked),
    }
    if settings.search_reranker:
        on_step("the cross-encoder")
        # First is what such settings answer with: that is what counts as ours.
        values = _reranked(shop, ratings, asked, settings) | values
    on_step("baselines")
    values |= _baselines(ratings, asked)
    yield _evaluated(values, settings, len(asked))


def _text(title: str, description: str) -> str:
    return item_text(Item(item_id="?", title=title, updated_ms=1, description=description))


class _Shop:
    """The live catalogue and search over all products."""

    def __init__(self, ratings: Ratings, items: Vectors, queries: Vectors) -> None:
        self._texts = TextIndex()
        self._catalogue = Catalogue(items.shape[1], texts=self._texts)
        ids = [str(number) for number in range(len(items))]
        self._catalogue.put_items(list(map(ItemFacts, ids, ratings.titles, [1] * len(ids))))
        self._catalogue.put_vectors(ids, items)
        self._catalogue.rebuild()
        self._texts.refresh()
        self._items, self._ids = items, ids
        self._queries = [Query(r.query, v) for r, v in zip(ratings.queries, queries, strict=True)]
        self._vector_of = {query.text: query.vector for query in self._queries}

    def by_rule(self, rule: SearchRule) -> Scorer:
        search = ItemSearch(self._catalogue, self._texts, rule, n_candidates=len(self._ids))
        lists = search.search(self._queries, len(self._ids))
        score_of = {
            query.text: {match.item_id: match.score for match in matches}
            for query, matches in zip(self._queries, lists, strict=True)
        }
        return lambda rated: np.array([score_of[rated.query][self._ids[i]] for i in rated.items])

    def by_words(self, rated: Rated) -> NDArray[np.floating]:
        found = self._texts.search(rated.query, len(self._ids))
        item_ids = self._catalogue.item_ids(found.rows)
        score_of = dict(zip(item_ids, found.scores.tolist(), strict=True))
        return np.array([score_of.get(self._ids[item], 0.0) for item in rated.items])

    def by_meaning(self, rated: Rated) -> NDArray[np.floating]:
        return self._items[rated.items] @ self._vector_of[rated.query]


class _Remembering:
    """A cross-encoder that reads each pair once, whatever the weights that are tried."""

    def __init__(self, scorer: PairScorer) -> None:
        self.name = scorer.name
        self._scorer = scorer
        self._said: dict[tuple[str, str], float] = {}

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._said]
        if new:
            self._said |= dict(zip(new, self._scorer.scores(new).tolist(), strict=True))
        return np.array([self._said[pair] for pair in pairs], np.float32)


def _reranked(
    shop: _Shop, ratings: Ratings, asked: Sequence[Rated], settings: Settings
) -> dict[str, PerUser]:
    """Return what the live search reaches with a cross-encoder, which reads the first rated
    products of each query, as it reads the first of all in a shop."""
    scorer = _Remembering(open_cross_encoder(settings.search_reranker))
    words, feedback, heads, weights = _BESIDE

    def beside(weight: float, k: int) -> Reranking:
        rule = RerankRule(weight, k)
        return Reranking(scorer, lambda item: ratings.titles[int(item)], rule, lambda: 0.0)

    most = max(len(rated.items) for rated in asked)
    found: dict[int, list[PerUser]] = {settings.search_reranker_k: [], most: []}
    for rule in (SearchRule(w, f, heads=h) for w, f, h in product(words, feedback, heads)):
        scores = shop.by_rule(rule)
        for k, weight in product(found, weights):
            found[k].append(_ndcg(_anew(scores, beside(weight, k)), asked))
    alone = _anew(lambda rated: np.zeros(len(rated.items)), beside(1.0, most))
    return {
        f"with the cross-encoder on the first {k}, all weights chosen on other queries": (
            chosen_on_other_folds(np.array(values))
        )
        for k, values in found.items()
    } | {"the cross-encoder alone": _ndcg(alone, asked)}


def _anew(scores: Scorer, reranking: Reranking) -> Scorer:
    rng = np.random.default_rng(0)

    def scored(rated: Rated) -> NDArray[np.floating]:
        of_each = scores(rated)
        # What ties is in no order: that of the file is a search engine's.
        order = rng.permutation(len(of_each))
        order = order[np.argsort(-of_each[order], kind="stable")]
        found = [Match(str(rated.items[n]), float(of_each[n]), "both") for n in order.tolist()]
        [better] = reranking.reranked([rated.query], [found], until=1.0)
        assert better is not None
        score_of = {match.item_id: match.score for match in better}
        return np.array([score_of[str(item)] for item in rated.items])

    return scored


def _baselines(ratings: Ratings, asked: Sequence[Rated]) -> dict[str, PerUser]:
    texts = list(map("{} {}".format, ratings.titles, ratings.descriptions))
    vectorizer = TfidfVectorizer()
    items = vectorizer.fit_transform(texts)

    def tf_idf(rated: Rated) -> NDArray[np.floating]:
        query = vectorizer.transform([rated.query])
        return np.asarray((items[rated.items] @ query.T).todense()).ravel()

    in_order = [rated.grades[np.argsort(-tf_idf(rated), kind="stable")] for rated in asked]
    all_grades = [rated.grades for rated in asked]
    return {
        "TF-IDF": _ndcg(tf_idf, asked),
        "TF-IDF, ties in the order of the file": ranking.graded_ndcg(in_order, K, all_grades),
        "the order of the file": ranking.graded_ndcg(all_grades, K, all_grades),
        "random": _ndcg(lambda rated: np.zeros(len(rated.items)), asked),
    }


def _ndcg(scorer: Scorer, asked: Sequence[Rated]) -> PerUser:
    """Return NDCG of each query; what ties is put in many orders, and the mean taken.

    The file's own order would favour whoever knows least: it is a search engine's.
    """
    rng = np.random.default_rng(0)
    values = []
    for rated in asked:
        scores = scorer(rated)
        orders = [rng.permutation(len(scores)) for _ in range(_N_ORDERS)]
        lists = [rated.grades[o[np.argsort(-scores[o], kind="stable")]] for o in orders]
        values.append(ranking.graded_ndcg(lists, K, [rated.grades] * len(lists)).mean())
    return np.array(values)


def _evaluated(values: dict[str, PerUser], settings: Settings, n_asked: int) -> Evaluated:
    ours = next(iter(values.values()))
    gains = {name: intervals.difference(ours, values[name]) for name in ("TF-IDF", "random")}
    metric = f"ndcg_at_{K}"
    return Evaluated(
        "search",
        [Row(name, {metric: intervals.mean(of_it)}) for name, of_it in values.items()],
        f"Rated products of {n_asked} queries, ranked by the catalogue's own index and words; "
        f"texts by {settings.encoder}. Our first row's weights are chosen on nine tenths of the "
        "queries and told of the last, ten times; those of the settings, the use of feedback and "
        "its ten items were chosen on all of them. Ties are broken at random. "
        f"Over TF-IDF: {gains['TF-IDF']}, over random: "
        f"{gains['random']}. The order of the file is the engine's whose results were rated; "
        "TF-IDF, which matches half of the products, gains by it.",
    )

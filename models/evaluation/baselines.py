"""What a model has to beat: rankers of a few lines, on arrays, from the literature.

Each is given the histories it may learn from, and then ranks all items for some histories. None of
it runs in the stream. Items are numbers below ``n_items``; the newest of a history comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from threadpoolctl import threadpool_limits

from models.evaluation.ranking import PADDING, Lists
from models.evaluation.splits import History

Scores = NDArray[np.float32]
#: Histories scored at once: so many rows by all items of scores are in memory.
_CHUNK = 512


#: Scores all items for histories, shape (len(histories), n_items); larger is better.
Baseline = Callable[[Sequence[History]], Scores]


def ranked(baseline: Baseline, histories: Sequence[History], k: int, masked: bool = True) -> Lists:
    """Return the k best items of each history, shape (len(histories), k), best first.

    What is in a history is left out unless ``masked`` is False; equal scores go by item number.
    """
    lists = []
    for start in range(0, len(histories), _CHUNK):
        chunk = histories[start : start + _CHUNK]
        scores = baseline(chunk)
        if masked:
            for row, history in enumerate(chunk):
                scores[row, history] = -np.inf
        lists.append(best(scores, k))
    return np.concatenate(lists) if lists else np.empty((0, k), np.int64)


def best(scores: Scores, k: int) -> Lists:
    """Return the k largest of each row, largest first, PADDING for those that are -inf."""
    k = min(k, scores.shape[1])
    some = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    some.sort(axis=1)
    order = np.argsort(-np.take_along_axis(scores, some, 1), axis=1, kind="stable")
    found = np.take_along_axis(some, order, 1)
    is_barred = np.isneginf(np.take_along_axis(scores, found, 1))
    return np.where(is_barred, PADDING, found).astype(np.int64)


def matrix(histories: Sequence[History], n_items: int) -> sparse.csr_matrix:
    """Return who took what, ones, shape (len(histories), n_items)."""
    lengths = [len(history) for history in histories]
    rows = np.repeat(np.arange(len(histories)), lengths)
    columns = np.concatenate([np.asarray(h, np.int64) for h in histories])
    taken = sparse.csr_matrix(
        (np.ones(len(columns), np.float32), (rows, columns)), (len(histories), n_items)
    )
    taken.data[:] = 1.0  # an item taken twice was added up
    return taken


def popularity(histories: Sequence[History], n_items: int) -> Baseline:
    """The items that most users took."""
    counts = np.asarray(matrix(histories, n_items).sum(axis=0), np.float32).ravel()
    return _same_for_all(counts)


def recent_popularity(histories: Sequence[History], n_items: int, last: int = 3) -> Baseline:
    """The items that most users took among their ``last`` ones."""
    return popularity([history[-last:] for history in histories], n_items)


def item_knn(
    histories: Sequence[History], n_items: int, neighbours: int = 100, decay: float = 1.0
) -> Baseline:
    """Sum of cosines of items by their takers (Sarwar et al., WWW 2001), the ``neighbours``
    nearest of each; ``decay`` per step back in the history, 1 for none."""
    taken = matrix(histories, n_items)
    both = (taken.T @ taken).tocsr()
    both.setdiag(0)
    both.eliminate_zeros()
    norms = np.sqrt(np.maximum(np.asarray(taken.sum(axis=0)).ravel(), 1))
    scale = sparse.diags(1 / norms)
    near = _largest((scale @ both @ scale).tocsr(), neighbours)
    return lambda some: np.asarray((_decayed(some, n_items, decay) @ near).todense(), np.float32)


def ease(histories: Sequence[History], n_items: int, ridge: float = 200.0) -> Baseline:
    """EASE (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019): the linear
    model of what else is in a history that is best with a ridge; work grows by n_items cubed."""
    taken = matrix(histories, n_items)
    both = (taken.T @ taken).toarray().astype(np.float64)
    both[np.diag_indices(n_items)] += ridge
    precision = np.linalg.inv(both)
    weights = (precision / -np.diag(precision)).astype(np.float32)
    np.fill_diagonal(weights, 0)
    return lambda some: np.asarray(matrix(some, n_items) @ weights, np.float32)


def als(
    histories: Sequence[History],
    n_items: int,
    factors: int = 64,
    regularisation: float = 0.1,
    iterations: int = 15,
    alpha: float = 10.0,
    seed: int = 0,
) -> Baseline:
    """Matrix factorisation for implicit feedback (Hu, Koren, Volinsky, ICDM 2008), by ``implicit``.

    A history is folded in, so users need not have been there in training.
    """
    from implicit.als import AlternatingLeastSquares

    # It has threads of its own, which those of the products would only be in the way of.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=regularisation,
            iterations=iterations,
            alpha=alpha,
            random_state=seed,
            use_gpu=False,
        )
        model.fit(matrix(histories, n_items), show_progress=False)

    def score(some: Sequence[History]) -> Scores:
        users = model.recalculate_user(np.arange(len(some)), matrix(some, n_items))
        return np.asarray(users @ model.item_factors.T, np.float32)

    return score


def content(vectors: NDArray[np.float32], decay: float = 1.0) -> Baseline:
    """Cosine with the mean of the history's vectors, which are unit, shape (n_items, dim).

    ``decay`` per step back, 1 for a plain mean.
    """

    def score(some: Sequence[History]) -> Scores:
        queries = _decayed(some, len(vectors), decay) @ vectors
        return np.asarray(queries @ vectors.T, np.float32)

    return score


def last_item(vectors: NDArray[np.float32]) -> Baseline:
    """Cosine with the newest item alone."""
    return lambda some: np.asarray(vectors[[h[-1] for h in some]] @ vectors.T, np.float32)


def tf_idf(titles: Sequence[str], decay: float = 1.0) -> Baseline:
    """As ``content``, of words and pairs of words weighed by how rare they are."""
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit_transform(titles)

    def score(some: Sequence[History]) -> Scores:
        queries = _decayed(some, len(titles), decay) @ words
        return np.asarray((queries @ words.T).todense(), np.float32)

    return score


def word_vectors(titles: Sequence[str], dim: int = 100, seed: int = 0) -> NDArray[np.float32]:
    """Return unit means of word2vec vectors (Mikolov et al., 2013) learnt from the titles
    themselves, shape (n, dim); a title without a known word gets zeros."""
    from gensim.models import Word2Vec

    words = [title.lower().split() for title in titles]
    # One thread: with more the result depends on how they are scheduled.
    model = Word2Vec(words, vector_size=dim, min_count=2, epochs=20, seed=seed, workers=1)
    known = [[model.wv.key_to_index[w] for w in of_it if w in model.wv] for of_it in words]
    means = np.stack(
        [model.wv.vectors[n].mean(axis=0) if n else np.zeros(dim, np.float32) for n in known]
    )
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means / np.where(norms > 0, norms, 1), np.float32)


def hybrid(
    histories: Sequence[History],
    vectors: NDArray[np.float32],
    text_share: float = 0.3,
    decay: float = 0.7,
) -> Baseline:
    """The formula of models/hybrid.py on whole matrices: text similarity and co-occurrence.

    After STAR (arXiv 2410.16458): sum over the history, newest first, of decay^step times
    [a * cosine of centred texts + (1 - a) * both / sqrt(users * users)], over its length.
    """
    n_items = len(vectors)
    taken = matrix(histories, n_items)
    both = (taken.T @ taken).tocsr()
    both.setdiag(0)
    both.eliminate_zeros()
    scale = sparse.diags(1 / np.sqrt(np.maximum(np.asarray(taken.sum(axis=0)).ravel(), 1)))
    together = (scale @ both @ scale).tocsr()
    centred = vectors - vectors.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)

    def score(some: Sequence[History]) -> Scores:
        weights = _decayed(some, n_items, decay)
        texts = (weights @ centred) @ centred.T
        counts = np.asarray((weights @ together).todense())
        lengths = np.array([[len(history)] for history in some], np.float32)
        return np.asarray((text_share * texts + (1 - text_share) * counts) / lengths, np.float32)

    return score


def _same_for_all(scores: NDArray[np.float32]) -> Baseline:
    return lambda some: np.tile(scores, (len(some), 1))


def _decayed(histories: Sequence[History], n_items: int, decay: float) -> sparse.csr_matrix:
    """Return the weights of histories, decay^steps back, shape (len(histories), n_items)."""
    rows = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
    columns = np.concatenate([np.asarray(h, np.int64) for h in histories])
    weights = np.concatenate([decay ** np.arange(len(h) - 1.0, -1.0, -1.0) for h in histories])
    shape = (len(histories), n_items)
    return sparse.csr_matrix((weights.astype(np.float32), (rows, columns)), shape)


def _largest(values: sparse.csr_matrix, n: int) -> sparse.csr_matrix:
    """Return a matrix of the n largest of each row."""
    kept: list[NDArray[np.int64]] = []
    for start, end in zip(values.indptr, values.indptr[1:], strict=False):
        order = np.argsort(-values.data[start:end], kind="stable")[:n]
        kept.append(start + order)
    at = np.concatenate(kept) if kept else np.empty(0, np.int64)
    rows = np.repeat(np.arange(values.shape[0]), [len(of_it) for of_it in kept])
    return sparse.csr_matrix((values.data[at], (rows, values.indices[at])), values.shape)

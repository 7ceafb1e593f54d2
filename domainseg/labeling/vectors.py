"""Dense features of a report: the mean of its words' vectors, and its topics.

The paper takes its word vectors from Doc2Vec (gensim). Ours are a reconstruction with what scikit-learn and scipy
have: positive pointwise mutual information of words within five places of each other, reduced by a truncated singular
value decomposition (Levy and Goldberg 2014 show that skip-gram with negative sampling factorises such a matrix).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, diags
from sklearn.decomposition import LatentDirichletAllocation, TruncatedSVD

from domainseg.labeling.reading import Stream

WINDOW = 5  # words on either side that count as neighbours, as in the paper
SMOOTHING = 0.75  # power of the neighbours' frequencies (Levy, Goldberg and Dagan 2015)
MOST_WORDS = 20_000  # the most frequent ones have vectors and topics
MOST_REPORTS = 30_000  # drawn at random from more; vectors and topics gain little beyond


@dataclass
class Vectors:
    """Word vectors from some reports. words: their numbers in the stream, sorted; vectors [words, dims]."""

    stream: Stream
    words: NDArray[np.int64]
    vectors: NDArray[np.float64]

    @classmethod
    def fit(cls, stream: Stream, rows: NDArray[np.intp], *, min_count: int, dims: int, seed: int) -> Vectors:
        """Learn vectors of words that stand at least ``min_count`` times in the reports ``rows``."""
        tokens, _ = stream.of(_drawn(rows, seed))
        words = _frequent(tokens, min_count)
        place = _places(tokens, words)
        counts = csr_matrix((len(words), len(words)))
        for distance in range(1, WINDOW + 1):
            left, right = place[:-distance], place[distance:]
            inside = (left >= 0) & (right >= 0)
            for step in range(1, distance):  # no sentence may end between the two
                inside &= tokens[step : step + len(inside)] >= 0
            pairs = (left[inside], right[inside])
            counts = counts + coo_matrix((np.ones(len(pairs[0])), pairs), shape=counts.shape).tocsr()
        counts = counts + counts.T
        dims = min(dims, len(words) - 1)
        if dims < 1:
            return cls(stream, words, np.zeros((len(words), 1)))
        svd = TruncatedSVD(dims, random_state=seed).fit(_ppmi(counts))
        return cls(stream, words, svd.components_.T * np.sqrt(svd.singular_values_))

    def transform(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """The mean vector of each report's words [rows, dims]; 0 for a report without any."""
        counts = _word_counts(self.stream, rows, self.words)
        lengths = np.asarray(counts.sum(axis=1)).ravel()
        return np.asarray(counts @ self.vectors) / np.maximum(lengths, 1)[:, None]


def _ppmi(counts: csr_matrix) -> csr_matrix:
    total = counts.sum()
    own = np.asarray(counts.sum(axis=1)).ravel()
    neighbour = own**SMOOTHING
    neighbour = neighbour / max(neighbour.sum(), 1e-300)
    ratio = diags(1 / np.maximum(own, 1)) @ counts @ diags(1 / np.maximum(neighbour, 1e-300)) if total else counts
    ratio = csr_matrix(ratio)
    ratio.data = np.maximum(np.log(np.maximum(ratio.data, 1e-300)), 0)
    ratio.eliminate_zeros()
    return ratio


@dataclass
class Topics:
    """Latent Dirichlet allocation on word counts (Blei, Ng and Jordan 2003)."""

    stream: Stream
    words: NDArray[np.int64]
    model: LatentDirichletAllocation | None

    @classmethod
    def fit(cls, stream: Stream, rows: NDArray[np.intp], *, min_count: int, topics: int, seed: int) -> Topics:
        """Learn topics from the reports ``rows``."""
        rows = _drawn(rows, seed)
        words = _frequent(stream.of(rows)[0], min_count)
        if not len(words):
            return cls(stream, words, None)
        model = LatentDirichletAllocation(
            topics, learning_method="online", max_iter=5, batch_size=256, max_doc_update_iter=20, random_state=seed
        )
        return cls(stream, words, model.fit(_word_counts(stream, rows, words)))

    def transform(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """The share of each topic in each report [rows, topics]."""
        if self.model is None:
            return np.zeros((len(rows), 1))
        return np.asarray(self.model.transform(_word_counts(self.stream, rows, self.words)), np.float64)


def _drawn(rows: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    if len(rows) <= MOST_REPORTS:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, MOST_REPORTS, replace=False))


def _frequent(tokens: NDArray[np.int64], min_count: int) -> NDArray[np.int64]:
    values, counts = np.unique(tokens[tokens >= 0], return_counts=True)
    often = np.flatnonzero(counts >= min_count)
    often = often[np.argsort(-counts[often], kind="stable")[:MOST_WORDS]]
    return np.sort(values[often])


def _places(tokens: NDArray[np.int64], words: NDArray[np.int64]) -> NDArray[np.int64]:
    if not len(words):
        return np.full(len(tokens), -1)
    place = np.minimum(np.searchsorted(words, tokens), len(words) - 1)
    return np.where(words[place] == tokens, place, -1)


def _word_counts(stream: Stream, rows: NDArray[np.intp], words: NDArray[np.int64]) -> csr_matrix:
    tokens, owner = stream.of(rows)
    place = _places(tokens, words)
    there = place >= 0
    return csr_matrix((np.ones(int(there.sum())), (owner[there], place[there])), shape=(len(rows), len(words)))

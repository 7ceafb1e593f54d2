"""Features of reports: the paper's, ours, and the plain reference; all learned outside the hold-out part.

ngrams      1-3-grams of the paper stream, 0/1, "no" first only (Zech et al. 2018)
embeddings  mean of word vectors, our reconstruction in place of Doc2Vec (domainseg/labeling/vectors.py)
topics      latent Dirichlet allocation
context     ours: 1-2-grams of findings and impression with what the report asserts of them, and the rule's results
plain       the reference: 1-3-grams of all words, 0/1, as CountVectorizer(binary=True, ngram_range=(1, 3)) has them
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack

from domainseg.labeling.mentions import STATUS
from domainseg.labeling.ngrams import NGrams
from domainseg.labeling.reading import Read
from domainseg.labeling.vectors import Topics, Vectors

VIEWS = ("ngrams", "embeddings", "topics", "context")
REFERENCE = ("plain",)
#: What `features: best` chooses from, by cross-validation.
CANDIDATES: tuple[tuple[str, ...], ...] = (
    ("ngrams",),
    ("context",),
    ("ngrams", "context"),
    ("ngrams", "embeddings"),
    ("ngrams", "embeddings", "topics", "context"),
)
CHUNK = 5_000  # reports whose features are held at a time when labels are given to all

_SPREAD = 0.3  # standard deviation of dense features, about that of a 0/1 column that is 1 in a tenth of the reports
_STATES = tuple(state for state in STATUS if state)


@dataclass(frozen=True)
class Settings:
    """min_count: reports an n-gram must stand in; dims of the embeddings; number of topics; seed."""

    min_count: int
    dims: int
    topics: int
    seed: int


@dataclass
class Features:
    """Views of read reports, fitted on the reports ``rows``; a view is learned when it is first asked for."""

    read: Read
    rows: NDArray[np.intp]
    settings: Settings
    _grams: dict[str, NGrams] = field(default_factory=dict)
    _dense: dict[str, tuple[Vectors | Topics, NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=dict)

    def matrix(self, views: Sequence[str], rows: NDArray[np.intp]) -> csr_matrix:
        """Features of some reports [rows, columns], the views side by side."""
        return csr_matrix(hstack([self._view(view, rows) for view in views], format="csr"))

    def names(self, views: Sequence[str]) -> list[str]:
        """What each column is, in words: n-grams as they are, others as "view: what"."""
        found: list[str] = []
        for view in views:
            if view in ("embeddings", "topics"):
                found += [f"{view}: {number}" for number in range(len(self._fitted(view)[1]))]
            else:
                found += [" ".join(words) for words in self.grams(view).names()]
            if view == "context":
                found += [f"rule: {name} {STATUS[state]}" for state in _STATES for name in self.read.lexicon.findings]
        return found

    def grams(self, view: str) -> NGrams:
        """The n-grams of a view."""
        if view not in self._grams:
            stream = self.read.streams["paper" if view == "ngrams" else view]
            grams = NGrams(stream, self.settings.min_count, view == "ngrams", 2 if view == "context" else 3)
            self._grams[view] = grams.fit(self.rows)
        return self._grams[view]

    def _view(self, view: str, rows: NDArray[np.intp]) -> csr_matrix:
        if view in ("embeddings", "topics"):
            model, mean, spread = self._fitted(view)
            return csr_matrix((model.transform(rows) - mean) / spread)
        matrix = self.grams(view).transform(rows)
        if view == "context":
            rule = [csr_matrix((self.read.status[rows] == state).astype(np.float64)) for state in _STATES]
            matrix = csr_matrix(hstack([matrix, *rule], format="csr"))
        return matrix

    def _fitted(self, view: str) -> tuple[Vectors | Topics, NDArray[np.float64], NDArray[np.float64]]:
        if view not in self._dense:
            stream, chosen = self.read.streams["paper"], self.settings
            model: Vectors | Topics
            if view == "embeddings":
                model = Vectors.fit(stream, self.rows, min_count=2, dims=chosen.dims, seed=chosen.seed)
            else:
                model = Topics.fit(stream, self.rows, min_count=2, topics=chosen.topics, seed=chosen.seed)
            some = self.rows[:: max(1, len(self.rows) // CHUNK)]
            values = model.transform(some)
            self._dense[view] = (model, values.mean(axis=0), np.maximum(values.std(axis=0), 1e-9) / _SPREAD)
        return self._dense[view]


@dataclass
class Matrices:
    """Feature sets of the same reports; a view is made once and kept, sets are put together when they are asked for."""

    features: Features
    rows: NDArray[np.intp]
    _views: dict[str, csr_matrix] = field(default_factory=dict)

    def of(self, views: Sequence[str], places: NDArray[Any]) -> csr_matrix:
        """Features [places, columns] of some of the reports, ``places`` among ``rows``."""
        for view in views:
            if view not in self._views:
                self._views[view] = self.features.matrix([view], self.rows)
        return csr_matrix(hstack([self._views[view][places] for view in views], format="csr"))


def chunks(rows: NDArray[np.intp]) -> Iterable[NDArray[np.intp]]:
    """The rows in pieces that fit into memory with their features."""
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))

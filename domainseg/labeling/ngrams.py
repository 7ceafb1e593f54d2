"""Presence of one to three words in a row, as sparse 0/1 columns; chosen and counted with whole arrays.

An n-gram is a number: the number of its first n - 1 words among the n-grams of that length that were kept, times the
size of the vocabulary, plus the number of its last word. What is rare in part is rare as a whole, so that longer ones
are only counted among those whose beginning and end were kept: 100,000 reports need no dictionary of all trigrams.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from domainseg.labeling.reading import END, Stream

LONGEST = 3
CHUNK = 10_000  # reports that are counted at a time, so that memory does not grow with them


@dataclass
class NGrams:
    """The n-grams of a stream that stand in at least ``min_count`` of some reports.

    no_first: as in the paper, "no" may only be the first word of an n-gram, and is none by itself.
    """

    stream: Stream
    min_count: int
    no_first: bool = False
    longest: int = LONGEST
    kept: list[NDArray[np.int64]] = field(default_factory=list)  # for each length the sorted numbers of n-grams
    reports: list[NDArray[np.int64]] = field(default_factory=list)  # and in how many reports each stands
    size: int = 0

    def fit(self, rows: NDArray[np.intp]) -> NGrams:
        """Choose the n-grams from the reports ``rows``."""
        self.size = max(len(self.stream.numbers), 1)
        for length in range(1, self.longest + 1):
            found = [self._count(rows[start : start + CHUNK], length) for start in range(0, len(rows), CHUNK)]
            values, inverse = np.unique(np.concatenate([code for code, _ in found]), return_inverse=True)
            counts = np.bincount(inverse, np.concatenate([number for _, number in found]), len(values)).astype(np.int64)
            often = counts >= self.min_count
            self.kept.append(values[often])
            self.reports.append(counts[often])
        return self

    def _count(self, rows: NDArray[np.intp], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """N-grams of a length and in how many of the reports each stands; all shorter ones are known."""
        tokens, owner = self.stream.of(rows)
        codes = self._singles(tokens)
        for shorter in range(1, length):
            codes = self._longer(codes, tokens, shorter)
        there = codes >= 0
        once = np.unique(codes[there] * len(rows) + owner[: len(codes)][there])
        values, counts = np.unique(once // len(rows), return_counts=True)
        return values, counts

    def names(self) -> list[tuple[str, ...]]:
        """The words of each n-gram, in the order of columns."""
        return [name for name, stays in zip(self._all(), self._stays(), strict=True) if stays]

    def counts(self) -> NDArray[np.int64]:
        """In how many of the fitted reports each n-gram stands, in the order of columns."""
        return np.concatenate(self.reports)[self._stays()]

    def transform(self, rows: NDArray[np.intp]) -> csr_matrix:
        """0/1 [rows, n-grams] as float64."""
        tokens, owner = self.stream.of(rows)
        codes, columns, owners, offset = self._singles(tokens), [], [], 0
        for length, kept in enumerate(self.kept, start=1):
            place = self._place(codes, length)
            columns.append(place[place >= 0] + offset)
            owners.append(owner[: len(codes)][place >= 0])
            offset += len(kept)
            codes = self._longer(codes, tokens, length)
        column, own = np.concatenate(columns), np.concatenate(owners)
        matrix = csr_matrix((np.ones(len(column)), (own, column)), shape=(len(rows), offset))
        matrix.data[:] = 1.0  # what stands there twice was summed
        return matrix[:, self._stays()]

    def _all(self) -> list[tuple[str, ...]]:
        words, names = self.stream.words, []
        shorter: list[tuple[str, ...]] = []
        for length, kept in enumerate(self.kept):
            shorter = [
                (words[code],) if length == 0 else (*shorter[code // self.size], words[code % self.size])
                for code in kept
            ]
            names += shorter
        return names

    def _stays(self) -> NDArray[np.bool_]:
        """All columns but that of the unigram "no", where it is none."""
        stays = np.ones(sum(len(kept) for kept in self.kept), dtype=bool)
        if self.no_first:
            stays[: len(self.kept[0])] = self.kept[0] != self.stream.numbers.get("no", END)
        return stays

    def _singles(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(tokens < self.size, tokens, END)

    def _place(self, codes: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """The place of each number among the kept ones of a length, END where it is not kept."""
        kept = self.kept[length - 1]
        if not len(kept):
            return np.full(len(codes), END, np.int64)
        place = np.minimum(np.searchsorted(kept, codes), len(kept) - 1)
        return np.where(kept[place] == codes, place, END)

    def _longer(self, codes: NDArray[np.int64], tokens: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Numbers of the n-grams one word longer, from those that start at each token; END where there is none."""
        if len(codes) < 2:
            return codes[:0]
        first = self._place(codes[:-1], length)
        last = tokens[length : length + len(codes) - 1]
        fine = (first >= 0) & (last >= 0) & np.isin(last, self.kept[0])
        if self.no_first:
            fine &= last != self.stream.numbers.get("no", END)
        return np.where(fine, first * self.size + last, END)

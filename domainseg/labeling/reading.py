"""Reports as streams of words, each of them read once: as they stand, as in the paper, and with what is asserted.

plain    words of two letters or more, as scikit-learn's CountVectorizer cuts them: for the plain reference
paper    as in Zech et al. 2018 (Radiology 287:570): lower case, without digits, cut into sentences, without plurals
context  ours: words of findings and impression only, each with whether the report asserts (+), denies (-) or doubts (?)
         it; words without a meaning of their own and the cues themselves are left out
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from domainseg.labeling.assertion import AFFIRMED, HISTORICAL, NEGATED, UNCERTAIN, assertions
from domainseg.labeling.lexicon import Lexicon
from domainseg.labeling.mentions import mentions, strongest
from domainseg.labeling.text import FACTS, clean, pieces, sections, sentences, stem, words

STREAMS = ("plain", "paper", "context")
END = -1  # of a sentence, in a stream

_SIGN = {AFFIRMED: "+", NEGATED: "-", UNCERTAIN: "?"}
_MEANINGLESS = """
a again also an and are as at be been being by demonstrated did do does evidence for from had has have identified in
into is it its noted of on or present seen than that the then there these this those to was were which with within x
xxxx
"""
_EMPTY = frozenset(_MEANINGLESS.split())
_PLAIN_WORD = re.compile(r"\b\w\w+\b")
_PAPER_WORD = re.compile(r"\.|\w+")


@dataclass
class Stream:
    """Words of many reports one after the other, as numbers, with END between sentences. ``bounds`` [n + 1]."""

    numbers: dict[str, int] = field(default_factory=dict)
    tokens: array[int] = field(default_factory=lambda: array("i"))
    bounds: array[int] = field(default_factory=lambda: array("q", [0]))

    def add(self, found: Iterable[str | None]) -> None:
        """Append a report: words, None at the end of a sentence."""
        numbers = self.numbers
        self.tokens.extend(END if word is None else numbers.setdefault(word, len(numbers)) for word in found)
        self.bounds.append(len(self.tokens))

    @property
    def words(self) -> list[str]:
        """The words in the order of their numbers."""
        return list(self.numbers)

    def of(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens of some reports, and for each token the place of its report in ``rows``; END after each report."""
        tokens, bounds = np.frombuffer(self.tokens, np.int32) if self.tokens else np.zeros(0, np.int32), self.bounds
        pieces = [np.append(tokens[bounds[row] : bounds[row + 1]], END) for row in rows]
        if not pieces:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        lengths = [len(piece) for piece in pieces]
        return np.concatenate(pieces).astype(np.int64), np.repeat(np.arange(len(rows)), lengths)


@dataclass
class Read:
    """What was read of n reports. streams: name -> Stream; status int8 [n, findings]: the rule's result for each.

    lower: how often each word of the plain stream stood in lower case, and upper: with a capital inside a sentence,
    in texts that are not in capitals; what is mostly spelt with a capital there may be a name.
    """

    lexicon: Lexicon
    streams: dict[str, Stream]
    status: NDArray[np.int8]
    capital: dict[str, list[int]]

    def maybe_name(self, word: str) -> bool:
        """Whether a word is mostly spelt with a capital within sentences, as names are."""
        small, large = self.capital.get(word, (0, 0))
        return large > small


def read(texts: Sequence[str], lexicon: Lexicon) -> Read:
    """Read all reports, one after the other; each different sentence is understood once as long as it is remembered."""
    streams = {name: Stream() for name in STREAMS}
    place = {name: number for number, name in enumerate(lexicon.findings)}
    status = np.zeros((len(texts), len(place)), np.int8)
    capital: dict[str, list[int]] = {}

    @lru_cache(maxsize=100_000)
    def understood(sentence: str) -> tuple[tuple[str, ...], tuple[tuple[str, int], ...]]:
        kept, mentioned = list[str](), list[tuple[str, int]]()
        for found in pieces(words(sentence)):
            asserted = assertions(found)
            kept += [
                _SIGN[state] + stem(word)
                for word, state in zip(found, asserted, strict=True)
                if state not in (0, HISTORICAL) and word[0].isalpha() and word not in _EMPTY
            ]
            mentioned += mentions(found, asserted, lexicon)
        return tuple(kept), tuple(mentioned)

    for row, text in enumerate(texts):
        cleaned = clean(text)
        streams["plain"].add(_PLAIN_WORD.findall(text.lower()))
        streams["paper"].add(_paper(text))
        _count_capitals(cleaned, capital)
        context: list[str | None] = []
        found: list[tuple[str, int]] = []
        for kind, body in sections(cleaned):
            if kind in FACTS:
                for sentence in sentences(body):
                    kept, mentioned = understood(sentence)
                    context += [*kept, None]
                    found += mentioned
        streams["context"].add(context)
        if context:
            for name, state in strongest(found, lexicon).items():
                status[row, place[name]] = state
    return Read(lexicon, streams, status, capital)


def _paper(text: str) -> Iterator[str | None]:
    cleaned = re.sub(r"[_-]", "", re.sub(r"[\r\n]+", " ", text.lower()))
    for word in _PAPER_WORD.findall(re.sub(r"\d", "", cleaned)):
        yield None if word == "." else stem(word)


_CASED = re.compile(r"(?<=[a-z,] )[A-Za-z][a-z]+")
_TITLED = re.compile(r"\b(?:Drs?|Mr|Mrs|Ms|Prof|[A-Z])\. ?([A-Z][a-z]+)")


def _count_capitals(text: str, counts: dict[str, list[int]]) -> None:
    """Count each word after a lower-case letter or comma and a blank, and names after titles and initials: in lower
    case, or with a capital. As it is written and by its stem, which features hold."""
    for word in (*_CASED.findall(text), *_TITLED.findall(text)):
        for name in {word.lower(), stem(word.lower())}:
            counts.setdefault(name, [0, 0])[word[0].isupper()] += 1

"""The rule: which findings a report asserts, denies or leaves open, without any labelled report."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from domainseg.labeling.assertion import AFFIRMED, HISTORICAL, NEGATED, UNCERTAIN
from domainseg.labeling.lexicon import Finding, Lexicon

#: The rule's result for a finding of a report: status -> word. No mention at all, or only in the past, is 0.
STATUS = {AFFIRMED: "positive", NEGATED: "negative", UNCERTAIN: "uncertain", 0: "unmentioned"}
#: How sure of the finding each result is; the rule's AUC is over this order.
ORDER = {AFFIRMED: 3, UNCERTAIN: 2, 0: 1, NEGATED: 0}
_STRONGEST = (AFFIRMED, UNCERTAIN, NEGATED)  # of several mentions, as in CheXpert


def mentions(words: Sequence[str], status: Sequence[int], lexicon: Lexicon) -> list[tuple[str, int]]:
    """(finding, status) for each mention in a sentence; ``status`` is that of its words, from ``assertions``."""
    names = lexicon.candidates(words)
    if not names:
        return []
    text = " ".join(words)
    starts = [0, *accumulate(len(word) + 1 for word in words)]
    found = []
    for name in names:
        finding = lexicon.findings[name]
        for start, end in _terms(finding, text):
            span = status[bisect_right(starts, start) - 1 : bisect_right(starts, end - 1)]
            found.append((name, _of_span(span)))
        if finding.normal is not None and finding.normal.search(text):
            found.append((name, NEGATED))
    return found


def _terms(finding: Finding, text: str) -> Iterable[tuple[int, int]]:
    """Where the terms stand, without those within a phrase that means something else."""
    if finding.terms is None:
        return
    other = _spans(finding.excluded, text)
    for start, end in _spans(finding.terms, text):
        if not any(first < end and start < last for first, last in other):
            yield start, end


def _spans(pattern: re.Pattern[str] | None, text: str) -> list[tuple[int, int]]:
    return [] if pattern is None else [match.span() for match in pattern.finditer(text)]


def _of_span(span: Sequence[int]) -> int:
    for status in (NEGATED, UNCERTAIN, HISTORICAL):
        if status in span:
            return status
    return AFFIRMED


def strongest(found: Iterable[tuple[str, int]], lexicon: Lexicon) -> dict[str, int]:
    """The status of each finding of a report from all its mentions: asserted before doubted before denied."""
    seen: dict[str, set[int]] = {}
    for name, status in found:
        seen.setdefault(name, set()).add(status)
    result = {}
    for name, finding in lexicon.findings.items():
        own = set(seen.get(name, ()))
        for other in finding.includes:
            own |= seen.get(other, set())
        if status := next((status for status in _STRONGEST if status in own), 0):
            result[name] = status
    for name, finding in lexicon.findings.items():
        if finding.without and not any(result.get(other) in (AFFIRMED, UNCERTAIN) for other in finding.without):
            result[name] = AFFIRMED
    return result


def as_label(status: int, unknown: Mapping[str, float]) -> float:
    """1, 0 or NaN; ``unknown`` says what "uncertain" and "unmentioned" become."""
    return {AFFIRMED: 1.0, NEGATED: 0.0}.get(status, unknown.get(STATUS[status], float("nan")))

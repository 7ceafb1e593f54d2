"""Operating points: thresholds chosen on tune by a named rule, written down and frozen.

A call is ``score >= threshold``, at tune and ever after.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.evaluation.intervals import Array

ENOUGH = 40  # tune cases of the class that the rule keeps; with fewer the threshold is provisional

# Each rule keeps a fraction of the positives: of frontal films, of hips, of metal, of fractures.
RULES: dict[str, float] = {"sensitivity_0.95": 0.95, "keep_0.99": 0.99, "catch_0.99": 0.99, "keep_all": 1.0}


@dataclass(frozen=True)
class Threshold:
    """A frozen threshold and how it came about.

    value: finite, on the scale of the scores. kept: fraction of tune positives at or above it, excluded ones counted
    as missed; reached: whether that is what the rule asks. specificity: fraction of tune negatives below it (NaN
    without negatives). provisional: fewer than 40 tune positives.
    """

    value: float
    rule: str
    chosen_on: str
    n_positive: int
    n_negative: int
    kept: float
    specificity: float
    reached: bool
    provisional: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to stages/<name>/threshold.json."""
        return asdict(self)


def choose_threshold(label: NDArray[Any], score: Array, rule: str, *, chosen_on: str = "tune") -> Threshold:
    """The highest threshold at which ``rule`` holds for the tune cases.

    label 1 or 0 [n] (NaN = unknown, left out); score [n] in [0, 1], or -inf for an excluded positive, +inf for an
    excluded negative (NaN = not scored, left out). Where exclusions alone break the rule, the lowest score of a
    positive is taken and ``reached`` is False. Without any scored positive the value is 0.5 and provisional.
    Raises ValueError for an unknown rule, naming those there are.
    """
    if rule not in RULES:
        raise ValueError(f"threshold rule {rule!r} is unknown; known: {', '.join(RULES)}")
    label, score = np.asarray(label, np.float64), np.asarray(score, np.float64)
    known = ~np.isnan(label) & ~np.isnan(score)
    positive, negative = np.sort(score[known & (label == 1)]), score[known & (label == 0)]
    finite = positive[np.isfinite(positive)]
    if len(finite):
        may_miss = len(positive) - int(np.ceil(RULES[rule] * len(positive) - 1e-9))
        value = float(positive[may_miss]) if np.isfinite(positive[may_miss]) else float(finite[0])
    else:
        value = 0.5
    kept = float((positive >= value).mean()) if len(positive) else np.nan
    return Threshold(
        value=value,
        rule=rule,
        chosen_on=chosen_on,
        n_positive=len(positive),
        n_negative=len(negative),
        kept=kept,
        specificity=float((negative < value).mean()) if len(negative) else np.nan,
        reached=bool(kept >= RULES[rule]),
        provisional=len(positive) < ENOUGH,
    )

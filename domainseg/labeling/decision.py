"""From probability to label: a threshold and a band of the unknown, both from out-of-fold predictions of training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RULES = ("f1", "youden", "prevalence")
ENOUGH = 40  # positives of the training part; with fewer a threshold is provisional
FEWEST_CALLED = 5  # out-of-fold calls that a bound of the band must rest on


@dataclass(frozen=True)
class Decision:
    """threshold: of the call, score >= threshold. A label is 1 from ``high`` on, 0 below ``low``, between them unknown.

    high is infinite where no threshold makes the wanted share of the called right.
    """

    threshold: float
    low: float
    high: float
    rule: str
    n_positive: int
    n_negative: int

    def called(self, score: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each score is called positive."""
        return score >= self.threshold

    def labels(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """1, 0 or NaN = unknown."""
        return np.where(score >= self.high, 1.0, np.where(score < self.low, 0.0, np.nan))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "provisional": self.n_positive < ENOUGH}


def decide(label: NDArray[Any], score: NDArray[np.float64], rule: str, certainty: float) -> Decision:
    """Choose the threshold and the band from labels 1 or 0 [n] and out-of-fold probabilities [n].

    rule: f1 = the best harmonic mean of sensitivity and PPV; youden = the best sum of sensitivity and specificity;
    prevalence = the share of positives, as in Zech et al. 2018. certainty: of reports that are given a 1 at least
    this share is right, and of the positives at most the rest is given a 0; 0 = no band.
    """
    order = np.argsort(-score, kind="stable")
    ranked, positive = score[order], np.cumsum(label[order] == 1)
    called = np.arange(1, len(label) + 1)
    ends = np.r_[ranked[1:] != ranked[:-1], True]  # equal scores are called together
    values, positive, called = ranked[ends], positive[ends], called[ends]
    n_positive, n_negative = int((label == 1).sum()), int((label == 0).sum())
    if rule == "prevalence":
        threshold = n_positive / len(label)
    else:
        sensitivity, false = positive / max(n_positive, 1), (called - positive) / max(n_negative, 1)
        merit = 2 * positive / (called + n_positive) if rule == "f1" else sensitivity - false
        threshold = _between(values, int(np.argmax(merit)))
    if certainty <= 0:
        return Decision(threshold, threshold, threshold, rule, n_positive, n_negative)
    right = (positive / called >= certainty) & (called >= min(FEWEST_CALLED, n_positive)) & (values >= threshold)
    high = np.inf
    if right.any():
        last = int(np.flatnonzero(right)[-1])
        above = int(np.flatnonzero(values >= threshold)[-1])
        high = threshold if last == above else _between(values, last)
    enough = np.flatnonzero(positive / max(n_positive, 1) >= certainty - 1e-9)
    low = min(threshold, _between(values, int(enough[0]))) if len(enough) else 0.0
    return Decision(threshold, float(low), float(high), rule, n_positive, n_negative)


def _between(values: NDArray[np.float64], place: int) -> float:
    """Midway between a score and the next lower one, so that neither lies on the threshold."""
    return float(values[place] if place + 1 >= len(values) else (values[place] + values[place + 1]) / 2)

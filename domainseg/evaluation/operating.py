"""Operating points: thresholds chosen on tune by a named rule, written down and frozen.

A call is ``score >= threshold``, at tune and ever after.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from domainseg.evaluation.calibration import logit
from domainseg.evaluation.intervals import LEVEL, RESAMPLES, Array, Metric, codes, drawn_sums, empty, proportion

ENOUGH = 40  # tune cases of the class that the rule keeps; with fewer the threshold is provisional
JUDGED = 3  # scored positives that a filter may throw away most of the negatives for (our choice)
MARGIN = 0.1  # log-odds between all tune scores and a threshold that no positive gives (our choice)

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
    positive is taken and ``reached`` is False.

    What nobody has judged is not thrown away: without a scored positive the threshold lies beyond all scores, labelled
    or not, where every case goes on: above them (at least 0.5) for a rule that catches cases to exclude them, below
    them (at most 0.5) for one that keeps cases. Where fewer than JUDGED positives would make a catching rule exclude
    more than half of the negatives, it lies above all negatives.
    Raises ValueError for an unknown rule, naming those there are.
    """
    if rule not in RULES:
        raise ValueError(f"threshold rule {rule!r} is unknown; known: {', '.join(RULES)}")
    label, score = np.asarray(label, np.float64), np.asarray(score, np.float64)
    known = ~np.isnan(label) & ~np.isnan(score)
    positive, negative = np.sort(score[known & (label == 1)]), score[known & (label == 0)]
    finite = positive[np.isfinite(positive)]
    catches = excludes_above(rule)
    if len(finite):
        may_miss = len(positive) - int(np.ceil(RULES[rule] * len(positive) - 1e-9))
        value = float(positive[may_miss]) if np.isfinite(positive[may_miss]) else float(finite[0])
        judged = negative[np.isfinite(negative)]
        if catches and len(finite) < JUDGED and len(judged) and (judged >= value).mean() > 0.5:
            value = _above(judged)
    else:
        scores = score[np.isfinite(score)]
        value = max(_above(scores), 0.5) if catches else min(_below(scores), 0.5)
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


def on_test_threshold(label: NDArray[Any], score: Array, sensitivity: float = 0.95) -> float:
    """The threshold as Zech et al. 2018 chose it on the test set itself: to compare with their table, never to use.

    label 1 or 0 [n] (NaN left out), score [n] (what is not finite left out). From the highest score down, until
    ceil(sensitivity * positives) positives are at or above it: 38 of 39 for 0.95. NaN without positives.
    """
    label, score = np.asarray(label, np.float64), np.asarray(score, np.float64)
    positive = np.sort(score[(label == 1) & np.isfinite(score)])[::-1]
    if not len(positive):
        return np.nan
    return float(positive[max(1, int(np.ceil(sensitivity * len(positive) - 1e-9))) - 1])


def on_test_thresholds(label: NDArray[Any], score: Array, fold: NDArray[Any], sensitivity: float = 0.95) -> Array:
    """``on_test_threshold`` of each row's fold [n], which has a model, and so a scale of scores, of its own."""
    out = np.full(len(score), np.nan)
    for name in np.unique(fold):
        out[fold == name] = on_test_threshold(label[fold == name], score[fold == name], sensitivity)
    return out


def threshold_at(
    label: NDArray[Any], score: Array, *, sensitivity: float | None = None, specificity: float | None = None
) -> float:
    """The highest threshold with at least this sensitivity, or the lowest with at least this specificity.

    label 1 or 0 [n] (NaN left out), score [n] (what is not finite left out). A specificity of 1 gives the next number
    above all scores. NaN without cases of the class.
    """
    if sensitivity is not None:
        return on_test_threshold(label, score, sensitivity)
    if specificity is None:
        raise ValueError("threshold_at: give a sensitivity or a specificity")
    label, score = np.asarray(label, np.float64), np.asarray(score, np.float64)
    negative = np.sort(score[(label == 0) & np.isfinite(score)])
    if not len(negative):
        return np.nan
    below = int(np.ceil(specificity * len(negative) - 1e-9))  # negatives that must lie below the threshold
    return float(np.nextafter(negative[below - 1], np.inf)) if below else float(negative[0])


DECISIONS = ("accuracy", "sensitivity", "specificity", "ppv", "npv", "lr_positive", "lr_negative")


def decisions(
    label: NDArray[Any], called: NDArray[np.bool_], clusters: NDArray[Any], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Metric]:
    """Accuracy, sensitivity, specificity, PPV, NPV and likelihood ratios of calls [n] for labels 1 or 0 [n].

    The threshold is taken as given: where it was chosen on the same cases, the intervals don't tell of that.
    """
    positive, called = np.asarray(label) == 1, np.asarray(called, dtype=bool)
    among = (np.ones(len(called), dtype=bool), positive, ~positive, called, ~called)
    right = called == positive
    out = {
        name: proportion(right[mask], clusters[mask], resamples=resamples, seed=seed)
        for name, mask in zip(DECISIONS, among, strict=False)
    }
    ratios = likelihood_ratios(positive, called, clusters, resamples=resamples, seed=seed)
    return out | dict(zip(DECISIONS[5:], ratios, strict=True))


def likelihood_ratios(
    label: NDArray[Any], called: NDArray[np.bool_], clusters: NDArray[Any], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Metric, Metric]:
    """Likelihood ratios of a positive and of a negative call, sensitivity / (1 - specificity) and its counterpart.

    Intervals on the logarithmic scale (Simel, Samsa and Matchar 1991) where patients have one row each, else patient
    bootstrap. Where a cell of the table of calls and labels is 0 the bounds are on the logarithmic scale, with 1/2
    added to each cell, the cells first scaled to the patients of their class where these have several rows, and named
    so; a ratio may be infinite. So are those of a bootstrap in which too many resamples have an infinite ratio, or
    none, to have a bound. Of calls that no case got nothing is said.
    """
    positive, called = np.asarray(label) == 1, np.asarray(called, dtype=bool)
    n = len(positive)
    k = codes(clusters)[1] if n else 0
    m = int(positive.sum())
    if m in (0, n):
        return empty("one class only" if n else "no cases", n, k), empty("one class only" if n else "no cases", n, k)
    patients = [len(np.unique(clusters[mask])) for mask in (positive, ~positive)]
    out = []
    for side in (called, ~called):
        hits, false = int((side & positive).sum()), int((side & ~positive).sum())
        if hits == false == 0:
            out.append(empty("no such call", n, k))
            continue
        with np.errstate(divide="ignore"):
            value = float(np.divide(hits / m, false / (n - m)))
        add = 0.5 if 0 in (hits, false, m - hits, n - m - false) else 0.0
        a, b = hits * patients[0] / m + add, patients[0] + 2 * add
        c, d = false * patients[1] / (n - m) + add, patients[1] + 2 * add
        middle, reach = np.log((a / b) / (c / d)), 1.959963985 * np.sqrt(1 / a - 1 / b + 1 / c - 1 / d)
        low, high, method = float(np.exp(middle - reach)), float(np.exp(middle + reach)), "log scale"
        if k < n and add:
            method = "log scale at the number of patients"
        elif k < n:
            drawn = _ratio_bounds(side, positive, clusters, resamples, seed)
            if np.isfinite(drawn).all():
                low, high, method = *drawn, "patient bootstrap"
            else:
                method = "log scale at the number of patients"
        low, high = (0.0 if hits == 0 else low), (np.inf if false == 0 else high)
        out.append(Metric(value=value, low=low, high=high, n=n, n_clusters=k, method=method))
    return out[0], out[1]


def _ratio_bounds(
    side: NDArray[np.bool_], positive: NDArray[np.bool_], clusters: NDArray[Any], resamples: int, seed: int
) -> tuple[float, float]:
    rows, k = codes(clusters)
    columns = (side & positive, positive, side & ~positive, ~positive)
    counts = np.array([np.bincount(rows, weights=column, minlength=k) for column in columns], np.float64)
    a, b, c, d = drawn_sums(counts, resamples=resamples, seed=seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (a / b) / (c / d)  # infinite without false calls; NaN, and left out, where a class was not drawn
    ratios = np.sort(ratios[~np.isnan(ratios)])
    if not len(ratios):
        return np.nan, np.nan
    # Without interpolation: between a number and infinity there is nothing.
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return float(low), float(high)


def excludes_above(rule: str) -> bool:
    """Whether the cases at or above the threshold of ``rule`` are taken out, not those below it."""
    return rule.startswith("catch_")


def _above(scores: Array) -> float:
    """A threshold above all scores; 1 where they reach the end of the scale, 0 without any."""
    highest = scores.max(initial=0.0)
    return float(min(max(expit(logit(highest) + MARGIN), highest * (1 + 1e-9)), 1.0))


def _below(scores: Array) -> float:
    """A threshold below all scores (at 0 where they reach the end of the scale), 1 without any."""
    lowest = scores.min(initial=1.0)
    return float(min(expit(logit(lowest) - MARGIN), lowest * (1 - 1e-9)))

"""Area under the ROC curve with its interval, for one row or several rows a patient, and for paired scores.

Everything rests on placements: a positive's placement is the fraction of negatives below it (ties count half). The
AUC is their mean; its variance comes from how they scatter between patients. DeLong, DeLong and Clarke-Pearson 1988,
computed by ranks as in Sun and Xu 2014; with several rows a patient Obuchowski 1997, which becomes DeLong's when each
patient has one. With folds, cases are compared within their fold only, and the AUC is the mean over all such pairs.
Scores may be infinite: judged on intention, an excluded positive scores -inf and an excluded negative +inf.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata
from scipy.stats import t as student

from domainseg.evaluation.intervals import LEVEL, Array, Metric, apart, codes, empty, exact, p_apart

_TINY = 1e-20  # a variance below this is rounding: the scores can't say how sure the AUC is


@dataclass(frozen=True)
class Influence:
    """An AUC and what each of k clusters adds to its error: ``positive`` and ``negative`` [k], summing to 0 each."""

    auc: float
    positive: Array
    negative: Array


def influence(label: NDArray[Any], score: Array, rows: NDArray[np.intp], k: int, fold: NDArray[Any]) -> Influence:
    """Placements of all rows, summed by cluster. label 1 or 0 [n]; score [n], no NaN; rows: cluster number [n].

    The AUC is NaN when no fold has both classes.
    """
    placement, weight = np.zeros(len(label)), np.zeros(len(label))
    for name in np.unique(fold):
        members = np.flatnonzero(fold == name)
        positive, negative = members[label[members] == 1], members[label[members] == 0]
        m, n = len(positive), len(negative)
        if m == 0 or n == 0:
            continue  # no pair to compare: the fold has no say
        both = rankdata(score[np.concatenate([positive, negative])])
        placement[positive] = (both[:m] - rankdata(score[positive])) / n
        placement[negative] = 1 - (both[m:] - rankdata(score[negative])) / m
        weight[positive], weight[negative] = n, m
    pairs = float(weight[label == 1].sum())
    if pairs == 0:
        return Influence(np.nan, np.zeros(k), np.zeros(k))
    auc = float((weight * placement)[label == 1].sum() / pairs)
    residual = weight * (placement - auc) / pairs
    share = [np.zeros(k), np.zeros(k)]
    for side, sums in zip((1, 0), share, strict=True):
        np.add.at(sums, rows[label == side], residual[label == side])
    return Influence(auc, share[0], share[1])


def variance(
    positive: Array, negative: Array, has_positive: NDArray[np.bool_], has_negative: NDArray[np.bool_]
) -> float:
    """Obuchowski's variance from the influence of k clusters; NaN when a class has fewer than 2 patients."""
    m, n, k = int(has_positive.sum()), int(has_negative.sum()), len(positive)
    if m < 2 or n < 2:
        return np.nan
    own = m / (m - 1) * float(positive @ positive) + n / (n - 1) * float(negative @ negative)
    return max(0.0, own + 2 * k / (k - 1) * float(positive @ negative))


def quantile(
    positive: Array,
    negative: Array,
    has_positive: NDArray[np.bool_],
    has_negative: NDArray[np.bool_],
    level: float = LEVEL,
) -> float:
    """How many standard errors the interval of an AUC reaches: Student's t in place of the normal 1.96.

    At a high AUC few positives carry most of the variance, so that it is known less well than its patients are many.
    Degrees of freedom are 2 V^2 / var(V) (Satterthwaite 1946), var(V) from how the squared parts of patients scatter
    (Pan and Wall 2002 for sandwich variances), or Welch's, which go by the number of patients, where these are fewer.
    """
    squares, scatter, welch = 0.0, 0.0, 0.0
    for part, count in ((positive, int(has_positive.sum())), (negative, int(has_negative.sum()))):
        own = float(part @ part)
        squares += own
        scatter += float((part**4).sum()) - own**2 / count
        welch += own**2 / (count - 1)
    if squares < _TINY:
        return float(norm.ppf((1 + level) / 2))
    freedom = min(squares**2 / welch, 2 * squares**2 / max(scatter, 1e-12 * squares**2))
    return float(student.ppf((1 + level) / 2, freedom))


def auc(
    label: NDArray[Any],
    score: Array,
    clusters: NDArray[Any] | None = None,
    fold: NDArray[Any] | None = None,
    *,
    plain: bool = False,
    level: float = LEVEL,
) -> Metric:
    """AUC of scores [n] (no NaN, infinities allowed) against labels 1 or 0 [n], with its interval on the logit scale.

    The interval reaches as many standard errors as ``quantile`` says. clusters [n]: patients, one each when absent.
    fold [n]: compare within folds only (pair-weighted mean). plain=True gives the interval AUC +- 1.96 SE, only to
    compare with pROC. An AUC whose variance is 0, as at exactly 1 or 0, gets the exact binomial bound at the smaller
    number of patients, method "degenerate".
    """
    label, score = np.asarray(label), np.asarray(score, dtype=np.float64)
    if np.isnan(score).any():
        raise ValueError("auc: a score is NaN; leave such rows out, or give them -inf or +inf")
    n = len(label)
    if n == 0:
        return empty()
    rows, k = codes(np.arange(n) if clusters is None else clusters)
    folds = np.zeros(n, dtype=np.int8) if fold is None else fold
    parts = influence(label, score, rows, k, folds)
    if np.isnan(parts.auc):
        return empty("one class only", n, k)
    several = f", within {len(np.unique(folds))} folds" if len(np.unique(folds)) > 1 else ""
    has = [np.bincount(rows[label == side], minlength=k) > 0 for side in (1, 0)]
    spread = variance(parts.positive, parts.negative, has[0], has[1])
    value = parts.auc
    if value in (0.0, 1.0) or spread < _TINY:
        low, high = exact(value, min(int(has[0].sum()), int(has[1].sum())), level)
        method = "degenerate"
    elif np.isnan(spread):
        low, high, method = np.nan, np.nan, "fewer than 2 patients in a class"
    else:
        error = float(np.sqrt(spread))
        method = ("delong" if k == n else "obuchowski") + ("" if plain else " logit")
        if plain:
            z = float(norm.ppf((1 + level) / 2))
            low, high = max(0.0, value - z * error), min(1.0, value + z * error)
        else:
            reach = quantile(parts.positive, parts.negative, has[0], has[1], level) * error / (value * (1 - value))
            centre = np.log(value / (1 - value))
            low, high = (float(1 / (1 + np.exp(-edge))) for edge in (centre - reach, centre + reach))
    return Metric(value=value, low=low, high=high, n=n, n_clusters=k, method=method + several)


def difference(
    label: NDArray[Any],
    score_a: Array,
    score_b: Array,
    clusters: NDArray[Any] | None = None,
    fold: NDArray[Any] | None = None,
    *,
    level: float = LEVEL,
) -> tuple[Metric, float]:
    """AUC of a minus AUC of b on the same rows, with interval and two-sided p-value (normal approximation).

    DeLong's paired test, Obuchowski's with several rows a patient. Where the difference has no variance, as when both
    scores order all pairs alike, the bound is what 0 discordant patients of the smaller class can exclude, of which p
    is; 1 where there is no difference.
    """
    n = len(label)
    label = np.asarray(label)
    rows, k = codes(np.arange(n) if clusters is None else clusters) if n else (np.zeros(0, np.intp), 0)
    folds = np.zeros(n, dtype=np.int8) if fold is None else fold
    a, b = (influence(label, np.asarray(score, np.float64), rows, k, folds) for score in (score_a, score_b))
    value = a.auc - b.auc
    if np.isnan(value):
        return empty("one class only" if n else "no cases", n, k), np.nan
    has = [np.bincount(rows[label == side], minlength=k) > 0 for side in (1, 0)]
    spread = variance(a.positive - b.positive, a.negative - b.negative, has[0], has[1])
    if np.isnan(spread):
        return Metric(
            value=value, low=np.nan, high=np.nan, n=n, n_clusters=k, method="fewer than 2 patients in a class"
        ), np.nan
    if spread < _TINY:
        reach = exact(0.0, min(int(has[0].sum()), int(has[1].sum())), level)[1]
        gap = Metric(value=value, low=value - reach, high=value + reach, n=n, n_clusters=k, method="degenerate")
        p, method = p_apart(gap, level), "degenerate"
    else:
        reach = float(norm.ppf((1 + level) / 2) * np.sqrt(spread))
        p, method = float(2 * norm.sf(abs(value) / np.sqrt(spread))), "delong paired" if k == n else "obuchowski paired"
    low, high = max(-1.0, value - reach), min(1.0, value + reach)
    return Metric(value=value, low=low, high=high, n=n, n_clusters=k, method=method), p


def unpaired(
    label_a: NDArray[Any],
    score_a: Array,
    label_b: NDArray[Any],
    score_b: Array,
    clusters_a: NDArray[Any] | None = None,
    clusters_b: NDArray[Any] | None = None,
    fold_a: NDArray[Any] | None = None,
    fold_b: NDArray[Any] | None = None,
    *,
    level: float = LEVEL,
) -> tuple[Metric, float]:
    """AUC of a minus AUC of b on different cases, with interval and two-sided p-value (normal approximation).

    Labels 1 or 0, scores without NaN. The variances of both AUCs add up (DeLong, DeLong and Clarke-Pearson 1988); a
    patient with rows on both sides, told by the name in clusters_a and clusters_b, takes the covariance off again.
    fold_a, fold_b: compare within folds only, as ``auc`` does.
    Where one AUC is degenerate (exactly 1, say) its exact bound enters the interval as in Newcombe 1998, of which p is.
    """
    sides = ((label_a, score_a, clusters_a, fold_a), (label_b, score_b, clusters_b, fold_b))
    one, two = (auc(*side, level=level) for side in sides)
    value, n = one["value"] - two["value"], one["n"] + two["n"]
    names = [
        np.asarray([f"{side} {row}" for row in range(len(label))] if clusters is None else clusters, dtype=str)
        for side, (label, _, clusters, _) in zip("ab", sides, strict=True)
    ]
    rows, k = codes(np.concatenate(names))

    def metric(low: float, high: float, method: str) -> Metric:
        return Metric(value=value, low=max(-1.0, low), high=min(1.0, high), n=n, n_clusters=k, method=method)

    if np.isnan(value):
        return empty("one class only" if n else "no cases", n, k), np.nan
    if np.isnan(one["low"]) or np.isnan(two["low"]):
        return Metric(
            value=value, low=np.nan, high=np.nan, n=n, n_clusters=k, method="fewer than 2 patients in a class"
        ), np.nan
    if "degenerate" in one["method"] or "degenerate" in two["method"]:
        gap = apart(one, two)
        return metric(gap["low"], gap["high"], "degenerate"), p_apart(gap, level)
    errors, spread, cut = [], 0.0, len(names[0])
    for (label, score, _, fold), members in zip(sides, (rows[:cut], rows[cut:]), strict=True):
        label = np.asarray(label)
        folds = np.zeros(len(label), np.int8) if fold is None else fold
        parts = influence(label, np.asarray(score, np.float64), members, k, folds)
        has = [np.bincount(members[label == c], minlength=k) > 0 for c in (1, 0)]
        spread += variance(parts.positive, parts.negative, has[0], has[1])
        errors.append(parts.positive + parts.negative)
    spread = max(_TINY, spread - 2 * float(errors[0] @ errors[1]))
    reach = float(norm.ppf((1 + level) / 2) * np.sqrt(spread))
    method = "delong unpaired" if k == n else "obuchowski unpaired"
    return metric(value - reach, value + reach, method), float(2 * norm.sf(abs(value) / np.sqrt(spread)))


def weighted_auc(label: NDArray[Any], score: Array) -> Callable[[Array], Array]:
    """AUC as a function of row weights [b, n] -> [b], for the bootstrap: scores are sorted once, then only summed."""
    label, score = np.asarray(label), np.asarray(score)
    positives, negatives = np.flatnonzero(label == 1), np.flatnonzero(label != 1)
    negatives = negatives[np.argsort(score[negatives], kind="stable")]
    # Negatives below each positive, without and with those of the same score: the mean of both counts ties half.
    first, last = (np.searchsorted(score[negatives], score[positives], side=side) for side in ("left", "right"))

    def statistic(weights: Array) -> Array:
        positive = weights.take(positives, axis=1)
        below = np.zeros((len(weights), len(negatives) + 1))
        np.cumsum(weights.take(negatives, axis=1), axis=1, out=below[:, 1:])
        pairs = positive.sum(axis=1) * below[:, -1]
        out = np.full(len(weights), np.nan)
        hits = (positive * (below.take(first, axis=1) + below.take(last, axis=1))).sum(axis=1) / 2
        np.divide(hits, pairs, out=out, where=pairs > 0)
        return out

    return statistic


def curve(label: NDArray[Any], score: Array) -> tuple[Array, Array]:
    """False and true positive rates of the ROC curve, from (0, 0) to (1, 1); infinite scores allowed."""
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(label, rankdata(score))
    return np.asarray(false, np.float64), np.asarray(true, np.float64)

"""Probabilities that mean what they say: Platt's slope and intercept, and how far predictions are from outcomes.

The same two-parameter logistic regression serves twice: fitted on tune it is the calibration (Platt 1999), fitted on
test predictions its slope and intercept tell how well calibrated they are (Cox 1958; 1 and 0 are perfect).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.special import logit as _logit

from domainseg.evaluation.intervals import Array, Metric, empty, proportion, weighted_all

_EDGE = 1e-7  # probabilities nearer to 0 or 1 are moved here before a logit is taken
_BINS = 10
_STEPS = 50
_STEEPEST = 1e4  # a slope beyond this is on its way to infinity

MEASURES = ("calibration_in_the_large", "calibration_slope", "calibration_intercept", "ece", "brier")


@dataclass(frozen=True)
class Platt:
    """Calibrated probability = expit(slope * logit + intercept). ``method`` says how the two numbers were found."""

    slope: float = 1.0
    intercept: float = 0.0
    method: str = "identity"
    n_positive: int = 0
    n_negative: int = 0

    def __call__(self, logit: Array) -> Array:
        """Network logits (any shape) -> probabilities in [0, 1]; NaN stays NaN."""
        return np.asarray(expit(self.slope * np.asarray(logit, np.float64) + self.intercept))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to stages/<name>/calibration.json."""
        return asdict(self)


def logit(probability: Array) -> Array:
    """Log-odds, with probabilities kept 1e-7 away from 0 and 1."""
    return np.asarray(_logit(np.clip(np.asarray(probability, np.float64), _EDGE, 1 - _EDGE)))


def fit_platt(label: NDArray[Any], logits: Array) -> Platt:
    """Maximum-likelihood slope and intercept on tune; label 1, 0 or NaN [n], raw network logits [n] (NaN left out).

    Where the classes are separated the likelihood has no maximum: Platt's smoothed targets, (n1 + 1) / (n1 + 2) and
    1 / (n0 + 2), are fitted instead. A slope that isn't positive would turn the ranking round: then only the
    intercept is fitted. With one class, or none, nothing can be fitted and the identity is returned.
    """
    label, logits = np.asarray(label, np.float64), np.asarray(logits, np.float64)
    known = ~np.isnan(label) & np.isfinite(logits)
    label, logits = label[known], logits[known]
    m, n = int((label == 1).sum()), int((label == 0).sum())
    if m == 0 or n == 0:
        return Platt(method="identity: one class only", n_positive=m, n_negative=n)
    low, high = logits[label == 1].min(), logits[label == 0].max()
    target, method = label, "logistic regression"
    if low >= high:
        target = np.where(label == 1, (m + 1) / (m + 2), 1 / (n + 2))
        method = "logistic regression on smoothed targets: classes are separated"
    ones = np.ones((1, len(label)))
    # Logits may lie far from 0: the fit is made on a standard scale and taken back.
    centre, scale = float(logits.mean()), float(logits.std())
    slope, intercept = 0.0, 0.0
    if scale > 0:
        slopes, intercepts = logistic(target, (logits - centre) / scale, ones)
        slope, intercept = float(slopes[0]) / scale, float(intercepts[0] - slopes[0] * centre / scale)
    if not (np.isfinite(slope) and slope > 0):
        slope, intercept = 1.0, float(offset(label, logits, ones)[0])
        method = "intercept only: the scores don't rise with the label"
    return Platt(slope, intercept, method, m, n)


def logistic(target: Array, x: Array, weights: Array, start: tuple[float, float] = (0.0, 0.0)) -> tuple[Array, Array]:
    """Slopes and intercepts [b] of b weighted logistic regressions of target [n] in [0, 1] on x [n], weights [b, n].

    Newton's method from ``start`` (slope, intercept), long steps halved until they help; NaN where it does not
    converge (separated or constant data).
    """
    b = len(weights)
    slope, intercept = np.full(b, start[0]), np.full(b, start[1])
    done = np.zeros(b, dtype=bool)

    def loss(s: Array, i: Array, w: Array) -> Array:
        eta = s[:, None] * x + i[:, None]
        return np.asarray((w * (np.logaddexp(0, eta) - target * eta)).sum(axis=1))

    active = np.arange(b)
    for _ in range(_STEPS):
        w, s, i = weights[active], slope[active], intercept[active]
        p = expit(s[:, None] * x + i[:, None])
        error, curve = w * (target - p), w * p * (1 - p)
        g0, g1 = error.sum(axis=1), error @ x
        h00, h01, h11 = curve.sum(axis=1), curve @ x, curve @ (x * x)
        determinant = h00 * h11 - h01 * h01
        with np.errstate(divide="ignore", invalid="ignore"):
            step0, step1 = (h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant
        broken = ~(np.isfinite(step0) & np.isfinite(step1)) | (np.abs(s) > _STEEPEST)
        step0[broken], step1[broken] = 0, 0
        size = np.ones(len(active))
        if max(np.abs(step0).max(), np.abs(step1).max()) > 0.5:
            before = loss(s, i, w)
            for _ in range(10):
                worse = loss(s + size * step1, i + size * step0, w) > before + 1e-9 * np.abs(before)
                if not worse.any():
                    break
                size[worse] /= 2
        slope[active] += size * step1
        intercept[active] += size * step0
        settled = broken | ((np.abs(step0) < 1e-6) & (np.abs(step1) < 1e-6))
        done[active[settled & ~broken]] = True
        active = active[~settled]
        if not len(active):
            break
    slope[~done], intercept[~done] = np.nan, np.nan
    return slope, intercept


def offset(target: Array, x: Array, weights: Array, start: float = 0.0) -> Array:
    """Intercepts [b] of weighted logistic regressions whose slope is fixed at 1; NaN where one class has no weight.

    Newton's method inside a bracket that shrinks with every step.
    """
    total, hits = weights.sum(axis=1), weights @ target
    possible = (hits > 0) & (hits < total)
    low, high, at = np.full(len(weights), -60.0), np.full(len(weights), 60.0), np.full(len(weights), start)
    for _ in range(100):
        p = expit(x + at[:, None])
        excess = (weights * p).sum(axis=1) - hits
        low, high = np.where(excess < 0, at, low), np.where(excess < 0, high, at)
        with np.errstate(divide="ignore", invalid="ignore"):
            following = at - excess / (weights * p * (1 - p)).sum(axis=1)
        inside = (following >= low) & (following <= high)
        following = np.where(inside, following, (low + high) / 2)
        moved, at = np.abs(following - at)[possible], following
        if not (moved > 1e-8).any():
            break
    return np.where(possible, at, np.nan)


def calibration(
    label: NDArray[Any], score: Array, clusters: NDArray[Any], *, resamples: int = 500, seed: int = 0
) -> dict[str, Metric]:
    """Calibration of probabilities [n] against labels 1 or 0 [n], each with a patient-bootstrap interval.

    calibration_in_the_large: intercept at slope 1, in log-odds (0 is right, below 0 the scores are too high);
    calibration_slope (1 is right, below 1 the scores are too extreme) with calibration_intercept; ece: expected
    calibration error over ten bins of equal count; brier: mean squared error.

    Chance moves a bin away from its score whichever way it goes, so that resampling makes an ece larger, as the sample
    had made it already: its interval is drawn out to the value where it would lie above it.
    """
    label, score = np.asarray(label, np.float64), np.asarray(score, np.float64)
    if not len(label):
        return {name: empty() for name in MEASURES}
    x, ones, ece = logit(score), np.ones((1, len(label))), _ece(label, score)
    both = len(np.unique(label)) == 2
    # Resamples are fitted from where all cases together lead.
    slope, intercept = (float(v[0]) for v in logistic(label, x, ones)) if both else (np.nan, np.nan)
    begin = (slope, intercept) if np.isfinite(slope) else (0.0, 0.0)
    level = float(offset(label, x, ones)[0]) if both else 0.0

    def statistics(weights: Array) -> Array:
        undefined = np.full(len(weights), np.nan)
        slopes, intercepts = logistic(label, x, weights, begin) if np.isfinite(slope) else (undefined, undefined)
        in_the_large = offset(label, x, weights, level) if both else undefined
        brier = weights @ (score - label) ** 2 / weights.sum(axis=1)
        return np.stack([in_the_large, slopes, intercepts, ece(weights), brier], axis=1)

    found = weighted_all(statistics, len(MEASURES), clusters, resamples=resamples, seed=seed)
    out = dict(zip(MEASURES, found, strict=True))
    out["ece"]["low"] = min(out["ece"]["low"], out["ece"]["value"])
    if not both:
        for name in MEASURES[:3]:
            out[name] = empty("one class only", out[name]["n"], out[name]["n_clusters"])
    return out


def calibration_curve(
    label: NDArray[Any], score: Array, clusters: NDArray[Any], *, resamples: int = 500, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Bins of equal count, "1" the lowest: {score: mean score, observed: fraction of positives with its interval}."""
    label, score, member = np.asarray(label), np.asarray(score, np.float64), bins(np.asarray(score, np.float64))
    return {
        str(place + 1): {
            "score": float(score[mask].mean()),
            "observed": proportion(label[mask] == 1, clusters[mask], resamples=resamples, seed=seed),
        }
        for place, mask in enumerate(member == b for b in np.unique(member))
    }


def bins(score: Array, count: int = _BINS) -> NDArray[np.intp]:
    """Bin of each score [n]: ``count`` bins of equal count; equal scores share a bin, so there may be fewer."""
    edges = np.unique(np.quantile(score, np.linspace(0, 1, count + 1)[1:-1])) if len(score) else np.zeros(0)
    return np.searchsorted(edges, score, side="right")


def _ece(label: Array, score: Array) -> Callable[[Array], Array]:
    member = np.eye(_BINS)[bins(score)]

    def statistic(weights: Array) -> Array:
        gap = (weights * (score - label)) @ member  # per bin: weight x (mean score - mean label)
        return np.asarray(np.abs(gap).sum(axis=1) / weights.sum(axis=1))

    return statistic

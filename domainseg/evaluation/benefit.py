"""What a score is worth in use: net benefit over thresholds, and the probability of disease after a call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.evaluation.intervals import Array, Metric, weighted_all

# Probabilities at which one would act: dense where findings are rare.
THRESHOLDS = (*(k / 100 for k in range(1, 11)), *(k / 20 for k in range(3, 20)))
PREVALENCES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


def decision_curve(
    label: NDArray[Any],
    score: Array,
    clusters: NDArray[Any],
    *,
    thresholds: Iterable[float] = THRESHOLDS,
    resamples: int = 500,
    seed: int = 0,
) -> dict[str, dict[str, Metric]]:
    """Net benefit of acting on probabilities [n] at or above each threshold (Vickers and Elkin 2006).

    label 1 or 0 [n]. threshold -> {net_benefit, treat_all, gain}: true positives a case, less false positives a case
    times the odds of the threshold; the same when all are treated; the gain over the better of treating all and
    none. Patient bootstrap. The score must be a probability.
    """
    cuts = np.asarray(list(thresholds), dtype=np.float64)
    odds = cuts / (1 - cuts)
    label, score = np.asarray(label, np.float64), np.asarray(score, np.float64)
    called = score[:, None] >= cuts
    columns = np.concatenate([called & (label == 1)[:, None], called & (label == 0)[:, None]], axis=1).astype(
        np.float64
    )
    columns = np.concatenate([columns, label[:, None]], axis=1)

    def statistic(weights: Array) -> Array:
        shares = weights @ columns / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        benefit = shares[:, : len(cuts)] - odds * shares[:, len(cuts) : -1]
        treat_all = shares[:, -1:] - odds * (1 - shares[:, -1:])
        return np.concatenate([benefit, treat_all, benefit - np.maximum(treat_all, 0)], axis=1)

    found = weighted_all(statistic, 3 * len(cuts), clusters, resamples=resamples, seed=seed)
    return {
        f"{cut:g}": {"net_benefit": found[k], "treat_all": found[k + len(cuts)], "gain": found[k + 2 * len(cuts)]}
        for k, cut in enumerate(cuts)
    }


def post_test(ratio: Metric, prevalence: float) -> Metric:
    """Probability of disease after a call with this likelihood ratio, for a prevalence (or any other prior) in (0, 1).

    Bayes' rule on odds; bounds are those of the ratio carried over.
    """
    odds = prevalence / (1 - prevalence)
    with np.errstate(invalid="ignore"):
        value, low, high = (
            1.0 if np.isinf(r) else float(odds * r / (1 + odds * r))
            for r in (ratio["value"], ratio["low"], ratio["high"])
        )
    return {**ratio, "value": value, "low": low, "high": high}


def predictive_values(
    positive: Metric, negative: Metric, prevalences: Iterable[float] = PREVALENCES
) -> dict[str, dict[str, Metric]]:
    """prevalence -> {ppv, npv} from the likelihood ratios of a positive and of a negative call."""
    out = {}
    for prevalence in prevalences:
        missed = post_test(negative, prevalence)
        npv: Metric = {**missed, "value": 1 - missed["value"], "low": 1 - missed["high"], "high": 1 - missed["low"]}
        out[f"{prevalence:g}"] = {"ppv": post_test(positive, prevalence), "npv": npv}
    return out

"""Can an attribute be read from films, from a model's embedding, or from its scores? A linear probe, cross-validated.

The probe is ridge regression on standardised features with the groups weighted alike, its penalty chosen inside the
training folds. All rows of a patient are in one fold. What a linear probe cannot read may still be readable; what it
reads, any network can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from domainseg.evaluation import roc
from domainseg.evaluation.intervals import LEVEL, Array, Metric, empty, exact
from domainseg.probes.effects import Codes, patients_in

FOLDS = 5
_PENALTIES = np.logspace(-1, 6, 8)


@dataclass(frozen=True)
class Detection:
    """auc: mean over the groups of the AUC of each against all others (of two groups, the AUC); p: of its being 0.5."""

    auc: Metric
    by_group: list[Metric]
    p: float


def detection(features: NDArray[np.floating], group: Codes, patient: Codes, groups: int, seed: int = 0) -> Detection:
    """How well group numbers [n] can be told from features [n, m], cross-validated by patient.

    Every group needs a patient in each fold for training and testing; otherwise the AUC is NaN and its method says so.
    """
    count = patients_in(group, patient)
    folds = min(FOLDS, min(count.values()))
    if folds < 2 or len(count) < groups:
        return Detection(empty("too few patients", len(group), len(np.unique(patient))), [], np.nan)
    answers, fold = cross_validated(features, group, patient, groups, folds, seed)
    if groups == 2:
        auc = roc.auc(group == 1, answers[:, 1], patient, fold)
        return Detection(auc, [auc], _p(auc))
    by_group = [roc.auc(group == g, answers[:, g], patient, fold) for g in range(groups)]
    auc = mean_auc(answers, group, patient, fold, groups)
    return Detection(auc, by_group, _p(auc))


def cross_validated(
    features: NDArray[np.floating], group: Codes, patient: Codes, groups: int, folds: int, seed: int
) -> tuple[Array, NDArray[np.intp]]:
    """The probe's answer for each group [n, groups] from the other folds, and the fold of each row."""
    from sklearn.linear_model import RidgeClassifierCV

    values = np.asarray(features, dtype=np.float64)
    answers, fold = np.zeros((len(group), groups)), dealt(group, patient, folds, seed)
    for k in range(folds):
        fitted, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        centre, spread = values[fitted].mean(axis=0), values[fitted].std(axis=0)
        scaled = (values - centre) / np.where(spread > 1e-9, spread, 1.0)
        probe = RidgeClassifierCV(_PENALTIES, class_weight="balanced").fit(scaled[fitted], group[fitted])
        found = probe.decision_function(scaled[held])
        if found.ndim == 1:  # two groups have one answer
            found = np.stack([-found, found], axis=1)
        answers[np.ix_(held, probe.classes_)] = found
    return answers, fold


def dealt(group: Codes, patient: Codes, folds: int, seed: int) -> NDArray[np.intp]:
    """The fold of each row: the patients of each group (a patient's rarest one) are shuffled and dealt out in turn."""
    rarity = np.argsort(np.argsort(np.bincount(group), kind="stable"), kind="stable")
    rarest = np.full(int(patient.max()) + 1, len(rarity), dtype=np.intp)
    np.minimum.at(rarest, patient, rarity[group])
    order = np.random.default_rng((seed, 7)).permutation(len(rarest))
    order = order[np.argsort(rarest[order], kind="stable")]
    order = order[rarest[order] < len(rarity)]
    fold = np.zeros(len(rarest), dtype=np.intp)
    fold[order] = np.arange(len(order)) % folds
    return fold[patient]


def mean_auc(answers: Array, group: Codes, patient: Codes, fold: NDArray[np.intp], groups: int) -> Metric:
    """Mean over the groups of the AUC of each against the others, with its interval on the logit scale.

    One without variance, as at exactly 1, has the exact binomial bound at the patients of the smallest group.
    """
    k = int(patient.max()) + 1
    parts = [roc.influence(group == g, answers[:, g], patient, k, fold) for g in range(groups)]
    value = float(np.mean([part.auc for part in parts]))
    sums = np.mean([part.positive + part.negative for part in parts], axis=0)
    error = float(np.sqrt(sums @ sums))
    n, people = len(group), len(np.unique(patient))
    if not np.isfinite(value):
        return Metric(value=value, low=np.nan, high=np.nan, n=n, n_clusters=people, method="one class only")
    if error == 0 or value in (0.0, 1.0):
        low, high = exact(value, min(patients_in(group, patient).values()))
        return Metric(value=value, low=low, high=high, n=n, n_clusters=people, method="degenerate")
    centre, reach = np.log(value / (1 - value)), float(norm.ppf((1 + LEVEL) / 2)) * error / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-edge))) for edge in (centre - reach, centre + reach))
    method = f"mean of one against rest, linearised by patient, within {len(np.unique(fold))} folds"
    return Metric(value=value, low=low, high=high, n=n, n_clusters=people, method=method)


def _p(auc: Metric) -> float:
    """One-sided p of an AUC of 0.5 or less, from its interval on the logit scale."""
    value, low = auc["value"], auc["low"]
    if not np.isfinite(low):
        return np.nan
    if value >= 1:
        return 0.0 if low > 0.5 else 1.0
    if value <= 0 or low <= 0:
        return 1.0
    centre = float(np.log(value / (1 - value)))
    error = (centre - float(np.log(low / (1 - low)))) / float(norm.ppf((1 + LEVEL) / 2))
    return float(norm.sf(centre / error)) if error > 0 else np.nan


def of_scores(scores: Array, fold: NDArray[Any]) -> Array:
    """Features of scores [n, m], NaN where missing: normal scores of their ranks within the fold, and their squares."""
    out = np.zeros_like(scores)
    for name in np.unique(fold):
        for column in range(scores.shape[1]):
            known = (fold == name) & ~np.isnan(scores[:, column])
            out[known, column] = norm.ppf((rankdata(scores[known, column]) - 0.5) / max(1, known.sum()))
    return np.concatenate([out, out**2], axis=1)

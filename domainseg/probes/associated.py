"""Does an attribute tell of the label? Prevalence by group, the AUC of ranking by the attribute alone, and utility.

Nothing here looks at an image or a score. The test is the score test of equal prevalences with patients as clusters.
Utility, after G-AUDIT (arXiv 2503.09969), which measures how much an attribute tells of the label: here the mutual
information of attribute and label in bits, less what independent ones of the same counts would show on average
(Miller and Madow's correction), as a share of the label's entropy: 0 tells nothing, 1 tells all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.evaluation import roc
from domainseg.evaluation.intervals import Array, Metric, proportion
from domainseg.probes.effects import Codes, Test, patients_in, stretch, wald

FOLDS = 5
_PRIOR = 5.0  # cases that the overall prevalence counts for in each group: our choice, it only decides near-ties


@dataclass(frozen=True)
class Association:
    """auc: of ranking by the attribute alone, cross-validated by patient. ``prevalence``: of each group."""

    auc: Metric
    utility: float
    test: Test
    prevalence: list[Metric]


def association(label: Array, group: Codes, patient: Codes, groups: int, seed: int = 0) -> Association:
    """How much group numbers [n] tell of labels [n] (1 or 0). patient [n]: numbers of the patients."""
    folds = patient_folds(patient, seed)
    return Association(
        auc=roc.auc(label, cross_fitted(label, group, folds, groups), patient, folds),
        utility=utility(label, group),
        test=equal_prevalence(label, group, patient, groups),
        prevalence=[proportion(label[group == g] == 1, patient[group == g], seed=seed) for g in range(groups)],
    )


def patient_folds(patient: Codes, seed: int = 0, folds: int = FOLDS) -> NDArray[np.intp]:
    """A fold number for each row; all rows of a patient have the same."""
    k = int(patient.max()) + 1
    return np.asarray(np.random.default_rng((seed, 11)).permutation(k)[patient] % folds)


def cross_fitted(label: Array, group: Codes, folds: NDArray[Any], groups: int) -> Array:
    """Of each row the prevalence of its group among the patients of the other folds, drawn towards the whole's."""
    out = np.empty(len(label))
    for name in np.unique(folds):
        inside = folds == name
        fitted = label[~inside]
        overall = fitted.mean() if len(fitted) else np.nan
        hits = np.bincount(group[~inside], fitted, minlength=groups)
        count = np.bincount(group[~inside], minlength=groups)
        out[inside] = ((hits + _PRIOR * overall) / (count + _PRIOR))[group[inside]]
    return out


def equal_prevalence(label: Array, group: Codes, patient: Codes, groups: int) -> Test:
    """Score test that all groups have one prevalence; with one row a patient Pearson's chi-squared, against F."""
    residual = label - label.mean()
    member = group[:, None] == np.arange(groups)
    share = member.mean(axis=0)
    influence = (member - share) * (residual * stretch(group, patient))[:, None]
    below = min(patients_in(group, patient).values()) - 1
    return wald((member * residual[:, None]).sum(axis=0)[:-1], influence[:, :-1], patient, below)


def utility(label: Array, group: Codes) -> float:
    """Mutual information of label and group, corrected for chance, as a share of the label's entropy; at least 0."""
    n = len(label)
    joint = np.zeros((2, int(group.max()) + 1))
    np.add.at(joint, (label.astype(np.intp), group), 1.0)
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    held = joint > 0
    expected = np.outer(rows, columns)
    information = float((joint[held] / n * np.log2(joint[held] * n / expected[held])).sum())
    p = rows[rows > 0] / n
    entropy = float(-(p * np.log2(p)).sum())
    chance = (int((columns > 0).sum()) - 1) * (len(p) - 1) / (2 * n * np.log(2))
    return max(0.0, (information - chance) / entropy) if entropy > 0 else 0.0

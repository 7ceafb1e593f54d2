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
from scipy.special import xlogy

from domainseg.evaluation import roc
from domainseg.evaluation.intervals import Array, Metric, drawn_sums, percentiles, proportion
from domainseg.probes.effects import Codes, Test, patients_in, stretch, wald

FOLDS = 5
RESAMPLES = 1000  # for the interval of the utility
_PRIOR = 5.0  # cases that the overall prevalence counts for in each group: our choice, it only decides near-ties


@dataclass(frozen=True)
class Association:
    """auc: of ranking by the attribute alone, cross-validated by patient. ``prevalence``: of each group."""

    auc: Metric
    utility: Metric
    test: Test
    prevalence: list[Metric]


def association(label: Array, group: Codes, patient: Codes, groups: int, seed: int = 0) -> Association:
    """How much group numbers [n] tell of labels [n] (1 or 0). patient [n]: numbers of the patients."""
    folds = patient_folds(patient, seed)
    return Association(
        auc=roc.auc(label, cross_fitted(label, group, folds, groups), patient, folds),
        utility=utility(label, group, patient, seed),
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


def utility(label: Array, group: Codes, patient: Codes, seed: int = 0) -> Metric:
    """Mutual information of label and group, corrected for chance, as a share of the label's entropy; at least 0.

    The interval is the patient bootstrap's, moved back by what resampling adds: information by chance once more. None
    where no group has both labels, for then all resamples are alike.
    """
    cell = label.astype(np.intp) + 2 * group
    k, cells = int(patient.max()) + 1, 2 * (int(group.max()) + 1)
    joint = np.bincount(cell * k + patient, minlength=cells * k).reshape(cells, k).astype(np.float64)
    joint = joint[:, joint.any(axis=0)]
    whole = joint.sum(axis=1)
    value, people = float(_share(whole[:, None])[0]), joint.shape[1]
    low, high, method = np.nan, np.nan, "degenerate"
    if (whole.reshape(-1, 2) > 0).all(axis=1).any() and people > 1:
        drawn = _share(drawn_sums(joint, resamples=RESAMPLES, seed=seed))
        low, high = np.clip(percentiles(drawn - drawn.mean() + value), 0, 1).tolist()
        method = "patient bootstrap"
    return Metric(value=max(0.0, value), low=low, high=high, n=len(label), n_clusters=people, method=method)


def _share(joint: Array) -> Array:
    """Counts [2 x groups, b] of (label 0, label 1) group by group -> corrected information over entropy [b]."""
    joint = joint.reshape(-1, 2, joint.shape[1])
    n = joint.sum(axis=(0, 1))
    rows, columns = joint.sum(axis=0), joint.sum(axis=1)
    p = rows / n
    entropy, of_groups = (xlogy(share, share).sum(axis=0) / -np.log(2) for share in (p, columns / n))
    together = xlogy(joint / n, joint / n).sum(axis=(0, 1)) / -np.log(2)
    chance = ((columns > 0).sum(axis=0) - 1) * ((rows > 0).sum(axis=0) - 1) / (2 * n * np.log(2))
    information = entropy + of_groups - together - chance
    return np.asarray(np.divide(information, entropy, out=np.zeros_like(entropy), where=entropy > 0))

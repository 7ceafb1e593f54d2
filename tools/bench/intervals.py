"""Intervals of the AUC: sorted once and resampled by weights, and DeLong's, against scikit-learn in a loop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from bench.measure import Options, Section, Target, interleave, speed_rows
from domainseg.evaluation.intervals import weighted
from domainseg.evaluation.roc import auc, weighted_auc

BASELINE = "scikit-learn in a loop"
TARGETS = {"bootstrap, sorted once": Target(20)}


def measure(options: Options) -> Section:
    """Rows of both intervals against the plain loop, all for the same cases and number of resamples."""
    rng = np.random.default_rng(0)
    label = (rng.random(options.cases) < 0.1).astype(np.int64)
    score = rng.normal(size=options.cases) + label

    ways = {
        BASELINE: lambda: loop(label, score, options.resamples),
        "bootstrap, sorted once": lambda: weighted(
            weighted_auc(label, score), np.arange(options.cases), resamples=options.resamples
        ),
        "DeLong": lambda: auc(label, score),
    }
    about = f"{options.cases} cases, one row a patient, 10 % positive, {options.resamples} resamples."
    return Section(about, speed_rows(interleave(ways, min(options.rounds, 2), warm=0), BASELINE, TARGETS))


def loop(label: NDArray[np.int64], score: NDArray[np.float64], resamples: int) -> NDArray[np.float64]:
    """Percentile bounds of the AUC as one writes them first."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(resamples):
        rows = rng.integers(0, len(label), len(label))
        values.append(roc_auc_score(label[rows], score[rows]))
    return np.quantile(values, [0.025, 0.975])

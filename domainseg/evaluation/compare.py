"""Two scores on the same cases: does one order them better?"""

from __future__ import annotations

from typing import Literal, TypedDict

import numpy as np
import pandas as pd

from domainseg.evaluation import roc
from domainseg.evaluation.intervals import Metric, weighted
from domainseg.evaluation.tables import EvaluationError, binary, clusters_of, numbers, texts


class Comparison(TypedDict):
    """AUC of a, of b and their difference a - b on the same rows; p two-sided (NaN with the bootstrap)."""

    a: Metric
    b: Metric
    difference: Metric
    p: float


def compare(
    table: pd.DataFrame,
    score_a: str,
    score_b: str,
    label: str,
    cluster: str | None = None,
    *,
    intention: bool = False,
    method: Literal["delong", "bootstrap"] = "delong",
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Paired comparison of two score columns against a label column (1, 0, empty = left out).

    cluster: column of patients; group, (site, patient) or image when not given. Rows need both scores; with
    intention=True a missing score counts as -inf for a positive and +inf for a negative. method "delong" is
    Obuchowski's extension where patients have several rows; "bootstrap" draws patients. A column ``fold`` confines
    comparisons to folds (not with the bootstrap). Raises EvaluationError naming missing columns, or
    a label that is none.
    """
    absent = [name for name in (score_a, score_b, label, *([cluster] if cluster else [])) if name not in table]
    if absent or (cluster is None and "image" not in table):
        raise EvaluationError(f"compare: missing columns {', '.join(absent or ['image'])}")
    truth, a, b = binary(table, label), numbers(table, score_a), numbers(table, score_b)
    if intention:
        lost = np.where(truth == 1, -np.inf, np.inf)
        a, b = (np.where(np.isnan(score), lost, score) for score in (a, b))
    known = ~np.isnan(truth) & ~np.isnan(a) & ~np.isnan(b)
    people = clusters_of(table) if cluster is None else texts(table, cluster).astype(str)
    fold = np.array([name or "" for name in texts(table, "fold")], dtype=str)
    truth, a, b, people, fold = truth[known], a[known], b[known], people[known], fold[known]
    if method == "bootstrap":
        one, two = roc.weighted_auc(truth, a), roc.weighted_auc(truth, b)
        gap = weighted(lambda weights: one(weights) - two(weights), people, resamples=resamples, seed=seed)
        return Comparison(a=roc.auc(truth, a, people), b=roc.auc(truth, b, people), difference=gap, p=np.nan)
    gap, p = roc.difference(truth, a, b, people, fold)
    return Comparison(a=roc.auc(truth, a, people, fold), b=roc.auc(truth, b, people, fold), difference=gap, p=p)

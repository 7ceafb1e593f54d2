"""Differences between groups of patients, with variances that let a patient have several rows; and Holm's correction.

Each estimate comes with its influence, what each row adds to its error. Summed by patient, the products of influences
are the variance (the sandwich, or infinitesimal jackknife; DeLong's where each patient has one row). The residuals of
a cell of m patients are stretched by sqrt(m / (m - 1)), and the test statistic is held against an F distribution with
as many degrees of freedom as the smallest group allows: a normal one calls too often where groups are small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution
from scipy.stats import rankdata
from scipy.stats import t as t_distribution

from domainseg.evaluation.intervals import LEVEL, Array, Metric

Codes = NDArray[np.intp]  # group numbers 0, 1, ... of rows


class Test(NamedTuple):
    """Wald's test that several quantities are all 0: statistic, degrees of freedom above and below, p."""

    statistic: float
    df: int
    below: int
    p: float


def by_patient(influence: Array, patients: Codes) -> Array:
    """Influence of rows [n, m] or [n] summed by patient [k, m]."""
    values = influence[:, None] if influence.ndim == 1 else influence
    sums = np.zeros((int(patients.max()) + 1, values.shape[1]))
    np.add.at(sums, patients, values)
    return sums


def wald(estimate: Array, influence: Array, patients: Codes, below: int) -> Test:
    """Test that ``estimate`` [m] is 0. influence [n, m]; below: degrees of freedom of the variance. NaN without any.

    Fewer of these than quantities make the test cautious, they do not forbid it.
    """
    sums = by_patient(influence, patients)
    spread = sums.T @ sums
    rank = int(np.linalg.matrix_rank(spread, hermitian=True, tol=1e-12 * max(1e-30, float(np.trace(spread)))))
    if rank == 0 or below < 1:
        return Test(np.nan, 0, below, np.nan)
    statistic = float(estimate @ np.linalg.pinv(spread, rcond=1e-10, hermitian=True) @ estimate)
    return Test(statistic, rank, below, float(f_distribution.sf(statistic / rank, rank, below)))


def metric(
    value: float, influence: Array, patients: Codes, below: int, method: str, *, bounds: tuple[float, float] = (0, 1)
) -> tuple[Metric, float]:
    """A value with its interval and the two-sided p of its being 0 (of a difference). influence [n]; n counts its rows
    that are not all zero."""
    sums = by_patient(influence, patients)[:, 0]
    counted = influence != 0
    error = float(np.sqrt(sums @ sums))
    record = Metric(
        value=value,
        low=np.nan,
        high=np.nan,
        n=int(counted.sum()),
        n_clusters=len(np.unique(patients[counted])),
        method=method,
    )
    if error == 0 or below < 1:
        return record, np.nan
    reach = float(t_distribution.ppf((1 + LEVEL) / 2, below)) * error
    record["low"], record["high"] = max(bounds[0], value - reach), min(bounds[1], value + reach)
    return record, float(2 * t_distribution.sf(abs(value) / error, below))


def patients_in(cells: NDArray[Any], patients: Codes) -> dict[int, int]:
    """How many patients each cell (a number from 0, one a row) has."""
    return {int(cell): int(count) for cell, count in enumerate(_counted(cells, patients)) if count}


def stretch(cells: NDArray[Any], patients: Codes) -> Array:
    """sqrt(m / (m - 1)) of each row's cell of m patients [n]; 1 for a cell of one, which has no spread to stretch."""
    m = _counted(cells, patients)[cells].astype(np.float64)
    return np.asarray(np.sqrt(m / np.maximum(m - 1, 1)))


def _counted(cells: NDArray[Any], patients: Codes) -> NDArray[np.intp]:
    people = int(patients.max()) + 1 if len(patients) else 1
    return np.bincount(np.unique(cells * people + patients) // people)


def against_rest(score: Array, member: NDArray[np.bool_]) -> tuple[float, Array]:
    """How often a score of the group exceeds one of the rest (ties half), and each row's influence [n] on that AUC."""
    g, r = int(member.sum()), int((~member).sum())
    ranks = rankdata(score)
    placement = np.empty(len(score))
    placement[member] = (ranks[member] - rankdata(score[member])) / r
    placement[~member] = 1 - (ranks[~member] - rankdata(score[~member])) / g
    value = float(placement[member].mean())
    return value, (placement - value) / np.where(member, g, r)


def holm_of_known(values: Sequence[float]) -> list[float]:
    """``holm`` among the p-values that are known; the others stay NaN and do not count."""
    adjusted = iter(holm([value for value in values if not np.isnan(value)]))
    return [float("nan") if np.isnan(value) else next(adjusted) for value in values]


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the order given; one that is NaN counts as 1."""
    p = np.array([1.0 if np.isnan(value) else value for value in values])
    adjusted = np.empty(len(p))
    worst = 0.0
    for place, index in enumerate(np.argsort(p, kind="stable")):
        worst = max(worst, min(1.0, (len(p) - place) * float(p[index])))
        adjusted[index] = worst
    return [float(value) for value in adjusted]

"""Intervals at 95 %: Wilson for independent proportions, the patient bootstrap for everything that is clustered.

A metric is always the same record, ``{value, low, high, n, n_clusters, method}``: ``n`` counts rows, ``n_clusters``
patients, ``method`` says how the interval was made. An empty group is NaN with n = 0, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import beta, binomtest, norm

LEVEL = 0.95
RESAMPLES = 2000
_CHUNK = 1 << 18  # resampled counts worked on at once: 1 MiB as float32, within a processor's cache
_KEPT = 1 << 22  # resampled counts kept for the next metric of the same patients: 16 MiB

Array = NDArray[np.float64]


class Metric(TypedDict):
    """A number with its 95 % interval; ``value``, ``low`` and ``high`` are NaN when the data can't give them."""

    value: float
    low: float
    high: float
    n: int
    n_clusters: int
    method: str


def empty(method: str = "no cases", n: int = 0, n_clusters: int = 0) -> Metric:
    """A metric without a value: NaN, and ``method`` says why."""
    return Metric(value=np.nan, low=np.nan, high=np.nan, n=n, n_clusters=n_clusters, method=method)


def exact(value: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Clopper-Pearson bounds of the proportion ``value`` among ``n`` > 0; ``value * n`` need not be whole."""
    tail, hits = (1 - level) / 2, value * n
    low = float(beta.ppf(tail, hits, n - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def wilson(hits: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson score bounds (1927, without continuity correction) of ``hits`` among ``n`` > 0."""
    bounds = binomtest(hits, n).proportion_ci(level, method="wilson")
    return float(bounds.low), float(bounds.high)


def codes(clusters: NDArray[Any]) -> tuple[NDArray[np.intp], int]:
    """Cluster names of rows -> (numbers 0..k-1 of rows, k), in the order of their first rows.

    Not in the order of their names: patients' are hashed with a key that is new in each run, and what is drawn from
    them would be new in each run as well.
    """
    rows, names = pd.factorize(np.asarray(clusters), use_na_sentinel=False)
    return rows.astype(np.intp), len(names)


def resampled(n_clusters: int, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[NDArray[np.float32]]:
    """How often each cluster is drawn: multinomial counts [resamples, n_clusters], in chunks of bounded size."""
    step = max(1, _CHUNK // n_clusters)
    kept = _drawn_once(n_clusters, resamples, seed) if resamples * n_clusters <= _KEPT else None
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        yield kept[start:stop] if kept is not None else _drawn(n_clusters, stop - start, generator)


@lru_cache(maxsize=8)  # the metrics of one group share their draws: 8 x 16 MiB at most
def _drawn_once(n_clusters: int, resamples: int, seed: int) -> NDArray[np.float32]:
    counts = _drawn(n_clusters, resamples, np.random.default_rng(seed))
    counts.setflags(write=False)
    return counts


def _drawn(n_clusters: int, resamples: int, generator: np.random.Generator) -> NDArray[np.float32]:
    picks = generator.integers(n_clusters, size=(resamples, n_clusters))
    picks += np.arange(resamples)[:, None] * n_clusters
    counts = np.bincount(picks.ravel(), minlength=resamples * n_clusters)
    return counts.reshape(resamples, n_clusters).astype(np.float32)


def bootstrap(
    statistic: Callable[[NDArray[np.float32]], NDArray[np.floating[Any]]],
    n_clusters: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> tuple[Array, Array]:
    """Percentile bounds, each [m], of ``statistic``: cluster weights [b, n_clusters] -> values [b, m], NaN = undefined.

    Clusters are patients, drawn with replacement; resamples in which a value is undefined are left out for it.
    Bounds are NaN for fewer than 2 clusters. The same seed gives the same bounds.
    """
    pieces = [statistic(weights) for weights in resampled(n_clusters, resamples, seed)]
    values = np.concatenate(pieces).astype(np.float64)
    bounds = np.array([percentiles(column, level) for column in values.T])
    if n_clusters < 2:
        bounds[:] = np.nan
    return bounds[:, 0], bounds[:, 1]


def percentiles(values: Array, level: float = LEVEL) -> tuple[float, float]:
    """The bounds that hold the middle ``level`` of resampled values; NaN among them are left out."""
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def proportion(hits: NDArray[np.bool_], clusters: NDArray[Any], *, resamples: int = RESAMPLES, seed: int = 0) -> Metric:
    """Fraction of rows that are hits. One row a patient: Wilson; several: patient bootstrap.

    Where all rows are hits, or none, every resample is the same and a bootstrap interval would have width 0: Wilson
    at the number of patients is given instead, and named; and exact bounds there where all patients are alike.
    """
    n = len(hits)
    if n == 0:
        return empty()
    rows, k = codes(clusters)
    value = float(hits.mean())
    if k == n:
        low, high = wilson(int(hits.sum()), n)
        method = "wilson"
    elif value in (0.0, 1.0):
        low, high = wilson(int(value) * k, k)
        method = "wilson at the number of patients"
    else:
        counts = np.array([np.bincount(rows, weights=hits, minlength=k), np.bincount(rows, minlength=k)], np.float64)
        found, among = drawn_sums(counts, resamples=resamples, seed=seed)
        low, high = percentiles(found / among)
        method = "patient bootstrap"
        if low == high:  # one patient, or patients who are all alike
            low, high = exact(value, k)
            method = "exact at the number of patients"
    return Metric(value=value, low=low, high=high, n=n, n_clusters=k, method=method)


def drawn_sums(counts: Array, *, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Counts of patients [m, k] -> their sums over patients drawn with replacement [m, resamples].

    Patients with the same counts are alike: how often each kind is drawn is all that matters, so that a few kinds of
    many patients take no time.
    """
    k = counts.shape[1]
    kinds, patients = np.unique(counts, axis=1, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(k, patients / k, size=resamples)
    return np.asarray(kinds @ drawn.T, np.float64)


def patient_bootstrap(
    metric: Callable[..., float],
    *columns: NDArray[Any],
    clusters: NDArray[Any] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Metric:
    """Any metric of columns [n], with the patient bootstrap around it: patient_bootstrap(f1_score, label, called).

    ``metric`` gets the columns at the rows of patients drawn with replacement; clusters [n]: patients, one each when
    absent. A resample in which it raises ValueError (as with one class only) is left out. One call a resample: for a
    metric that can be written with weights, ``weighted`` is many times as fast.
    """
    columns = tuple(np.asarray(column) for column in columns)
    n = len(columns[0])
    if n == 0:
        return empty()
    rows, k = codes(np.arange(n) if clusters is None else clusters)
    generator, values = np.random.default_rng(seed), np.full(resamples, np.nan)
    everyone = np.arange(n)

    def value(chosen: NDArray[np.intp]) -> float:
        try:
            return float(metric(*(column[chosen] for column in columns)))
        except ValueError:
            return np.nan

    for index in range(resamples if k > 1 else 0):
        times = np.bincount(generator.integers(k, size=k), minlength=k)
        values[index] = value(np.repeat(everyone, times[rows]))
    whole, (low, high) = value(everyone), percentiles(values)
    if not np.isfinite(whole):
        return empty("undefined", n, k)
    return Metric(value=whole, low=low, high=high, n=n, n_clusters=k, method="patient bootstrap")


def apart(a: Metric, b: Metric) -> Metric:
    """a minus b of different patients, its interval from both intervals (Newcombe 1998; Zou and Donner 2008)."""
    value, n, k = a["value"] - b["value"], a["n"] + b["n"], a["n_clusters"] + b["n_clusters"]
    if not np.isfinite(value):
        return empty("undefined", n, k)
    low = value - np.hypot(a["value"] - a["low"], b["high"] - b["value"])
    high = value + np.hypot(a["high"] - a["value"], b["value"] - b["low"])
    return Metric(value=value, low=float(low), high=float(high), n=n, n_clusters=k, method="newcombe")


def p_apart(gap: Metric, level: float = LEVEL) -> float:
    """Two-sided p of a difference with such an interval, as if it were normal on the side of 0 (our choice)."""
    value = gap["value"]
    towards_zero = value - gap["low"] if value > 0 else gap["high"] - value
    if value == 0 or not np.isfinite(towards_zero):
        return 1.0 if value == 0 else float("nan")
    if towards_zero <= 0:
        return 0.0
    return float(2 * norm.sf(abs(value) / (towards_zero / norm.ppf((1 + level) / 2))))


def weighted(
    statistic: Callable[[Array], Array], clusters: NDArray[Any], *, resamples: int = RESAMPLES, seed: int = 0
) -> Metric:
    """Metric of any ``statistic`` of row weights [b, n] -> [b], with the patient bootstrap around it."""
    return weighted_all(lambda weights: statistic(weights)[:, None], 1, clusters, resamples=resamples, seed=seed)[0]


def weighted_all(
    statistic: Callable[[Array], Array], m: int, clusters: NDArray[Any], *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Metric]:
    """Metrics of m statistics at once, row weights [b, n] -> [b, m]; one that is NaN has the method "undefined"."""
    n = len(clusters)
    if n == 0:
        return [empty() for _ in range(m)]
    rows, k = codes(clusters)
    values = statistic(np.ones((1, n)))[0]
    low, high = bootstrap(
        lambda weights: statistic(weights.take(rows, axis=1).astype(np.float64)), k, resamples=resamples, seed=seed
    )
    return [
        Metric(value=float(v), low=float(a), high=float(b), n=n, n_clusters=k, method="patient bootstrap")
        if np.isfinite(v)
        else empty("undefined", n, k)
        for v, a, b in zip(values, low, high, strict=True)
    ]

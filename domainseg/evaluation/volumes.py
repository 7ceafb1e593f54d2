"""Overlap and volume of what was outlined: Dice, surface distance, Pearson's r, bias and limits of agreement."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from domainseg.cascade.head_rows import JOINED
from domainseg.evaluation.intervals import Array, Metric, empty, weighted, weighted_all
from domainseg.evaluation.lesions import mean
from domainseg.evaluation.tables import Rows, labels, numbers

LIMITS = ("volume_bias", "volume_limit_low", "volume_limit_high")
FEWEST = 4  # patients that a correlation needs (our choice): two always lie on a line
_Z = 1.96  # standard deviations to either side (Bland and Altman 1986)

Pair = tuple[dict[str, Metric], dict[str, Metric]]


def overlap_metrics(rows: Rows, name: str, resamples: int, seed: int) -> Pair:
    """Of the exams that have ``name`` (hemorrhage, a type, or one of JOINED): mean Dice, surface distance, volumes.

    dice: the mean over those exams, one that was missed having 0. surface_mm: the mean over those where both sides have
    voxels. volume_r: Pearson's r of measured and true millilitres, a missed one having measured 0; volume_r_all: the
    same over all exams whose true volume is known, those without it having 0; neither of fewer than FEWEST patients.
    volume_bias and volume_limit_low, _high: mean of measured minus true millilitres and 1.96 standard deviations to
    either side of it. Conditional: scored exams. On intention: eligible exams; an excluded one has Dice 0 and volume 0,
    unless there is no mask to measure a scored one against (column outlined = 0; of a type also typed = 0, masks that
    do not tell the types). Nothing without the columns.
    """
    if f"dice_{name}" not in rows.table:
        return {}, {}
    return _overlap(rows.take(rows.scored), name, resamples, seed), _overlap(
        rows.take(rows.intended), name, resamples, seed
    )


def joined_rows(rows: Rows, name: str) -> Rows:
    """The rows of a type with the label of JOINED[name]: 1 where one of its types is there, 0 where none is."""
    found = np.stack([labels(rows.table, member) for member in JOINED[name]])
    label = np.where((found == 1).any(axis=0), 1.0, np.where((found == 0).all(axis=0), 0.0, np.nan))
    return Rows(rows.table, label, *(getattr(rows, field) for field in list(rows.__dataclass_fields__)[2:]))


def _overlap(rows: Rows, name: str, resamples: int, seed: int) -> dict[str, Metric]:
    lost = np.isnan(rows.score)
    dice = numbers(rows.table, f"dice_{name}")
    outlined = numbers(rows.table, "outlined") != 0  # a table without the column says nothing else
    true, measured = _volumes(rows, name)
    if name != "hemorrhage":
        outlined &= numbers(rows.table, "typed") != 0
    dice = np.where(lost & (rows.label == 1) & outlined, 0.0, dice)
    surface = numbers(rows.table, f"surface_mm_{name}")
    measured = np.where(lost, 0.0, measured)
    has = rows.label == 1

    def over(mask: NDArray[np.bool_], statistic: Callable[[Array], Array]) -> Metric:
        return weighted(statistic, rows.clusters[mask], resamples=resamples, seed=seed)

    def correlation(mask: NDArray[np.bool_]) -> Metric:  # of too few patients it says nothing
        found = over(mask, pearson(true[mask], measured[mask]))
        patients = found["n_clusters"]
        return found if patients >= FEWEST else empty(f"fewer than {FEWEST} patients", found["n"], patients)

    drawn, both = has & ~np.isnan(dice), has & ~np.isnan(surface)
    known = ~np.isnan(true) & ~np.isnan(measured)
    held = known & has
    bland = weighted_all(
        limits(measured[held] - true[held]), len(LIMITS), rows.clusters[held], resamples=resamples, seed=seed
    )
    return {
        "dice": over(drawn, mean(dice[drawn])),
        "surface_mm": over(both, mean(surface[both])),
        "volume_r": correlation(held),
        "volume_r_all": correlation(known),
        **dict(zip(LIMITS, bland, strict=True)),
    }


def _volumes(rows: Rows, name: str) -> tuple[Array, Array]:
    """True and measured millilitres."""
    end = "" if name == "hemorrhage" else f"_{name}"
    true = numbers(rows.table, f"true_volume_ml{end}")
    if name in JOINED:
        return true, np.sum([numbers(rows.table, f"volume_ml_{member}") for member in JOINED[name]], axis=0)
    return true, numbers(rows.table, f"volume_ml{end}")


def pearson(x: Array, y: Array) -> Callable[[Array], Array]:
    """Pearson's r as a function of weights [b, n] -> [b]; NaN for fewer than two points or one that doesn't vary."""
    # On a scale of their own, or sums of squares would lose what r is made of.
    x, y = ((v - v.mean()) / (v.std() or 1.0) if len(v) else v for v in (x, y))

    def statistic(weights: Array) -> Array:
        total = np.maximum(weights.sum(axis=1), 1e-12)
        mx, my = weights @ x / total, weights @ y / total
        vx, vy = weights @ x**2 / total - mx**2, weights @ y**2 / total - my**2
        out = np.full(len(weights), np.nan)
        shared = weights @ (x * y) / total - mx * my
        np.divide(shared, np.sqrt(np.maximum(vx * vy, 0)), out=out, where=(vx > 1e-12) & (vy > 1e-12))
        return np.asarray(np.clip(out, -1, 1))

    return statistic


def limits(difference: Array) -> Callable[[Array], Array]:
    """Bias and limits of agreement of differences [n] as a function of weights [b, n] -> [b, 3]."""

    def statistic(weights: Array) -> Array:
        total = weights.sum(axis=1)
        bias = np.full(len(weights), np.nan)
        np.divide(weights @ difference, total, out=bias, where=total > 0)
        spread = np.full(len(weights), np.nan)
        squares = (weights * (difference - bias[:, None]) ** 2).sum(axis=1)
        np.divide(squares, total - 1, out=spread, where=total > 1)
        reach = _Z * np.sqrt(spread)
        return np.stack([bias, bias - reach, bias + reach], axis=1)

    return statistic

"""Where is it: femoral heads within a tolerance, the fracture's location, and the pointing game."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.evaluation.groups import GROUPS, groups_of
from domainseg.evaluation.intervals import Array, Metric, proportion, weighted
from domainseg.evaluation.tables import Rows, numbers, texts

TOLERANCE = {"within_5mm": ("head_error_mm", 5.0), "within_6pct": ("head_error_pct", 6.0)}
LOCATIONS = ("none", "intra", "extra")

Pair = tuple[dict[str, Metric], dict[str, Metric]]


def localizer_metrics(rows: Rows, target: str, resamples: int, seed: int) -> Pair:
    """Fraction of femoral heads found within 5 mm, and within 6 % of the film's width; median errors.

    Conditional: hips whose head was found. On intention: all eligible hips that are in the film, a head that was not
    found being an error. Hips whose true centre is unknown are left out, and for millimetres films without spacing.
    """
    there = rows.label == 1
    if "true_head_x" in rows.table:
        there &= ~np.isnan(numbers(rows.table, "true_head_x"))
    conditional: dict[str, Metric] = {}
    intention: dict[str, Metric] = {}
    for name, (column, limit) in TOLERANCE.items():
        error = numbers(rows.table, column)
        measured = ~np.isnan(error)
        lost = np.isnan(rows.score) if "head_x" not in rows.table else np.isnan(numbers(rows.table, "head_x"))
        countable = measured | lost  # found but not measured: no true centre, or no spacing
        if column.endswith("mm"):
            has_spacing = ~np.isnan(numbers(rows.table, "spacing")) if "spacing" in rows.table else measured.any()
            countable &= measured | has_spacing | (rows.excluded_by == "read")
        mask = there & measured
        conditional[name] = proportion(error[mask] <= limit, rows.clusters[mask], resamples=resamples, seed=seed)
        conditional[f"{column}_median"] = weighted(
            _median(error[mask]), rows.clusters[mask], resamples=min(resamples, 500), seed=seed
        )
        mask = there & rows.eligible & countable
        hits = np.nan_to_num(error[mask], nan=np.inf) <= limit
        intention[name] = proportion(hits, rows.clusters[mask], resamples=resamples, seed=seed)
    return conditional, intention


def pointing_metrics(rows: Rows, target: str, resamples: int, seed: int) -> Pair:
    """Pointing game: does the map's highest point lie in the fracture's mask? Nothing without the column.

    Conditional: fractures that were scored. On intention: eligible fractures, an excluded one being a miss.
    """
    if target != "fracture" or "pointing_hit" not in rows.table:
        return {}, {}
    hit = numbers(rows.table, "pointing_hit")
    known = (rows.label == 1) & ~np.isnan(hit)
    lost = (rows.label == 1) & np.isnan(rows.score)
    all_of_them = rows.eligible & (known | lost)
    return (
        {"pointing_hit": proportion(hit[known] == 1, rows.clusters[known], resamples=resamples, seed=seed)},
        {"pointing_hit": proportion(hit[all_of_them] == 1, rows.clusters[all_of_them], resamples=resamples, seed=seed)},
    )


def location_metrics(
    rows: Rows, groups: Sequence[str] = GROUPS, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """accuracy: location right among the fractures found (called, location known), with its confusion matrix.

    intention.accuracy: found and rightly located among all eligible fractures whose location is known. The
    confusion matrix is {truth, predicted, counts[truth][predicted], n}.
    """
    out = _location(rows, resamples, seed)
    for column, value, members in groups_of(rows, "fracture", groups):
        here = _location(members, resamples, seed)
        del here["confusion"]
        intention = here.pop("intention")
        out.setdefault("by", {}).setdefault(column, {})[value] = here
        out["intention"].setdefault("by", {}).setdefault(column, {})[value] = intention
    return out


def _location(rows: Rows, resamples: int, seed: int) -> dict[str, Any]:
    truth, said = texts(rows.table, "label_location"), texts(rows.table, "location")
    located = (rows.label == 1) & np.isin(truth.astype(str), LOCATIONS[1:])
    found = located & (np.nan_to_num(rows.score, nan=-1.0) >= np.nan_to_num(rows.threshold, nan=np.inf))
    asked = located & rows.eligible
    right = truth == said

    def fraction(hits: NDArray[np.bool_], mask: NDArray[np.bool_]) -> Metric:
        return proportion(hits[mask], rows.clusters[mask], resamples=resamples, seed=seed)

    counts = [[int((found & (truth == t) & (said == s)).sum()) for s in LOCATIONS] for t in LOCATIONS[1:]]
    return {
        "accuracy": fraction(right, found),
        "confusion": {
            "truth": list(LOCATIONS[1:]),
            "predicted": list(LOCATIONS),
            "counts": counts,
            "n": int(found.sum()),
        },
        "intention": {"accuracy": fraction(right & found, asked)},
    }


def _median(values: Array) -> Any:
    order = np.argsort(values)
    ranked = values[order]

    def statistic(weights: Array) -> Array:
        if not len(ranked):
            return np.full(len(weights), np.nan)
        below = np.cumsum(weights[:, order], axis=1)
        half = below[:, -1:] / 2
        low = ranked[(below < half).sum(axis=1).clip(max=len(ranked) - 1)]
        high = ranked[(below <= half).sum(axis=1).clip(max=len(ranked) - 1)]
        return np.asarray((low + high) / 2)

    return statistic

"""Readers beside the model: F1 of each against the others as in CheXNet, and their points on the ROC curve.

With no reference truth, CheXNet (Rajpurkar et al. 2017) lets readers judge each other: a reader's F1 is the mean of
the F1 against each other reader, the model's the mean against all of them. With a reference truth each reader is a
point (sensitivity, specificity), beside their mean, as in Esteva et al. 2017 and Gale et al. 2017.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.evaluation.intervals import RESAMPLES, Array, Metric, empty, proportion, weighted_all
from domainseg.evaluation.tables import EvaluationError, Rows, numbers, texts

log = logging.getLogger(__name__)

MODEL = "model"


def calls(table: pd.DataFrame, rows: Rows) -> tuple[Array, list[str]]:
    """Calls of readers 1, 0 or NaN (not read) [n rows, readers], and the readers' names.

    table: image, reader, call (1, 0 or empty), and part where an image has several. Raises EvaluationError for missing
    columns, other calls, a reader who calls a case twice, and a table that shares no case with the prediction table.
    """
    absent = [name for name in ("image", "reader", "call") if name not in table]
    if absent:
        raise EvaluationError(f"readers: missing columns {', '.join(absent)}; needed are image, reader, call")
    call, reader = numbers(table, "call"), texts(table, "reader")
    if (odd := ~np.isnan(call) & (call != 0) & (call != 1)).any():
        row = int(np.flatnonzero(odd)[0])
        raise EvaluationError(f"readers: call, row {row + 1}: {call[row]:g} is not 1, 0 or empty")
    if any(name is None for name in reader):
        raise EvaluationError("readers: a row has no reader")
    key = ["image", "part"] if "part" in table and "part" in rows.table else ["image"]
    theirs = list(zip(*(texts(table, name) for name in key), strict=True))
    ours = list(zip(*(texts(rows.table, name) for name in key), strict=True))
    if len(set(ours)) < len(ours):
        raise EvaluationError("readers: an image has several parts; the table needs a column part")
    names = sorted(set(reader))
    place, column = {case: k for k, case in enumerate(ours)}, {name: k for k, name in enumerate(names)}
    out = np.full((len(ours), len(names)), np.nan)
    for case, name, value in zip(theirs, reader, call, strict=True):
        if case in place and not np.isnan(value):
            if not np.isnan(out[place[case], column[name]]):
                raise EvaluationError(f"readers: {name} calls {' '.join(map(str, case))} twice; keep one call")
            out[place[case], column[name]] = value
    strange = sorted({" ".join(map(str, case)) for case in theirs if case not in place})
    if strange:
        log.warning("readers: %d of their cases are not among those judged, first %s", len(strange), strange[0])
    if np.isnan(out).all():
        raise EvaluationError(f"readers: no case of theirs is in the prediction table (for example {theirs[:1]})")
    return out, names


def agreement(
    call: Array, names: list[str], model: Array, clusters: NDArray[Any], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """F1 of each reader and of the model against the readers, with patient-bootstrap intervals.

    call [n, readers] and model [n] are 1, 0 or NaN; two are compared on the cases that both called. {by: {reader:
    metric}, mean: of the readers, model, difference: model minus mean}. Cases that no reader called are left out.
    """
    read = ~np.isnan(call).all(axis=1)
    call, model, clusters = call[read], model[read], clusters[read]
    everyone = np.concatenate([call, model[:, None]], axis=1)
    count = len(names)
    if count < 2 or not len(call):
        return {"by": {}, **dict.fromkeys(("mean", "model", "difference"), empty("fewer than 2 readers"))}
    statistic = _f1(everyone)

    def all_of(weights: Array) -> Array:
        f1 = statistic(weights)  # [b, readers + 1, readers]
        own = np.eye(count + 1, count, dtype=bool)
        with np.errstate(invalid="ignore"):
            each = np.where(own, 0.0, f1).sum(axis=2) / (~own).sum(axis=1)
        mean = each[:, :-1].mean(axis=1)
        return np.concatenate([each, mean[:, None], (each[:, -1] - mean)[:, None]], axis=1)

    found = weighted_all(all_of, count + 3, clusters, resamples=resamples, seed=seed)
    return {
        "by": dict(zip(names, found, strict=False)),
        "model": found[count],
        "mean": found[count + 1],
        "difference": found[count + 2],
    }


def _f1(call: Array) -> Callable[[Array], Array]:
    """F1 of all against the readers (all but the last) as a function of weights [b, n] -> [b, k, k - 1]."""
    known = (~np.isnan(call)).astype(np.float64)
    yes = np.nan_to_num(call)
    k = call.shape[1]
    pairs = [(a, b) for a in range(k) for b in range(k - 1)]
    both = np.stack([yes[:, a] * yes[:, b] for a, b in pairs], axis=1)
    either = np.stack([yes[:, a] * known[:, b] + known[:, a] * yes[:, b] for a, b in pairs], axis=1)

    def statistic(weights: Array) -> Array:
        hits, total = weights @ both, weights @ either
        out = np.full(hits.shape, np.nan)
        np.divide(2 * hits, total, out=out, where=total > 0)
        return out.reshape(len(weights), k, k - 1)

    return statistic


def points(
    call: Array,
    names: list[str],
    label: Array,
    score: Array,
    clusters: NDArray[Any],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Sensitivity and specificity of each reader against the reference truth, their mean, and the model beside it.

    {by: {reader: {sensitivity, specificity}}, mean: {sensitivity, specificity, sensitivity_sd, specificity_sd}, model:
    sensitivity at the readers' mean specificity, difference: model minus mean sensitivity}; sd is the standard
    deviation among readers, as Esteva et al. draw it. Intervals: Wilson for one row a patient, else (and for the means
    and the model's) patient bootstrap. Cases whose label is unknown, or that nobody called, are left out.
    """
    use = ~np.isnan(label) & ~np.isnan(score) & ~np.isnan(call).all(axis=1)
    call, label, score, clusters = call[use], label[use], score[use], clusters[use]
    if len(np.unique(label)) < 2:
        return {}
    by: dict[str, dict[str, Metric]] = {}
    for k, name in enumerate(names):
        by[name] = {}
        for metric, side in (("sensitivity", 1), ("specificity", 0)):
            mask = (label == side) & ~np.isnan(call[:, k])
            by[name][metric] = proportion(call[mask, k] == side, clusters[mask], resamples=resamples, seed=seed)
    found = weighted_all(_means(call, label, score), 4, clusters, resamples=resamples, seed=seed)
    mean: dict[str, Any] = {"sensitivity": found[0], "specificity": found[1]}
    for metric in ("sensitivity", "specificity"):
        values = [one[metric]["value"] for one in by.values()]
        mean[f"{metric}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
    return {"by": by, "mean": mean, "model": found[2], "difference": found[3]}


def _means(call: Array, label: Array, score: Array) -> Callable[[Array], Array]:
    """Mean sensitivity and specificity of readers, and the model's at that specificity, of weights [b, n] -> [b, 4]."""
    known = (~np.isnan(call)).astype(np.float64)
    yes, positive = np.nan_to_num(call), (label == 1).astype(np.float64)
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])  # after the last of equal scores

    def statistic(weights: Array) -> Array:
        ill, well = weights * positive, weights * (1 - positive)
        with np.errstate(divide="ignore", invalid="ignore"):
            sensitivity = np.mean((ill @ yes) / (ill @ known), axis=1)
            false_calls = np.mean((well @ yes) / (well @ known), axis=1)
            true = np.cumsum(ill[:, order], axis=1)[:, last] / ill.sum(axis=1, keepdims=True)
            false = np.cumsum(well[:, order], axis=1)[:, last] / well.sum(axis=1, keepdims=True)
        start = np.zeros((len(weights), 1))
        true, false = np.concatenate([start, true], axis=1), np.concatenate([start, false], axis=1)
        # The top of a step of the curve that lies at the readers' share of false calls, but for rounding.
        at = np.array([np.interp(x + 1e-9, f, t) for x, f, t in zip(false_calls, false, true, strict=True)])
        return np.stack([sensitivity, 1 - false_calls, at, at - sensitivity], axis=1)

    return statistic

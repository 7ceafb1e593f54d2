"""Lesions one by one: how many true ones are found against how many false ones, at a threshold and along all of them.

A lesion is a row of the lesion table; a scan is an exam whose true lesions are known (its mask is, or it has none).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.evaluation.groups import SIZE_NAMES, SIZES, in_words
from domainseg.evaluation.intervals import LEVEL, Array, Metric, empty, proportion, weighted, wilson
from domainseg.evaluation.tables import Rows, numbers, texts

RATES = (0.25, 1.0, 4.0)  # false lesions a scan
_ROWS = 128  # resamples at once: each holds a number for every lesion

Pair = tuple[dict[str, Any], dict[str, Any]]


@dataclass(frozen=True)
class Lesions:
    """Lesions of some scans. exam: which row of the exams each belongs to.

    false: scores of predicted lesions that match none. true: scores at which true ones are found, -inf where they are
    not; called: whether they are at the frozen threshold; ml: their size; type: "" where unknown.
    """

    false: Array
    false_exam: NDArray[np.intp]
    true: Array
    true_exam: NDArray[np.intp]
    called: NDArray[np.bool_]
    ml: Array
    type: NDArray[np.object_]


def lesions_of(exams: pd.DataFrame, lesions: pd.DataFrame) -> Lesions:
    """The lesions of these exams out of the lesion table; with folds, an exam's lesions are those of its fold."""
    place = exam_of(exams, lesions)
    here, source, score = place >= 0, texts(lesions, "source"), numbers(lesions, "score")
    false = here & (source == "predicted") & (numbers(lesions, "matched") == 0)
    true = here & (source == "truth")
    return Lesions(
        false=score[false],
        false_exam=place[false],
        true=np.nan_to_num(score[true], nan=-np.inf),
        true_exam=place[true],
        called=numbers(lesions, "called")[true] == 1,
        ml=numbers(lesions, "ml")[true],
        type=np.array([name or "" for name in texts(lesions, "type")[true]], dtype=object),
    )


def exam_of(exams: pd.DataFrame, lesions: pd.DataFrame) -> NDArray[np.intp]:
    """Which row of the exams each lesion belongs to, -1 where none of them; with folds, by image and fold."""
    keys = ["image", "fold"] if "fold" in exams and "fold" in lesions else ["image"]
    places = {key: place for place, key in enumerate(zip(*(texts(exams, name) for name in keys), strict=True))}
    names = zip(*(texts(lesions, name) for name in keys), strict=True)
    return np.array([places.get(key, -1) for key in names], np.intp)


def lesion_metrics(rows: Rows, lesions: pd.DataFrame | None, resamples: int, seed: int) -> Pair:
    """Of the target hemorrhage: false lesions, FROC, lesion sensitivity at the frozen threshold, also by size.

    Conditional: scored exams. On intention: eligible exams; an excluded exam has found nothing, and one without a bleed
    counts as one false lesion, for somebody has to read it (our choice). called_without_lesion: fraction of the called
    exams in which no lesion is called, so that nothing is shown and 0 ml are measured; what such exams are called for
    counts in no other figure of lesions. Without a lesion table only false_lesions_per_normal.
    """
    scored = rows.take(rows.scored)
    asked = rows.take(rows.intended)
    conditional: dict[str, Any] = {"false_lesions_per_normal": _per_normal(scored, resamples, seed)}
    intention: dict[str, Any] = {"false_lesions_per_normal": _per_normal(asked, resamples, seed)}
    if lesions is not None:
        conditional["called_without_lesion"] = _nothing_shown(scored, lesions, resamples, seed)
        conditional |= _found(scored, lesions, resamples, seed)
        intention |= _found(asked, lesions, resamples, seed)
    return conditional, intention


def lesion_sensitivity(rows: Rows, lesions: pd.DataFrame, kind: str, resamples: int, seed: int) -> Metric:
    """Fraction of the true lesions of one type that are called."""
    found = lesions_of(rows.table, lesions)
    of_kind = found.type == kind
    return proportion(found.called[of_kind], rows.clusters[found.true_exam[of_kind]], resamples=resamples, seed=seed)


def _per_normal(rows: Rows, resamples: int, seed: int) -> Metric:
    """The mean of called lesions in exams without a hemorrhage.

    Where there is none, every resample is the same: the bound is then that of no event in as many patients (Poisson).
    """
    count = numbers(rows.table, "false_lesions")
    count = np.where(np.isnan(count) & np.isnan(rows.score), 1.0, count)
    normal = (rows.label == 0) & ~np.isnan(count)
    if "false_lesions" not in rows.table or not normal.any():
        return empty()
    found = weighted(mean(count[normal]), rows.clusters[normal], resamples=resamples, seed=seed)
    if found["value"] == 0:
        most = -np.log((1 - LEVEL) / 2) / found["n_clusters"]
        return {**found, "high": float(most), "method": "Poisson at the number of patients"}
    return found


def _nothing_shown(rows: Rows, lesions: pd.DataFrame, resamples: int, seed: int) -> Metric:
    called = np.flatnonzero(rows.score >= rows.threshold)
    shown = (texts(lesions, "source") == "predicted") & (numbers(lesions, "called") == 1)
    nothing = ~np.isin(called, exam_of(rows.table, lesions)[shown])
    return proportion(nothing, rows.clusters[called], resamples=resamples, seed=seed)


def scans(rows: Rows, lesions: pd.DataFrame) -> tuple[Rows, Lesions]:
    """The rows whose true lesions are known, and the lesions of these.

    Of excluded rows those without a bleed have a false lesion above all others, those with one have found nothing.
    """
    lost = np.isnan(rows.score)
    outlined = np.isin(rows.table["image"], lesions["image"][texts(lesions, "source") == "truth"])
    rows = rows.take(~np.isnan(numbers(rows.table, "false_lesions")) | (lost & (outlined | (rows.label == 0))))
    found = lesions_of(rows.table, lesions)
    raised = np.flatnonzero(np.isnan(rows.score) & (rows.label == 0))
    false, false_exam = np.r_[found.false, np.full(len(raised), np.inf)], np.r_[found.false_exam, raised]
    return rows, replace(found, false=false, false_exam=false_exam)


def _found(rows: Rows, lesions: pd.DataFrame, resamples: int, seed: int) -> dict[str, Any]:
    rows, found = scans(rows, lesions)
    people = rows.clusters[found.true_exam]
    sizes = in_words(found.ml, SIZES, SIZE_NAMES)
    out: dict[str, Any] = {
        "lesion_sensitivity": proportion(found.called, people, resamples=resamples, seed=seed),
        "froc": {f"at_{rate:g}": _at(rate, found, rows.clusters, resamples, seed) for rate in RATES},
    }
    by_size = {
        name: proportion(found.called[sizes == name], people[sizes == name], resamples=resamples, seed=seed)
        for name in SIZE_NAMES
        if (sizes == name).any()
    }
    return {**out, **({"lesion_sensitivity_by_size": by_size} if by_size else {})}


def _at(rate: float, found: Lesions, clusters: NDArray[np.str_], resamples: int, seed: int) -> Metric:
    """Lesion sensitivity at ``rate`` false lesions a scan; n counts true lesions."""
    if not len(found.true):
        return empty()
    metric = weighted(froc(found, rate), clusters, resamples=resamples, seed=seed)
    metric["n"] = len(found.true)
    if metric["value"] in (0.0, 1.0):  # every resample is the same, or nearly
        patients = len(np.unique(clusters[found.true_exam]))
        metric["low"], metric["high"] = wilson(int(metric["value"]) * patients, patients)
        metric["method"] = "wilson at the number of patients"
    return metric


def froc(found: Lesions, rate: float) -> Callable[[Array], Array]:
    """Lesion sensitivity at ``rate`` false lesions a scan as a function of weights of scans [b, n] -> [b].

    The threshold is the lowest at which no more false lesions than that are called; among equal scores the false
    lesion comes first.
    """
    order = np.argsort(-found.false, kind="stable")
    false, false_exam = found.false[order], found.false_exam[order]
    ranks = np.argsort(-found.true, kind="stable")
    true, true_exam = found.true[ranks], found.true_exam[ranks]

    def some(weights: Array) -> Array:
        called = np.cumsum(weights[:, false_exam], axis=1)
        allowed = (called <= rate * weights.sum(axis=1, keepdims=True) + 1e-9).sum(axis=1)
        # The first lesion that is one too many: nothing at or below its score is called.
        limit = np.r_[false, -np.inf][allowed]
        hits = np.searchsorted(-true, -limit, side="left")
        sums = np.cumsum(np.c_[np.zeros(len(weights)), weights[:, true_exam]], axis=1)
        out = np.full(len(weights), np.nan)
        np.divide(sums[np.arange(len(weights)), hits], sums[:, -1], out=out, where=sums[:, -1] > 0)
        return out

    def statistic(weights: Array) -> Array:
        return np.concatenate([some(weights[start : start + _ROWS]) for start in range(0, len(weights), _ROWS)])

    return statistic


def mean(values: Array) -> Callable[[Array], Array]:
    """The weighted mean as a function of weights [b, n] -> [b]; NaN where all weights are 0."""

    def statistic(weights: Array) -> Array:
        out = np.full(len(weights), np.nan)
        total = weights.sum(axis=1)
        return np.asarray(np.divide(weights @ values, total, out=out, where=total > 0))

    return statistic

"""metrics.json from a prediction table: split -> target -> metric -> {value, low, high, n, n_clusters, method}.

Metrics straight under a target are conditional: on the cases that were scored. Those under ``intention`` are on all
eligible cases, an excluded positive scoring -inf and an excluded negative +inf; quality is judged there. Groups stand
under ``by.<column>.<value>``, beside either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from domainseg.cascade.head_rows import JOINED
from domainseg.evaluation import intervals, roc
from domainseg.evaluation.calibration import MEASURES, calibration
from domainseg.evaluation.findings import mean_auc
from domainseg.evaluation.groups import GROUPS, HEAD_TARGETS, groups_of
from domainseg.evaluation.intervals import Metric, empty, proportion
from domainseg.evaluation.lesions import lesion_metrics, lesion_sensitivity
from domainseg.evaluation.location import localizer_metrics, location_metrics, pointing_metrics
from domainseg.evaluation.tables import Rows, probable, rows_of, should_stop, targets_of, texts
from domainseg.evaluation.volumes import joined_rows, overlap_metrics
from domainseg.imaging.chest import FINDINGS
from domainseg.imaging.hemorrhage import TYPES

NO_THRESHOLD = "no frozen threshold"
_SPLITS = ("train", "tune", "test")

Metrics = dict[str, Any]


def evaluate(
    table: pd.DataFrame,
    targets: Iterable[str] | None = None,
    *,
    groups: Sequence[str] = GROUPS,
    splits: Iterable[str] | None = None,
    resamples: int = intervals.RESAMPLES,
    seed: int = 0,
    lesions: pd.DataFrame | None = None,
) -> Metrics:
    """All metrics of a prediction table, as plain nested dicts (see the head of this module).

    targets: all that the table holds when not given. splits: all present; a table without the column is all test.
    resamples, seed: of the patient bootstrap; the same give the same bytes. lesions: the lesion table of volumes.
    Raises EvaluationError for a table that lacks needed columns, naming them.
    """
    chosen = targets_of(table, targets)
    if not len(table):
        return {"test": {t: _target(rows_of(table, t), t, groups, resamples, seed, lesions) for t in chosen}}
    names = np.array([name or "test" for name in texts(table, "split")], dtype=object)
    present = [name for name in dict.fromkeys([*_SPLITS, *names]) if name in set(names)]
    out: Metrics = {}
    for split in present if splits is None else splits:
        part = table[names == split]
        out[split] = {t: _target(rows_of(part, t), t, groups, resamples, seed, lesions) for t in chosen}
        for name in JOINED:
            if "hemorrhage" in chosen and f"dice_{name}" in part:
                conditional, intention = overlap_metrics(
                    joined_rows(rows_of(part, "hemorrhage"), name), name, resamples, seed
                )
                out[split][name] = {**conditional, "intention": intention}
        if len(findings := [name for name in chosen if name in FINDINGS]) > 1:
            rows = {name: rows_of(part, name) for name in findings}
            out[split]["findings"] = {
                "auc_mean": mean_auc({name: one.take(one.scored) for name, one in rows.items()}),
                "intention": {"auc_mean": mean_auc({name: one.judged() for name, one in rows.items()})},
            }
        if "fracture" in chosen and "label_location" in table and "location" in table:
            out[split]["location"] = location_metrics(rows_of(part, "fracture"), groups, resamples, seed)
    return out


def _target(
    rows: Rows, target: str, groups: Sequence[str], resamples: int, seed: int, lesions: pd.DataFrame | None
) -> Metrics:
    out = _metrics(rows, target, resamples, seed, lesions)
    if target in HEAD_TARGETS:
        out["balanced"], out["intention"]["balanced"] = _balanced(rows, target, resamples, seed)
    for column, value, members in groups_of(rows, target, groups):
        here = _metrics(members, target, resamples, seed, lesions)
        intention = here.pop("intention")
        out.setdefault("by", {}).setdefault(column, {})[value] = here
        out["intention"].setdefault("by", {}).setdefault(column, {})[value] = intention
    return out


def _metrics(rows: Rows, target: str, resamples: int, seed: int, lesions: pd.DataFrame | None) -> Metrics:
    scored, judged = rows.take(rows.scored), rows.judged()
    out: Metrics = {
        **_areas(scored),
        **_decisions(scored, ("accuracy", "sensitivity", "specificity", "ppv", "npv"), resamples, seed),
        "prevalence": proportion(scored.label == 1, scored.clusters, resamples=resamples, seed=seed),
        **({} if target in TYPES else _calibration(scored, resamples, seed)),
        **_coverage(rows, target, resamples, seed),
        "intention": {
            **_areas(judged),
            **_decisions(judged, ("accuracy", "sensitivity", "specificity"), resamples, seed),
        },
    }
    for special in (localizer_metrics if target == "localizer" else None, pointing_metrics):
        if special is not None:
            conditional, intention = special(rows, target, resamples, seed)
            out.update(conditional)
            out["intention"].update(intention)
    if target in HEAD_TARGETS:
        _of_lesions(out, rows, target, resamples, seed, lesions)
    return out


def _calibration(scored: Rows, resamples: int, seed: int) -> dict[str, Metric]:
    """Of all targets but the types of hemorrhage: the score of a type is no probability of its own."""
    if not probable(scored.score):
        return {name: empty("scores are no probabilities", len(scored)) for name in MEASURES}
    return calibration(scored.label, scored.score, scored.clusters, resamples=min(resamples, 500), seed=seed)


def _of_lesions(out: Metrics, rows: Rows, target: str, resamples: int, seed: int, lesions: pd.DataFrame | None) -> None:
    """Add what only volumes have: overlap, volumes, lesions."""
    found: list[tuple[Metrics, Metrics]] = [overlap_metrics(rows, target, resamples, seed)]
    if target == "hemorrhage" and "false_lesions" in rows.table:
        found.append(lesion_metrics(rows, lesions, resamples, seed))
    elif target in TYPES and lesions is not None:
        parts = rows.take(rows.scored), rows.take(rows.intended)
        called = [lesion_sensitivity(part, lesions, target, resamples, seed) for part in parts]
        found.append(({"lesion_sensitivity": called[0]}, {"lesion_sensitivity": called[1]}))
    for conditional, intention in found:
        out.update(conditional)
        out["intention"].update(intention)


def _balanced(rows: Rows, target: str, resamples: int, seed: int) -> tuple[Metrics, Metrics]:
    """Decisions and volumes on as many exams with the target as without, as Chang et al. 2018 also give them.

    All of the rarer class, and of the other as many drawn at random (seeded).
    """
    generator = np.random.default_rng((seed, 4))
    out: list[Metrics] = []
    for mask in (rows.scored, rows.intended):
        sides = [np.flatnonzero(mask & (rows.label == side)) for side in (0, 1)]
        count = min(len(side) for side in sides)
        chosen = np.zeros(len(rows), dtype=bool)
        for side in sides:
            chosen[generator.permutation(side)[:count]] = True
        kept, place = rows.take(chosen), len(out)
        names = ("accuracy", "sensitivity", "specificity") + (() if place else ("ppv", "npv"))
        decided = _decisions(kept.judged() if place else kept, names, resamples, seed)
        out.append({**decided, **overlap_metrics(kept, target, resamples, seed)[place]})
    return out[0], out[1]


def _areas(rows: Rows) -> dict[str, Metric]:
    if len(np.unique(rows.fold)) < 2:
        return {"auc": roc.auc(rows.label, rows.score, rows.clusters)}
    return {
        "auc": roc.auc(rows.label, rows.score, rows.clusters, rows.fold),
        "auc_pooled": roc.auc(rows.label, rows.score, rows.clusters),
    }


def _decisions(rows: Rows, names: Sequence[str], resamples: int, seed: int) -> dict[str, Metric]:
    if not len(rows):
        return {name: empty() for name in names}
    positive = rows.label == 1
    if (np.isnan(rows.threshold) & np.isfinite(rows.score)).any() or np.isnan(rows.threshold).all():
        asked = {"sensitivity": rows.take(positive), "specificity": rows.take(~positive)}
        return {
            name: empty(NO_THRESHOLD, len(part), len(np.unique(part.clusters)))
            for name in names
            for part in [asked.get(name, rows)]
        }
    # An excluded case has no threshold of its own and needs none: -inf is never called, +inf always.
    called = np.where(np.isfinite(rows.score), rows.score >= rows.threshold, rows.score > 0)
    among = {
        "accuracy": np.ones(len(rows), dtype=bool),
        "sensitivity": positive,
        "specificity": ~positive,
        "ppv": called,
        "npv": ~called,
    }
    right = called == positive
    return {
        name: proportion(right[among[name]], rows.clusters[among[name]], resamples=resamples, seed=seed)
        for name in names
    }


def _coverage(rows: Rows, target: str, resamples: int, seed: int) -> Metrics:
    """What fraction of eligible cases was scored, and which stage wrongly excluded the others, by label.

    ``coverage`` also counts cases of unknown label: a film whose fracture nobody could place on a hip was still missed.
    ``missed_exclusion``: fraction scored of the cases that a known truth says should have been excluded.
    """
    unlabelled = np.isnan(rows.label)
    eligible = rows.take(np.where(unlabelled, ~should_stop(rows.table, target), rows.eligible))
    scored = ~np.isnan(eligible.score)
    sides = {"positive": eligible.label == 1, "negative": eligible.label == 0}

    def fraction(hits: Any, mask: Any) -> Metric:
        return proportion(hits[mask], eligible.clusters[mask], resamples=resamples, seed=seed)

    out: Metrics = {"coverage": fraction(scored, np.ones(len(eligible), dtype=bool))}
    for name, mask in sides.items():
        out[f"coverage_{name}"] = fraction(scored, mask)
        out[f"false_exclusion_{name}"] = fraction(~scored, mask)
    stage = np.array([name or "not scored" for name in eligible.excluded_by], dtype=object)
    stage[scored] = None
    stages = [name for name in dict.fromkeys(stage) if name is not None]
    if stages:
        out["excluded"] = {
            by: {name: fraction(stage == by, mask) for name, mask in sides.items()} for by in sorted(stages)
        }
    missed = rows.take(~rows.eligible & ~unlabelled)
    out["missed_exclusion"] = proportion(~np.isnan(missed.score), missed.clusters, resamples=resamples, seed=seed)
    return out


def get(metrics: Mapping[str, Any], path: str) -> Any:
    """Look up ``test.fracture.intention.auc`` or ``test.fracture.by.site.A.auc`` (keys may hold dots: longest first).

    Returns the record, or the dict of records, at that path. Raises KeyError with the path when there is none.
    """
    found = _walk(metrics, path.split("."))
    if found is None:
        raise KeyError(f"no metric {path}; here are {', '.join(map(str, metrics))}")
    return found


def _walk(node: Any, names: list[str]) -> Any:
    if not names:
        return node
    if not isinstance(node, Mapping):
        return None
    for size in range(len(names), 0, -1):
        key = ".".join(names[:size])
        if key in node:
            found = _walk(node[key], names[size:])
            if found is not None:
                return found
    return None

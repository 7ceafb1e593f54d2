"""The main target in depth, on the reported split: what is too long to compute for each group of each target.

It stands in metrics.json under the target, beside the metrics that every target has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.evaluation import readers
from domainseg.evaluation.benefit import PREVALENCES, decision_curve, predictive_values
from domainseg.evaluation.calibration import calibration_curve
from domainseg.evaluation.groups import worst
from domainseg.evaluation.intervals import RESAMPLES, Array, empty
from domainseg.evaluation.operating import decisions, on_test_thresholds, threshold_at
from domainseg.evaluation.prior import prior
from domainseg.evaluation.shift import largest, shift
from domainseg.evaluation.tables import Rows, probable, ranked, rows_of, texts
from domainseg.imaging.hemorrhage import TYPES

GIVEN = "as it stands in the table; where it was chosen is not known here"
PER_FOLD = "one a fold"
ON_TEST = "the test set itself, as in Zech et al. 2018: to compare only"


@dataclass(frozen=True)
class Settings:
    """What the detail is asked for, as in conf/evaluate.yaml."""

    sensitivity: float = 0.95
    specificity: float = 0.95
    prevalence: float | None = None
    prior: Sequence[str] = ()
    reference: str | None = None
    resamples: int = RESAMPLES
    seed: int = 0


def detail(
    table: pd.DataFrame, target: str, split: str, metrics: dict[str, Any], settings: Settings, reads: Any = None
) -> dict[str, Any]:
    """What ``metrics`` (of this target and split) is to be added to.

    operating: decisions at the frozen threshold and at those that a rule chooses, each saying on what; shift: how the
    first of them moves between sites, and post_test: PPV and NPV over prevalences at it, both left out where the only
    threshold is chosen on test; calibration_curve, decision_curve, where scores are probabilities; worst: the worst
    group of each column; prior, readers (table ``reads``): where asked. All on scored cases but for ``worst``, which
    is on intention. With several folds the tune split is not used: its patients are test patients of other folds.
    """
    names = np.array([name or "test" for name in texts(table, "split")], dtype=object)
    rows = rows_of(table[names == split], target)
    tune = rows_of(table[names == "tune"], target) if split != "tune" and (names == "tune").any() else None
    tune = None if tune is None or not _both(tune) or len(np.unique(rows.fold)) > 1 else tune
    scored = rows.take(rows.scored)
    again = {"resamples": settings.resamples, "seed": settings.seed}
    out: dict[str, Any] = {"worst": worst(metrics.get("intention", {}).get("by", {}))}
    if _both(rows):
        out["operating"] = _operating(scored, tune, settings)
        if (name := _usable(out["operating"])) is not None:
            first = out["operating"][name]
            if moved := _shift(rows, tune, first["threshold"], settings):
                out["shift"] = moved
            prevalences = PREVALENCES if settings.prevalence is None else sorted({*PREVALENCES, settings.prevalence})
            out["post_test"] = predictive_values(first["lr_positive"], first["lr_negative"], prevalences)
        if probable(scored.score) and target not in TYPES:
            few: dict[str, Any] = {**again, "resamples": min(settings.resamples, 500)}
            out["calibration_curve"] = calibration_curve(scored.label, scored.score, scored.clusters, **few)
            out["decision_curve"] = decision_curve(scored.label, scored.score, scored.clusters, **few)
        if settings.prior:
            out["prior"] = prior(rows, tune, settings.prior, seed=settings.seed)
    if reads is not None:
        out["readers"] = _readers(rows, reads, out.get("operating", {}), settings)
    return out


def _both(rows: Rows) -> bool:
    return len(np.unique(rows.take(rows.scored).label)) == 2


def called_at(rows: Rows, threshold: float | str) -> NDArray[np.bool_]:
    """Calls [n] at a threshold, or at each row's own ("frozen")."""
    return np.asarray(rows.score >= (rows.threshold if threshold == "frozen" else float(threshold)))


def _operating(scored: Rows, tune: Rows | None, settings: Settings) -> dict[str, dict[str, Any]]:
    """Decisions at each threshold: frozen, chosen on tune, and Zech's, which is last and never to be used.

    The frozen ones of several folds are each row's own; Zech's are chosen in each fold that has positives.
    """
    found: dict[str, tuple[float | str, str, str]] = {}
    if not np.isnan(scored.threshold).any():
        found["frozen"] = ("frozen", "as given", GIVEN)
    asked: tuple[tuple[str, dict[str, float]], ...] = (
        (f"sensitivity {settings.sensitivity:g}", {"sensitivity": settings.sensitivity}),
        (f"specificity {settings.specificity:g}", {"specificity": settings.specificity}),
    )
    for rule, want in asked:
        if tune is not None:
            known = tune.take(tune.scored)
            found[f"{rule} on tune"] = (
                threshold_at(known.label, known.score, **want),
                rule,
                f"tune, {len(known)} cases",
            )
    again = {"resamples": settings.resamples, "seed": settings.seed}
    points = {
        name: {
            "threshold": threshold,
            "rule": rule,
            "chosen_on": chosen_on,
            **decisions(scored.label, called_at(scored, threshold), scored.clusters, **again),
        }
        for name, (threshold, rule, chosen_on) in found.items()
    }
    cut = on_test_thresholds(scored.label, scored.score, scored.fold, settings.sensitivity)
    several, some = len(np.unique(scored.fold)) > 1, ~np.isnan(cut)
    points[f"{asked[0][0]} on test"] = {
        "threshold": PER_FOLD if several else float(cut[0]),
        "rule": asked[0][0],
        "chosen_on": ON_TEST,
        **decisions(scored.label[some], (scored.score >= cut)[some], scored.clusters[some], **again),
    }
    return points


def _shift(rows: Rows, tune: Rows | None, threshold: float | str, settings: Settings) -> dict[str, Any]:
    """Sensitivity and specificity by site at one threshold, against tune or against the site with most cases."""
    scored = rows.take(rows.scored)
    site = texts(scored.table, "site")
    named = settings.reference if settings.reference in set(site) else None  # one without a scored case is none
    reference = named or ("tune" if tune is not None else largest(scored.score, site))
    label, score, clusters, place = scored.label, called_at(scored, threshold), scored.clusters, site
    if tune is not None and named is None:
        known = tune.take(tune.scored)
        if threshold == "frozen" and np.isnan(known.threshold).any():
            return {}
        every = np.full(len(scored), "all", dtype=object)
        parts = [(known.label, called_at(known, threshold), known.clusters, np.full(len(known), "tune", dtype=object))]
        parts.append((label, score, clusters, every))
        if len({name for name in site if name is not None}) > 1:
            parts.append((label, score, clusters, site))
        label, score, clusters, place = (np.concatenate(column) for column in zip(*parts, strict=True))
    if reference is None or len({name for name in place if name is not None}) < 2:
        return {}
    by = shift(label, score, clusters, place, reference, resamples=settings.resamples, seed=settings.seed)
    order = [name for name in (reference, "all") if name in by]
    return {"reference": reference, "by": {name: by[name] for name in dict.fromkeys([*order, *by])}}


def _readers(rows: Rows, reads: pd.DataFrame, operating: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Readers against each other and against the truth; the model's calls are those of the first operating point.

    That point is none of Zech's: without a frozen threshold or tune cases the model calls nothing, and has no F1
    (model_called_at is None).
    """
    call, names = readers.calls(reads, rows)
    again = {"resamples": settings.resamples, "seed": settings.seed}
    model, at = _model_calls(rows, operating)
    out: dict[str, Any] = {"f1": readers.agreement(call, names, model, rows.clusters, **again), "model_called_at": at}
    if np.isnan(model).all():
        out["f1"] |= dict.fromkeys(("model", "difference"), empty("no frozen threshold"))
    if points := readers.points(call, names, rows.label, ranked(rows), rows.clusters, **again):
        out["points"] = points
    return out


def _usable(operating: dict[str, Any]) -> str | None:
    """The first operating point that was not chosen on the test set itself."""
    return next((name for name, point in operating.items() if point["chosen_on"] != ON_TEST), None)


def _model_calls(rows: Rows, operating: dict[str, Any]) -> tuple[Array, str | None]:
    name = _usable(operating)
    if name is None and not np.isnan(rows.threshold[~np.isnan(rows.score)]).any():
        name = "frozen"  # no truth, and so no operating points, but a threshold
    if name is None:
        return np.full(len(rows), np.nan), None
    threshold = operating[name]["threshold"] if name in operating else "frozen"
    return np.where(np.isnan(rows.score), np.nan, called_at(rows, threshold)), name

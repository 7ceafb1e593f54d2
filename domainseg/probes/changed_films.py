"""A bundle on films and on changed copies of them: the same cases, judged with and without the change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from domainseg.bundle.load import Bundle, load_bundle
from domainseg.bundle.predict import hashed_images
from domainseg.cascade.cascade import Cascade, read_ahead
from domainseg.cascade.case import Case
from domainseg.cascade.reads import VOLUMES, reading_of
from domainseg.cascade.table import prediction_table
from domainseg.data.manifest import Manifest
from domainseg.data.privacy import patient_key
from domainseg.evaluation import roc
from domainseg.evaluation.calibration import logit
from domainseg.evaluation.intervals import Metric, weighted
from domainseg.evaluation.tables import Rows, rows_of
from domainseg.imaging import Film, ImageReadError
from domainseg.probes.common import ProbeError, both_classes, check_output, enough, films_in_cohort
from domainseg.probes.effects import holm
from domainseg.probes.held_out import held_out

log = logging.getLogger(__name__)

# A film and its unchanged rows -> the changed film, or None where there is nothing to change in it.
Change = Callable[[Film, Sequence[Mapping[str, Any]]], Film | None]
FILMS = ("test", "all")


def bundle_and_films(cfg: Mapping[str, Any], films: str) -> tuple[Bundle, Manifest, str]:
    """The bundle of ``bundle=``, the films to judge it on, and for people whether it may have seen them.

    Raises ProbeError, BundleError, ManifestError.
    """
    if films not in FILMS:
        raise ProbeError(f"probe.films={films}: known are {', '.join(FILMS)}")
    if not cfg["bundle"]:
        raise ProbeError("bundle=DIR is needed, with films: data=manifest data.path=films.csv")
    bundle = load_bundle(cfg["bundle"])
    if reading_of(bundle.stages) is VOLUMES:
        raise ProbeError(f"{cfg['bundle']}: reads volumes; this probe changes films")
    if films == "all":
        manifest, origin = (
            films_in_cohort(cfg),
            "All films are judged: that none of them trained the model is taken on trust.",
        )
    else:
        manifest, origin = held_out(cfg, bundle.record)
    if not len(manifest):
        raise ProbeError("no film is in the test split; probe.films=all takes films that the bundle has never seen")
    return bundle, manifest, origin


def predict_changed(
    bundle: Bundle, manifest: Manifest, changes: Mapping[str, Change], output: Path
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The prediction table of the unchanged films, with what became of each case beside it, and films changed by name.

    Added columns for each change: changed_<name>, the score of the target for the same (image, part), NaN where it has
    none then; touched_<name>, whether the film was changed at all. Also written to ``output``, with hashed patients.
    """
    from rich.progress import track

    check_output(output)
    reading, cascade = reading_of(bundle.stages), Cascade(bundle.stages)
    truth, target = reading.truth(manifest), str(bundle.record["target"])
    rows: list[dict[str, Any]] = []
    touched = dict.fromkeys(changes, 0)
    files = [(image, manifest.path(image)) for image in manifest.images["image"]]
    for image, film in read_ahead(track(files, description="predicting"), reading=reading):
        if isinstance(film, ImageReadError):
            log.warning("%s: not read: %s", image, film.reason)
            rows += reading.rows(image, film, [], truth)
            continue
        assert isinstance(film, Film)
        own = reading.rows(image, film, cascade.run(Case.of(image, film)), truth)
        for name, change in changes.items():
            other = change(film, own)
            touched[name] += other is not None
            scores = {row["part"]: row.get(f"score_{target}", np.nan) for row in own}
            if other is not None:
                found = reading.rows(image, other, cascade.run(Case.of(image, other)), None)
                scores = {row["part"]: row.get(f"score_{target}", np.nan) for row in found}
            for row in own:
                row[f"changed_{name}"] = scores.get(row["part"], np.nan)
                row[f"touched_{name}"] = float(other is not None)
        rows += own
    from domainseg.cascade.table import write_table

    table = prediction_table(rows, bundle.stages, hashed_images(manifest, patient_key(None, output)))
    write_table(table, output)
    return table, touched


def effects(table: pd.DataFrame, target: str, names: Sequence[str], touched: Mapping[str, int]) -> dict[str, Any]:
    """What each change does to a target: plain nested dicts.

    auc, difference: on intention, a case that is excluded then being lost. scored_both: cases with a score before and
    after, their AUC before and after and its difference (paired). positive, negative: mean change of the score's
    log-odds among these. lost: judged cases without a score only then. p_difference is of the difference on intention;
    p_holm is of ``scored_both``, corrected over the changes.
    """
    before = judged_as(table, target, f"score_{target}")
    if not both_classes(before):
        raise ProbeError(f"label_{target}: one class only among {len(before)} judged cases; both are needed")
    record = {"n": len(before), "positive_n": int((before.label == 1).sum()), "few": not enough(before)}
    unchanged = roc.auc(before.label, before.score, before.clusters)
    more = [{"name": name, "films": touched[name], "p_holm": np.nan} for name in names]
    found = [_effect(table, target, name, before) | one for name, one in zip(names, more, strict=True)]
    asked = [effect for effect in found if not np.isnan(effect["p"])]
    for effect, p in zip(asked, holm([effect["p"] for effect in asked]), strict=True):
        effect["p_holm"] = p
    return record | {"target": target, "auc": unchanged, "effects": found}


def judged_as(table: pd.DataFrame, target: str, column: str) -> Rows:
    """The eligible cases with a known label, their score that of ``column``; without one they are lost."""
    rows = rows_of(table.assign(**{f"score_{target}": table[column]}), target)
    return rows.judged()


def _effect(table: pd.DataFrame, target: str, name: str, before: Rows) -> dict[str, Any]:
    after = judged_as(table, target, f"changed_{name}")
    gap, p_of_gap = roc.difference(after.label, after.score, before.score, after.clusters)
    both = np.isfinite(before.score) & np.isfinite(after.score)
    one, two = before.take(both), after.take(both)
    found: dict[str, Any] = {
        "auc": roc.auc(after.label, after.score, after.clusters),
        "difference": gap,
        "p_difference": p_of_gap,
        "lost": int((np.isfinite(before.score) & ~np.isfinite(after.score)).sum()),
    }
    scored, p = roc.difference(two.label, two.score, one.score, two.clusters)
    found["scored_both"] = {
        "before": roc.auc(one.label, one.score, one.clusters),
        "after": roc.auc(two.label, two.score, two.clusters),
        "difference": scored,
    }
    change = logit(two.score) - logit(one.score)
    for side, label in (("positive", 1), ("negative", 0)):
        found[side] = _mean(change[two.label == label], two.clusters[two.label == label])
    few = not enough(two)
    return found | {"p": np.nan if few else p, "few": few}


def _mean(values: Any, clusters: Any) -> Metric:
    return weighted(lambda weights: weights @ values / weights.sum(axis=1), clusters)


def with_pixels(film: Film, pixels: Any) -> Film:
    """The same film with other pixels, float32 [H, W]; what was not valid stays 0."""
    pixels = np.clip(np.asarray(pixels, np.float32), 0, 1)
    return replace(film, pixels=pixels if film.valid is None else np.where(film.valid, pixels, np.float32(0)))

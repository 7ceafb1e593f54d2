"""Who is trained on, tuned on and tested on: splits and folds that no patient straddles."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from domainseg.data.manifest import Manifest, ManifestError
from domainseg.data.tables import SPLITS, is_binary_label, is_date
from domainseg.files import atomic_path

log = logging.getLogger(__name__)

Cohort = Mapping[str, Sequence[str]]

DIVIDING = ("fractions", "cohort", "folds", "split", "date")  # settings of every data source: how its films are divided
BY_PATIENT, BY_DATE = "by_patient", "by_date"


def clusters(images: pd.DataFrame) -> pd.Series:
    """For each film the cluster that must stay on one side: films joined by patient (site, patient) or by group.

    Two films are in one cluster when a chain of shared patients and shared groups leads from one to the other. A
    cluster is named after its smallest member, whatever the order of rows. Raises ManifestError when a film has none.
    """
    neither = (images["patient"] == "") & (images["group"] == "")
    if neither.any():
        first = ", ".join(images.loc[neither, "image"].head(5))
        raise ManifestError(
            f"{int(neither.sum())} films have neither patient nor group, so that a split could put one patient on "
            f"two sides: {first}. Fill one of the two columns"
        )
    nodes = [
        [*([f"patient {site}/{patient}"] if patient else []), *([f"group {group}"] if group else [])]
        for site, patient, group in zip(images["site"], images["patient"], images["group"], strict=True)
    ]
    return pd.Series(joined(nodes), index=images.index, name="cluster")


def joined(rows: Sequence[Sequence[str]]) -> list[str]:
    """Of each row the name of its cluster, the smallest of it: rows are joined where a chain of shared names leads."""
    parent: dict[str, str] = {}

    def find(node: str) -> str:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for nodes in rows:
        for node in nodes[1:]:
            low, high = sorted((find(nodes[0]), find(node)))
            parent[high] = low
    return [find(nodes[0]) for nodes in rows]


def divided(manifest: Manifest, settings: Mapping[str, Any], seed: int) -> Manifest:
    """The manifest with the splits that the settings data.* ask for; see ``assign_splits``. Raises ManifestError."""
    if (way := settings.get("split") or BY_PATIENT) not in (BY_PATIENT, BY_DATE):
        raise ManifestError(f"data.split={way}: known are {BY_PATIENT} and {BY_DATE}")
    if settings.get("date") is not None and way != BY_DATE:
        raise ManifestError(f"data.date={settings['date']}: divides nothing without data.split={BY_DATE}")
    return assign_splits(
        manifest,
        seed=seed,
        fractions=settings["fractions"],
        cohort=settings.get("cohort"),
        folds=settings.get("folds"),
        by_date=way == BY_DATE,
        date=settings.get("date"),
    )


def in_cohort(images: pd.DataFrame, cohort: Cohort | None) -> pd.Series:
    """Which films belong to a cohort: every named column holds one of its values. None: all do."""
    keep = pd.Series(True, index=images.index)
    for column, values in (cohort or {}).items():
        if column not in images.columns:
            there = ", ".join(images.columns)
            raise ManifestError(f"cohort: no column {column!r} in the images table; there are {there}")
        keep &= images[column].isin([str(value) for value in values])
    if not keep.any():
        raise ManifestError(f"cohort: no film has {dict(cohort or {})}")
    return keep


def assign_splits(
    manifest: Manifest,
    *,
    seed: int,
    fractions: Mapping[str, float],
    cohort: Cohort | None = None,
    folds: int | None = None,
    by_date: bool = False,
    date: str | None = None,
) -> Manifest:
    """Give every film a split: train, tune, test, or "" = used for nothing.

    fractions: share of the patients for train, tune and test, summing to 1.
    cohort: column -> values. Tune and test hold films of the cohort only, so their patients are drawn among those who
        have one; fractions still count all patients (when too few have one, all of those are held out, in the same
            proportion, with a warning). Other films of a tune or test patient go nowhere: training on
        them would leak the patient, testing on them would leave the cohort. Their number is logged.
    folds: each patient of the cohort is tested once. Fold k tests on part k, tunes on part k + 1 (modulo folds) and
        trains on the rest and on all patients without a film of the cohort; the columns fold, split_fold0, ... say
        so and ``fold_manifest`` picks one. ``fractions`` plays no part then.
    by_date: trains and tunes on films before ``date`` and tests on all those of the cohort from then on, as the model
        will be used; ``fractions`` divides the earlier patients between train and tune. ``date`` is YYYY-MM-DD, by
        default the one from which the share of ``test`` of the films lies. Earlier films of a patient who is tested go
        nowhere.
    A split column that is there already is kept (empty = used for nothing), checked, and held to the cohort.
    Depends on the seed and the films, not on the order of rows; every combination of labels is shared
    out as evenly as whole patients allow. Raises ManifestError, also when a patient stands on two sides.
    """
    images = manifest.images
    cluster = clusters(images)
    member = in_cohort(images, cohort)
    if (images["split"] != "").any():
        if folds:
            raise ManifestError("data.folds makes its own splits: remove the split column or data.folds")
        if by_date:
            raise ManifestError(f"data.split={BY_DATE} makes its own: remove the split column or data.split")
        check_split(images["split"], cluster)
        return manifest.with_images(split=_only_cohort(images["split"], member, "the given split"))
    if by_date:
        if folds:
            raise ManifestError("data.folds and data.split=by_date divide in two ways: choose one")
        return manifest.with_images(split=_by_date(manifest, cluster, member, fractions, date, seed))
    counts = _film_counts(manifest.where(member), cluster[member])
    eligible, patients = len(counts), cluster.nunique()
    if folds:
        if not 2 < folds <= eligible:
            raise ManifestError(f"data.folds={folds}: from 3 to the number of patients in the cohort, {eligible}")
        part = deal(counts, [1 / folds] * folds, seed)
        columns: dict[str, pd.Series] = {"fold": cluster.map(lambda name: str(part.get(name, "")))}
        for fold in range(folds):
            role = {fold: "test", (fold + 1) % folds: "tune"}
            split = cluster.map(lambda name, role=role: role.get(part.get(name), "train"))
            columns[f"split_fold{fold}"] = _only_cohort(split, member, f"fold {fold}")
        return manifest.with_images(**columns)
    part = deal(counts, _shares(fractions, patients, eligible), seed)
    split = cluster.map(lambda name: SPLITS[part.get(name, 0)])
    return manifest.with_images(split=_only_cohort(split, member, "the split"))


def fold_manifest(manifest: Manifest, fold: int) -> Manifest:
    """The manifest with the split of one fold, of a manifest that has been through assign_splits with folds."""
    column = f"split_fold{fold}"
    if column not in manifest.images.columns:
        raise ManifestError(f"no fold {fold}: the manifest has not been divided into that many folds")
    return manifest.with_images(split=manifest.images[column])


def refit_manifest(manifest: Manifest) -> Manifest:
    """All films for training but one fold's tune part, of a manifest divided into folds: there is no test."""
    last = max(
        int(name.removeprefix("split_fold")) for name in map(str, manifest.images) if name.startswith("split_fold")
    )
    return manifest.with_images(split=manifest.images[f"split_fold{last}"].replace("test", "train"))


def check_split(split: pd.Series, cluster: pd.Series) -> None:
    """Raise ManifestError naming the patients (or groups) that stand on two sides of a split."""
    used = split[split != ""]
    sides = used.groupby(cluster[used.index]).agg(lambda column: sorted(set(column)))
    torn = sides[sides.map(len) > 1]
    if len(torn):
        names = "; ".join(f"{name} in {' and '.join(found)}" for name, found in torn.head(5).items())
        raise ManifestError(f"{len(torn)} patients stand on two sides of the split: {names}")


def write_splits(manifest: Manifest, path: Path | str) -> None:
    """Write down who is where: a CSV of image, split and, with folds, fold and split_fold0, ..., sorted by image."""
    columns = ["image", "split", *(name for name in manifest.images.columns if name.startswith(("fold", "split_fold")))]
    table = manifest.images[columns].sort_values("image")
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def _only_cohort(split: pd.Series, member: pd.Series, what: str) -> pd.Series:
    outside = split.isin(["tune", "test"]) & ~member
    if outside.any():
        log.info("%d films of tune and test patients in %s are not of the cohort: unused", int(outside.sum()), what)
    return split.where(~outside, "")


def _by_date(
    manifest: Manifest,
    cluster: pd.Series,
    member: pd.Series,
    fractions: Mapping[str, float],
    date: str | None,
    seed: int,
) -> pd.Series:
    images = manifest.images
    if (without := images["date"] == "").any():
        first = ", ".join(images.loc[without, "image"].head(5))
        raise ManifestError(f"data.split=by_date: {int(without.sum())} films have no date: {first}")
    _shares(fractions, 1, 1)  # refuses what are no shares
    if date is not None and not is_date(date := str(date)):
        raise ManifestError(f"data.date={date}: is no date as YYYY-MM-DD")
    dates = sorted(images.loc[member, "date"])
    first_day = date if date is not None else dates[min(len(dates) - 1, round(len(dates) * (1 - fractions["test"])))]
    later = images["date"] >= first_day
    seen = cluster.isin(set(cluster[later & member]))
    early = ~later & ~seen & member
    before, after = int(early.sum()), int((later & member).sum())
    if not before or not after:
        raise ManifestError(
            f"data.date={first_day}: {before} films of the cohort lie before it and {after} from then on; "
            f"dates run from {dates[0]} to {dates[-1]}"
        )
    unused = int((~later & seen).sum())
    log.info("tested are %d films from %s on; %d earlier films of their patients are unused", after, first_day, unused)
    share = fractions["tune"] / max(fractions["train"] + fractions["tune"], 1e-9)
    counts = _film_counts(manifest.where(early), cluster[early])
    part = deal(counts, [1 - share, share], seed)
    split = cluster.map(lambda name: SPLITS[part.get(name, 0)])
    split = _only_cohort(split, member, "the split").where(~seen, "")
    return split.where(~later, "").mask(later & member, "test")


def _film_counts(manifest: Manifest, cluster: pd.Series) -> pd.DataFrame:
    """Per cluster its films: how many, and how many of each combination of labels and with each label positive.

    A film's label is the highest that it or any of its parts has; unknown counts as a value of its own.
    """
    targets = manifest.targets
    labels = sorted(column for column in targets.columns if is_binary_label(column))
    films = targets.groupby("image")[labels].max().reindex(manifest.images["image"]).fillna(-1).astype(int)
    combination = pd.Series(["/".join(map(str, row)) for row in films.to_numpy()], index=films.index, dtype=str)
    columns = {"films": np.ones(len(films), dtype=bool)}
    columns |= {f"is {value}": (combination == value).to_numpy(bool) for value in sorted(set(combination))}
    columns |= {label: (films[label] == 1).to_numpy(bool) for label in labels}
    return pd.DataFrame(columns, index=cluster.to_numpy(), dtype=float).groupby(level=0).sum()


def deal(counts: pd.DataFrame, shares: Sequence[float], seed: int) -> dict[str, int]:
    """Deal clusters to hands so that every count is shared out like ``shares``: cluster -> number of the hand.

    The rarest kinds of film and the largest clusters are dealt first, the order among equals is drawn from the seed;
    each goes to the hand where it raises the chi-square distance from a perfect division least.
    """
    counts = counts.loc[:, counts.sum() > 0]
    totals = counts.sum().to_numpy()
    values = counts.to_numpy()
    rarest = np.where(values > 0, totals, np.inf).min(axis=1)
    rank = dict(zip(counts.index, zip(rarest, -values.sum(axis=1), strict=True), strict=True))
    order = sorted(
        counts.index,
        key=lambda name: (*rank[name], hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()),
    )
    hands = [hand for hand, share in enumerate(shares) if share > 0]
    wanted = np.asarray(shares, dtype=float)[hands, None] * totals
    dealt = np.zeros_like(wanted)
    found = {}
    for name, row in zip(order, counts.loc[order].to_numpy(), strict=True):
        hand = int(np.argmin(((2 * dealt + row) * row / wanted).sum(axis=1)))
        dealt[hand] += row
        found[str(name)] = hands[hand]
    return found


def _shares(fractions: Mapping[str, float], patients: int, eligible: int) -> list[float]:
    if set(fractions) != set(SPLITS) or min(fractions.values()) < 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise ManifestError(f"data.fractions: shares of train, tune and test that sum to 1, not {dict(fractions)}")
    held_out = [fractions[name] * patients / eligible for name in SPLITS[1:]]
    if sum(held_out) > 1:
        if eligible < 2 * sum(share > 0 for share in held_out):
            raise ManifestError(f"only {eligible} patients have a film of the cohort: widen data.cohort")
        log.warning(
            "tune and test were to have %.0f %% of %d patients; only %d have a film of the cohort: all go there",
            100 * (fractions["tune"] + fractions["test"]),
            patients,
            eligible,
        )
        held_out = [share / sum(held_out) for share in held_out]
    return [max(0.0, 1 - sum(held_out)), *held_out]

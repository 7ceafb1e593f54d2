"""Engineered prevalence: does a model learn the site where site and label go together?

  python -m domainseg.audit +probe=prevalence data=manifest data.path=films.csv target=pneumonia probe.sites=[A,B]
  python -m domainseg.audit +probe=prevalence +pipeline=hip data=manifest data.path=films.csv probe.sites=[A,B]
  python -m domainseg.audit +probe=prevalence predictions=output/predictions.csv target=pneumonia probe.sites=[A,B]

After Zech et al. 2018: five cohorts of the same size and the same share of positives, half of each from each site,
balanced or with positives more frequent at one site. With films alone the cohorts are written as splits; with a
pipeline a model is trained on each; a table in long form (a column ``cohort``) brings the tests of such models. The
signature of a model that learns the site: internal AUC goes up with the imbalance, external AUC goes down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from domainseg.bundle.predict import hashed_images
from domainseg.cascade.table import write_table
from domainseg.data.manifest import Manifest
from domainseg.data.privacy import patient_key
from domainseg.data.splits import in_cohort
from domainseg.evaluation import roc
from domainseg.evaluation.intervals import LEVEL, Metric, codes, empty
from domainseg.evaluation.tables import Rows, should_stop, texts
from domainseg.files import atomic_path
from domainseg.probes.common import (
    ProbeError,
    both_classes,
    enough,
    given_split,
    judged,
    load_films,
    need_columns,
    read_predictions,
    target_of,
    write_results,
)
from domainseg.probes.prevalence_page import page_of, short_table
from domainseg.probes.trained import file_name, train_each

SPLITS = ("train", "tune", "test")
BALANCED = "balanced"


@dataclass(frozen=True)
class Cohort:
    """A cohort's name, the site where positives are more frequent, and how many times as frequent (balanced: 1)."""

    name: str
    site: str
    ratio: float

    @property
    def severity(self) -> float:
        """Base-2 logarithm of the ratio."""
        return float(np.log2(self.ratio))


def run(
    cfg: dict[str, Any],
    output: Path,
    *,
    sites: Sequence[str],
    prevalence: float | None = 0.05,
    ratios: Sequence[float] = (5, 10),
    seed: int = 0,
) -> dict[str, Any]:
    """Write prevalence.json, prevalence.html and what the cohorts consist of; returns the record.

    Raises ProbeError, ManifestError, EvaluationError and what training raises.
    """
    cohorts = cohorts_of(sites, ratios)
    if prevalence is not None and not 0 < float(prevalence) < 0.5:
        raise ProbeError(f"probe.prevalence={prevalence}: a share above 0 and below 0.5")
    record: dict[str, Any] = {"sites": list(map(str, sites)), "drawn": None, "said": []}
    if cfg["predictions"]:
        table, record["said"] = read_predictions(cfg, "cohort")
        target = target_of(cfg, table)
    else:
        target = str(cfg["target"] or "")
        if not target:
            raise ProbeError("target=NAME is needed: the label that the cohorts are engineered for")
        manifest = load_films(cfg)
        elsewhere = films_elsewhere(cfg, manifest, target, sites)
        splits, tested, record["drawn"] = draw(manifest, target, cohorts, prevalence, seed, elsewhere)
        if not cfg["stage"]:
            write_cohorts(manifest, splits, tested, output / "cohorts")
            record |= {"target": target, "cohorts": [], "trends": [], "verdict": _drawn(record)}
            write_results(output, "prevalence", record, page_of(record), short_table(record))
            return record
        table = train_each(cfg, output, splits, "cohort")
        table["of_cohorts"] = table["image"].map(tested).fillna("")
        write_table(table, output)
    record |= {"target": target, **compared(table, target, cohorts)}
    write_results(output, "prevalence", record, page_of(record), short_table(record))
    return record


def cohorts_of(sites: Sequence[str], ratios: Sequence[float]) -> list[Cohort]:
    """Balanced, and both sites with each ratio. Raises ProbeError for what is no pair of sites or no ratio."""
    names = list(dict.fromkeys(map(str, sites)))
    if len(names) != 2:
        raise ProbeError(f"probe.sites={list(sites)}: two sites, as in probe.sites=[A,B]")
    if not ratios or any(not float(ratio) > 1 for ratio in ratios) or len(set(ratios)) < len(ratios):
        raise ProbeError(f"probe.ratios={list(ratios)}: different numbers above 1")
    words = dict(zip(sorted(map(float, ratios)), ("mild", "severe"), strict=False)) if len(ratios) == 2 else {}
    found = [Cohort(BALANCED, "", 1.0)]
    for ratio in sorted(map(float, ratios)):
        found += [Cohort(f"{site} {words.get(ratio, f'{ratio:g}x')}", site, ratio) for site in names]
    return found


def films_elsewhere(cfg: Mapping[str, Any], manifest: Manifest, target: str, sites: Sequence[str]) -> pd.Series:
    """Which images are of other sites and tested: those of the test split, or all where training makes the splits."""
    images = manifest.images.set_index("image")
    other = ~images["site"].isin(list(map(str, sites))) & (images["site"] != "")
    other &= film_labels(manifest, target).notna()
    if given_split(cfg):
        return other & (images["split"] == "test")
    return other & in_cohort(manifest.images, cfg["data"].get("cohort")).to_numpy()


def draw(
    manifest: Manifest,
    target: str,
    cohorts: Sequence[Cohort],
    prevalence: float | None,
    seed: int,
    elsewhere: pd.Series,
) -> tuple[dict[str, pd.Series], dict[str, str], dict[str, Any]]:
    """For each cohort the split of each image; image -> the cohorts that it is tested in; how many films of each kind.

    Train, tune and test are drawn each within its own films, so that patients stay apart. A split is as large as the
    films allow in every cohort. The test split of each holds the films that any cohort tests on and those of
    ``elsewhere``: all models are judged on the same films. Raises ProbeError when there are not enough films.
    """
    images = manifest.images.set_index("image")
    label = film_labels(manifest, target)
    names = sorted({cohort.site for cohort in cohorts} - {""})
    here = images["site"].isin(names) & label.notna()
    if absent := sorted(set(names) - set(images.loc[here, "site"])):
        raise ProbeError(f"probe.sites: no film with a known label_{target} is of {', '.join(absent)}")
    pool = images.assign(label=label)[here & (images["split"] != "")]
    numbers, prevalence = sizes(pool, names, cohorts, prevalence)
    # In one order for all, so that cohorts differ in as few films as they can.
    order = pool.iloc[np.random.default_rng(seed).permutation(len(pool))]
    splits, counts = {}, dict[str, Any]()
    for cohort in cohorts:
        split = pd.Series("", index=images.index)
        counts[cohort.name] = {}
        for part in SPLITS:
            for site in names:
                for value, n in zip((1, 0), numbers[part, cohort.name, site], strict=True):
                    kind = order[(order["split"] == part) & (order["site"] == site) & (order["label"] == value)]
                    split[kind.index[:n]] = part
                    counts[cohort.name][f"{part}, {site}, {'positive' if value else 'negative'}"] = n
        splits[cohort.name] = split
    tested = pd.DataFrame({name: split == "test" for name, split in splits.items()})
    listed = {
        str(image): "; ".join(tested.columns[row]) for image, row in zip(tested.index, tested.values, strict=True)
    }
    for split in splits.values():
        split[tested.any(axis=1) | elsewhere] = "test"
    drawn: dict[str, Any] = {"counts": counts, "prevalence": prevalence, "external": int(elsewhere.sum())}
    for part in SPLITS:
        drawn[part] = sum(sum(numbers[part, BALANCED, site]) for site in names)
    return splits, {image: names for image, names in listed.items() if names}, drawn


def write_cohorts(manifest: Manifest, splits: Mapping[str, pd.Series], tested: Mapping[str, str], folder: Path) -> None:
    """Each cohort as an images table with its splits, targets.csv, and which film is tested in which cohort.

    A film that a cohort leaves out has no split there. Patients are hashed; paths stay relative to data.root=.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = hashed_images(manifest, patient_key(None, folder)).set_index("image")
    columns = [name for name in ("path", "patient", "group", "site", "split") if name != "path" or not manifest.films]
    tables = {f"{file_name(name)}.csv": images.assign(split=split)[columns] for name, split in splits.items()}
    tables["targets.csv"] = manifest.targets.set_index("image")
    tables["tested.csv"] = pd.Series(tested, name="of_cohorts").rename_axis("image").to_frame()
    for name, table in tables.items():
        with atomic_path(folder / name) as temporary:
            table.to_csv(temporary, lineterminator="\n")


def film_labels(manifest: Manifest, target: str) -> pd.Series:
    """The label of each film: 1 if it or a part has it, 0 if it is 0 as a whole or in all parts, else NaN.

    Parts that an earlier stage should exclude, such as a hip that is not on the film, need not be known.
    """
    column = f"label_{target}"
    if column not in manifest.targets:
        known = [name.removeprefix("label_") for name in map(str, manifest.targets) if name.startswith("label_")]
        raise ProbeError(f"target={target}: the targets have no {column}; there are {', '.join(known)}")
    targets = manifest.targets
    highest = targets.groupby("image")[column].max()
    whole, unknown = targets["part"] == "whole", targets[column].isna()
    open_ = set(targets.loc[~whole & unknown & ~should_stop(targets, target), "image"])
    open_ -= set(targets.loc[whole & ~unknown, "image"])
    highest = highest.mask(highest.index.isin(open_) & (highest == 0))
    return highest.reindex(manifest.images["image"])


def sizes(
    pool: pd.DataFrame, sites: Sequence[str], cohorts: Sequence[Cohort], prevalence: float | None
) -> tuple[dict[tuple[str, str, str], tuple[int, int]], float]:
    """(split, cohort, site) -> (positives, negatives), and the share of positives.

    Half of a split is of each site; of its positives the cohort's site has ratio times as many as the other.
    """
    kinds = pool.groupby(["split", "site", "label"]).size()
    count = {(part, site, v): int(kinds.get((part, site, v), 0)) for part in SPLITS for site in sites for v in (1, 0)}
    most = max(cohort.ratio for cohort in cohorts)
    if prevalence is None:  # all training positives of the site that has fewer, in the most uneven cohort
        positive = min(count["train", site, 1] for site in sites) * (1 + most) / most
        half = min(count["train", site, 0] for site in sites) + positive / 2
        prevalence = min(positive / (2 * half), 0.45) if half else 0.45
    out: dict[tuple[str, str, str], tuple[int, int]] = {}
    for part in SPLITS:
        half = min(sum(count[part, site, v] for v in (1, 0)) for site in sites)
        while True:
            total = round(2 * half * prevalence)
            wanted = {
                (part, cohort.name, site): (of, half - of)
                for cohort in cohorts
                for of_first in [_first(cohort, sites[0], total)]
                for site, of in zip(sites, (of_first, total - of_first), strict=True)
            }
            if all(of <= count[part, s, 1] and no <= count[part, s, 0] for (_, _, s), (of, no) in wanted.items()):
                break
            half -= 1
        if min(of for of, _ in wanted.values()) < 1:
            have = ", ".join(f"{site} {count[part, site, 1]} and {count[part, site, 0]}" for site in sites)
            raise ProbeError(
                f"too few films for these cohorts in {part} (positives and negatives: {have}): smaller probe.ratios, "
                "or another probe.prevalence (null takes the largest)"
            )
        out |= wanted
    return out, float(prevalence)


def _first(cohort: Cohort, first: str, total: int) -> int:
    """How many of the positives of a cohort are of its first site."""
    if not cohort.site:
        return total // 2
    rare = round(total / (1 + cohort.ratio))
    return total - rare if cohort.site == first else rare


def compared(table: pd.DataFrame, target: str, cohorts: Sequence[Cohort]) -> dict[str, Any]:
    """AUC of each cohort's model inside and outside, and whether they go up or down with the severity.

    A row's ``cohort`` names the model. internal: its own test cohort (a column ``of_cohorts`` lists the cohorts that a
    film is tested in), without that column all test rows of the two sites. external: rows of other sites. balanced: the
    balanced test cohort, where site tells nothing.
    """
    need_columns(table, "cohort", "site")
    own = [cohort for cohort in cohorts if cohort.name in set(texts(table, "cohort"))]
    if unknown := sorted(set(filter(None, texts(table, "cohort"))) - {cohort.name for cohort in cohorts}):
        raise ProbeError(f"cohort: {', '.join(unknown)} is none of {', '.join(cohort.name for cohort in cohorts)}")
    sites = {cohort.site for cohort in cohorts} - {""}
    found: list[dict[str, Any]] = []
    parts: dict[str, list[tuple[Cohort, Rows]]] = {"internal": [], "external": [], BALANCED: []}
    for cohort in own:
        rows = judged(table[texts(table, "cohort") == cohort.name], target)
        inside = np.isin(texts(rows.table, "site").astype(str), sorted(sites))
        lists = texts(rows.table, "of_cohorts")
        member = {
            name: np.array([said is None or name in said.split("; ") for said in lists], dtype=bool)
            for name in (cohort.name, BALANCED)
        }
        chosen = {"internal": inside & member[cohort.name], "external": ~inside, BALANCED: inside & member[BALANCED]}
        if "of_cohorts" not in rows.table:
            del chosen[BALANCED]
        entry: dict[str, Any] = {"cohort": cohort.name, "ratio": cohort.ratio, "site": cohort.site}
        for name, mask in chosen.items():
            part = rows.take(mask)
            parts[name].append((cohort, part))
            entry[name] = roc.auc(part.label, part.score, part.clusters, part.fold)
            entry[f"{name}_few"] = not enough(part)
        found.append(entry)
    trends = [{"where": name, **trend(members)} for name, members in parts.items() if len(members) == len(own)]
    return {"cohorts": found, "trends": trends, "verdict": _verdict(trends)}


def trend(models: Sequence[tuple[Cohort, Rows]]) -> dict[str, Any]:
    """Change of AUC for each doubling of the ratio, least squares over the models, with interval and p.

    The slope is a weighted sum of the AUCs, so that its variance follows from DeLong's influence of each patient, also
    where models are judged on the same patients. NaN for fewer than 3 models with both classes.
    """
    judged_models = [(cohort.severity, rows) for cohort, rows in models if both_classes(rows)]
    severity = np.array([at for at, _ in judged_models])
    n = sum(len(rows) for _, rows in judged_models)
    few = any(not enough(rows) for _, rows in judged_models)
    if len(judged_models) < 3 or np.ptp(severity) == 0:
        return {**empty("fewer than 3 models with both classes", n), "p": np.nan, "few": True}
    weight = (severity - severity.mean()) / ((severity - severity.mean()) ** 2).sum()
    clusters, k = codes(np.concatenate([rows.clusters.astype(str) for _, rows in judged_models]))
    sums = {1: np.zeros(k), 0: np.zeros(k)}
    has = {1: np.zeros(k, bool), 0: np.zeros(k, bool)}
    slope, start = 0.0, 0
    for share, (_, rows) in zip(weight, judged_models, strict=True):
        members = clusters[start : start + len(rows)]
        start += len(rows)
        own = roc.influence(rows.label, rows.score, members, k, rows.fold)
        slope += share * own.auc
        sums[1] += share * own.positive
        sums[0] += share * own.negative
        for side in (1, 0):
            has[side][members[rows.label == side]] = True
    spread = roc.variance(sums[1], sums[0], has[1], has[0])
    error = float(np.sqrt(spread))
    reach = float(norm.ppf((1 + LEVEL) / 2)) * error
    metric = Metric(
        value=slope, low=slope - reach, high=slope + reach, n=n, n_clusters=k, method="least squares, delong"
    )
    p = float(2 * norm.sf(abs(slope) / error)) if error > 0 else np.nan
    return {**metric, "p": p, "few": few}


def _verdict(trends: Sequence[Mapping[str, Any]]) -> str:
    by = {entry["where"]: entry for entry in trends}
    inside, outside = by["internal"], by["external"]
    where = "other sites"
    if not np.isfinite(outside["p"]) and BALANCED in by:
        outside, where = by[BALANCED], "the balanced test, for want of other sites"
    if inside["few"] or outside["few"] or not np.isfinite([inside["p"], outside["p"]]).all():
        return "Too few cases, or too few cohorts, for a verdict."
    up = inside["value"] > 0 and inside["p"] < 0.025
    down = outside["value"] < 0 and outside["p"] < 0.025
    if up and down:
        return (
            f"The signature of a model that learns the site: internal AUC goes up with imbalance, that of {where} down."
        )
    if up:
        return (
            f"Internal AUC goes up with imbalance; a fall at {where} is not shown: the site helps and does no harm yet."
        )
    if down:
        return f"AUC at {where} goes down with imbalance, internal AUC is not shown to go up."
    return "Neither a rise inside nor a fall outside is shown with the imbalance."


def _drawn(record: Mapping[str, Any]) -> str:
    drawn = record["drawn"]
    return (
        f"{len(drawn['counts'])} cohorts of {drawn['train']} training and {drawn['test']} test films each, "
        f"{100 * drawn['prevalence']:.1f} % positive, are in cohorts/. Train on each and come back with predictions=."
    )

"""The label command: reports in, labels for all of them out, with figures on held-out reports."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.files import atomic_path, write_json
from domainseg.labeling import measuring, page, words
from domainseg.labeling.decision import RULES
from domainseg.labeling.division import Division, divide
from domainseg.labeling.features import CANDIDATES, REFERENCE, VIEWS, Features, Matrices, Settings
from domainseg.labeling.giving import give, given_by_rule
from domainseg.labeling.learning import Known, Learned, learn
from domainseg.labeling.lexicon import Lexicon, read_lexicons
from domainseg.labeling.reading import Read, read
from domainseg.labeling.silence import Silence, notes_of, silence
from domainseg.labeling.tables import UNCERTAIN, Labels, Reports, read_labels, read_reports
from domainseg.overrides import UsageError

log = logging.getLogger(__name__)

Metrics = dict[str, Any]


def run(cfg: Mapping[str, Any], output: Path) -> Metrics:
    """Label all reports and write labels.csv, metrics.json, models.json and report.html (targets.csv with images).

    cfg: the settings of conf/label.yaml. Returns the metrics, {} without labels. Raises UsageError for a setting that
    is none, and the errors of the tables and the lexicons.
    """
    _check(cfg)
    lexicon = read_lexicons(cfg["terms"])
    reports = read_reports(cfg["reports"], cfg["columns"])
    only = cfg["rules"] == "only" or cfg["labels"] is None
    labels = None
    if cfg["labels"] is not None:
        labels = read_labels(
            cfg["labels"],
            cfg["columns"],
            reports.table["report"],
            targets=None if only else cfg["targets"],
            uncertain=cfg["uncertain"],
        )
    log.info("reading %d reports", len(reports.table))
    understood = read(reports.table["text"].tolist(), lexicon)
    if only:
        return _by_rules(cfg, output, reports, labels, understood)
    assert labels is not None
    return _by_models(cfg, output, reports, labels, understood)


def _check(cfg: Mapping[str, Any]) -> None:
    choices = {
        "rules": ("beside", "only"), "threshold": RULES, "uncertain": tuple(UNCERTAIN), "unmentioned": ("unknown", "0"),
    }  # fmt: skip
    for key, known in choices.items():
        if str(cfg[key]) not in known:
            raise UsageError(f"{key}={cfg[key]}: one of {', '.join(known)}")
    chosen = cfg["features"]
    if chosen != "best" and (not isinstance(chosen, list) or not chosen or not set(chosen) <= set(VIEWS)):
        raise UsageError(f"features={chosen}: best, or a list of {', '.join(VIEWS)}")
    for key, low, high in (("certainty", 0, 1), ("holdout", 0.05, 0.95)):
        if not low <= float(cfg[key]) <= high:
            raise UsageError(f"{key}={cfg[key]}: from {low} to {high}")
    for key, least in (("folds", 2), ("min_cases", 2), ("min_count", 1), ("dims", 1), ("topics", 2)):
        if int(cfg[key]) < least:
            raise UsageError(f"{key}={cfg[key]}: at least {least}")


# ---------------------------------------------------------------- learned labels


def _by_models(cfg: Mapping[str, Any], output: Path, reports: Reports, labels: Labels, understood: Read) -> Metrics:
    table, seed, share = reports.table, int(cfg["seed"]), float(cfg["holdout"])
    division = divide(table, labels.values, given=labels.split, share=share, folds=int(cfg["folds"]), seed=seed)
    log.info("%d reports to learn from, %d held out: %s", *_sizes(division), division.how)
    outside = np.flatnonzero(division.side != "test")
    settings = Settings(int(cfg["min_count"]), int(cfg["dims"]), int(cfg["topics"]), seed)
    features = Features(understood, outside, settings)
    rows = np.flatnonzero(labels.values.notna().any(axis=1).to_numpy())
    matrices = Matrices(features, rows)
    learned: dict[str, Learned] = {}
    silences: dict[str, Silence] = {}
    texts = (table["text"].str.strip() != "").to_numpy()
    metrics: Metrics = {}
    skipped: dict[str, str] = {}
    scored: list[NDArray[np.float64]] = []
    for name in map(str, labels.values):
        known = _known(labels, name, rows, division)
        if rule := _rule(known, name, understood, division, seed):
            metrics[name] = {"rule": rule}
        training = known.label[known.of("train")]
        counts = int((training == 1).sum()), int((training == 0).sum())
        if min(counts) < int(cfg["min_cases"]):
            skipped[name] = f"{counts[0]} positive and {counts[1]} negative reports to learn from"
            log.info("%s: not learned, %s", name, skipped[name])
            continue
        silences[name] = silence(
            name, labels.values[name].to_numpy(np.float64), understood, texts, int(cfg["min_cases"]),
            zero=str(cfg["unmentioned"]) == "0",
        )  # fmt: skip
        learned[name], figures, both = _learn(known, matrices, cfg, division, silences[name])
        metrics[name] = {**figures, **metrics.get(name, {})}
        scored.append(both)
        log.info(
            "%s: AUC %.3f, plain reference %.3f, from %s",
            name, figures["auc"]["value"], figures["reference"]["auc"]["value"], " + ".join(learned[name].views),
        )  # fmt: skip
    results: Metrics = {"test": metrics}
    if scored:
        held = division.patients[division.side == "test"]
        results["test_mean_over_labels"] = measuring.over_labels(scored, held, seed)
    given = give(table, labels, division, learned, features, rows, silences)
    shown = words.visible(features, learned, division.patients)
    _write(output, given, reports, list(labels.values), results)
    models = {
        "division": {"how": division.how, "train": _sizes(division)[0], "test": _sizes(division)[1]},
        "reports": len(table),
        "outside_hold_out": len(outside),
        "labels": {name: words.described(name, own, shown) for name, own in learned.items()},
        "skipped": skipped,
        "lexicon": understood.lexicon.source,
    }
    write_json(output / "models.json", models)
    notes = [*reports.notes, *labels.notes, *notes_of(silences)]
    page.write_models(output / "report.html", cfg, results, learned, skipped, shown, notes, division, given)
    for note in (*notes, *measuring.warnings_of(metrics, {name: own.decision for name, own in learned.items()})):
        log.warning(note)
    return results


def _sizes(division: Division) -> tuple[int, int]:
    return int((division.side == "train").sum()), int((division.side == "test").sum())


def _known(labels: Labels, name: str, rows: NDArray[np.intp], division: Division) -> Known:
    values = labels.values[name].to_numpy(np.float64)[rows]
    places = np.flatnonzero(~np.isnan(values))
    return Known(places, rows[places], values[places], division.side[rows[places]], division.fold[rows[places]])


def _rule(known: Known, name: str, understood: Read, division: Division, seed: int) -> Metrics:
    """The rule's figures on the held-out reports; {} for a label that no lexicon knows."""
    finding, test = understood.lexicon.of_label(name), known.of("test")
    if finding is None or not test.any():
        return {}
    status = understood.status[known.reports[test], list(understood.lexicon.findings).index(finding)]
    return measuring.of_rule(known.label[test], status, division.patients[known.reports[test]], seed)


def _learn(
    known: Known, matrices: Matrices, cfg: Mapping[str, Any], division: Division, silent: Silence
) -> tuple[Learned, Metrics, NDArray[np.float64]]:
    """The model, its figures, and [3, held-out reports]: label, its score, the plain reference's."""
    sets = CANDIDATES if cfg["features"] == "best" else (tuple(cfg["features"]),)
    rule, certainty, seed = str(cfg["threshold"]), float(cfg["certainty"]), int(cfg["seed"])
    ours = learn(known, matrices, sets, rule=rule, certainty=certainty, seed=seed)
    plain = learn(known, matrices, [REFERENCE], rule=rule, certainty=certainty, seed=seed)
    test = known.of("test")
    made = np.full(len(division.side), np.nan)
    made[known.reports[test]] = ours.decision.labels(ours.score[test])
    made[silent.withheld(made)] = np.nan
    figures = measuring.of_model(
        known.label[test], ours.score[test], ours.decision, made[known.reports[test]], plain.score[test],
        plain.decision, division.patients[known.reports[test]], seed,
    )  # fmt: skip
    both = np.full((3, len(division.side)), np.nan)
    both[:, known.reports] = known.label, ours.score, plain.score
    return ours, figures, both[:, division.side == "test"]


# ---------------------------------------------------------------- rules


def _by_rules(
    cfg: Mapping[str, Any], output: Path, reports: Reports, labels: Labels | None, understood: Read
) -> Metrics:
    lexicon, table = understood.lexicon, reports.table
    chosen = _chosen(cfg["targets"], lexicon)
    unknown = {key: UNCERTAIN[str(cfg[key])] for key in ("uncertain", "unmentioned")}
    given = given_by_rule(table, understood, chosen, unknown)
    results: Metrics = {}
    if labels is not None:
        metrics = {}
        patients = pd.factorize(table["patient"].where(table["patient"] != "", table["report"] + " alone"))[0]
        for name in labels.values:
            finding = lexicon.of_label(str(name))
            values = labels.values[name].to_numpy(np.float64)
            if finding in chosen.values() and (known := ~np.isnan(values)).any():
                column = list(lexicon.findings).index(str(finding))
                status = understood.status[known, column]
                metrics[str(name)] = measuring.of_rule(values[known], status, patients[known], int(cfg["seed"]))
        results = {"test": metrics}
        if without := [str(name) for name in labels.values if lexicon.of_label(str(name)) is None]:
            labels.notes.append(f"Labels that the lexicons have no finding for: {', '.join(without)}.")
    _write(output, given, reports, list(chosen), results)
    write_json(output / "rules.json", {"findings": chosen, "unknown": unknown, "lexicon": lexicon.source})
    notes = [*reports.notes, *(labels.notes if labels is not None else [])]
    page.write_rules(output / "report.html", cfg, results, given, list(chosen), notes)
    for note in notes:
        log.info(note)
    return results


def _chosen(targets: Sequence[str] | None, lexicon: Lexicon) -> dict[str, str]:
    """The name of a label -> the finding of the lexicon that it means. Raises UsageError for one nobody knows."""
    if targets is None:
        return {name: name for name in lexicon.findings}
    found = {str(target): lexicon.of_label(str(target)) for target in targets}
    if absent := [target for target, finding in found.items() if finding is None]:
        raise UsageError(
            f"targets: no lexicon has {', '.join(absent)}; known: {', '.join(lexicon.findings)}. Write the phrases "
            "into a YAML file and add it to terms="
        )
    return {target: finding for target, finding in found.items() if finding is not None}


def _write(output: Path, given: pd.DataFrame, reports: Reports, names: Sequence[Any], results: Metrics) -> None:
    output.mkdir(parents=True, exist_ok=True)
    if reports.films is not None:  # a row for each film of a report
        given = reports.films.merge(given.drop(columns="image"), on="report", how="left")[list(given.columns)]
    with atomic_path(output / "labels.csv") as temporary:
        given.to_csv(temporary, index=False, lineterminator="\n", float_format="%.6g")
    if reports.films is not None:
        columns = {f"label_{name}": given[f"label_{name}"] for name in names}
        with atomic_path(output / "targets.csv") as temporary:
            pd.DataFrame({"image": given["image"], "part": "whole", **columns}).to_csv(
                temporary, index=False, lineterminator="\n"
            )
    write_json(output / "metrics.json", results)

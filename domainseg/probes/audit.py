"""The audit: of every attribute whether it is detectable, associated and used; audit.json and audit.html."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from domainseg.evaluation import roc
from domainseg.evaluation.intervals import codes
from domainseg.evaluation.tables import EvaluationError, Rows, clusters_of, ranked, rows_of, targets_of, texts
from domainseg.files import write_json
from domainseg.probes import audit_page
from domainseg.probes.attributes import Attribute, attributes_of, severity_bands
from domainseg.probes.detectable import Detection, detection, of_scores
from domainseg.probes.effects import Codes
from domainseg.probes.findings import Question, Record, by_metadata, finding
from domainseg.probes.material import Material, material, targets_to_audit
from domainseg.probes.pictures import features_of
from domainseg.probes.verdicts import ORDER, TITLES, judge
from domainseg.reporting.words import interval, number

log = logging.getLogger(__name__)

EMBEDDED = 500  # films of which the embedding is read at most, since that takes as long as predicting them (our choice)


def run(cfg: Mapping[str, Any], output: Path) -> Record:
    """Audit what the configuration names; write audit.json and audit.html to ``output``. Returns what the JSON holds.

    cfg: see conf/audit.yaml. Raises DomainsegError for what a person has to mend.
    """
    found = audit(material(cfg, output), cfg)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "audit.json", found)
    audit_page.write(found, output / "audit.html")
    _print(found)
    log.info("report: %s", output / "audit.html")
    return found


def audit(given: Material, cfg: Mapping[str, Any]) -> Record:
    """All findings of an audit, as plain nested records."""
    table, said = given.table.reset_index(drop=True), list(given.said)
    settings = {"least": int(cfg["least"]), "seed": int(cfg["seed"])}
    if settings["least"] < 2:
        raise EvaluationError(f"least={settings['least']}: at least 2 patients")
    severity = [str(name) for name in cfg["severity"] or ()]
    if absent := [name for name in severity if name not in table]:
        raise EvaluationError(f"severity: no column {absent[0]}; the table has {', '.join(map(str, table.columns))}")
    if given.scored:
        targets = targets_to_audit(targets_of(table), cfg["target"])
    else:
        targets = targets_to_audit([str(name)[6:] for name in table if str(name).startswith("label_")], cfg["target"])
    patient, _ = codes(clusters_of(table))
    if len(set(patient.tolist())) == len(table) and not {"patient", "group"} & set(table):
        said.append("No column patient or group: each case counts as a patient of its own.")
    wanted = None if cfg["attributes"] is None else [str(name) for name in cfg["attributes"]]
    attributes = attributes_of(table, wanted, patient, settings["least"])
    attributes = [each for each in attributes if each.name not in severity]
    readings = _readings(given, table, attributes, patient, targets, settings, said)
    questions, passed = _questions(table, targets, given.scored, patient, severity, said)
    by_target: Record = {}
    records: list[Record] = []
    for question in questions:
        here = [
            _skipped(one) if one.skipped else finding(question, one, readings.get(one.name, {}), settings)
            for one in attributes
        ]
        records += here
        by_target[question.target] = _whole(question, attributes, settings) | {"attributes": here}
    judge(records, cfg["alarm"])
    asked = [record for record in records if record["skipped"] is None]
    rows = np.unique(np.concatenate([question.rows for question in questions]))
    return {
        "about": {
            "name": given.name,
            "rows": len(table),
            "cases": len(rows),
            "patients": len(np.unique(patient[rows])),
            "scored": given.scored,
            "films": len(given.files),
            "bundle": given.bundle is not None,
            "severity": severity,
            "questions": len(asked),
            "alarm": dict(cfg["alarm"]),
            **settings,
        },
        "said": [*said, *passed],
        "targets": by_target,
        "alarms": [
            {"target": target, "attribute": record["attribute"]}
            for target, whole in by_target.items()
            for record in whole["attributes"]
            if record["verdict"] in ("alarm", "at hand")
        ],
    }


def _skipped(attribute: Attribute) -> Record:
    return {"attribute": attribute.name, "skipped": attribute.skipped, "notes": attribute.notes, "groups": []}


def _whole(question: Question, attributes: Sequence[Attribute], settings: Record) -> Record:
    """What is said of a target before any attribute: its cases, its AUC, and that of all attributes without a score."""
    return {
        "n": len(question.label),
        "patients": len(np.unique(question.patient)),
        "positives": int((question.label == 1).sum()),
        "auc": None if question.score is None else roc.auc(question.label, question.score, question.patient),
        "auc_by_metadata": by_metadata(question, attributes, settings["seed"]),
    }


def _questions(
    table: pd.DataFrame, targets: Sequence[str], scored: bool, patient: Codes, severity: Sequence[str], said: list[str]
) -> tuple[list[Question], list[str]]:
    """The targets of which both labels are known, and a sentence for each other one. EvaluationError when none is."""
    questions, passed = [], []
    for target in targets:
        question = _question(table, target, scored, patient, severity, said)
        sides = np.unique(question.label)
        if len(sides) < 2:
            only = "no case with label and score" if not len(sides) else f"only label {sides[0]:g}"
            passed.append(f"{target}: {only}, so there is nothing to compare; not audited.")
        else:
            questions.append(question)
    if not questions:
        raise EvaluationError("audit: " + " ".join(passed))
    return questions, passed


def _question(
    table: pd.DataFrame, target: str, scored: bool, patient: Codes, severity: Sequence[str], said: list[str]
) -> Question:
    place = np.arange(len(table))
    if scored:
        rows: Rows = rows_of(table.assign(audit_row=place), target)
        place = rows.table["audit_row"].to_numpy(dtype=np.intp)
        label, score, fold, kept = rows.label, rows.score, rows.fold, rows.scored
    else:
        label = table[f"label_{target}"].to_numpy(dtype=np.float64)
        # Where both are known a part says more than the film that it is a part of.
        whole = texts(table, "part") == "whole"
        known = ~np.isnan(label)
        score, fold = np.full(len(table), np.nan), np.zeros(len(table), dtype=str)
        kept = known & (whole if not (known & ~whole).any() else ~whole)
    lost = np.zeros(len(table), dtype=bool)
    lost[place[~np.isnan(label) & ~kept]] = scored
    if scored and lost.any():
        said.append(f"{target}: {int(lost.sum())} cases have a label and no score and are left out.")
    if scored and len(np.unique(fold[kept])) > 1:
        score = ranked(rows)
        said.append(f"{target}: scores of different folds are compared by their ranks within the fold.")
    return Question(
        target=target,
        label=label[kept],
        score=score[kept] if scored else None,
        patient=patient[place[kept]],
        stratum=severity_bands(table.iloc[place[kept]], severity, label[kept]),
        rows=place[kept],
        unscored=lost,
    )


def _readings(
    given: Material,
    table: pd.DataFrame,
    attributes: Sequence[Attribute],
    patient: Codes,
    targets: Sequence[str],
    settings: Record,
    said: list[str],
) -> dict[str, dict[str, Detection]]:
    """attribute -> source -> how well a probe reads it: from the films, from the embedding, or from the scores."""
    sources: dict[str, tuple[NDArray[Any], NDArray[np.intp]]] = {}
    asked = [one for one in attributes if one.skipped is None]
    if not asked:
        return {}
    images, first = np.unique(texts(table, "image").astype(str), return_index=True)
    if given.files:
        log.info("reading %d films", len(images))
        found, unread = features_of([(name, given.files[name]) for name in images if name in given.files])
        if unread:
            said.append(f"{len(unread)} of {len(images)} films could not be read; no probe sees them.")
        rows = np.array([row for name, row in zip(images, first, strict=True) if name in found], dtype=np.intp)
        if len(rows):
            sources["image"] = np.stack([found[name] for name in images if name in found]), rows
    if given.bundle is not None:
        sources |= _embedding(given, table, said, settings["seed"])
    if given.scored:
        names = [name for name in table if str(name).startswith("score_") and str(name)[6:] in _known_targets(table)]
        scores = table[names].to_numpy(dtype=np.float64)
        rows = np.flatnonzero(~np.isnan(scores).all(axis=1))
        if len(rows):
            sources["score"] = of_scores(scores[rows], texts(table, "fold").astype(str)[rows]), rows
    return {
        one.name: {
            source: _read(features, rows, one, patient, settings["seed"])
            for source, (features, rows) in sources.items()
        }
        for one in asked
    }


def _known_targets(table: pd.DataFrame) -> set[str]:
    return {str(name)[6:] for name in table if str(name).startswith("label_")}


def _embedding(given: Material, table: pd.DataFrame, said: list[str], seed: int) -> Record:
    assert given.bundle is not None
    from domainseg.bundle.schema import BundleError
    from domainseg.probes.embedding import embeddings

    log.info("reading the network's embedding")
    images = [str(name) for name in dict.fromkeys(texts(table, "image")) if name in given.files]
    if len(images) > EMBEDDED:
        said.append(f"The embedding was read of {EMBEDDED} films, drawn from {len(images)}.")
        drawn = np.random.default_rng(seed).choice(len(images), EMBEDDED, replace=False)
        images = [images[place] for place in np.sort(drawn)]
    try:
        found = embeddings(given.bundle, {name: given.files[name] for name in images})
    except (BundleError, ModuleNotFoundError) as error:
        said.append(f"The embedding was not read: {error}.")
        return {}
    keys = list(zip(texts(table, "image"), texts(table, "part"), strict=True))
    # A network that judges films whole names no part.
    chosen = [(row, found.get(key, found.get((key[0], "")))) for row, key in enumerate(keys)]
    rows = [row for row, features in chosen if features is not None]
    if not rows:
        return {}
    return {"embedding": (np.stack([f for _, f in chosen if f is not None]), np.array(rows, dtype=np.intp))}


def _read(features: NDArray[Any], rows: NDArray[np.intp], attribute: Attribute, patient: Codes, seed: int) -> Detection:
    group = attribute.group[rows]
    known = group >= 0
    return detection(features[known], group[known], patient[rows[known]], len(attribute.names), seed)


def _print(found: Record) -> None:
    """The verdicts as a table."""
    shown = Table(title=f"{found['about']['name']}: audit, 95 % intervals", title_justify="left", box=None)
    for heading in ("target", "attribute", "AUC alone", "fall, matched", "verdict"):
        shown.add_column(heading, no_wrap=True)
    for target, whole in found["targets"].items():
        for record in sorted(whole["attributes"], key=lambda record: ORDER.index(record["verdict"])):
            if record["skipped"] is not None:
                continue
            fell = interval(record["used"]["fall"]["difference"]) if "used" in record else "–"
            alone = number(record["associated"]["auc"]["value"], 2)
            shown.add_row(target, record["attribute"], alone, fell.replace(" to ", "–"), TITLES[record["verdict"]])
    Console().print(shown)

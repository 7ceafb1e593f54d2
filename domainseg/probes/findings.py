"""The three findings for one target and one attribute, as plain records: detectable, associated, used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.evaluation import roc
from domainseg.evaluation.intervals import Array, Metric, empty
from domainseg.probes.associated import association
from domainseg.probes.attributes import Attribute
from domainseg.probes.detectable import Detection, detection
from domainseg.probes.effects import Codes
from domainseg.probes.used import Cases, Fall, Shift, fall, shift, uneven

Record = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """One target's cases, all arrays [n]: label 1 or 0, score (None for a manifest alone), patient and stratum numbers,
    and which rows of the table they are. unscored [rows of the table]: label known, no score."""

    target: str
    label: Array
    score: Array | None
    patient: Codes
    stratum: Codes
    rows: NDArray[np.intp]
    unscored: NDArray[np.bool_]


def finding(question: Question, attribute: Attribute, readings: Mapping[str, Detection], settings: Record) -> Record:
    """What is found of an attribute: groups, associated, used, and detectable from each source in ``readings``.

    settings: least (patients a group and label), seed. Groups that have no case of this target fall away.
    """
    group = attribute.group[question.rows]
    known = group >= 0
    numbers, names = _present(group[known], question.patient[known], attribute.names, int(settings["least"]))
    known[known] = numbers >= 0
    group = numbers[numbers >= 0]
    record: Record = {"attribute": attribute.name, "notes": list(attribute.notes), "detectable": {}}
    if len(names) < 2:
        return record | {"skipped": f"too few: fewer than two groups with {settings['least']} patients", "groups": []}
    label, patient = question.label[known], question.patient[known]
    if len(np.unique(label)) < 2:
        why = f"only cases with label {label[0]:g} have a value; whether there is one tells the label"
        return record | {"skipped": why, "groups": []}
    lost = np.bincount(attribute.group[question.unscored & (attribute.group >= 0)], minlength=len(attribute.names))
    found = association(label, group, patient, len(names), settings["seed"])
    record["skipped"] = None
    record["associated"] = {"auc": found.auc, "utility": found.utility, "p": found.test.p}
    record["groups"] = [
        {
            "name": name,
            "n": int((group == g).sum()),
            "patients": len(np.unique(patient[group == g])),
            "positives": int((label[group == g] == 1).sum()),
            "unscored": int(lost[attribute.names.index(name)]),
            "prevalence": found.prevalence[g],
        }
        for g, name in enumerate(names)
    ]
    record["one_class_groups"] = [each["name"] for each in record["groups"] if each["positives"] in (0, each["n"])]
    if question.score is not None:
        cases = Cases(label, question.score[known], group, patient, question.stratum[known], len(names))
        record["used"] = _used(cases, settings)
        for used in (record["used"], record["used"].get("severity")):
            if used is not None:
                used["shift"]["along"] = _along(used["shift"]["theta"], record["groups"])
        _within(record, cases)
    for source, reading in readings.items():
        record["detectable"][source] = {"auc": reading.auc, "p": reading.p, "by_group": reading.by_group}
    if question.score is None and "image" in readings:
        record["risk"] = _risk(found.utility, readings["image"].auc)
    return record


def _risk(utility: Metric, reading: Metric) -> Metric:
    """Utility times what is read from the films (2 AUC - 1, at least 0): 0 no risk, 1 the label itself.

    The ends of both intervals are multiplied as well, which gives a wider one than both together would have.
    """
    tells, reads = (np.array([found["value"], found["low"], found["high"]]) for found in (utility, reading))
    value, low, high = (tells * np.maximum(0.0, 2 * reads - 1)).tolist()
    n, people = min(utility["n"], reading["n"]), min(utility["n_clusters"], reading["n_clusters"])
    return Metric(value=value, low=low, high=high, n=n, n_clusters=people, method="ends of both intervals multiplied")


def _present(group: Codes, patient: Codes, names: Sequence[str], least: int) -> tuple[Codes, list[str]]:
    """Groups renumbered: those with ``least`` patients here, -1 the others."""
    kept = [g for g in range(len(names)) if len(np.unique(patient[group == g])) >= least]
    number = np.full(len(names), -1, dtype=np.intp)
    number[kept] = np.arange(len(kept))
    return number[group], [names[g] for g in kept]


def _used(cases: Cases, settings: Record) -> Record:
    """Shift and fall within labels; where bands of severity are given also within label and band."""
    least = int(settings["least"])
    plain = replace(cases, stratum=np.zeros(len(cases), dtype=np.intp))
    crude = replace(plain, label=np.zeros(len(cases)))
    record: Record = {**_both(shift(plain, least), fall(plain, least)), "crude": _shift(shift(crude, least))}
    apart, test, compared = uneven(plain, least)
    record["uneven"] = {"range": apart, "p": test.p, "groups": compared}
    bands = len(np.unique(cases.stratum))
    if bands > 1:
        record["severity"] = {"bands": bands, **_both(shift(cases, least), fall(cases, least))}
    return record


def _both(moved: Shift, fell: Fall) -> Record:
    return {
        "shift": _shift(moved),
        "fall": {
            "as_is": fell.as_is,
            "matched": fell.matched,
            "difference": fell.difference,
            "p": fell.p,
            "groups": len(fell.groups),
        },
    }


def _shift(moved: Shift) -> Record:
    return {"largest": moved.largest, "p": moved.test.p, "df": moved.test.df, "n": moved.n, "theta": moved.theta}


def _along(theta: Sequence[Metric | None], groups: Sequence[Record]) -> float:
    """Correlation, over groups weighted by their cases, of how a group's scores lie and how often it is positive."""
    known = [g for g, each in enumerate(theta) if each is not None]
    weight = np.array([groups[g]["n"] for g in known], dtype=np.float64)
    x, y = (
        values - np.average(values, weights=weight) if len(known) else values
        for values in (
            np.array([each["value"] for each in theta if each is not None]),
            np.array([groups[g]["prevalence"]["value"] for g in known]),
        )
    )
    spread = float(np.sqrt((weight * x**2).sum() * (weight * y**2).sum()))
    return float((weight * x * y).sum() / spread) if spread > 0 else 0.0


def _within(record: Record, cases: Cases) -> None:
    """Add the AUC within each group and over all of them, pooled, and each group's shift among each label."""
    record["auc"] = roc.auc(cases.label, cases.score, cases.patient)
    record["auc_within"] = roc.auc(cases.label, cases.score, cases.patient, cases.group)
    sides = {
        name: shift(cases_of(cases, side), 2).theta for name, side in (("shift_positive", 1), ("shift_negative", 0))
    }
    for g, group in enumerate(record["groups"]):
        mine = cases.group == g
        group["auc"] = roc.auc(cases.label[mine], cases.score[mine], cases.patient[mine])
        group["shift"] = record["used"]["shift"]["theta"][g]
        quantiles: dict[str, list[float]] = {}
        for side, word in ((1, "positive"), (0, "negative")):
            scores = cases.score[mine & (cases.label == side)]
            quantiles[word] = np.quantile(scores, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist() if len(scores) else []
        group["score_quantiles"] = quantiles
        for name, theta in sides.items():
            group[name] = theta[g] if theta[g] is not None else empty("too few")


def cases_of(cases: Cases, side: int) -> Cases:
    """The cases of one label, without bands."""
    kept = cases.take(cases.label == side)
    return replace(kept, stratum=np.zeros(len(kept), dtype=np.intp))


def by_metadata(question: Question, attributes: Sequence[Attribute], seed: int) -> Metric:
    """AUC of a model of all attributes together (a column a group, no value being one), cross-validated by patient."""
    columns = [
        attribute.group[question.rows] == g
        for attribute in attributes
        if attribute.skipped is None
        for g in range(-1, len(attribute.names))
    ]
    if not columns:
        return empty("no attribute", len(question.label))
    return detection(
        np.stack(columns, axis=1).astype(np.float64), question.label.astype(np.intp), question.patient, 2, seed
    ).auc

"""Figures of labels on held-out reports, each with its interval: ours, the plain reference, the rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.evaluation import roc
from domainseg.evaluation.intervals import Metric, empty, exact, proportion, weighted_all
from domainseg.labeling.assertion import AFFIRMED
from domainseg.labeling.decision import Decision
from domainseg.labeling.mentions import ORDER

Metrics = dict[str, Any]
Floats = NDArray[np.float64]

TRAP_AUC, TRAP_PPV = 0.9, 0.5  # an AUC above and a PPV below these is the trap of a rare label (our choice)


def of_scores(label: Floats, score: Floats, called: NDArray[np.bool_], patients: NDArray[Any], seed: int) -> Metrics:
    """AUC and the figures of the calls; label 1 or 0 [n]."""
    positive = label == 1
    right = called == positive
    among = {
        "accuracy": np.ones(len(label), bool), "sensitivity": positive, "specificity": ~positive,
        "ppv": called, "npv": ~called,
    }  # fmt: skip
    return {
        "auc": roc.auc(label, score, patients),
        **{name: proportion(right[mask], patients[mask], seed=seed) for name, mask in among.items()},
        "prevalence": proportion(positive, patients, seed=seed),
    }


def of_labels(label: Floats, given: Floats, patients: NDArray[Any], seed: int) -> Metrics:
    """Of the labels that labels.csv gives (1, 0, NaN = unknown): how many, and how many of either are right."""
    known = ~np.isnan(given)
    return {
        "coverage": proportion(known, patients, seed=seed),
        **{
            name: proportion((label == value)[given == value], patients[given == value], seed=seed)
            for name, value in (("ppv", 1.0), ("npv", 0.0))
        },
    }


def of_model(
    label: Floats, score: Floats, decision: Decision, given: Floats, reference: Floats,
    reference_decision: Decision, patients: NDArray[Any], seed: int,
) -> Metrics:  # fmt: skip
    """A model's figures, the reference's, and the paired difference of their AUCs (ours minus the reference's).

    given [n]: the labels that labels.csv would give these reports, 1, 0 or NaN = unknown.
    """
    gap, p = roc.difference(label, score, reference, patients)
    return {
        **of_scores(label, score, decision.called(score), patients, seed),
        "given": of_labels(label, given, patients, seed),
        "reference": of_scores(label, reference, reference_decision.called(reference), patients, seed),
        "difference": {**gap, "p": p},
    }


def of_rule(label: Floats, status: NDArray[np.int8], patients: NDArray[Any], seed: int) -> Metrics:
    """The rule's figures: called is what it finds positive; its AUC is over the order of mentions.ORDER."""
    score = np.array([ORDER[int(state)] for state in status], np.float64)
    return of_scores(label, score, status == AFFIRMED, patients, seed)


def over_labels(scored: Sequence[NDArray[np.float64]], patients: NDArray[Any], seed: int) -> dict[str, Metric]:
    """Mean AUC over labels, the reference's, and their difference, patients drawn anew 500 times.

    scored: for each label [3, n] over the same held-out reports: label, our score, the reference's; NaN = unknown.
    """
    usable = [label for label in scored if len(np.unique(label[0][~np.isnan(label[0])])) == 2]
    if not usable:
        return {name: empty("one class only") for name in ("auc", "reference", "difference")}
    parts = []
    for label, ours, reference in usable:
        known = np.flatnonzero(~np.isnan(label))
        one, two = (roc.weighted_auc(label[known], score[known]) for score in (ours, reference))
        parts.append((known, one, two))

    def statistic(weights: Floats) -> Floats:
        values = np.array([[one(weights[:, known]), two(weights[:, known])] for known, one, two in parts])
        means = np.asarray(np.nanmean(values, axis=0), np.float64)  # over the labels that kept both classes
        return np.stack([means[0], means[1], means[0] - means[1]], axis=1)

    found = weighted_all(statistic, 3, patients, resamples=500, seed=seed)
    fewest = min(len(set(patients[label[0] == side])) for label in usable for side in (0, 1))
    for record, is_gap in zip(found, (False, False, True), strict=True):
        if record["low"] == record["high"]:  # every resample is alike, which is no certainty
            low, high = exact(0.0, fewest) if is_gap else exact(record["value"], fewest)
            record["low"], record["high"] = (-high, high) if is_gap else (low, high)
            record["method"] = "exact at the patients of the rarest class"
    return dict(zip(("auc", "reference", "difference"), found, strict=True))


def warnings_of(metrics: Mapping[str, Mapping[str, Any]], decisions: Mapping[str, Decision]) -> list[str]:
    """What a reader should know before using a label, in sentences."""
    told = []
    for label, own in metrics.items():
        if label not in decisions:
            continue
        decision, ppv, area = decisions[label], own["ppv"], own["auc"]
        if np.isnan(area["value"]):
            told.append(f"{label}: the hold-out part has one class only, so that nothing is known of this model.")
        elif area["value"] >= TRAP_AUC and ppv["value"] < TRAP_PPV:
            told.append(
                f"{label}: rare ({own['prevalence']['value']:.1%}). An AUC of {area['value']:.3f} looks well, yet of "
                f"the reports called positive only {ppv['value']:.0%} are (n = {ppv['n']})."
            )
        elif ppv["n"] and ppv["low"] < TRAP_PPV:
            told.append(f"{label}: of the reports called positive perhaps only {ppv['low']:.0%} are (n = {ppv['n']}).")
        if not np.isfinite(decision.high):
            told.append(
                f"{label}: no threshold made enough of the called right in training; the model gives no report a 1."
            )
        if decision.to_dict()["provisional"]:
            told.append(f"{label}: learned from {decision.n_positive} positive reports; its threshold is provisional.")
    return told

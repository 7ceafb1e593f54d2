"""Who is held out: patients, with all reports of the same text on one side, because templates leak."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from domainseg.data.splits import deal
from domainseg.files import DomainsegError
from domainseg.labeling.text import normalised

MOST_TOGETHER = 0.3  # share of the labelled reports that may hang together by patients and texts (our choice)


class DivisionError(DomainsegError):
    """Labelled reports that cannot be divided; the message says why and what to do."""


@dataclass(frozen=True)
class Division:
    """Sides of n reports: test, train, "" without a label, "unused" = its text is in the hold-out part.

    patients [n]: numbers, for intervals. fold [n]: of train, else -1. how: in words.
    """

    side: NDArray[np.object_]
    patients: NDArray[np.int64]
    fold: NDArray[np.int64]
    how: str


def divide(
    reports: pd.DataFrame, values: pd.DataFrame, *, given: pd.Series, share: float, folds: int, seed: int
) -> Division:
    """Hold out ``share`` of the labelled reports and give the others a fold, every label shared out evenly.

    reports: patient, text [n]; values [n, labels] 1, 0 or NaN; given [n]: train, test or "", kept where there is any.
    Where more than MOST_TOGETHER of the reports hang together, because many patients share a template, patients are
    held out instead, and reports with a text of the hold-out part are not trained on. Folds keep patients and texts
    together too, unless more than that share of the training reports hangs together: then patients. Raises
    DivisionError.
    """
    labelled = values.notna().any(axis=1).to_numpy()
    patients = _patients(reports["patient"])
    texts = _texts(reports["text"])
    cluster = _together(patients, texts)
    side = np.where(labelled, "train", "").astype(object)
    largest = np.bincount(cluster[labelled]).max(initial=0) / max(int(labelled.sum()), 1)
    if (given != "").any():
        side = np.where(labelled, given.to_numpy(dtype=object), "").astype(object)
        torn = set(patients[side == "train"]) & set(patients[side == "test"])
        if torn:
            raise DivisionError(f"labels: {len(torn)} patients stand on both sides of the split column")
        how = "as the split column of the labels table says"
        by = patients
    else:
        by = cluster if largest <= MOST_TOGETHER else patients
        hand = _dealt(values[labelled], by[labelled], [1 - share, share], seed)
        side[labelled] = np.where(hand == 1, "test", "train")
        how = f"{share:.0%} held out by patient" + (
            ", reports of the same text kept together"
            if by is cluster
            else f"; {largest:.0%} of the reports hang together by their texts, too many to keep them together"
        )
        how += f", seed {seed}"
    leaked = (side == "train") & np.isin(texts, texts[side == "test"])
    if leaked.any():
        side[leaked] = "unused"
        how += f"; {int(leaked.sum())} reports with a text of the hold-out part not trained on"
    training = side == "train"
    if not training.any() or not (side == "test").any():
        raise DivisionError("labels: too few labelled reports to hold some out; use rules=only, or label more")
    within = cluster[training]
    if by is patients:  # what hangs together by test and unused reports alone need not stay together here
        within = _together(patients[training], texts[training])
        most = np.bincount(within).max() / training.sum()
        if most > MOST_TOGETHER:
            within = patients[training]
            how += f"; folds by patient alone, {most:.0%} of the training reports hang together by their texts"
    fold = np.full(len(reports), -1)
    fold[training] = _dealt(values[training], within, [1 / folds] * folds, seed + 1)
    return Division(side, patients, fold, how)


def _dealt(values: pd.DataFrame, cluster: NDArray[np.int64], shares: list[float], seed: int) -> NDArray[np.int64]:
    columns = {"reports": values.notna().any(axis=1)}
    columns |= {f"{label} {side}": values[label] == side for label in values for side in (1, 0)}
    counts = pd.DataFrame(columns).astype(np.float64).groupby(cluster.astype(str)).sum()
    hands = deal(counts, shares, seed)
    return np.array([hands[name] for name in cluster.astype(str)], dtype=np.int64)


def _patients(patient: pd.Series) -> NDArray[np.int64]:
    """Numbers of patients; a report without one is a patient of its own."""
    codes, known = pd.factorize(patient.where(patient != ""), use_na_sentinel=True)
    own = len(known) + np.arange(len(patient))
    return np.where(codes >= 0, codes, own).astype(np.int64)


def _texts(text: pd.Series) -> NDArray[np.int64]:
    """Numbers of texts that are the same but for numbers, marks, blanks, case and replaced names; empty ones differ."""
    codes, known = pd.factorize(np.array([normalised(cell) for cell in text], dtype=object))
    empty = np.array([not name for name in known], dtype=bool)[codes] if len(known) else np.zeros(0, bool)
    return np.where(empty, len(known) + np.arange(len(text)), codes).astype(np.int64)


def _together(patients: NDArray[np.int64], texts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of the groups that a chain of same patients and same texts holds together."""
    shift = int(patients.max(initial=0)) + 1
    size = shift + int(texts.max(initial=0)) + 1
    graph = coo_matrix((np.ones(len(patients)), (patients, texts + shift)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1][patients], np.int64)

"""Labels for all reports: a hand label wins, a model or the rule gives the others, what is unsure stays unknown."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.labeling.division import Division
from domainseg.labeling.features import Features, chunks
from domainseg.labeling.lasso import probability
from domainseg.labeling.learning import Learned
from domainseg.labeling.mentions import STATUS, as_label
from domainseg.labeling.reading import Read
from domainseg.labeling.silence import Silence
from domainseg.labeling.tables import Labels

IDENTITY = ("report", "patient", "image", "study", "site")


def give(
    table: pd.DataFrame,
    labels: Labels,
    division: Division,
    learned: Mapping[str, Learned],
    features: Features,
    rows: NDArray[np.intp],
    silences: Mapping[str, Silence],
) -> pd.DataFrame:
    """labels.csv: who the report is, its side, and for each label probability_, label_ and source_.

    rows: the labelled reports; silences: of the labels that were learned. No probability comes from a model that has
    seen that label of the report: it is out of fold in training, the measured model's in the hold-out part, and the
    final model's where there is no label.
    """
    out = {name: table[name] for name in IDENTITY if name in table} | {"split": division.side}
    empty = (table["text"].str.strip() == "").to_numpy()
    scores = _final(learned, features, len(table))
    for label in labels.values:
        name, hand = str(label), labels.values[label].to_numpy(np.float64)
        doubt = labels.doubt[label].to_numpy(bool)
        own = learned.get(name)
        score = np.full(len(table), np.nan)
        made = np.full(len(table), np.nan)
        source = np.full(len(table), "", dtype=object)
        if own is not None:
            score = scores[name]
            score[rows[np.flatnonzero(~np.isnan(hand[rows]))]] = own.score
            score[empty] = np.nan
            made = own.decision.labels(score)
            withheld = silences[name].withheld(made)
            source[~np.isnan(made)] = "model"
            source[withheld] = "not mentioned"
            made[withheld] = np.nan
        known = ~np.isnan(hand)
        out[f"probability_{name}"] = score
        out[f"label_{name}"] = _whole(np.where(known, hand, np.where(doubt, np.nan, made)))
        source[empty & ~known] = "no text"
        source[known] = "hand"
        source[doubt] = "hand, in doubt"
        out[f"source_{name}"] = source
    return pd.DataFrame(out)


def _final(learned: Mapping[str, Learned], features: Features, n: int) -> dict[str, NDArray[np.float64]]:
    """Probabilities of all reports from the final models, a few thousand reports at a time."""
    scores = {name: np.full(n, np.nan) for name in learned}
    for part in chunks(np.arange(n)):
        for views in sorted({own.views for own in learned.values()}):
            matrix = features.matrix(views, part)
            for name, own in learned.items():
                if own.views == views:
                    scores[name][part] = probability(own.final.log_odds(matrix))
    return scores


def given_by_rule(
    table: pd.DataFrame, understood: Read, chosen: Mapping[str, str], unknown: Mapping[str, float]
) -> pd.DataFrame:
    """labels.csv of the rules: for each label status_, label_ and source_. ``chosen``: label -> finding.

    unknown: what "uncertain" and "unmentioned" become, 1, 0 or NaN.
    """
    out = {name: table[name] for name in IDENTITY if name in table}
    place = {name: number for number, name in enumerate(understood.lexicon.findings)}
    empty = (table["text"].str.strip() == "").to_numpy()
    for name, finding in chosen.items():
        status = understood.status[:, place[finding]]
        value = {state: as_label(state, unknown) for state in STATUS}
        given = np.where(empty, np.nan, np.array([value[int(state)] for state in status], np.float64))
        out[f"status_{name}"] = pd.Series([STATUS[int(state)] for state in status], dtype=object)
        out[f"label_{name}"] = _whole(given)
        source = np.where(empty, "no text", np.where(np.isnan(given), "", "rule"))
        out[f"source_{name}"] = pd.Series(source, dtype=object)
    return pd.DataFrame(out)


def _whole(values: NDArray[np.float64]) -> pd.Series:
    """1, 0 and NaN as whole numbers with gaps, which a CSV shows as 1, 0 and nothing."""
    return pd.Series(values).astype("Int8")

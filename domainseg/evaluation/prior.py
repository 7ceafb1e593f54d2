"""What was known before the image: a prior from structured data, alone and combined with the image's score.

Two logistic regressions: the prior from columns such as age, sex and department or the words of the request, and the
combination from the logits of the prior and of the image. The combination is fitted on priors of patients that the
prior's model has not seen, or it would trust the prior too much.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from domainseg.evaluation import roc
from domainseg.evaluation.calibration import logit
from domainseg.evaluation.groups import MOST
from domainseg.evaluation.intervals import Array, codes
from domainseg.evaluation.tables import EvaluationError, Rows, numbers, probable, texts

FOLDS = 5
ENOUGH = 20  # patients of each class that a prior is fitted on (our choice)
_WORDS = 2000  # most words and pairs of words of a text


@dataclass(frozen=True)
class Features:
    """How columns become numbers, learnt on some rows: mean and spread, values, words."""

    numeric: dict[str, tuple[float, float]]
    values: dict[str, list[str]]
    words: dict[str, Any]

    def __call__(self, table: pd.DataFrame) -> sparse.csr_array:
        """The features of rows [n, m]. What is empty, or was never seen, has zeros and a mark of its own."""
        parts: list[Any] = []
        for name, (mean, spread) in self.numeric.items():
            z = (numbers(table, name) - mean) / spread
            parts.append(np.nan_to_num(np.stack([z, z**2 - 1, np.isnan(z).astype(float)], axis=1)))
        for name, known in self.values.items():
            found = texts(table, name)
            parts.append((found[:, None] == np.array([*known, None], dtype=object)[None]).astype(np.float64))
        for name, counter in self.words.items():
            parts.append(counter.transform([value or "" for value in texts(table, name)]))
        return sparse.csr_array(sparse.hstack([sparse.csr_array(part) for part in parts]))


def features(table: pd.DataFrame, columns: Sequence[str]) -> Features:
    """Learn features of columns: numbers stay numbers (with their squares), few values are marked, else words count.

    Raises EvaluationError for columns that the table lacks or that are empty.
    """
    absent = [name for name in columns if name not in table]
    if absent:
        raise EvaluationError(f"prior: the table has no column {', '.join(absent)}")
    out = Features({}, {}, {})
    for name in columns:
        found = texts(table, name)
        known = sorted({value for value in found if value is not None})
        if not known:
            raise EvaluationError(f"prior: the column {name} is empty in the cases that the prior is fitted on")
        values = pd.to_numeric(pd.Series(known), errors="coerce")
        if values.notna().all() and len(known) > 2:
            column = numbers(table, name)
            out.numeric[name] = float(np.nanmean(column)), float(np.nanstd(column)) or 1.0
        elif len(known) <= MOST:
            out.values[name] = known
        else:
            from sklearn.feature_extraction.text import CountVectorizer

            counter = CountVectorizer(binary=True, ngram_range=(1, 2), min_df=5, max_features=_WORDS)
            try:
                out.words[name] = counter.fit([value or "" for value in found])
            except ValueError:
                raise EvaluationError(
                    f"prior: the column {name} has {len(known)} values, none of whose words five cases share"
                ) from None
    return out


def prior(rows: Rows, tune: Rows | None, columns: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """AUC of the image's score, of the prior from ``columns``, and of both combined, on scored rows of known label.

    Fitted on ``tune``, which must hold none of the patients of ``rows``, and judged on ``rows``; without tune rows
    cross-fitted by patient within ``rows``, and named so. Cases are compared within a fold only, of this fit and of
    the table. {columns, fitted_on, image, prior, combined: {auc},
    combined_against_image, combined_against_prior: {difference, p}} with the paired DeLong test. Without ENOUGH
    patients of each class to fit on: {columns, fitted_on: "too few ..."}. Raises EvaluationError as ``features`` does.
    """
    rows = rows.take(rows.scored)
    tune = None if tune is None else tune.take(tune.scored)
    judge = rows if tune is None else tune
    said: dict[str, Any] = {"columns": list(columns)}
    patients = [len(np.unique(judge.clusters[judge.label == side])) for side in (1, 0)]
    if min(patients) < ENOUGH:
        return {**said, "fitted_on": f"too few patients to fit on: {patients[0]} positive, {patients[1]} negative"}
    fold = np.zeros(len(rows), dtype=np.intp)
    before, both = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    if tune is not None:
        said["fitted_on"] = f"tune, {len(tune)} cases"
        before, both = _fitted(tune, rows, columns, seed)
    else:
        said["fitted_on"] = f"these {len(rows)} cases, cross-fitted by patient in {FOLDS} folds"
        fold = folds(rows.label, rows.clusters, seed)
        for k in range(FOLDS):
            before[fold == k], both[fold == k] = _fitted(rows.take(fold != k), rows.take(fold == k), columns, seed)
    within = np.array([f"{own} {k}" for own, k in zip(rows.fold, fold, strict=True)])
    scores = {"image": rows.score, "prior": before, "combined": both}
    for name, score in scores.items():
        said[name] = {"auc": roc.auc(rows.label, score, rows.clusters, within)}
    for name in ("image", "prior"):
        gap, p = roc.difference(rows.label, both, scores[name], rows.clusters, within)
        said[f"combined_against_{name}"] = {"difference": gap, "p": p}
    return said


def folds(label: Array, clusters: NDArray[Any], seed: int, count: int = FOLDS) -> NDArray[np.intp]:
    """Fold of each row [n]: a patient in one of them, patients with a positive row spread evenly."""
    member, k = codes(clusters)
    has = np.bincount(member, weights=label == 1, minlength=k) > 0
    order = np.lexsort((np.random.default_rng(seed).random(k), has))
    of = np.empty(k, dtype=np.intp)
    of[order] = np.arange(k) % count
    return of[member]


def _fitted(fit: Rows, to: Rows, columns: Sequence[str], seed: int) -> tuple[Array, Array]:
    """Logits of the prior and of the combination for the rows ``to``, fitted on the rows ``fit``."""
    inner = folds(fit.label, fit.clusters, seed + 1)
    unseen = np.zeros(len(fit))
    for k in range(FOLDS):
        unseen[inner == k] = _logits(fit.take(inner != k), fit.take(inner == k), columns)
    before = _logits(fit, to, columns)
    link = logit if probable(np.r_[fit.score, to.score]) else np.asarray
    combined = _regression(np.stack([unseen, link(fit.score)], axis=1), fit.label, 1e4)
    return before, combined.decision_function(np.stack([before, link(to.score)], axis=1))


def _logits(fit: Rows, to: Rows, columns: Sequence[str]) -> Array:
    learnt = features(fit.table, columns)
    model = _regression(learnt(fit.table), fit.label, 1.0)
    return np.asarray(model.decision_function(learnt(to.table)), np.float64)


def _regression(x: Any, label: Array, inverse_penalty: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # words that separate some cases: the penalty holds them
        return LogisticRegression(C=inverse_penalty, max_iter=300).fit(x, label)

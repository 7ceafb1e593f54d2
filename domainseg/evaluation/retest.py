"""The same models on an old and a new test set (Recht et al. 2018): drops, ranks, and how the new follows the old."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import linregress, rankdata
from scipy.stats import t as student

from domainseg.evaluation import roc
from domainseg.evaluation.intervals import LEVEL, Array, Metric, apart, empty, exact
from domainseg.evaluation.tables import (
    EvaluationError,
    Rows,
    numbers,
    read_table,
    repaired,
    rows_of,
    targets_of,
    texts,
)

SIDES = ("old", "new")


def retest(
    models: Sequence[str], old: Sequence[Metric], new: Sequence[Metric], gaps: Sequence[Metric]
) -> dict[str, Any]:
    """The table of Recht et al.: {models: [{model, old, new, gap, rank_old, rank_new, rank_change}], fit, mean_gap}.

    Sorted by the old figure; gap is old minus new; rank 1 is the best, equal ones share the better rank; rank_change is
    the old rank minus the new one, above 0 for a model that rises. fit: least squares of new on old over the models,
    slope and intercept with t intervals that take models as drawn at random (at least 3 of them).
    """
    a, b = (np.array([metric["value"] for metric in side], dtype=np.float64) for side in (old, new))
    ranks = [rankdata(-values, method="min").astype(int) for values in (a, b)]
    rows = [
        {
            "model": models[k],
            "old": old[k],
            "new": new[k],
            "gap": gaps[k],
            "rank_old": int(ranks[0][k]),
            "rank_new": int(ranks[1][k]),
            "rank_change": int(ranks[0][k] - ranks[1][k]),
        }
        for k in np.argsort(-a, kind="stable")
    ]
    return {"models": rows, "fit": _fit(a, b), "mean_gap": float((a - b).mean())}


def _fit(old: Array, new: Array) -> dict[str, Metric]:
    n = len(old)
    if n < 3 or np.ptp(old) == 0:
        reason = "fewer than 3 models" if n < 3 else "all old figures are equal"
        return {"slope": empty(reason, n, n), "intercept": empty(reason, n, n)}
    line = linregress(old, new)
    reach = float(student.ppf((1 + LEVEL) / 2, n - 2))

    def metric(value: float, error: float) -> Metric:
        low, high = value - reach * error, value + reach * error
        return Metric(value=value, low=low, high=high, n=n, n_clusters=n, method="least squares")

    return {
        "slope": metric(float(line.slope), float(line.stderr)),
        "intercept": metric(float(line.intercept), float(line.intercept_stderr)),
    }


def proportion_of(value: float, n: float) -> Metric:
    """An accuracy (or another proportion) of n cases with its Clopper-Pearson interval; without n no interval."""
    if np.isnan(n):
        return Metric(value=value, low=np.nan, high=np.nan, n=0, n_clusters=0, method="printed, without n")
    low, high = exact(value, n)
    return Metric(value=value, low=low, high=high, n=int(n), n_clusters=int(n), method="clopper-pearson")


def read_retest(path: Path, target: str | None = None, columns: dict[str, str] | None = None) -> dict[str, Any]:
    """``retest`` of a CSV file: model, old, new.

    old and new are numbers, fractions of cases (n_old, n_new: how many, for intervals), or paths of prediction tables,
    absolute or from the folder of the CSV; of these the AUC of ``target`` (the last one, when not given) is taken on
    scored cases of the test split (an empty split counts as test), within folds where there are several, or of all
    cases where there is no split. Raises EvaluationError naming row and column.
    """
    table = read_table(path)
    absent = [name for name in ("model", *SIDES) if name not in table]
    if absent or not len(table):
        raise EvaluationError(f"{path}: " + (f"missing columns {', '.join(absent)}" if absent else "has no rows"))
    named = [str(name) for name in texts(table, "model")]
    if len(set(named)) < len(named):
        raise EvaluationError(f"{path}: a model stands there twice")
    found: dict[str, list[Metric]] = {side: [] for side in SIDES}
    gaps = []
    for row in range(len(table)):
        cells = [_cell(path, table, row, side, target, columns) for side in SIDES]
        one, two = (cell[0] for cell in cells)
        found["old"].append(one)
        found["new"].append(two)
        a, b = (cell[1] for cell in cells)
        if a is not None and b is not None:
            people = _people(a, "old"), _people(b, "new")
            gaps.append(roc.unpaired(a.label, a.score, b.label, b.score, *people, a.fold, b.fold)[0])
        else:
            gaps.append(apart(one, two))
    return retest(named, found["old"], found["new"], gaps)


def _people(rows: Rows, side: str) -> NDArray[Any]:
    """Patients, who may be on both sides; an image without a patient is its own, whatever it is called elsewhere."""
    return np.array([f"{side} {name}" if name.startswith("image ") else name for name in rows.clusters], dtype=str)


def _cell(
    path: Path, table: pd.DataFrame, row: int, side: str, target: str | None, columns: dict[str, str] | None
) -> tuple[Metric, Rows | None]:
    """A figure with its interval, and the rows behind it where it comes from a prediction table."""
    text = texts(table, side)[row]
    if text is None:
        raise EvaluationError(f"{path}: {side}, row {row + 1}: is empty")
    try:
        value = float(text)
    except ValueError:
        predictions = repaired(read_table(path.parent / text, columns))[0]
        name = target or targets_of(predictions)[-1]
        targets_of(predictions, [name])
        if "split" in predictions:
            tested = np.array([split in (None, "test") for split in texts(predictions, "split")], dtype=bool)
            if not tested.any():
                raise EvaluationError(f"{path}: {side}, row {row + 1}: {text} has no rows of the split test") from None
            predictions = predictions[tested]
        rows = rows_of(predictions, name)
        rows = rows.take(rows.scored)
        return roc.auc(rows.label, rows.score, rows.clusters, rows.fold), rows
    if not 0 <= value <= 1:
        raise EvaluationError(f"{path}: {side}, row {row + 1}: {value:g} is no fraction from 0 to 1")
    return proportion_of(value, numbers(table, f"n_{side}")[row]), None

"""The prediction table as evaluation sees it: which columns are needed, who is a patient, which rows count how."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from domainseg.data.splits import joined
from domainseg.data.tables import semicolons
from domainseg.evaluation.intervals import Array
from domainseg.files import DomainsegError
from domainseg.imaging.hemorrhage import TYPES

# In the order of the cascade; a table's own targets follow in alphabetical order.
TARGETS = ("view_filter", "localizer", "implant_filter", "fracture", "head_filter", "hemorrhage", *TYPES)
# The label at which a stage should exclude.
STOPS = {"view_filter": 0, "localizer": 0, "implant_filter": 1, "head_filter": 0}
FILM_TARGETS = frozenset({"view_filter", "head_filter"})  # one decision a film, repeated on each of its rows
# Columns of a few words, in which another case or a blank is a slip and no other group.
WORDS = ("part", "split", "site", "department", "scanner", "view", "portable", "sex", "image_side", "side")
_NAMES = frozenset({"image", "patient", "group", "fold", "age", "excluded_by", *WORDS})
_KINDS = ("label_", "score_", "threshold_", "eligible_")


class EvaluationError(DomainsegError):
    """A prediction table that can't be evaluated; the message names the columns or cells and what to do."""


def read_table(path: Path | str, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read a prediction table (.parquet or .csv). ``columns`` maps our names to the file's: {label_fracture: truth}.

    Raises EvaluationError for a file that isn't there or isn't a table, and for mapped columns that are absent.
    """
    path = Path(path)
    if path.is_dir():
        there = [path / name for name in ("predictions.parquet", "predictions.csv") if (path / name).is_file()]
        advice = f"name its table: predictions={there[0]}" if there else "name a table (.parquet or .csv)"
        raise EvaluationError(f"{path}: is a folder; {advice}")
    if not path.is_file():
        raise EvaluationError(f"{path}: no such prediction table")
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", errors="replace") as lines:
            told = semicolons(lines.readline())
        if told:
            raise EvaluationError(f"{path}: {told}")
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, low_memory=False)
    except pd.errors.EmptyDataError:
        raise EvaluationError(f"{path}: is empty; needed are a line of column names and a row for each case") from None
    except pd.errors.ParserError as error:
        found = re.search(r"line \d+", str(error))
        where = f"{path}: {found[0]}" if found else str(path)
        raise EvaluationError(f"{where}: not readable as CSV; put quotes around texts that hold commas") from None
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path}: can't be read as a table ({error}); give a .parquet or .csv file") from error
    absent = sorted(set((columns or {}).values()) - set(table.columns))
    if absent:
        raise EvaluationError(f"{path}: the mapping names {', '.join(absent)}; the table has {_listed(table.columns)}")
    return table.rename(columns={theirs: ours for ours, theirs in (columns or {}).items()})


def repaired(table: pd.DataFrame, unscored: str | None = None) -> tuple[pd.DataFrame, list[str]]:
    """The table with slips put right that can only be slips, and a sentence for each kind of repair or finding.

    Column names without blanks around them, ours in lower case; values of WORDS (site, split, ...) that differ only by
    case or blanks in their most frequent spelling; cases that stand there again with all that is judged the same, once.
    Said, not repaired: scores that are no probabilities, patients in several splits, and known labels without a score
    or a reason for that, with what the caller makes of them (``unscored``; None: the caller says it himself). Raises
    EvaluationError for an empty image, two columns of one name, and a case (image, part, and split and fold where
    given) that stands there twice with different labels, scores or metadata.
    """
    table, said = _named(table)
    for name in (name for name in WORDS if name in table):
        respelt = one_spelling(texts(table, name))[0]
        spelt = [value if isinstance(value, str) else new for value, new in zip(table[name], respelt, strict=True)]
        changed = sorted({(a, b) for a, b in zip(spelt, respelt, strict=True) if a != b and b is not None})
        if changed:
            told = ", ".join(f"“{a}” as “{b}”" for a, b in changed[:5]) + (", …" if len(changed) > 5 else "")
            said.append(f"{name}: values that differ only by case or blanks are taken as one ({told}).")
            table = table.assign(**{name: respelt})
    table, repeated, different = _once(table)
    if repeated:
        of = f", with {', '.join(different)} of its first row" if different else ""
        said.append(f"{repeated} rows repeat a case with the same labels and scores: each case counts once{of}.")
    return table, said + _findings(table, unscored)


def _named(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table with tidy column names, and what was renamed."""
    names = {}
    for old in table.columns:
        new = str(old).strip()
        if new.lower() in _NAMES:
            new = new.lower()
        for kind in _KINDS:
            if new.lower().startswith(kind):
                new = kind + new[len(kind) :]
        names[old] = new
    twice = sorted({new for new in names.values() if list(names.values()).count(new) > 1})
    if twice or table.columns.has_duplicates:
        raise EvaluationError(f"prediction table: two columns are called {', '.join(twice) or 'the same'}; keep one")
    changed = [f"“{old}” as “{new}”" for old, new in names.items() if str(old) != new]
    return table.rename(columns=names), [f"columns renamed: {', '.join(changed)}."] if changed else []


def one_spelling(cells: NDArray[np.object_]) -> tuple[NDArray[np.object_], list[str]]:
    """Values that differ only by case or blanks as one, in their commonest spelling; and what was done."""
    spelled: dict[str, Counter[str]] = {}
    for cell, count in Counter(cell for cell in cells if cell is not None).items():
        spelled.setdefault(" ".join(cell.split()).casefold(), Counter())[cell] += count
    chosen = {key: min(found, key=lambda cell: (-found[cell], cell)) for key, found in spelled.items()}
    repairs = [
        f"{', '.join(repr(cell) for cell in sorted(found))} differ by case or blanks: taken as {chosen[key]!r}"
        for key, found in spelled.items()
        if len(found) > 1
    ]
    out = [None if cell is None else chosen[" ".join(cell.split()).casefold()] for cell in cells]
    return np.array(out, dtype=object), repairs


def _once(table: pd.DataFrame) -> tuple[pd.DataFrame, int, list[str]]:
    """The table without rows that repeat a case, how many those were, and in which columns that judge nothing they
    differ. EvaluationError where they contradict."""
    if "image" not in table:
        return table, 0, []  # said by ``targets_of``, together with what else is missing
    image = texts(table, "image")
    if any(name is None for name in image):
        raise EvaluationError(
            f"prediction table: image, row {list(image).index(None) + 1}: is empty; every case needs a name"
        )
    key = [name for name in ("image", "part", "split", "fold") if name in table]
    again = table.duplicated(key, keep="first")
    if not again.any():
        return table, 0, []
    judged = [name for name in table if name in _NAMES or str(name).startswith(_KINDS)]
    odd = again & ~table.duplicated(judged, keep="first")
    if odd.any():
        row = table[odd].iloc[0]
        same = table[(table[key].astype(str) == row[key].astype(str)).all(axis=1)]
        names = [str(name) for name in judged if same[name].nunique(dropna=False) > 1]
        case = ", ".join(f"{name} {row[name]}" for name in key)
        raise EvaluationError(
            f"prediction table: {case} stands there {len(same)} times with different {', '.join(names)} "
            f"({int(odd.sum())} such rows); keep one row for each case, or tell them apart in a column part"
        )
    others = [str(name) for name in table if name not in judged and (~table.duplicated([*key, name]) & again).any()]
    return table[~again], int(again.sum()), others


def _findings(table: pd.DataFrame, unscored: str | None) -> list[str]:
    """What is no slip, but what a reader of the figures should know."""
    said = []
    excluded = np.array([value is not None for value in texts(table, "excluded_by")], dtype=bool)
    for target in [str(n)[6:] for n in table if str(n).startswith("label_") and f"score_{str(n)[6:]}" in table]:
        truth = numbers(table, f"label_{target}")
        if len(kinds := np.unique(truth[~np.isnan(truth)])) == 1:
            said.append(f"{target}: every known label is {kinds[0]:g}; with one class there is no AUC.")
        if target in TARGETS:
            continue  # a cascade's own: whoever has no score there was excluded, and stands in its coverage
        score = numbers(table, f"score_{target}")
        if not probable(score):
            said.append(
                f"{target}: scores reach from {np.nanmin(score):g} to {np.nanmax(score):g}, so they are no "
                "probabilities: what needs probabilities (calibration, decision curve) is left out."
            )
        lost = int((np.isnan(score) & ~np.isnan(truth) & ~excluded).sum())
        if lost and unscored is not None:
            said.append(f"{target}: {lost} cases with a label have no score and no reason in excluded_by; {unscored}.")
    if {"split", "image"} <= set(table.columns) and "fold" not in table:
        pairs = pd.DataFrame({"who": clusters_of(table), "split": texts(table, "split")}).dropna().drop_duplicates()
        shared = int((pairs.groupby("who").size() > 1).sum())
        if shared:
            said.append(
                f"{shared} patients have cases in more than one split: figures of the later ones are flattered."
            )
    return said


def targets_of(table: pd.DataFrame, targets: Iterable[str] | None = None) -> list[str]:
    """Targets to evaluate: those asked for, else all t with both label_t and score_t. EvaluationError names gaps."""
    has = set(table.columns)
    if targets is None:
        found = [name[6:] for name in table.columns if name.startswith("label_") and f"score_{name[6:]}" in has]
        order = {name: place for place, name in enumerate(TARGETS)}
        chosen = sorted(found, key=lambda name: (order.get(name, len(order)), name))
        if not chosen:
            raise EvaluationError(
                "prediction table: no target to evaluate; needed are label_<target> and score_<target> for at least "
                f"one target, and the table has {_listed(table.columns)}"
            )
    else:
        chosen = list(targets)
    needed = ["image", *(f"{kind}_{target}" for target in chosen for kind in ("label", "score"))]
    absent = [name for name in needed if name not in has]
    if absent:
        raise EvaluationError(
            f"prediction table: missing columns {', '.join(absent)}; the table has {_listed(table.columns)}. "
            "Name them with a mapping: columns: {label_fracture: your_column}"
        )
    return chosen


def numbers(table: pd.DataFrame, name: str) -> Array:
    """A column as float64 [n], empty cells NaN; all NaN when the column is absent. EvaluationError names a bad cell."""
    if name not in table.columns:
        return np.full(len(table), np.nan)
    column = table[name]
    values = pd.to_numeric(column, errors="coerce")
    bad = values.isna() & column.notna() & (column.astype(str).str.strip() != "")
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise EvaluationError(f"prediction table: {name}, {_at(table, row)}: {column.iloc[row]!r} is not a number")
    return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))


def probable(score: Array) -> bool:
    """Whether scores [n] can be probabilities: none below 0 or above 1 (NaN and infinities aside)."""
    finite = score[np.isfinite(score)]
    return bool(((finite >= 0) & (finite <= 1)).all())


def labels(table: pd.DataFrame, target: str) -> Array:
    """label_<target> as 1, 0 or NaN (unknown) [n]."""
    return binary(table, f"label_{target}")


def binary(table: pd.DataFrame, name: str) -> Array:
    """A column of 1, 0 and empty cells (NaN) [n]. Raises EvaluationError that names another cell by its image."""
    values = numbers(table, name)
    odd = ~np.isnan(values) & (values != 0) & (values != 1)
    if odd.any():
        row = int(np.flatnonzero(odd)[0])
        raise EvaluationError(f"prediction table: {name}, {_at(table, row)}: {values[row]:g} is not 1, 0 or empty")
    return values


def _at(table: pd.DataFrame, row: int) -> str:
    """A row as people find it, also in a part of a table: by its image, else by its number in the file."""
    return f"image {table['image'].iloc[row]}" if "image" in table else f"row {row + 2}"


def texts(table: pd.DataFrame, name: str) -> NDArray[Any]:
    """A column as an object array of strings, None where empty; whole numbers without a decimal point."""
    if name not in table.columns:
        return np.full(len(table), None, dtype=object)
    return np.array([_text(value) for value in table[name]], dtype=object)


def _text(value: Any) -> str | None:
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def clusters_of(table: pd.DataFrame) -> NDArray[Any]:
    """Who belongs together, as strings [n]: a chain of shared groups and patients (site, patient), else the image."""
    group, site, patient = (texts(table, name) for name in ("group", "site", "patient"))
    nodes = [
        [*([f"group {g}"] if g is not None else []), *([f"patient {s} {p}"] if p is not None else [])] or [f"image {i}"]
        for g, s, p, i in zip(group, site, patient, table["image"], strict=True)
    ]
    return np.array(joined(nodes), dtype=str)


@dataclass(frozen=True)
class Rows:
    """One target's rows, ready for metrics. All arrays have length n.

    label 1, 0 or NaN; score, NaN = not scored; threshold, NaN = none; eligible: no known truth of an earlier stage
    says that the case should have been excluded; excluded_by: a stage or None.
    """

    table: pd.DataFrame
    label: Array
    score: Array
    threshold: Array
    eligible: NDArray[np.bool_]
    excluded_by: NDArray[Any]
    clusters: NDArray[Any]
    fold: NDArray[Any]

    def __len__(self) -> int:
        return len(self.label)

    def take(self, mask: NDArray[np.bool_]) -> Rows:
        """The rows where ``mask`` [n] is true."""
        return Rows(self.table[mask], *(getattr(self, name)[mask] for name in list(self.__dataclass_fields__)[1:]))

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Rows judged conditionally: label known, and a score."""
        return ~np.isnan(self.label) & ~np.isnan(self.score)

    @property
    def intended(self) -> NDArray[np.bool_]:
        """Rows judged on intention: label known, and eligible."""
        return ~np.isnan(self.label) & self.eligible

    def judged(self) -> Rows:
        """The intended rows, excluded positives scoring -inf and excluded negatives +inf."""
        rows = self.take(self.intended)
        lost = np.where(rows.label == 1, -np.inf, np.inf)
        score = np.where(np.isnan(rows.score), lost, rows.score)
        return Rows(rows.table, rows.label, score, *(getattr(rows, n) for n in list(self.__dataclass_fields__)[3:]))


def rows_of(table: pd.DataFrame, target: str) -> Rows:
    """Rows of one target; a film-level target has one row a film. Without eligible_<target> every row is eligible."""
    if target in FILM_TARGETS:
        keys = ["image", "fold"] if "fold" in table else ["image"]  # a tune film may be in several folds
        table = table.groupby(keys, sort=False, dropna=False).first().reset_index()
    eligible = numbers(table, f"eligible_{target}")
    fold = texts(table, "fold")
    score = numbers(table, f"score_{target}")
    if np.isinf(score).any():
        raise EvaluationError(f"prediction table: score_{target} holds infinite values; scores are probabilities")
    return Rows(
        table=table,
        label=labels(table, target),
        score=score,
        threshold=numbers(table, f"threshold_{target}"),
        eligible=np.isnan(eligible) | (eligible != 0),
        excluded_by=texts(table, "excluded_by"),
        clusters=clusters_of(table),
        fold=np.array(["" if name is None else name for name in fold], dtype=str),
    )


def ranked(rows: Rows) -> Array:
    """Scores [n], NaN = none; with several folds their ranks in 0..1 within the fold, which has a scale of its own."""
    known = ~np.isnan(rows.score)
    if len(folds := np.unique(rows.fold[known])) < 2:
        return rows.score
    out = np.full(len(rows), np.nan)
    for name in folds:
        members = known & (rows.fold == name)
        out[members] = (rankdata(rows.score[members]) - 0.5) / members.sum()
    return out


def should_stop(table: pd.DataFrame, target: str) -> NDArray[np.bool_]:
    """Cases [n] that a known truth says a stage before ``target`` should exclude."""
    stop = np.zeros(len(table), dtype=bool)
    for stage, excluding in STOPS.items():
        if stage == target:
            break
        stop |= numbers(table, f"label_{stage}") == excluding
    return stop


def films(table: pd.DataFrame, target: str = "fracture") -> pd.DataFrame:
    """One row a film, to compare with whole-film models: the score of its highest hip, label 1 if any hip is, 0 if all.

    A hip whose label is unknown leaves the film unknown unless another is 1. A film is eligible when a hip is; only
    eligible hips speak for it where there are any. The film's other columns come from its first row.
    """
    label, score, eligible = f"label_{target}", f"score_{target}", f"eligible_{target}"
    out = []
    for _, hips in table.groupby(["image", "fold"] if "fold" in table else ["image"], sort=True, dropna=False):
        row = hips.iloc[0].copy()
        is_eligible = numbers(hips, eligible) != 0
        kept = hips[is_eligible] if is_eligible.any() else hips
        truth, scores = labels(kept, target), numbers(kept, f"score_{target}")
        row[label] = 1.0 if (truth == 1).any() else 0.0 if len(truth) and (truth == 0).all() else np.nan
        row[score] = np.nan if np.isnan(scores).all() else np.nanmax(scores)
        row[eligible] = float(is_eligible.any())
        row["part"] = "whole"
        out.append(row)
    return pd.DataFrame(out, columns=list(dict.fromkeys([*table.columns, "part", eligible])))


def _listed(columns: Iterable[Any]) -> str:
    names = [str(name) for name in columns]
    return ", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "")

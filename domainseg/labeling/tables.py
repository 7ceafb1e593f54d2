"""The two tables a user brings: reports (report, patient, text) and labels (report and a column a label)."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from domainseg.data.tables import as_text, semicolons
from domainseg.files import DomainsegError

_ONE, _ZERO = ("1", "1.0", "true", "yes", "positive", "pos"), ("0", "0.0", "-0.0", "false", "no", "negative", "neg")
_DOUBT, _EMPTY = ("-1", "-1.0", "uncertain"), ("", "nan", "na", "none", "unknown", "null", "n/a")
UNCERTAIN = {"unknown": np.nan, "0": 0.0, "1": 1.0}
_CARRIED = ("image", "study", "site")  # columns of the reports table that labels.csv repeats


class TableError(DomainsegError):
    """A table that cannot be used; the message names the file, the column or row, and what to do."""


@dataclass(frozen=True)
class Reports:
    """n reports: table with report, patient ("" unknown), text and what is carried along; notes: repairs, in words.

    films: report and image of each film, where there are images; a report may speak of several.
    """

    table: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    films: pd.DataFrame | None = None


@dataclass(frozen=True)
class Labels:
    """Labels of the n reports, in their order: values [n, labels] 1, 0 or NaN; split [n]: train, test or "".

    doubt [n, labels]: where a hand label says -1, so that no model is asked, whatever -1 was read as.
    """

    values: pd.DataFrame
    doubt: pd.DataFrame
    split: pd.Series
    notes: list[str] = field(default_factory=list)


def read_reports(path: Path | str, columns: Mapping[str, str]) -> Reports:
    """Read the reports. Rows without an id are left out; rows of one id and one patient are one report.

    ``columns`` maps our names to the file's. Without a report column the image column names the report. Raises
    TableError for a file that is no table, a missing column, and ids that stand for two patients.
    """
    path, notes = Path(path), list[str]()
    table = _mapped(_read(path, notes), columns, path)
    if "report" not in table and "image" in table:
        table["report"] = table["image"]
    for name in ("report", "text"):
        if name not in table:
            raise TableError(
                f"{path}: column {name} is missing; found: {_named(table.columns)}. "
                f"Say which column it is: 'columns={{{name}: YOUR_COLUMN}}'"
            )
    if "patient" not in table:
        table["patient"] = ""
        notes.append("The reports have no patient column: a patient with several reports may stand on both sides.")
    elif missing := int((table["patient"] == "").sum()):
        notes.append(f"{missing} reports have no patient; each is taken for a patient of its own.")
    if without := int((table["report"] == "").sum()):
        notes.append(f"{without} rows of the reports table have no report id and were left out.")
    table = table[table["report"] != ""]
    kept = ["report", "patient", "text", *(name for name in _CARRIED if name in table)]
    films = table[["report", "image"]].drop_duplicates().reset_index(drop=True) if "image" in table else None
    table = _one_row_each(table[kept], path, notes)
    if table.empty:
        raise TableError(f"{path}: holds no reports")
    written = table["text"].str.strip()
    if empty := int((written == "").sum()):
        notes.append(f"{empty} reports have no text.")
    if empty < len(table) and written[written != ""].str.fullmatch("[0-9a-f]{16,64}").all():
        raise TableError(
            f"{path}: its texts are hashes, as in images.parquet of a PACS export; its reports are in "
            "private/reports.parquet"
        )
    return Reports(table.reset_index(drop=True), notes, films)


def _one_row_each(table: pd.DataFrame, path: Path, notes: list[str]) -> pd.DataFrame:
    twice = table["report"].duplicated(keep=False)
    if not twice.any():
        return table
    groups = table[twice].groupby("report", sort=False)
    patients = groups["patient"].agg(lambda cells: len(set(cells) - {""}))
    if (patients > 1).any():
        row = int(table.index[table["report"] == patients[patients > 1].index[0]][0])
        raise TableError(
            f"{path}: {int((patients > 1).sum())} report ids stand for more than one patient, the first in row {row} "
            "(the header is row 1). Give each report an id of its own"
        )
    joined = groups["text"].agg(lambda cells: "\n\n".join(dict.fromkeys(cells)))
    first = table.drop_duplicates("report").set_index("report")
    first["patient"] = first["patient"].where(
        first["patient"] != "", groups["patient"].max().reindex(first.index, fill_value="")
    )
    different = int((groups["text"].nunique() > 1).sum())
    first.loc[joined.index, "text"] = joined
    notes.append(
        f"{len(joined)} report ids stand in several rows: each is one report; the different texts of {different} of "
        "them (addenda) were joined in their order."
    )
    return first.reset_index()


def read_labels(
    path: Path | str,
    columns: Mapping[str, str],
    reports: pd.Series,
    *,
    targets: Sequence[str] | None = None,
    uncertain: str = "unknown",
) -> Labels:
    """Read the labels of ``reports`` (ids). Cells: 1, 0, empty = unknown, -1 = in doubt, read as ``uncertain`` says.

    A leading label_ of a column is no part of the label's name. A column without a single label is none and is named.
    Rows for reports that are not there are left out and counted; a report with contradictory rows is unknown there.
    Raises TableError, also when no row fits a report.
    """
    path, notes = Path(path), list[str]()
    table = _mapped(
        _read(path, notes), {ours: theirs for ours, theirs in columns.items() if ours != "text"}, path, False
    )
    if "report" not in table and "image" in table:
        table["report"] = table["image"]
    if "report" not in table:
        raise TableError(
            f"{path}: column report is missing; found: {_named(table.columns)}. "
            "Say which column it is: 'columns={report: YOUR_COLUMN}'"
        )
    known = table["report"].isin(set(reports))
    if not known.any():
        raise TableError(
            f"{path}: none of its {len(table)} rows has the id of a report; do both tables name them alike?"
        )
    if missing := int((~known).sum()):
        notes.append(f"{missing} rows of the labels table are for reports that are not there and were left out.")
    table = table[known]
    names = [name for name in table.columns if name not in ("report", "patient", "text", "split", *_CARRIED)]
    values = _values(table, names, targets, path, notes)
    merged = values.groupby(table["report"]).agg(_agreed).reindex(reports).reset_index(drop=True)
    doubt = merged == -1
    if contradictions := int(values.groupby(table["report"]).nunique().gt(1).to_numpy().sum()):
        notes.append(f"{contradictions} labels contradict each other in several rows of one report: taken as unknown.")
    split = pd.Series("", index=reports.index)
    if "split" in table:
        wrong = ~table["split"].isin(["train", "test", ""])
        if wrong.any():
            raise TableError(f"{path}: row {wrong.idxmax()}, column split: train, test or empty")
        sides = table[table["split"] != ""].groupby("report")["split"]
        if (sides.nunique() > 1).any():
            raise TableError(
                f"{path}: {int((sides.nunique() > 1).sum())} reports stand on both sides of the split column"
            )
        split = reports.map(sides.first()).fillna("")
    if not (split != "").any() and "split" in table:
        notes.append("The split column of the labels table is empty: reports are held out at random.")
    counts = [f"{label} {int(doubt[label].sum())}" for label in merged if doubt[label].any()]
    if counts:
        notes.append(f"Hand labels in doubt (-1), read as {uncertain}: {', '.join(counts)}.")
    return Labels(merged.mask(doubt, UNCERTAIN[uncertain]), doubt, split.reset_index(drop=True), notes)


def _agreed(cells: pd.Series) -> float:
    found = cells.dropna().unique()
    return float(found[0]) if len(found) == 1 else float("nan")


def _values(
    table: pd.DataFrame, names: list[str], targets: Sequence[str] | None, path: Path, notes: list[str]
) -> pd.DataFrame:
    short = {str(name).removeprefix("label_"): str(name) for name in names}
    if len(short) < len(names):
        raise TableError(f"{path}: a label stands there with and without label_ before its name")
    if absent := [name for name in targets or () if name.removeprefix("label_") not in short]:
        raise TableError(f"{path}: no column {', '.join(absent)}; found: {_named(short)}")
    chosen = {name.removeprefix("label_") for name in targets} if targets else set(short)
    meaning = {
        **dict.fromkeys(_ONE, 1.0), **dict.fromkeys(_ZERO, 0.0), **dict.fromkeys(_DOUBT, -1.0),
        **dict.fromkeys(_EMPTY, np.nan),
    }  # fmt: skip
    out, none = {}, []
    for label, column in short.items():
        if label not in chosen:
            continue
        cells = table[column].str.strip().str.lower()
        wrong = ~cells.isin(list(meaning))
        labelled = cells.isin([*_ONE, *_ZERO, *_DOUBT])
        if wrong.any() and not targets and labelled.sum() < wrong.sum():
            none.append(label)  # a comment, a date, an age
            continue
        if wrong.any():
            raise TableError(
                f"{path}: row {wrong.idxmax()}, column {column}: a label is 1, 0, -1 (in doubt) or empty (unknown); "
                f"{int(wrong.sum())} cells are something else. If the column is no label, name those that are: "
                "'targets=[...]'"
            )
        out[label] = cells.map(meaning).astype(np.float64)
    if none:
        notes.append(f"Columns of the labels table that hold no labels: {', '.join(none)}.")
    if not out:
        raise TableError(f"{path}: no column of labels; found: {_named(names) or 'only report'}")
    return pd.DataFrame(out, index=table.index)


def _named(columns: Iterable[Any]) -> str:
    """Names of columns; of what may be a row of data, since the table has no header, only how many they are."""
    names = [str(name) for name in columns]
    if any(len(name) > 40 or re.search(r"\d{3}|\w \w+ \w", name) for name in names):
        return f"{len(names)} columns, whose names look like a row of data: is the row of names missing?"
    return ", ".join(names)


def _mapped(table: pd.DataFrame, columns: Mapping[str, str], path: Path, strict: bool = True) -> pd.DataFrame:
    absent = sorted({str(theirs) for ours, theirs in columns.items() if ours != theirs} - set(table.columns))
    if absent and strict:
        raise TableError(f"{path}: columns= names {', '.join(absent)}; found: {_named(table.columns)}")
    for ours, theirs in columns.items():
        if theirs in table and theirs != ours:
            table = table.drop(columns=ours, errors="ignore").rename(columns={theirs: ours})
    return table


def _read(path: Path, notes: list[str]) -> pd.DataFrame:
    """A CSV, TSV or Parquet table as text cells, indexed by the row as a spreadsheet shows it (the header is row 1)."""
    if path.is_dir():
        raise TableError(f"{path}: is a folder; name a table in it (.csv, .tsv or .parquet)")
    if not path.is_file():
        raise TableError(f"{path}: no such file")
    if path.suffix.lower() != ".parquet" and path.read_bytes()[:4] in (b"%PDF", b"PK\x03\x04"):
        raise TableError(f"{path}: is no CSV, TSV or Parquet table; save it as one")
    try:
        if path.suffix.lower() == ".parquet":
            return as_text(pd.read_parquet(path))
        text, separator = _decoded(path, notes).replace("\x00", " "), "\t" if path.suffix.lower() == ".tsv" else ","
        if separator == "," and (told := semicolons(text)):
            raise TableError(f"{path}: {told}")
        header = [name.strip() for name in next(csv.reader(io.StringIO(text), delimiter=separator), [])]
        if twice := sorted({name for name in header if header.count(name) > 1}):
            raise TableError(f"{path}: column {twice[0] or '(without a name)'} stands there twice")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row that is longer than the header
            table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, sep=separator, index_col=False)
    except pd.errors.EmptyDataError:
        raise TableError(f"{path}: is empty; its first row must name the columns") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        line = re.search(r"line \d+|row \d+", str(error))
        raise TableError(
            f"{path}: not readable as CSV{f' ({line[0]})' if line else ''}; put quotes around texts that hold commas, "
            "line breaks or quotes"
        ) from None
    except (ValueError, OSError) as error:
        raise TableError(
            f"{path}: not readable as a table ({type(error).__name__}); give a .csv or .parquet file"
        ) from None
    table.columns = [str(name).strip() for name in table.columns]
    return as_text(table)


def _decoded(path: Path, notes: list[str]) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        notes.append(f"{path.name} is not in UTF-8; it was read as Windows-1252, what has no meaning there as a sign.")
        return data.decode("cp1252", errors="replace")

"""Read a table (CSV or Parquet) as text and check every cell: what is wrong is named by row, column and rule.

Tables are read as text first, because a reader that guesses types turns the id 007 into 7 and an empty cell into a
number. Only columns with a declared rule are converted afterwards; an empty cell is always "unknown".
"""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow
import pyarrow.parquet

from domainseg.files import DomainsegError
from domainseg.imaging.hemorrhage import TYPES

PARTS = ("hip_left", "hip_right", "head", "whole")
SPLITS = ("train", "tune", "test")
SHOWN = 10  # wrong cells written out in an error; all of them are counted

# fmt: off
IMAGE_COLUMNS = (
    "image", "path", "patient", "group", "study", "series", "site", "department", "scanner", "view", "portable",
    "date", "age", "sex", "report", "split",
)
TARGET_COLUMNS = (
    "part", "x", "y", "diameter", "box", "mask", "polygon", "femur_mask", "fracture_class", "fracture_width_mm",
    "displacement_mm", "implant", "mask_type", "slices_hemorrhage", *(f"slices_{name}" for name in TYPES), "true_ml",
    "size_class", "density", "mimic", "mimics",
)
# fmt: on


class ManifestError(DomainsegError):
    """A manifest, or a split of it, that cannot be used; the message says what, where and what to do."""


_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def _number(low: float = -np.inf, high: float = np.inf, *, above: bool = False) -> Callable[[str], bool]:
    def check(cell: str) -> bool:
        if not _NUMBER.fullmatch(cell):
            return False
        value = float(cell)
        return bool(np.isfinite(value)) and (low < value if above else low <= value) and value <= high

    return check


def is_date(cell: str) -> bool:
    """Whether a text is a date as YYYY-MM-DD, so that the order of texts is that of days."""
    try:
        return datetime.date.fromisoformat(cell).isoformat() == cell
    except ValueError:
        return False


def _is_box(cell: str) -> bool:
    numbers = cell.split(",")
    number = _number()
    if len(numbers) != 4 or not all(number(item.strip()) for item in numbers):
        return False
    return float(numbers[2]) > 0 and float(numbers[3]) > 0


def _is_polygon(cell: str) -> bool:
    numbers = cell.split()
    number = _number()
    return len(numbers) >= 6 and len(numbers) % 2 == 0 and all(number(item) for item in numbers)


def _is_slices(cell: str) -> bool:
    return cell == "none" or all(number.isascii() and number.isdigit() for number in cell.split())


def _one_of(*allowed: str) -> tuple[Callable[[str], bool], str]:
    return (lambda cell: cell in allowed), ", ".join(allowed)


_BINARY = (lambda cell: cell in ("1", "0", "1.0", "0.0")), "1, 0"

# column -> (is this non-empty cell allowed?, what is allowed in words); anything may be empty but image and part
RULES: dict[str, tuple[Callable[[str], bool], str]] = {
    "part": _one_of(*PARTS),
    "split": _one_of(*SPLITS),
    "portable": _BINARY,
    "sex": _one_of("F", "M", "O"),
    "date": (is_date, "a date as YYYY-MM-DD"),
    "age": (_number(0, 130), "a number of years from 0 to 130"),
    "x": (_number(), "a number of source pixels"),
    "y": (_number(), "a number of source pixels"),
    "diameter": (_number(0, above=True), "a number of source pixels above 0"),
    "box": (_is_box, "x,y,width,height in source pixels, width and height above 0"),
    "polygon": (_is_polygon, "x1 y1 x2 y2 x3 y3 ... in source pixels, three points or more"),
    "fracture_class": _one_of("hairline", "undisplaced", "displaced"),
    "label_view": _one_of("hip_frontal", "hip_other", "other"),
    "label_location": _one_of("none", "intra", "extra"),
    "mask_type": _one_of(*TYPES),
    "density": _one_of("fresh", "subacute"),
    **{
        f"slices_{name}": (_is_slices, "none, or slice numbers from 0 on, separated by blanks")
        for name in ("hemorrhage", *TYPES)
    },
    "label_turn": ((lambda cell: cell.removesuffix(".0") in ("0", "1", "2", "3")), "0, 1, 2, 3"),
}
TEXT_LABELS = ("label_view", "label_location", "label_origin")
#: Labels that only exist of a whole film or exam.
OF_FILM = ("label_view_filter", "label_view", "label_turn", "label_head_filter")
_NUMERIC = ("age", "x", "y", "diameter")
_UNITS = ("_mm", "_px", "_ml", "_deg")


def is_binary_label(column: str) -> bool:
    """Whether a column holds 1, 0 or empty: every label_<target> but the four that are text or turns."""
    return column.startswith("label_") and column not in (*TEXT_LABELS, "label_turn")


def is_numeric(column: str) -> bool:
    """Whether a column is kept as float64 with NaN for unknown; all others are text with "" for unknown."""
    return column in _NUMERIC or column.endswith(_UNITS) or (column.startswith("label_") and column not in TEXT_LABELS)


def rule(column: str) -> tuple[Callable[[str], bool], str] | None:
    """What a non-empty cell of a column must be; None where any text is right."""
    if column in RULES:
        return RULES[column]
    if is_binary_label(column):
        return _BINARY
    if column.endswith(_UNITS):
        return _number(0), "a number, 0 or above"
    return None


def read_table(path: Path | str) -> pd.DataFrame:
    """Read .csv (comma separated, UTF-8) or .parquet as text cells; the index is the row as a spreadsheet shows it.

    The header is row 1 of a CSV; rows of a Parquet table are counted in the same way. Raises ManifestError.
    """
    path = Path(path)
    if not path.is_file():
        raise ManifestError(f"{path}: no such file; data.path names a CSV or Parquet table")
    if path.suffix.lower() == ".parquet":
        try:
            return as_text(pyarrow.parquet.read_table(path).to_pandas())
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise ManifestError(f"{path}: not a readable Parquet table ({error})") from error
    if path.suffix.lower() != ".csv":
        raise ManifestError(f"{path}: a manifest is a .csv or .parquet file")
    try:
        text = path.read_text(encoding="utf-8-sig")
        return _parse_csv(text, path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path}: not a readable CSV table in UTF-8 ({error})") from error


def _parse_csv(text: str, path: Path) -> pd.DataFrame:
    if told := semicolons(text):
        raise ManifestError(f"{path}: {told}")
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    if not rows:
        raise ManifestError(f"{path}: the table is empty; its first row must name the columns")
    header = [cell.strip() for cell in rows[0]]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ManifestError(f"{path}: column {twice[0] or '(without a name)'} stands there twice")
    index, cells = [], []
    for number, row in enumerate(rows[1:], start=2):
        if not row or not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise ManifestError(f"{path}: row {number} has {len(row)} cells, the header has {len(header)}")
        index.append(number)
        cells.append([cell.strip() for cell in row])
    return pd.DataFrame(cells, columns=header, index=index, dtype=object)


def semicolons(text: str) -> str:
    """What to tell of a CSV whose first line has semicolons and no comma, as some spreadsheets save it; else ""."""
    header = text.partition("\n")[0]
    found = ";" in header and "," not in header
    return "the columns are separated by semicolons; save the table with commas" if found else ""


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Any table as text cells: None and NaN become "", True 1, whole floats lose their .0; rows counted from 2."""
    columns = {
        str(name): np.array([_cell(value) for value in table[name].tolist()], dtype=object) for name in table.columns
    }
    return pd.DataFrame(columns, index=range(2, len(table) + 2), dtype=object)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "1" if value else "0"
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if np.isnan(number):
            return ""
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
    if isinstance(value, datetime.datetime):
        return value.date().isoformat()
    if isinstance(value, (list, tuple, np.ndarray)):
        return ",".join(_cell(item) for item in value)
    return str(value)


def check(table: pd.DataFrame, source: str, required: Iterable[str], unique: str | None = None) -> pd.DataFrame:
    """Check a text table and convert it: numeric columns float64 (NaN unknown), others str ("" unknown).

    source: what the error calls the table. required: columns that must be there and full. unique: a column without
    repeats. All wrong cells are found; the error counts them and shows the first ten. Raises ManifestError.
    """
    required = list(required)
    missing = [name for name in required if name not in table.columns]
    if missing:
        found = ", ".join(map(str, table.columns))
        raise ManifestError(f"{source}: column {missing[0]} is missing; found: {found}")
    columns: dict[str, pa.Column] = {}
    for name in table.columns:
        checks = []
        if name in required:
            checks.append(pa.Check(lambda cells: cells != "", error="must not be empty"))
        if (known := rule(name)) is not None:
            allowed, words = known
            checks.append(_cell_check(allowed, f"allowed: {words}" + (" or empty" if name not in required else "")))
        columns[name] = pa.Column(checks=checks)
    if unique is not None:
        columns[unique].checks.append(
            pa.Check(lambda cells: ~cells.duplicated(), error="stands there already; each may have one row only")
        )
    try:
        pa.DataFrameSchema(columns).validate(table, lazy=True)
    except pa.errors.SchemaErrors as error:
        raise ManifestError(_report(error.failure_cases, source)) from None
    return pd.DataFrame({name: _convert(name, table[name]) for name in table.columns}).reset_index(drop=True)


def _cell_check(allowed: Callable[[str], bool], words: str) -> pa.Check:
    def every(cells: pd.Series) -> pd.Series:
        verdict = {cell: cell == "" or allowed(cell) for cell in cells.unique()}
        return cells.map(verdict).astype(bool)

    return pa.Check(every, error=words)


def _report(cases: pd.DataFrame, source: str) -> str:
    order = cases.assign(index=cases["index"].astype(int)).sort_values(["index", "column"], kind="stable")
    lines = [
        f"  row {row.index}, column {row.column}: {_quote(row.failure_case)}; {row.check}"
        for row in order.head(SHOWN).itertuples(index=False, name="Case")
    ]
    more = [f"  ... and {len(order) - SHOWN} more"] if len(order) > SHOWN else []
    cells = "1 cell is wrong" if len(order) == 1 else f"{len(order)} cells are wrong"
    return "\n".join([f"{source}: {cells} (the header is row 1)", *lines, *more])


def _quote(cell: Any) -> str:
    text = str(cell)
    return repr(text if len(text) <= 60 else text[:57] + "...") if text else "(empty)"


def _convert(name: str, cells: pd.Series) -> pd.Series:
    if is_numeric(name):
        return cells.map(lambda cell: float(cell) if cell else np.nan).astype(np.float64)
    if name == "portable":
        return cells.map(lambda cell: cell[:1]).astype(str)
    return cells.astype(str)

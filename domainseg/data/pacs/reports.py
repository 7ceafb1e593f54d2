"""Radiology reports, joined with films by accession number; their text stays in the private folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet

from domainseg.data.pacs.films import accession_number
from domainseg.data.pacs.rules import parse_date
from domainseg.data.privacy import keyed_hash
from domainseg.data.tables import ManifestError, as_text

_LONGEST = 1 << 24  # letters of one cell


@dataclass
class Reports:
    """table: report (hash of the accession number), text, parts (rows that were put together); sorted by report.

    counts: rows, without_accession, without_text, repeated (the same text again), reports.
    """

    table: pd.DataFrame
    counts: dict[str, int]


def read_reports(path: Path, columns: Mapping[str, str | None], key: bytes, ignore_leading_zeros: bool) -> Reports:
    """Read a table of reports and put the rows of each accession number together, in order of date.

    columns: what the columns accession, text and date (may be None) are called in the file. Rows without a readable
    date follow those with one, in the order of the file; the same text twice counts once. Raises ManifestError, whose
    text names columns and rows, never what stands in them.
    """
    counts = dict.fromkeys(("rows", "without_accession", "without_text", "repeated", "reports"), 0)
    found: dict[str, list[tuple[str, int, str]]] = {}
    for number, row in enumerate(_rows(path, columns)):
        counts["rows"] += 1
        text = row["text"].replace("\r\n", "\n").replace("\r", "\n").strip()
        report = keyed_hash(key, "accession", accession_number(row["accession"], ignore_leading_zeros))
        if not report or not text:
            counts["without_text" if report else "without_accession"] += 1
            continue
        found.setdefault(report, []).append((_sortable(row["date"]), number, text))
    rows = []
    for report, parts in sorted(found.items()):
        texts = list(dict.fromkeys(text for _, _, text in sorted(parts)))
        counts["repeated"] += len(parts) - len(texts)
        rows.append((report, "\n\n".join(texts), len(texts)))
    counts["reports"] = len(rows)
    return Reports(pd.DataFrame(rows, columns=["report", "text", "parts"]), counts)


def _rows(path: Path, columns: Mapping[str, str | None]) -> Iterator[dict[str, str]]:
    """accession, text and date of every row as text."""
    suffix = path.suffix.lower()
    readers = {".csv": _csv, ".tsv": _csv, ".parquet": _parquet, ".jsonl": _lines, ".ndjson": _lines}
    if suffix not in readers:
        raise ManifestError(f"reports={path}: a table of reports is {', '.join(readers)}")
    if not path.is_file():
        raise ManifestError(f"reports={path}: no such file")
    wanted = {name: column for name, column in columns.items() if column}
    for row in readers[suffix](path, wanted):
        yield {name: row.get(wanted.get(name, ""), "") for name in ("accession", "text", "date")}


def _csv(path: Path, wanted: Mapping[str, str]) -> Iterator[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ManifestError(f"reports={path}: not in UTF-8; save it so (Excel: CSV UTF-8)") from None
    first = text.partition("\n")[0]
    before = csv.field_size_limit(_LONGEST)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _check_columns(path, wanted, header)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise ManifestError(
                    f"reports={path}: line {reader.line_num}: {len(row)} cells, the header has {len(header)}; put "
                    "quotes around texts that hold commas or line breaks"
                )
            yield dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise ManifestError(f"reports={path}: line {reader.line_num}: not readable as CSV ({error})") from None
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path, wanted: Mapping[str, str]) -> Iterator[dict[str, str]]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_columns(path, wanted, file.schema_arrow.names)
            for batch in file.iter_batches(4096, columns=list(wanted.values())):
                for row in as_text(batch.to_pandas()).to_dict("records"):
                    yield {str(name): str(cell) for name, cell in row.items()}
    except pyarrow.ArrowException as error:
        raise ManifestError(f"reports={path}: not a readable Parquet table ({type(error).__name__})") from None


def _lines(path: Path, wanted: Mapping[str, str]) -> Iterator[dict[str, str]]:
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row: Any = json.loads(line.decode("utf-8-sig"))
            except ValueError:  # not in UTF-8 either
                row = None
            if not isinstance(row, dict):
                raise ManifestError(f"reports={path}: line {number} is no JSON object in UTF-8")
            if number == 1:
                _check_columns(path, wanted, list(row))
            yield {str(name): "" if cell is None else str(cell) for name, cell in row.items()}


def _check_columns(path: Path, wanted: Mapping[str, str], header: list[str]) -> None:
    for name, column in wanted.items():  # a table without a header names patients in its first line: it is not shown
        if column not in header:
            raise ManifestError(
                f"reports={path}: no column {column!r} among the {len(header)} that its first line names. "
                f"report_columns.{name}=NAME names the right one"
            )


def _sortable(text: str) -> str:
    """A date (20230531, 2023-05-31, 31.05.2023; with or without a time) so that text sorts by it; "~" when none."""
    day, _, time = text.strip().replace("T", " ").partition(" ")
    parts = day.split(".") if "." in day else day.split("-")
    if "." in day and len(parts[-1]) == 4:
        parts.reverse()
    date = parse_date("".join(part.zfill(2) for part in parts))
    hour, colon, rest = time.strip().partition(":")
    return f"{date.isoformat()} {hour.zfill(2)}{colon}{rest}" if date is not None else "~"

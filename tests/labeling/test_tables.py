"""The two tables: repairs are told, what cannot be repaired is refused with its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from domainseg.labeling.tables import TableError, read_labels, read_reports

IDS = pd.Series(["a", "b", "c", "007"])


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_reports_as_they_come(tmp_path: Path) -> None:
    file = write(
        tmp_path / "r.csv",
        b'accession,patient,body,study\n007,,"Two\nlines, ""quoted""",S1\na,p1,First.,S2\na,p1,Addendum.,S2\n'
        b"b,p2,,S3\n,p3,no id,S4\na,,First.,S2\nd,p4,caf\xe9 \x81,S5\n",
    )
    read = read_reports(file, {"report": "accession", "text": "body"})
    assert read.table["report"].tolist() == ["007", "a", "b", "d"]
    assert read.table["text"].tolist() == [
        'Two\nlines, "quoted"',
        "First.\n\nAddendum.",
        "",
        "café \N{REPLACEMENT CHARACTER}",
    ]
    assert read.table["patient"].tolist() == ["", "p1", "p2", "p4"]
    assert read.table["study"].tolist() == ["S1", "S2", "S3", "S5"]
    told = " ".join(read.notes)
    for words in (
        "not in UTF-8",
        "2 reports have no patient",
        "1 rows",
        "1 report ids",
        "texts of 1",
        "1 reports have no text",
    ):
        assert words in told


def test_a_manifest_is_a_table_of_reports(tmp_path: Path) -> None:
    pd.DataFrame({"image": ["x"], "patient": ["p"], "report": ["No effusion."]}).to_parquet(tmp_path / "m.parquet")
    read = read_reports(tmp_path / "m.parquet", {"text": "report"})
    assert read.table.to_dict("records") == [{"report": "x", "patient": "p", "text": "No effusion.", "image": "x"}]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty"),
        ("report,text\n", "holds no reports"),
        ("report,text\n1,0123456789abcdef\n2,\n", "texts are hashes.*private/reports.parquet"),
        ("id,text\n1,x\n", "column report is missing; found: id, text.*columns="),
        ("report,text,text\n1,x,y\n", "column text stands there twice"),
        ("R1,Meier Hans 1950,Large effusion in Mr Meier\nR2,a,b\n", r"found: 3 columns, whose names look like a row"),
        ("report;text\n1;x\n", "semicolons; save the table with commas"),
        ("report;text\n1;x\n2;x, y, z\n", "semicolons"),
        ("report,text\n1,x,y,z\n", "not readable as CSV"),
        ('report,text\n1,"x\n', "not readable as CSV"),
        ("report,patient,text\n1,a,x\n1,b,y\n", "more than one patient, the first in row 2"),
    ],
)
def test_reports_that_are_refused(content: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=told):
        read_reports(write(tmp_path / "r.csv", content), {})


def test_labels_as_they_come(tmp_path: Path) -> None:
    file = write(
        tmp_path / "l.csv",
        "report,label_Mass,effusion,comment,age,empty\na,1,0.0,fine,33,\nb,-1,yes,,50,\nb,-1,yes,,50,\nzz,1,1,,1,\n"
        "c,1,,,71,\nc,0,,,71,\n",
    )
    labels = read_labels(file, {}, IDS)
    assert list(labels.values) == ["Mass", "effusion", "empty"]
    np.testing.assert_array_equal(labels.values["Mass"], [1, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(labels.values["effusion"], [0, 1, np.nan, np.nan])
    assert labels.doubt["Mass"].tolist() == [False, True, False, False]
    told = " ".join(labels.notes)
    for words in (
        "1 rows of the labels",
        "1 labels contradict",
        "hold no labels: comment, age",
        "in doubt (-1), read as unknown: Mass 1",
    ):
        assert words in told
    assert read_labels(file, {}, IDS, uncertain="1").values["Mass"][1] == 1
    assert list(read_labels(file, {}, IDS, targets=["effusion"]).values) == ["effusion"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("study,mass\na,1\n", "column report is missing"),
        ("report,mass\nx,1\n", "none of its 1 rows"),
        ("report,mass\na,1\nb,2\nc,0\n", "row 3, column mass"),
        ("report,note\na,text\n", "no column of labels"),
        ("report\na\n", "no column of labels"),
        ("report,mass,label_mass\na,1,1\n", "with and without label_"),
        ("report,mass,split\na,1,tune\n", "column split"),
        ("report,mass,split\na,1,train\na,1,test\n", "both sides"),
    ],
)
def test_labels_that_are_refused(content: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=told):
        read_labels(write(tmp_path / "l.csv", content), {}, IDS)


def test_folders_and_other_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="is a folder"):
        read_reports(tmp_path, {})
    (tmp_path / "report.pdf").write_bytes(b"%PDF-1.4\nnothing to read")
    with pytest.raises(TableError, match="is no CSV"):
        read_reports(tmp_path / "report.pdf", {})

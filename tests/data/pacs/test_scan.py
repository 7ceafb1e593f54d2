"""Every file once, whatever happens in between."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from types import ModuleType

import pytest

from domainseg.data.pacs import scan as module
from domainseg.data.pacs.duplicates import IDENTICAL, OTHER_HEADER, OTHER_PIXELS, find_duplicates
from domainseg.data.pacs.scan import scan
from domainseg.data.tables import ManifestError
from domainseg.imaging.header import KIND_TAGS

TAGS = (*KIND_TAGS, "PatientID")


@pytest.fixture
def films(tmp_path: Path, exported: ModuleType) -> Path:
    folder = tmp_path / "dicom"
    for number in range(150):
        exported.film(
            folder / f"p{number % 7}" / f"{number}.dcm", SOPInstanceUID=f"1.2.{number}", PatientID=str(number)
        )
    (folder / "readme.txt").write_text("nothing")
    return folder


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose headers have been read."""
    seen: list[Path] = []
    read = module.read_values

    def counting(path: Path, tags: object) -> dict[str, str]:
        seen.append(path)
        return read(path, tags)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "read_values", counting)
    return seen


def test_an_interrupted_scan_goes_on(films: Path, tmp_path: Path, count: list[Path]) -> None:
    journal = tmp_path / "journal"
    scan(films, journal, TAGS, 1)
    assert len(count) == len(set(count)) == 151
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600
    lines = journal.read_bytes().splitlines(keepends=True)
    for cut in (b"", lines[60][:-1], lines[60][: len(lines[60]) // 2], b"\0" * 9):  # what a kill leaves of a line
        count.clear()
        journal.write_bytes(b"".join(lines[:60]) + cut)
        found = scan(films, journal, TAGS, 1)
        assert len(count) == 151 - 59
        rows = {row["path"]: row for row in found.rows()}
        assert len(rows) == 151
        assert all(rows[f"p{n % 7}/{n}.dcm"]["values"]["PatientID"] == str(n) for n in range(150))
        assert rows["readme.txt"]["problem"] == "not_dicom"


def test_a_finished_scan_reads_only_what_is_new_or_changed(
    films: Path, tmp_path: Path, count: list[Path], exported: ModuleType
) -> None:
    scan(films, tmp_path / "journal", TAGS, 1)
    (films / "p0/0.dcm").unlink()
    exported.film(films / "new.dcm")
    exported.film(films / "p1/1.dcm", SOPInstanceUID="1.2.1", PatientID="changed")
    count.clear()
    found = scan(films, tmp_path / "journal", TAGS, 1)
    assert sorted(path.name for path in count) == ["1.dcm", "new.dcm"]
    rows = list(found.rows())
    assert len(rows) == 151
    assert [row["values"]["PatientID"] for row in rows if row["path"] == "p1/1.dcm"] == ["changed"]


def test_workers_change_nothing(films: Path, tmp_path: Path, exported: ModuleType) -> None:
    for number in range(600):
        os.link(films / "p0/0.dcm", films / f"link{number}")
    one, two = (scan(films, tmp_path / f"journal{count}", TAGS, count) for count in (1, 2))
    assert sorted(map(json.dumps, one.rows())) == sorted(map(json.dumps, two.rows()))


def test_a_journal_of_another_folder_is_refused(films: Path, tmp_path: Path) -> None:
    scan(films, tmp_path / "journal", TAGS, 1)
    (tmp_path / "other").mkdir()
    with pytest.raises(ManifestError, match="another DICOM folder"):
        scan(tmp_path / "other", tmp_path / "journal", TAGS, 1)


def test_files_that_cannot_be_read_are_rows_too(tmp_path: Path, exported: ModuleType) -> None:
    folder = tmp_path / "dicom"
    exported.film(folder / "good.dcm")
    content = (folder / "good.dcm").read_bytes()
    (folder / "cut.dcm").write_bytes(content[:150])
    (folder / "nowhere.dcm").symlink_to(folder / "missing")
    (folder / "loop").symlink_to(folder)
    (folder / os.fsdecode(b"\xff.dcm")).write_bytes(content)
    found = {row["path"]: row["problem"] for row in scan(folder, tmp_path / "journal", TAGS, 1).rows()}
    assert found.pop("good.dcm") == ""
    assert found.pop(os.fsdecode(b"\xff.dcm")) == "name_not_unicode"
    assert found.pop("nowhere.dcm") == "unreadable"
    assert found.pop("cut.dcm") != ""
    assert set(found) <= {"loop"}


def test_duplicates_are_told_apart(tmp_path: Path, exported: ModuleType) -> None:
    folder = tmp_path / "dicom"
    uid = {"SOPInstanceUID": "1.2.3", "StudyInstanceUID": "1", "SeriesInstanceUID": "2"}
    first = exported.film(folder / "a.dcm", **uid)
    first.file_meta.ImplementationVersionName = "ANOTHER_WRITER"
    first.save_as(folder / "b.dcm", enforce_file_format=True)
    exported.film(folder / "c.dcm", **uid, PatientID="0815")
    exported.film(folder / "d.dcm", **uid, PixelData=b"\0" * (24 * 16 * 2))
    exported.film(folder / "e.dcm", **{**uid, "SOPInstanceUID": "1.2.4"})
    found = find_duplicates(scan(folder, tmp_path / "journal", (*TAGS, "StudyInstanceUID"), 1))
    assert found == {
        "b.dcm": (IDENTICAL, "a.dcm"),
        "c.dcm": (OTHER_HEADER, "a.dcm"),
        "d.dcm": (OTHER_PIXELS, "a.dcm"),
    }

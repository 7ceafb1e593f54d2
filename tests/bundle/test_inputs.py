"""What of a folder is a film, and what is passed over."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from domainseg.bundle.command import fingerprint
from domainseg.bundle.inputs import read_input
from domainseg.cascade.reads import VOLUMES
from domainseg.data.manifest import ManifestError


def test_dicom_files_need_no_ending(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1.2.840.113619.2.55").write_bytes(b"\0" * 128 + b"DICM")
    for name in ("IM0001", "a.PNG", ".DS_Store", "DICOMDIR", "notes.txt"):
        (tmp_path / name).touch()
    with caplog.at_level(logging.WARNING):
        found = read_input(tmp_path)
    assert list(found.images["image"]) == ["1.2.840.113619.2.55", "IM0001", "a.PNG"]
    assert "3 of 6 files" in caplog.text


def test_any_name_leads_to_its_own_file(tmp_path: Path) -> None:
    """Blanks at the ends of a name, bytes that are no UTF-8: cells of a table hold neither, paths do."""
    names = [b"a.dcm", b" a.dcm", b"a.dcm ", b"nan", b"NA", b"007", b"1.0", b"f\xff.dcm", b'a,"b"\n.dcm', b" /x.dcm"]
    names += ["\u00e9.dcm".encode(), "e\u0301.dcm".encode(), b"\xc2\xa0.dcm"]
    for k, name in enumerate(names):
        file = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as stream:
            stream.write(b"%02d" % k + b"\0" * 126 + b"DICM")
    found = read_input(tmp_path)
    assert sorted(found.path(image).read_bytes()[:2] for image in found.images["image"]) == [
        b"%02d" % k for k in range(len(names))
    ]
    assert {r"f\xff.dcm", r"\x20a.dcm", r"a.dcm\x20", r"\x20/x.dcm", "nan", "1.0"} <= set(found.images["image"])
    found.images.to_csv(tmp_path / "table.csv")  # text in UTF-8
    assert len(fingerprint(found)) == 64


def test_what_cannot_be_looked_at_is_not_passed_over_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films/a.dcm").touch()
    (tmp_path / "films/gone.dcm").symlink_to(tmp_path / "nowhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "films/linked").symlink_to(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        found = read_input(tmp_path / "films")
    assert list(found.images["image"]) == ["a.dcm", "gone.dcm"]  # the second will be excluded_by = read
    assert "1 linked folders are not entered" in caplog.text
    monkeypatch.setattr(os, "scandir", _denied)
    with pytest.raises(PermissionError):
        read_input(tmp_path / "films")


def test_what_an_earlier_prediction_wrote_is_no_film(tmp_path: Path) -> None:
    (tmp_path / "out/overlays").mkdir(parents=True)
    (tmp_path / "a.dcm").touch()
    (tmp_path / "out/overlays/a.dcm.png").touch()
    assert list(read_input(tmp_path, tmp_path / "out").images["image"]) == ["a.dcm"]
    with pytest.raises(ManifestError, match="folder of the films themselves"):
        read_input(tmp_path, tmp_path)


def test_labels_go_with_a_table_of_films(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("image,path\na,a.dcm\n")
    (tmp_path / "targets.csv").write_text("image,part,label_fracture\na,hip_left,1\n")
    found = read_input(tmp_path / "images.csv", labels=tmp_path / "targets.csv")
    assert list(found.targets["label_fracture"]) == [1.0]
    with pytest.raises(ManifestError, match="go with an images table"):
        read_input(tmp_path, labels=tmp_path / "targets.csv")


EXAMS = ("b/IM0002", "b/IM0001", "c/d/1.png", "c/d/2.png", "c/d/e/1.2.840", "x.nii", "y/z.NII.GZ", "y/enhanced.dcm")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """A name that writes out what stands for another's byte: one of the two had no row."""
    for name in (b"f\xff.dcm", rb"f\xff.dcm"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as stream:
            stream.write(b"\0" * 128 + b"DICM")
    with pytest.raises(ManifestError, match="two files would be called"):
        read_input(tmp_path)


@pytest.fixture
def exams(tmp_path: Path) -> Path:
    """Files named EXAMS, beside two that belong to no exam and a hidden one."""
    for name in (*EXAMS, "labels.txt", "b/report.pdf", "y/.hidden.nii"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"\0" * 128 + b"DICM" if name.endswith("1.2.840") else b"")
    return tmp_path / "in"


def test_an_exam_is_a_nifti_file_or_a_folder_that_holds_slices(exams: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = read_input(exams, reading=VOLUMES)
    assert list(found.images["image"]) == ["b", "c/d", "c/d/e", "x.nii", "y", "y/z.NII.GZ"]
    assert found.path("c/d") == exams / "c/d"
    assert "6 exams in the folder" in caplog.text
    assert "3 of 11 files in the folder are no slices and no NIfTI by name or content: passed over" in caplog.text


def write_header(path: Path, study: str, patient: str = "", kind: str = "1.2") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = Dataset()
    header.StudyInstanceUID, header.PatientID = study, patient
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID, header.file_meta.MediaStorageSOPInstanceUID = kind, "1.2"
    header.save_as(path, enforce_file_format=True)


def test_a_folder_a_series_is_one_exam_a_study(tmp_path: Path) -> None:
    for name, study in {
        "ann/2019/head/1/a.dcm": "1.1", "ann/2019/head/2/a.dcm": "1.1", "ann/2020/7/a.dcm": "1.2",
        "bob/1/a.dcm": "1.3", "bob/2/a.dcm": "1.3", "mixed/1/a.dcm": "1.4", "mixed/2/a.dcm": "1.4",
        "mixed/3/a.dcm": "1.5", "unnamed/1/a.dcm": "", "unnamed/2/a.dcm": "",
    }.items():  # fmt: skip
        write_header(tmp_path / name, study)
    # Where a folder holds other studies as well, nothing can be read as a whole.
    assert list(read_input(tmp_path, reading=VOLUMES).images["image"]) == [
        "ann/2019/head", "ann/2020/7", "bob", "mixed/1", "mixed/2", "mixed/3", "unnamed/1", "unnamed/2",
    ]  # fmt: skip
    assert list(read_input(tmp_path / "bob", reading=VOLUMES).images["image"]) == ["bob"]
    assert list(read_input(tmp_path / "ann/2019", reading=VOLUMES).images["image"]) == ["head"]


def test_series_beside_what_they_cannot_be_read_with_are_exams_of_their_own(tmp_path: Path) -> None:
    for study in ("disc", "converted", "noted"):
        for series in "12":
            write_header(tmp_path / study / series / "a.dcm", f"1.{len(study)}")
    for name in ("disc/DICOMDIR", "disc/1/report.pdf", "converted/nii/x.nii.gz", "noted/notes.docx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(read_input(tmp_path, reading=VOLUMES).images["image"]) == [
        "converted/1", "converted/2", "converted/nii/x.nii.gz", "disc", "noted/1", "noted/2",
    ]  # fmt: skip


def test_a_report_in_a_folder_of_its_own_belongs_to_its_study(tmp_path: Path) -> None:
    write_header(tmp_path / "ann/1/a.dcm", "1.1", kind="1.2.840.10008.5.1.4.1.1.2")
    write_header(tmp_path / "ann/99/a.dcm", "1.1", kind="1.2.840.10008.5.1.4.1.1.88.67")
    assert list(read_input(tmp_path / "ann", reading=VOLUMES).images["image"]) == ["ann"]


def test_two_patients_of_one_study_number_are_two_exams(tmp_path: Path) -> None:
    """As an anonymiser writes that gives all the same number."""
    for patient in ("ann", "bob"):
        for series in "12":
            write_header(tmp_path / patient / series / "a.dcm", "1.1", patient)
    assert list(read_input(tmp_path, reading=VOLUMES).images["image"]) == ["ann", "bob"]


def test_a_film_without_the_preamble_is_none_to_be_passed_over(tmp_path: Path) -> None:
    """Old archives wrote the data set alone, under names that end in a number."""
    write_header(tmp_path / "CT.1.2.840.7", "1.1")
    bare = (tmp_path / "CT.1.2.840.7").read_bytes()[132:]
    (tmp_path / "CT.1.2.840.7").write_bytes(bare)
    assert list(read_input(tmp_path).images["image"]) == ["CT.1.2.840.7"]


def test_a_study_in_a_folder_and_folders_below_is_one_exam(tmp_path: Path) -> None:
    """The outer folder is read with all below it: a series inside would count twice."""
    for name, study in (("p/1", "1.1"), ("p/thin/1", "1.1"), ("p/thin/more/1", "1.1"), ("1", "1.2"), ("q/1", "1.3")):
        write_header(tmp_path / name, study)
    # The file on top is of another study: it must not swallow those below, one of which would then be read as it.
    found = list(read_input(tmp_path, reading=VOLUMES).images["image"])
    assert found == [tmp_path.name, f"{tmp_path.name}/p", f"{tmp_path.name}/q"]
    assert list(read_input(tmp_path / "p", reading=VOLUMES).images["image"]) == ["p"]


def test_one_exam_is_called_by_its_own_name(exams: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(read_input(exams / "b", reading=VOLUMES).images["image"]) == ["b"]
    assert list(read_input(exams / "x.nii", reading=VOLUMES).images["image"]) == ["x.nii"]
    assert list(read_input(exams / "c/d", reading=VOLUMES).images["image"]) == ["d", "d/e"]
    monkeypatch.chdir(exams / "b")
    found = read_input(Path(), reading=VOLUMES)
    assert [(image, found.path(image).samefile(exams / "b")) for image in found.images["image"]] == [("b", True)]


def test_results_do_not_go_into_an_exam(exams: Path, tmp_path: Path) -> None:
    """A folder is read with all below it: what is written there would be taken for slices."""
    assert len(read_input(exams, exams / "out", reading=VOLUMES)) == 6
    for output in (exams / "b/out", exams / "c/d/e/1/2"):
        with pytest.raises(ManifestError, match=r"lies in the folder of the exam (b|c/d)"):
            read_input(exams, output, reading=VOLUMES)
    (tmp_path / "images.csv").write_text("image,path\na,in/b\n")
    with pytest.raises(ManifestError, match="lies in the folder of the exam a"):
        read_input(tmp_path / "images.csv", exams / "b", reading=VOLUMES)


def test_what_is_predicted_is_known_by_each_file_of_an_exam(exams: Path) -> None:
    found = read_input(exams / "c", reading=VOLUMES)
    before = fingerprint(found)
    assert fingerprint(found) == before
    (exams / "c/d/e/1.2.840").write_bytes(b"other")
    changed = fingerprint(found)
    (exams / "c/d/3.png").touch()
    assert len({before, changed, fingerprint(found)}) == 3


def test_what_is_predicted_is_known_by_its_masks(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("image,path\na,a.nii\nb,b.nii\n")
    (tmp_path / "targets.csv").write_text("image,part,mask\na,head,m.nii\nb,head,\n")
    (tmp_path / "m.nii").write_bytes(b"one")
    found = read_input(tmp_path / "images.csv", labels=tmp_path / "targets.csv", reading=VOLUMES)
    before = fingerprint(found)
    assert fingerprint(found) == before
    (tmp_path / "m.nii").write_bytes(b"corrected")
    assert fingerprint(found) != before


def _denied(path: object) -> None:
    raise PermissionError(13, "Permission denied", str(path))

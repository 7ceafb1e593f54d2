"""What an export mixes up: who is who, whose report it is, which film was meant, which hip, and words in free texts."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from domainseg.data.pacs.rules import Rules
from domainseg.data.pacs.withhold import Withhold
from domainseg.data.tables import ManifestError

Build = Callable[..., tuple[pd.DataFrame, dict[str, Any]]]


def notes(path: Path, *shapes: tuple[str, str, dict[str, Any]]) -> str:
    """A COCO file with one picture and one category an annotation of (film, category, annotation)."""
    content: dict[str, Any] = {"images": [], "categories": [], "annotations": []}
    for number, (film, category, note) in enumerate(shapes):
        content["images"].append({"id": number, "file_name": film})
        content["categories"].append({"id": number, "name": category})
        content["annotations"].append({"image_id": number, "category_id": number, **note})
    path.write_text(json.dumps(content))
    return str(path)


def targets(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "out/targets.parquet").set_index("part")


# ---------------------------------------------------------------- patients


def test_films_of_one_patient_stay_together(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    def film(name: str, number: str, study: str | None = None, **tags: Any) -> None:
        exported.film(
            tmp_path / f"dicom/{name}.dcm", PatientID=number, **({"StudyInstanceUID": study} if study else {}), **tags
        )

    film("issued", "Q1", IssuerOfPatientID="CITY")
    film("old", "q1 ")
    film("anonymised_1", "ANONYM0012")
    film("anonymised_2", "ANONYM0012")
    film("known", "P7", "1.2.3")
    film("nameless", "", "1.2.3")
    film("typed_wrong", "00P7", "1.2.3")
    film("later", "00P7", "1.2.4")
    film("alone", "unknown")
    group = made()[0]["group"]
    assert group["issued"] == group["old"]
    assert group["anonymised_1"] == group["anonymised_2"]
    assert group["known"] == group["nameless"] == group["typed_wrong"] == group["later"]
    assert group.nunique() == 4


def test_a_report_of_several_patients_is_nobodys(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    """Two hospitals number their examinations alike; the table of reports does not say whose this one is."""
    for number, site in enumerate(("North", "South")):
        exported.film(
            tmp_path / f"dicom/{site}.dcm", AccessionNumber="100", PatientID=f"P{number}", InstitutionName=site
        )
    exported.film(tmp_path / "dicom/c.dcm", AccessionNumber="101")
    (tmp_path / "r.csv").write_text("accession,text\n100,fracture\n101,none\n")
    images, summary = made(reports=str(tmp_path / "r.csv"))
    assert (images["report"] != "").to_dict() == {"North": False, "South": False, "c": True}
    assert summary["reports"]["reports_of_several_patients"] == 1
    assert pd.read_csv(tmp_path / "out/left_out.csv")["reason"].tolist() == ["several_patients"]
    assert "several_patients" in summary["reasons"]


def test_a_table_without_a_header_is_not_quoted(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    exported.film(tmp_path / "dicom/a.dcm")
    (tmp_path / "r.csv").write_text('A1,"Mustermann, Erika"\n')
    with pytest.raises(ManifestError, match="no column 'accession' among the 2") as error:
        made(reports=str(tmp_path / "r.csv"))
    assert "Muster" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("r.csv", b'accession,text\nA1,x\nA2,"M\xc3\xbcller "J" hat\n', "line 3"),
        ("r.csv", b"accession,text\nA1,M\xfcller\n", "UTF-8"),
        ("r.jsonl", b'{"accession": "A1", "text": "x"}\n{"accession": "A1", "text": "M\xfcller"}\n', "line 2"),
    ],
)
def test_a_report_that_cannot_be_read_is_told_by_its_line(
    tmp_path: Path, exported: ModuleType, made: Build, name: str, content: bytes, words: str
) -> None:
    exported.film(tmp_path / "dicom/a.dcm")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ManifestError, match=words) as error:
        made(reports=str(tmp_path / name))
    assert "ller" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Müller^Jürgen", "RX MUELLER"),
        ("Müller^Jürgen", "Muller"),
        ("Mueller^J", "room Mueller"),
        ("山田^太郎", "RX山田"),
    ],
)
def test_a_name_is_withheld_however_it_is_spelt(name: str, told: str) -> None:
    withhold = Withhold()
    for cell in (told, "RX 3"):
        withhold.see({"scanner": cell}, {"PatientName": name}, "p1")
    assert withhold.values() == {told}


def test_addenda_stand_in_the_order_of_the_clock(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    exported.film(tmp_path / "dicom/a.dcm")
    (tmp_path / "r.csv").write_text("accession,text,on\nA1,second,1.3.2020 10:00\nA1,first,1.3.2020 9:05\n")
    made(reports=str(tmp_path / "r.csv"), report_columns={"accession": "accession", "text": "text", "date": "on"})
    assert pd.read_parquet(tmp_path / "out/private/reports.parquet")["text"].tolist() == ["first\n\nsecond"]


# ---------------------------------------------------------------- files


def test_a_name_that_is_no_text_and_a_linked_folder_are_told(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    exported.film(tmp_path / "dicom/a.dcm")
    exported.film(tmp_path / "elsewhere/b.dcm")
    shutil.copy(tmp_path / "dicom/a.dcm", os.fsencode(tmp_path) + b"/dicom/M\xfcller.dcm")
    (tmp_path / "dicom/link").symlink_to(tmp_path / "elsewhere")
    assert made()[1]["left_out"] == {"linked_folder": 1, "name_not_unicode": 1}
    told = pd.read_parquet(tmp_path / "out/private/left_out.parquet")
    assert sorted(told["path"]) == [r"M\udcfcller.dcm", "link"]


def test_the_whole_film_is_kept_of_two(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    """The first transfer of the study broke off."""
    exported.film(tmp_path / "dicom/second/a.dcm")
    (tmp_path / "dicom/first").mkdir()
    (tmp_path / "dicom/first/b.dcm").write_bytes((tmp_path / "dicom/second/a.dcm").read_bytes()[:-300])
    images, summary = made()
    assert images.index.tolist() == ["a"]
    assert summary["left_out"] == {"duplicate_other_pixels": 1}


def test_a_film_of_another_folder_is_not_taken(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    """The film of p2 is not in the export; that of p1 has the same file name, and nobody else."""
    exported.film(tmp_path / "dicom/p1/IM47.dcm")
    fracture = {"bbox": [1, 1, 3, 3]}
    file = notes(tmp_path / "n.json", ("p1/IM47.png", "no_fracture", {}), ("p2/IM47.png", "fracture_left", fracture))
    assert made(annotations=file)[1]["annotations"]["left_out"] == {"film_not_found": 1}
    assert targets(tmp_path)["label_fracture"].to_dict() == {"whole": 0}


def test_a_bare_name_is_not_the_path_of_a_film_at_the_top(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    exported.film(tmp_path / "dicom/IM1.dcm")
    exported.film(tmp_path / "dicom/p2/IM1.dcm")
    file = notes(tmp_path / "n.json", ("IM1.png", "fracture", {}))
    assert made(annotations=file)[1]["annotations"]["left_out"] == {"film_ambiguous": 1}


def test_annotation_files_of_other_kinds_are_counted(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    exported.film(tmp_path / "dicom/a.dcm")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.fcsv").write_text("# Markups fiducial file version = 4.11\n")
    notes(tmp_path / "notes/n.json", ("a", "fracture", {}))
    found = made(annotations=str(tmp_path / "notes"))[1]["annotations"]
    assert (found["files"], found["files_of_other_kinds"]) == (1, 1)


def test_two_processes_do_not_write_one_manifest(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    exported.film(tmp_path / "dicom/a.dcm")
    made()
    handle = os.open(tmp_path / "out/private", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(ManifestError, match="another process"):
        made()
    os.close(handle)
    assert made()[1]["films"] == 1


# ---------------------------------------------------------------- shapes


def test_an_attribute_that_is_called_rotation(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    exported.film(tmp_path / "dicom/a.dcm", size=(100, 100))
    ellipse = (
        '<ellipse label="fracture" cx="9" cy="9" rx="3" ry="2"><attribute name="rotation">Doe</attribute></ellipse>'
    )
    (tmp_path / "n.xml").write_text(
        f'<annotations><image name="a" width="100" height="100">{ellipse}</image></annotations>'
    )
    assert made(annotations=str(tmp_path / "n.xml"))[1]["annotations"]["left_out"] == {"wrong_shape": 1}


def test_a_mask_between_pixels_has_another_grid(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    exported.film(tmp_path / "dicom/a.dcm", ImagerPixelSpacing=[0.5, 0.5])
    header = (
        "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 1\nencoding: raw\n"
        "space directions: (0.5,0,0) (0,0.5,0) (0,0,1)\nspace origin: (1.25,3.5,0)\nSegment0_Name:=femur left\n\n"
    )
    (tmp_path / "a.seg.nrrd").write_bytes(header.encode() + b"\1\1\1\1")
    assert made(annotations=str(tmp_path / "a.seg.nrrd"))[1]["annotations"]["left_out"] == {"other_grid": 1}


def test_a_femur_that_slicer_outlined(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    exported.film(tmp_path / "dicom/a.dcm", size=(240, 160), ImagerPixelSpacing=[0.5, 0.25])
    corners = [[10, 20, 0], [30, 20, 0], [30, 60, 0], [10, 60, 0]]
    points = [{"label": f"femur left-{n}", "position": place} for n, place in enumerate(corners, start=1)]
    node = {"type": "ClosedCurve", "coordinateSystem": "LPS", "controlPoints": points}
    (tmp_path / "a.mrk.json").write_text(json.dumps({"markups": [node]}))
    made(annotations=str(tmp_path / "a.mrk.json"))
    mask = cv2.imread(str(tmp_path / "out" / targets(tmp_path)["femur_mask"]["hip_left"]), cv2.IMREAD_GRAYSCALE)
    places = np.argwhere(np.asarray(mask) > 0)
    assert places.min(axis=0).tolist() == [40, 40]
    assert places.max(axis=0).tolist() == [120, 120]


@pytest.mark.parametrize("turn", [0, 20])
def test_a_box_written_as_an_outline_is_as_wide_as_the_box(
    tmp_path: Path, exported: ModuleType, made: Build, turn: float
) -> None:
    exported.film(tmp_path / "dicom/a.dcm", size=(100, 100))
    corners = np.array([[-15, -15], [15, -15], [15, 15], [-15, 15]]) @ np.array(
        [[np.cos(np.radians(turn)), np.sin(np.radians(turn))], [-np.sin(np.radians(turn)), np.cos(np.radians(turn))]]
    )
    outline = (corners + np.array([40.5, 50.5])).ravel().tolist()
    made(annotations=notes(tmp_path / "n.json", ("a", "hip left", {"segmentation": [outline]})))
    assert targets(tmp_path).loc["hip_left", ["x", "y", "diameter"]].tolist() == pytest.approx([40, 50, 30])


def test_what_is_said_of_the_film_at_a_hip(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    exported.film(tmp_path / "dicom/a.dcm", size=(100, 100))
    said = {"label_turn": 1, "label_view": "hip_frontal", "label_fracture": 1}
    made(annotations=notes(tmp_path / "n.json", ("a", "hip left", {"keypoints": [9, 9, 2], "attributes": said})))
    rows = targets(tmp_path)
    assert rows.loc["whole", "label_turn"] == 1
    assert rows.loc["whole", "label_view"] == "hip_frontal"
    assert np.isnan(rows.loc["whole", "label_fracture"])
    assert np.isnan(rows.loc["hip_left", "label_turn"])


@pytest.mark.parametrize(
    ("tags", "known"),
    [
        ({"SeriesDescription": "Hip axial"}, False),
        ({"SeriesDescription": "Hip ap"}, True),
        ({"ViewPosition": "LL"}, False),
        ({}, True),
    ],
)
def test_the_viewing_convention_holds_in_frontal_films_only(
    tmp_path: Path, exported: ModuleType, made: Build, tags: dict[str, str], known: bool
) -> None:
    exported.film(tmp_path / "dicom/a.dcm", **tags)
    file = notes(tmp_path / "n.json", ("a", "hip left", {"keypoints": [9, 9, 2]}))
    out = made(annotations=file, annotation_sides="patient")[1]["annotations"]["left_out"]
    assert out == ({} if known else {"side_unknown": 1})


# ---------------------------------------------------------------- words in free texts

SERIES, PLACE, INSTITUTE, MODEL = (
    *("SeriesDescription", "CurrentPatientLocation", "InstitutionalDepartmentName", "ManufacturerModelName"),
)


@pytest.mark.parametrize(
    ("column", "tag", "text", "cell"),
    [
        ("view", SERIES, "HIPS BILATERAL AP", "AP"),
        ("view", SERIES, "XR Hip Unilateral w Pelvis 2-3 Views", ""),
        ("view", SERIES, "Contralateral hip", ""),
        ("view", SERIES, "CROSS TABLE LATERAL", "LATERAL"),
        ("view", SERIES, "Axiolateral hip", "LATERAL"),
        ("view", SERIES, "FROGLEG", "LATERAL"),
        ("view", SERIES, "Becken seitl.", "LATERAL"),
        ("view", SERIES, "Hand d.v.", "PA"),  # dorso-ventral: from the back
        ("view", SERIES, "Becken v.d.", "AP"),
        ("laterality", SERIES, "HIP LT 2V", "L"),
        ("laterality", SERIES, "Hüfte re. a.p.", "R"),
        ("laterality", SERIES, "Pelvis re-take", ""),
        ("body_part", SERIES, "HUEFTGELENK", "HIP"),
        ("body_part", SERIES, "Hüftgelenk axial", "HIP"),
        ("department", PLACE, "Notfallambulanz", "emergency"),
        ("department", PLACE, "Rettungsstelle", "emergency"),
        ("department", PLACE, "A & E", "emergency"),
        ("department", PLACE, "Chirurgische Ambulanz", "outpatient"),
        ("department", PLACE, "Sports Clinic", "outpatient"),
        ("department", PLACE, "Ambulance bay", ""),
        ("department", PLACE, "Intensivstation", "inpatient"),
        ("department", PLACE, "Station 4B", "inpatient"),
        ("department", INSTITUTE, "Radiology, Mayo Clinic", "Radiology, Mayo Clinic"),
        ("department", INSTITUTE, "St. Ward Hospital Radiology", "St. Ward Hospital Radiology"),
        ("portable", MODEL, "Revolution XR/d", ""),
        ("portable", MODEL, "DRX-Revolution", "1"),
    ],
)
def test_words_of_hospitals(exported: ModuleType, column: str, tag: str, text: str, cell: str) -> None:
    assert Rules(exported.settings()["columns"]).apply({tag: text})[column][0] == cell


@pytest.mark.parametrize(
    ("number", "nobody"),
    [("", True), ("000", True), ("Anonymous", True), ("N/A", True), ("ANONYM0012", False), ("X1", False)],
)
def test_numbers_of_nobody(exported: ModuleType, number: str, nobody: bool) -> None:
    assert bool(re.fullmatch(exported.settings()["unknown_patient"], number, re.IGNORECASE)) == nobody

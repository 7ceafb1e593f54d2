"""The manifest as a whole, from tiny films: hashes, reports, annotations, what is left out, how it loads."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from domainseg.config import launch
from domainseg.data.manifest import load_manifest
from domainseg.data.pacs import build
from domainseg.data.tables import ManifestError
from domainseg.manifest import manifest

Build = Callable[..., tuple[pd.DataFrame, dict[str, Any]]]


def coco(path: Path, notes: list[tuple[str, str, dict[str, Any]]], size: tuple[int, int] = (24, 16)) -> Path:
    """A COCO file of (film, category, annotation)."""
    names, films = (list(dict.fromkeys(note[place] for note in notes)) for place in (1, 0))
    content = {
        "images": [{"id": n, "file_name": name, "height": size[0], "width": size[1]} for n, name in enumerate(films)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(names)],
        "annotations": [
            {"image_id": films.index(film), "category_id": names.index(name), **note} for film, name, note in notes
        ],
    }
    path.write_text(json.dumps(content))
    return path


def point(x: float, y: float) -> dict[str, Any]:
    return {"keypoints": [x, y, 2]}


# ---------------------------------------------------------------- films


def test_hashes_join_what_belongs_together(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    dicom = tmp_path / "dicom"
    study = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.2"}
    exported.film(dicom / "a.dcm", **study, InstitutionName="North", PatientBirthDate="19400301")
    exported.film(dicom / "b.dcm", **study, InstitutionName="South", AccessionNumber=" a1 ")
    exported.film(dicom / "c.dcm", PatientID="0815", AccessionNumber="0A1")
    exported.film(dicom / "d.dcm", PatientID="ANONYMOUS", StudyInstanceUID="1.1", AccessionNumber=None)
    exported.film(dicom / "e.dcm", PatientID="4711", IssuerOfPatientID="OTHER")
    images, summary = made()
    assert images.loc["a", "patient"] == images.loc["b", "patient"] == images.loc["b", "group"]
    assert images.loc["a", "patient"] not in (images.loc["c", "patient"], images.loc["e", "patient"], "")
    assert images.loc["d", "patient"] == ""
    assert images.loc["d", "group"] == images.loc["a", "group"] != ""  # of the same study
    assert images.loc["a", "accession"] == images.loc["b", "accession"] != images.loc["c", "accession"]
    assert images.loc["d", "accession"] == ""
    assert images.loc["a", "age"] == "79"
    assert images["image"].str.fullmatch("[0-9a-f]{16}").all()
    assert summary["films"] == 5
    sources = pd.read_parquet(tmp_path / "out/sources.parquet").set_index("image")
    assert sources.loc[images.loc["a", "image"], "site"] == "InstitutionName (0008,0080)"
    assert sources.loc[images.loc["a", "image"], "age"].endswith("PatientBirthDate (0010,0030)")


def test_a_duplicate_that_is_left_out_still_joins_its_patient(
    tmp_path: Path, exported: ModuleType, made: Build
) -> None:
    """The same film twice, the second time under the corrected number: who it was and who it is are one patient."""
    dicom = tmp_path / "dicom"
    exported.film(dicom / "a.dcm", PatientID="OLD7", SOPInstanceUID="1.9.1", StudyInstanceUID="1.1")
    exported.film(dicom / "b.dcm", PatientID="NEW8", SOPInstanceUID="1.9.1", StudyInstanceUID="1.1")
    exported.film(dicom / "c.dcm", PatientID="NEW8", SOPInstanceUID="1.9.2", StudyInstanceUID="1.2")
    exported.film(dicom / "d.dcm", PatientID="9", SOPInstanceUID="1.9.3", StudyInstanceUID="1.3")
    images, summary = made()
    assert summary["films"] == 3
    assert images["group"].nunique() == 2
    assert images.loc["c", "group"] == images.loc[images.index.isin(["a", "b"]), "group"].iloc[0]


def test_a_key_of_ones_own_gives_the_same_names_again(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    exported.film(tmp_path / "dicom/a.dcm")
    key = tmp_path / "key"
    key.write_text("12" * 32)
    key.chmod(0o600)
    first, _ = made(key=str(key))
    shutil.rmtree(tmp_path / "out")
    again, _ = made(key=str(key))
    assert first.equals(again)
    assert not (tmp_path / "out/private/patient.key").exists()
    shutil.rmtree(tmp_path / "out")
    other, _ = made()
    assert other.loc["a", "image"] != first.loc["a", "image"]


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    dicom = tmp_path / "dicom"
    exported.film(dicom / "good.dcm", SOPInstanceUID="1.2.3")
    shutil.copy(dicom / "good.dcm", dicom / "twin.dcm")
    exported.film(dicom / "burned.dcm", SOPInstanceUID="1.2.4", BurnedInAnnotation="YES")
    exported.film(dicom / "a twin that does not say so.dcm", SOPInstanceUID="1.2.4", BurnedInAnnotation="NO")
    exported.film(dicom / "raw.dcm", SOPClassUID=f"{exported.DX}.1")
    exported.film(dicom / "frames.dcm", NumberOfFrames=2)
    exported.film(dicom / "ct.dcm", Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    exported.text_report(dicom / "sr.dcm")
    (dicom / "notes.txt").write_text("x")
    images, summary = made()
    assert list(images.index) == ["good"]
    reasons = (
        "burned_in",
        "duplicate_identical",
        "for_processing",
        "multi_frame",
        "no_pixels",
        "not_dicom",
        "wrong_kind",
    )
    assert summary["left_out"] == dict.fromkeys(reasons, 1) | {"burned_in": 2}
    assert set(summary["reasons"]) == set(reasons)
    table = pd.read_csv(tmp_path / "out/left_out.csv", keep_default_na=False)
    assert sorted(table["reason"]) == sorted([*reasons, "burned_in"])
    assert table["name"].str.fullmatch("[0-9a-f]{16}").all()
    assert table.set_index("reason").loc["duplicate_identical", "image"] == images.loc["good", "image"]
    private = pd.read_parquet(tmp_path / "out/private/left_out.parquet").set_index("reason")
    assert "burned.dcm" in set(private.loc["burned_in", "path"])
    kept, _ = made(keep_burned_in=True)
    assert set(kept.index) == {"good", "a twin that does not say so"}


def test_nothing_but_junk_is_an_error(tmp_path: Path, made: Build) -> None:
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom/a.txt").write_text("x")
    with pytest.raises(ManifestError, match="no film among 1 files: 1 not_dicom"):
        made()


def test_an_output_inside_the_export_is_refused(tmp_path: Path, exported: ModuleType) -> None:
    exported.film(tmp_path / "a.dcm")
    with pytest.raises(ManifestError, match="inside the DICOM folder"):
        build(exported.settings(dicom=str(tmp_path)), tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.yaml", "holds a run"),
        ("bundle.json", "holds a bundle"),
        ("predictions.parquet", "holds predictions"),
        ("Doe.dcm", r"holds something else \(1 names\)"),
    ],
)
def test_a_folder_with_something_else_is_left_as_it_is(
    tmp_path: Path, exported: ModuleType, made: Build, name: str, words: str
) -> None:
    exported.film(tmp_path / "dicom/a.dcm")
    made()
    (tmp_path / "out/manifest.log").write_text("")
    (tmp_path / "out/.images.partial-x.parquet").write_text("")
    made()  # what is its own, whole or not, is gone on with
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("")
    with pytest.raises(ManifestError, match=words) as error:
        made()
    assert "Doe" not in str(error.value)
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == [name]


def test_the_command_leaves_no_trace_where_it_is_refused(
    tmp_path: Path, exported: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    exported.film(tmp_path / "dicom/a.dcm")
    argv = [f"dicom={tmp_path}/dicom", "workers=1"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("")
    with pytest.raises(SystemExit):
        launch(manifest, "manifest", [*argv, f"output={tmp_path}/run"], record=False)
    assert "holds a run" in capsys.readouterr().err
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["config.yaml"]
    launch(manifest, "manifest", [*argv, f"output={tmp_path}/new"], record=False)
    assert f"output: {tmp_path}/new" in (tmp_path / "new/manifest.yaml").read_text()


# ---------------------------------------------------------------- loading


def test_the_manifest_finds_its_films_through_the_private_folder(
    tmp_path: Path, exported: ModuleType, made: Build
) -> None:
    exported.film(tmp_path / "dicom/Doe Jane/a, b.dcm")
    images, _ = made()
    out = tmp_path / "out"
    assert stat.S_IMODE((out / "private").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (out / "private").iterdir()} == {0o600}
    manifest = load_manifest(out / "images.parquet", out / "targets.parquet")
    image = images["image"].iloc[0]
    assert manifest.path(image) == tmp_path / "dicom/Doe Jane/a, b.dcm"
    assert "Doe" not in repr(manifest) + manifest.images.to_csv()
    assert manifest.where(manifest.images["image"] == image).path(image).is_file()
    os.rename(tmp_path / "dicom", tmp_path / "moved")
    with pytest.raises(ManifestError, match=r"data\.root=") as error:
        load_manifest(out / "images.parquet")
    assert "Doe" not in str(error.value)
    assert load_manifest(out / "images.parquet", root=tmp_path / "moved").path(image).is_file()
    shutil.rmtree(out / "private")
    with pytest.raises(ManifestError, match=r"private/paths\.parquet, which is missing"):
        load_manifest(out / "images.parquet")


# ---------------------------------------------------------------- reports


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_reports_are_joined_by_accession_number(
    tmp_path: Path, exported: ModuleType, made: Build, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name, accession in (("a", "A1"), ("b", "A1"), ("c", "007"), ("d", "B2"), ("e", None)):
        exported.film(tmp_path / f"dicom/{name}.dcm", AccessionNumber=accession)
    rows = [
        (" a1", "second, with\nbreak", "2020-03-02 10:00"),
        ("A1", 'first; "quoted"', "1.3.2020"),
        ("A1", 'first; "quoted"', "20200303"),
        ("7", "not this one", "2020-01-01"),
        ("Z9", "no film", "2020-01-01"),
        ("", "no number", "2020-01-01"),
        ("B2", " ", "2020-01-01"),
    ]
    table = pd.DataFrame(rows, columns=["Anforderung", "Befund", "Datum"])
    file = tmp_path / f"reports{ending}"
    if ending == ".csv":
        table.to_csv(file, index=False, sep=";", encoding="utf-8-sig")
    elif ending == ".parquet":
        table.to_parquet(file)
    else:
        file.write_text("\n".join(json.dumps(row) for row in table.to_dict("records")))
    columns = {"accession": "Anforderung", "text": "Befund", "date": "Datum"}
    images, summary = made(reports=str(file), report_columns=columns)
    texts = pd.read_parquet(tmp_path / "out/private/reports.parquet").set_index("report")["text"]
    assert images.loc["a", "report"] == images.loc["b", "report"] == images.loc["a", "accession"]
    assert texts[images.loc["a", "report"]] == 'first; "quoted"\n\nsecond, with\nbreak'
    assert (images.loc[["c", "d", "e"], "report"] == "").all()
    assert summary["reports"] == {
        "rows": 7, "without_accession": 1, "without_text": 1, "repeated": 1, "reports": 3, "reports_with_film": 1,
        "films_with_report": 2, "films_without_report": 3, "films_without_accession": 1, "reports_without_film": 2,
        "reports_of_several_patients": 0,
    }  # fmt: skip
    left_out = pd.read_csv(tmp_path / "out/left_out.csv")
    assert (left_out["what"] == "report").sum() == 2
    assert set(left_out["reason"]) == {"no_film"} == set(summary["reasons"])
    assert "3 reports: 1 joined with 2 films, 2 without film, 0 of several patients" in caplog.text
    images, summary = made(reports=str(file), report_columns=columns, ignore_leading_zeros=True)
    assert images.loc["c", "report"] != ""
    assert summary["reports"]["reports_without_film"] == 1


def test_a_report_column_that_is_not_there_is_named(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    exported.film(tmp_path / "dicom/a.dcm")
    (tmp_path / "r.csv").write_text("number,text\n1,Jane Doe is well\n")
    with pytest.raises(ManifestError, match="no column 'accession' among the 2") as error:
        made(reports=str(tmp_path / "r.csv"))
    assert "Jane" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("reports.csv", None, "no such file"),
        ("reports.csv", "accession,befund\nA1,x\n", "no column 'text'"),
        ("reports.csv", "accession,text\nA1,x,y\n", "line 2: 3 cells, the header has 2"),
        ("reports.xlsx", "", "a table of reports is"),
        ("annotations.json", None, "no such file or folder"),
        ("annotations.json", "{", "not readable JSON"),
        ("annotations.txt", "", "its ending is none of"),
    ],
)
def test_what_is_wrong_with_reports_and_annotations_is_told_before_headers_are_read(
    tmp_path: Path,
    exported: ModuleType,
    made: Build,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: str | None,
    words: str,
) -> None:
    exported.film(tmp_path / "dicom/a.dcm")
    monkeypatch.setattr(sys.modules[build.__module__], "scan", lambda *_: pytest.fail("headers were read"))
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ManifestError, match=words):
        made(**{name.partition(".")[0]: str(tmp_path / name)})


# ---------------------------------------------------------------- annotations


def test_unknown_categories_are_told_by_name_unless_they_may_tell_who(
    tmp_path: Path, exported: ModuleType, made: Build, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for number in range(3):
        exported.film(tmp_path / f"dicom/{number}.dcm", PatientID=f"P{number}", PatientName="Doe^Jane")
    names = ["Left sacrum", "seen by Doe", "a remark that is longer than names of things are"]
    notes = [(f"{film}.dcm", name, point(3, 3)) for film in (0, 1) for name in names]
    notes += [("0.dcm", "sacrum", point(3, 3)), ("0.dcm", "once", {}), ("2.dcm", "hip_left", point(3, 3))]
    notes += [("2.dcm", "no fracture left", {}), ("2.dcm", "fracture_right", {}), ("gone.dcm", "Miller", {})]
    made(annotations=str(coco(tmp_path / "n.json", notes)))
    (warning,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert warning.endswith(": sacrum (3), 3 more that are not shown (5)")
    assert (
        "3 annotations used; left out: 8 unknown_category, 1 film_not_found; 1 films with targets; "
        "labels known: 1 label_localizer, 2 label_fracture"
    ) in caplog.text
    for word in ("Doe", "doe", "once", "remark", "Miller"):
        assert word not in caplog.text


def test_annotations_become_targets(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    exported.film(tmp_path / "dicom/p/a.dcm")
    mask = np.zeros((24, 16), dtype=bool)
    mask[4:8, 5:9] = True
    code = {"segmentation": {"counts": exported.pack(mask), "size": [24, 16]}}
    notes = [
        ("p/a.dcm", "Left hip", {"bbox": [2, 4, 4, 6]}),
        ("p/a.dcm", "femoral head right", point(12, 7)),
        ("p/a.dcm", "femur_left", code),
        ("p/a.dcm", "femur_right", {"segmentation": [[9.5, 3.5, 12.5, 3.5, 12.5, 5.5, 9.5, 5.5]]}),
        ("p/a.dcm", "fracture", code | {"attributes": {"side": "left", "label_location": "intra"}}),
        ("p/a.dcm", "fracture_left", {"bbox": [5, 4, 4, 4]}),
        ("p/a.dcm", "no fracture right", {}),
        ("p/a.dcm", "frontal", {"attributes": {"label_turn": 0}}),
    ]
    _, summary = made(annotations=str(coco(tmp_path / "n.json", notes)))
    out = tmp_path / "out"
    manifest = load_manifest(out / "images.parquet", out / "targets.parquet")
    rows = manifest.targets.set_index("part")
    left = rows.loc["hip_left"].iloc[0]
    assert (left["x"], left["y"], left["diameter"]) == (3.5, 6.5, 5)
    assert (left["label_localizer"], left["label_fracture"], left["label_location"]) == (1, 1, "intra")
    assert rows.loc["hip_left"].iloc[1]["box"] == "4.5,3.5,4,4"
    right = rows.loc["hip_right"]
    assert (right["x"], right["y"], right["label_fracture"]) == (12, 7, 0)
    assert np.isnan(right["diameter"])
    assert (rows.loc["whole", "label_view"], rows.loc["whole", "label_turn"]) == ("hip_frontal", 0)

    def png(name: str) -> np.ndarray:
        import cv2

        return np.asarray(cv2.imread(str(manifest.file(name)), cv2.IMREAD_GRAYSCALE)) > 0

    assert (png(left["femur_mask"]) == mask).all()
    assert (png(left["mask"]) == mask).all()
    drawn = np.zeros_like(mask)
    drawn[3:6, 9:13] = True
    assert (png(right["femur_mask"]) == drawn).all()
    assert summary["annotations"]["used"] == 8
    assert summary["annotations"]["left_out"] == {}
    assert summary["annotations"]["films_found_by"] == {"path": 1}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("1.2.3", ""),
        ("x/1.2.3.dcm", ""),
        ("q/IM1.dcm", ""),
        ("./p/s/IM1.png", ""),
        ("p\\s\\IM1", ""),
        ("only.jpg", ""),
        ("only.dcm.PNG", ""),
        ("IM1", "film_ambiguous"),
        ("z/IM1.dcm", "film_ambiguous"),
        ("IM", "film_not_found"),
        ("M1.dcm", "film_not_found"),
        ("burned.dcm", "film_left_out"),
        ("z copy.dcm", ""),
        ("other.dcm", "film_left_out"),
    ],
)
def test_films_are_found_by_what_is_theirs_alone(
    tmp_path: Path, exported: ModuleType, made: Build, name: str, reason: str
) -> None:
    dicom = tmp_path / "dicom"
    exported.film(dicom / "p/s/IM1.dcm", SOPInstanceUID="1.2.3")
    exported.film(dicom / "q/IM1.dcm", SOPInstanceUID="1.2.4")
    exported.film(dicom / "q/only.dcm", SOPInstanceUID="1.2.5")
    exported.film(dicom / "q/burned.dcm", SOPInstanceUID="1.2.6", BurnedInAnnotation="YES")
    shutil.copy(dicom / "q/only.dcm", dicom / "z copy.dcm")
    exported.film(dicom / "r/other.dcm", SOPInstanceUID="1.2.4", PixelData=b"\0" * 768)
    _, summary = made(annotations=str(coco(tmp_path / "n.json", [(name, "hip_left", point(3, 3))])))
    found = summary["annotations"]
    assert found["left_out"] == ({reason: 1} if reason else {})
    assert found["films"] == (0 if reason else 1)


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        (("a.dcm", "left knee", point(3, 3)), "unknown_category"),
        (("a.dcm", "hip", point(3, 3)), "no_part"),
        (("a.dcm", "hip_left", point(17, 3)), "outside_film"),
        (("a.dcm", "hip_left", {"keypoints": [3, 3, 2, 4, 4, 2, 5, 5, 2]}), "head_twice"),
        (("a.dcm", "hip_left", {}), "wrong_shape"),
        (("a.dcm", "femur_left", {"bbox": [1, 1, 3, 3]}), "wrong_shape"),
        (("a.dcm", "fracture", {"attributes": {"label_location": "Mustermann"}}), "wrong_value"),
    ],
)
def test_annotations_that_say_nothing_are_told(
    tmp_path: Path, exported: ModuleType, made: Build, note: tuple[str, str, dict[str, Any]], reason: str
) -> None:
    exported.film(tmp_path / "dicom/a.dcm")
    _, summary = made(annotations=str(coco(tmp_path / "n.json", [note])))
    assert reason in summary["annotations"]["left_out"]
    targets = pd.read_parquet(tmp_path / "out/targets.parquet")
    assert "Mustermann" not in targets.to_csv()
    assert (len(targets) > 0) == (reason in ("head_twice", "wrong_value"))  # no row of a part that nobody marked
    assert set(summary["annotations"]["left_out"]) <= set(summary["reasons"])


def test_another_size_is_another_picture(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    exported.film(tmp_path / "dicom/a.dcm")
    file = coco(tmp_path / "n.json", [("a.dcm", "hip_left", point(3, 3))], size=(12, 8))
    assert made(annotations=str(file))[1]["annotations"]["left_out"] == {"other_size": 1}


def test_contradicting_labels_stay_unknown(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    exported.film(tmp_path / "dicom/a.dcm")
    exported.film(tmp_path / "dicom/b.dcm")
    notes = [
        *(("a.dcm", name, {}) for name in ("fracture_left", "no_fracture_left", "no_implant_left")),
        *(("b.dcm", name, {}) for name in ("no_fracture", "fracture_right", "implant_left")),
    ]
    images, summary = made(annotations=str(coco(tmp_path / "n.json", notes)))
    targets = load_manifest(tmp_path / "out/images.parquet", tmp_path / "out/targets.parquet").targets
    known = targets.merge(images[["image"]].reset_index(), on="image").set_index(["name", "part"])
    assert "label_fracture" not in known or known["label_fracture"].isna().all()
    assert known.loc[("a", "hip_left"), "label_implant_filter"] == 0
    assert known.loc[("b", "hip_left"), "label_implant_filter"] == 1
    assert summary["annotations"]["left_out"] == {"labels_contradict": 3}  # the 0 of b, and its 1


# ---------------------------------------------------------------- left and right

ORIENTED = {  # PatientOrientation as stored; (x, y) there of the patient's left hip and right hip
    "upright": (["L", "F"], (12, 10), (3, 10)),
    "mirrored": (["R", "F"], (3, 10), (12, 10)),
    "turned clockwise": (["H", "L"], (8, 18), (8, 5)),
    "turned counter-clockwise": (["F", "R"], (8, 5), (8, 18)),
    "upside down": (["R", "H"], (3, 10), (12, 10)),
}


@pytest.mark.parametrize("stored", ORIENTED)
@pytest.mark.parametrize("sides", ["patient", "picture"])
def test_sides_in_every_orientation(tmp_path: Path, exported: ModuleType, made: Build, stored: str, sides: str) -> None:
    """hip_left is at the left once the feet are down; only in a mirrored film that is the patient's left."""
    orientation, left, right = ORIENTED[stored]
    exported.film(tmp_path / "dicom/a.dcm", PatientOrientation=orientation)
    picture_left = left if stored == "mirrored" else right
    if sides == "patient":
        named = {"hip_left": left, "hip_right": right}
    else:
        named = {"hip_left": picture_left, "hip_right": right if picture_left is left else left}
    notes = [("a.dcm", name, point(*place)) for name, place in named.items()]
    _, summary = made(annotations=str(coco(tmp_path / "n.json", notes)), annotation_sides=sides)
    assert summary["annotations"]["left_out"] == {}
    rows = pd.read_parquet(tmp_path / "out/targets.parquet").set_index("part")
    assert (rows.loc["hip_left", "x"], rows.loc["hip_left", "y"]) == picture_left
    swapped = [(film, {"hip_left": "hip_right", "hip_right": "hip_left"}[name], note) for film, name, note in notes]
    _, summary = made(annotations=str(coco(tmp_path / "n.json", swapped)), annotation_sides=sides)
    assert summary["annotations"]["left_out"] == {"sides_contradict": 2}
    assert len(pd.read_parquet(tmp_path / "out/targets.parquet")) == 0


def test_the_patients_side_without_an_orientation(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    exported.film(tmp_path / "dicom/ap.dcm", ViewPosition="AP")
    exported.film(tmp_path / "dicom/ll.dcm", ViewPosition="LL")
    notes = [(name, "hip_left", point(3, 3)) for name in ("ap.dcm", "ll.dcm")]
    _, summary = made(annotations=str(coco(tmp_path / "n.json", notes)), annotation_sides="patient")
    assert summary["annotations"]["left_out"] == {"side_unknown": 1}
    assert pd.read_parquet(tmp_path / "out/targets.parquet")["part"].tolist() == ["hip_right"]


# ---------------------------------------------------------------- 3D Slicer


def test_slicer_millimetres_become_pixels(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    """The place of a pixel as ITK, with which Slicer reads films, has it: its number times (column, row) spacing."""
    exported.film(tmp_path / "dicom/a.dcm", ImagerPixelSpacing=[0.5, 0.25], PixelSpacing=[0.1, 0.1])
    exported.film(tmp_path / "dicom/b.dcm", PixelSpacing=[0.2, 0.4])
    (tmp_path / "notes").mkdir()
    for name, sign, system, spacing in (("a", 1, "LPS", (0.25, 0.5)), ("b", -1, "RAS", (0.4, 0.2))):
        place = [sign * 9 * spacing[0], sign * 11 * spacing[1], 0]
        node = {
            "type": "Fiducial",
            "coordinateSystem": system,
            "controlPoints": [{"label": "hip_right-1", "position": place}],
        }
        (tmp_path / f"notes/{name}.mrk.json").write_text(json.dumps({"markups": [node]}))
    _, summary = made(annotations=str(tmp_path / "notes"))
    assert summary["annotations"]["left_out"] == {}
    rows = pd.read_parquet(tmp_path / "out/targets.parquet")
    assert rows["x"].tolist() == pytest.approx([9, 9])
    assert rows["y"].tolist() == pytest.approx([11, 11])


def test_slicer_segments_lie_where_the_film_has_them(tmp_path: Path, exported: ModuleType, made: Build) -> None:
    import cv2

    exported.film(tmp_path / "dicom/a.dcm", ImagerPixelSpacing=[0.5, 0.25])
    header = (
        "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 3 1\nencoding: raw\n"
        "space directions: (0.25,0,0) (0,0.5,0) (0,0,1)\nspace origin: (1.25,3.5,0)\nSegment0_Name:=femur left\n\n"
    )
    (tmp_path / "a.seg.nrrd").write_bytes(header.encode() + bytes([1, 0, 1, 1, 0, 1]))
    made(annotations=str(tmp_path / "a.seg.nrrd"))
    row = pd.read_parquet(tmp_path / "out/targets.parquet").iloc[0]
    found = np.asarray(cv2.imread(str(tmp_path / "out" / row["femur_mask"]), cv2.IMREAD_GRAYSCALE))
    assert found.shape == (24, 16)
    assert (np.argwhere(found) == [[7, 5], [8, 5], [8, 6], [9, 6]]).all()
    wrong = header.replace("(0.25,0,0)", "(0.5,0,0)")
    (tmp_path / "a.seg.nrrd").write_bytes(wrong.encode() + bytes([1, 0, 1, 1, 0, 1]))
    assert made(annotations=str(tmp_path / "a.seg.nrrd"))[1]["annotations"]["left_out"] == {"other_grid": 1}

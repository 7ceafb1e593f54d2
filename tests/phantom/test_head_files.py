"""Written exams read back: the reader's volume, the label volumes on it, the tables, painting into a base."""

from __future__ import annotations

import hashlib
import shutil

import cv2
import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest

from domainseg.data.manifest import load_manifest
from domainseg.files import DomainsegError
from domainseg.imaging.hemorrhage import TYPES
from domainseg.imaging.volumes import read_volume
from domainseg.phantom import contact_sheet, simulate
from domainseg.phantom.heads import files, painted
from domainseg.phantom.heads.brain import Brain
from domainseg.phantom.heads.exam import exam
from domainseg.phantom.heads.nifti import size_class
from domainseg.phantom.heads.paint import _pushed
from domainseg.phantom.heads.settings import HeadSettings

CFG = {"kind": "head", "n": 4, "seed": 3, "reduction": 3.5, "bleed": 1.0, "other": 0.2, "workers": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    simulate(CFG, folder)
    return folder


def labels(path):
    return np.asarray(nibabel.load(path).dataobj).transpose(2, 1, 0)


@pytest.mark.parametrize("site", ["A", "B", "C"])
def test_volume_and_mask_of_a_file_are_those_that_were_simulated(site, tmp_path):
    """The reader sorts slices by itself: a mask in another order would not fit."""
    settings = HeadSettings(seed=1, reduction=3.5, bleed=1.0, other=0.0, sites={site: 1.0})
    row = files.write(settings, 0, tmp_path)
    simulated = exam(settings, 0)
    volume = read_volume(tmp_path / row["image"]["path"])
    np.testing.assert_array_equal(volume.voxels, np.maximum(simulated.voxels, -1024))
    np.testing.assert_allclose(volume.affine, simulated.scan.affine, atol=1e-4)
    head = row["targets"][1]
    np.testing.assert_array_equal(volume.from_source(labels(tmp_path / head["mask"])), simulated.labels)
    np.testing.assert_array_equal(volume.from_source(labels(tmp_path / head["mimics"])), simulated.mimics)
    assert head["true_ml"] == pytest.approx((simulated.labels > 0).sum() * volume.voxel_ml, rel=1e-4)
    if site == "B":
        assert float(volume.metadata["tilt"]) == pytest.approx(simulated.plan.tilt, abs=0.1)


def test_the_tables_load_and_name_what_is_there(made):
    manifest = load_manifest(made / "images.parquet", made / "targets.parquet")
    heads = manifest.targets[manifest.targets["part"] == "head"].set_index("image")
    wholes = manifest.targets[manifest.targets["part"] == "whole"].set_index("image")
    assert set(wholes.index) == set(manifest.images["image"])
    assert set(heads.index) == set(wholes.index[wholes["label_head_filter"] == 1])
    assert (heads["label_hemorrhage"] == heads[[f"label_{name}" for name in TYPES]].max(axis=1)).all()
    assert ((heads["mask"] != "") == (heads["label_hemorrhage"] == 1)).all()
    for cell in [*heads["mask"][heads["mask"] != ""], *heads["mimics"]]:
        assert manifest.file(cell).is_file()
    assert set(heads["density"]) <= {"fresh", "subacute", ""}
    first = next(path for path in sorted((made / "images").iterdir()) if path.is_dir())
    data = pydicom.dcmread(next(first.iterdir()))
    assert data.Modality == "CT"
    assert data.PatientID.startswith("PH")
    assert "PatientBirthDate" not in data


def test_the_same_settings_give_the_same_bytes_and_complete_exams_are_kept(made, tmp_path):
    simulate({**CFG, "n": 1}, tmp_path)
    for path in [path for path in tmp_path.glob("[im]*/**/*") if path.is_file()]:
        one, two = (hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, made / path.relative_to(tmp_path)))
        assert one == two, path
    before = {path: path.stat().st_mtime_ns for path in (made / "images").rglob("*")}
    simulate(CFG, made)
    assert {path: path.stat().st_mtime_ns for path in (made / "images").rglob("*")} == before


def test_a_contact_sheet_is_drawn(made, tmp_path):
    assert contact_sheet(made, tmp_path / "sheet.png").stat().st_size > 100_000


def test_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(DomainsegError, match="pelvis, head"):
        simulate({"kind": "knee", "n": 1}, tmp_path)


def test_classes_of_size():
    assert [size_class(ml) for ml in (0.1, 3, 9.9, 10, 29, 30)] == [
        "under 3 ml", "3 to 10 ml", "3 to 10 ml", "10 to 30 ml", "10 to 30 ml", "30 ml and over",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A normal head twice: as a DICOM series, and as pictures of a brain window."""
    folder = tmp_path_factory.mktemp("base")
    settings = HeadSettings(seed=4, reduction=2, bleed=0.0, other=0.0, mimics=0.0, sites={"A": 1.0}, motion=0, metal=0)
    row = files.write(settings, 0, folder / "made")
    series = folder / "normal" / "series"
    series.parent.mkdir()
    (folder / "made" / row["image"]["path"]).rename(series)
    pictures = folder / "normal" / "pictures"
    pictures.mkdir()
    for k, picture in enumerate(read_volume(series).voxels, start=1):
        grey = np.clip((picture.astype(float) + 20) / 120 * 255, 0, 255).astype(np.uint8)
        cv2.imwrite(str(pictures / f"{k:02d}.png"), grey)
    return folder / "normal"


@pytest.mark.parametrize("kind", TYPES)
def test_bleeds_are_painted_into_a_series_where_the_mask_says(base, tmp_path, kind):
    settings = HeadSettings(base=str(base), bleed=1.0, other=0.0, several=0, subacute=0, types={kind: 1.0})
    row = painted.write(settings, 1, tmp_path)  # 0 is pictures, 1 series
    before, after = read_volume(base / "series"), read_volume(tmp_path / row["image"]["path"])
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-4)
    head = row["targets"][1]
    mask = after.from_source(labels(tmp_path / head["mask"]))
    found = 1 + TYPES.index(next(name for name in TYPES if head[f"label_{name}"]))
    assert set(np.unique(mask)) == {0, found}
    assert head["true_ml"] == pytest.approx((mask > 0).sum() * before.voxel_ml, rel=1e-3)
    assert np.median(after.voxels[mask > 0]) > np.median(before.voxels[mask > 0]) + 5
    bone = before.voxels > 300
    np.testing.assert_array_equal(after.voxels[bone], before.voxels[bone])  # the skull stays as it was


def test_a_bleed_that_another_pushes_aside_is_labelled_where_it_went():
    disc = np.hypot(*(np.mgrid[:96, :96] - 47.5)) < 40
    depth = 2 * (40 - np.hypot(*(np.mgrid[:96, :96] - 47.5)))[None].astype(np.float32)
    brain = Brain(disc[None], depth, np.zeros(1), (2.0, 2.0, 5.0), np.full(1, 47.5, np.float32))
    blood = (np.hypot(*(np.mgrid[:96, :96] - np.array([47.5, 75])[:, None, None])) < 8)[None]
    centre = np.array([38.0 * 2, 47.5 * 2, 0], np.float32)  # at the skull, on the patient's left
    pushed, labels = _pushed(np.where(blood, 70, 30).astype(np.float32), blood.astype(np.uint8), brain, centre, 8, 30)
    assert ((pushed > 50) != (labels > 0)).sum() < 12  # pixels at the edge
    assert np.nonzero(labels)[2].mean() < 75 - 2  # to the right, by more than two of four pixels
    assert ((labels > 0) != blood).sum() > 60


def test_bleeds_are_painted_into_pictures(base, tmp_path):
    settings = HeadSettings(base=str(base), bleed=1.0, other=0.0, several=0, types={"intraparenchymal": 1.0})
    row = painted.write(settings, 0, tmp_path)
    before, after = read_volume(base / "pictures"), read_volume(tmp_path / row["image"]["path"])
    assert after.rendering == before.rendering
    mask = after.from_source(labels(tmp_path / row["targets"][1]["mask"]))
    assert "true_ml" not in row["targets"][1]
    far = cv2.dilate((mask > 0).astype(np.uint8).transpose(1, 2, 0), np.ones((9, 9), np.uint8)).transpose(2, 0, 1) == 0
    far &= ~np.roll(mask > 0, 1, 0) & ~np.roll(mask > 0, -1, 0)
    changed = np.abs(after.voxels.astype(int) - before.voxels)
    assert changed[mask > 0].mean() > 8
    assert (changed[far] > 1).mean() < 0.001


def test_a_base_without_exams_and_one_without_a_head_are_refused(tmp_path):
    with pytest.raises(DomainsegError, match="no folder"):
        painted.exams(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DomainsegError, match="holds no exam"):
        painted.exams(str(tmp_path / "empty"))
    settings = HeadSettings(seed=1, reduction=3, other=1.0, sites={"A": 1.0})
    files.write(settings, 0, tmp_path / "trunks")
    with pytest.raises(DomainsegError, match="no brain"):
        painted.write(HeadSettings(base=str(tmp_path / "trunks"), bleed=1.0), 0, tmp_path / "out")


def test_painted_exams_of_one_base_exam_stay_together(base, tmp_path):
    simulate({"kind": "head", "n": 4, "base": str(base), "bleed": 0.0, "other": 0.0, "workers": 1}, tmp_path)
    images = pd.read_parquet(tmp_path / "images.parquet")
    assert images["group"].nunique() == 2
    assert images["group"].tolist()[:2] == images["group"].tolist()[2:]
    assert (pd.read_parquet(tmp_path / "targets.parquet")["label_hemorrhage"].dropna() == 0).all()


def test_two_exams_of_one_patient_are_one_patient(base, tmp_path):
    for name in ("early", "late", "other"):
        shutil.copytree(base / "series", tmp_path / name)
    for file in (tmp_path / "other").iterdir():
        series = pydicom.dcmread(file)
        series.PatientID = "SOMEBODY"
        series.save_as(file)
    shutil.copytree(base / "pictures", tmp_path / "pictures")
    assert painted.patients(str(tmp_path)) == {
        "early": "early", "late": "early", "other": "other", "pictures": "pictures",
    }  # fmt: skip


def test_two_series_of_one_deidentified_study_are_one_patient(base, tmp_path):
    for name, study in (("thick", "1.2.3"), ("thin", "1.2.3"), ("other", "1.2.4")):
        shutil.copytree(base / "series", tmp_path / name)
        for file in (tmp_path / name).iterdir():
            series = pydicom.dcmread(file)
            series.PatientID, series.StudyInstanceUID = "", study
            series.save_as(file)
    assert painted.patients(str(tmp_path)) == {"other": "other", "thick": "thick", "thin": "thick"}


def test_a_base_of_series_in_folders_of_links_and_of_pictures_beside_volumes(base, tmp_path):
    for study in ("1.2.3", "1.2.4"):
        for series in "12":
            shutil.copytree(base / "series", tmp_path / "ann" / study / series)
            for file in (tmp_path / "ann" / study / series).iterdir():
                data = pydicom.dcmread(file)
                data.PatientID, data.StudyInstanceUID = "ANN", study
                data.save_as(file)
    for name in ("sub-1", "sub-2"):
        (tmp_path / "bids" / name).mkdir(parents=True)
        (tmp_path / "bids" / name / "ct.nii.gz").touch()
        (tmp_path / "bids" / name / "preview.png").touch()
    (tmp_path / "bids/README").touch()
    (tmp_path / "chosen").mkdir()
    for name in ("ann/1.2.3", "ann/1.2.4", "bids"):
        (tmp_path / "chosen" / name.rpartition("/")[2]).symlink_to(tmp_path / name)
    assert painted.patients(str(tmp_path / "chosen")) == {
        "1.2.3": "1.2.3", "1.2.4": "1.2.3",
        "bids/sub-1/ct.nii.gz": "bids/sub-1/ct.nii.gz", "bids/sub-2/ct.nii.gz": "bids/sub-2/ct.nii.gz",
    }  # fmt: skip

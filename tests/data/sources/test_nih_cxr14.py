"""NIH ChestX-ray14: the official layout, the sample layout, and a CheXNet's predictions joined with metadata."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from domainseg.data.manifest import ManifestError, truth_table
from domainseg.data.sources import nih_cxr14
from domainseg.data.splits import assign_splits
from domainseg.evaluation import read_table, roc
from domainseg.imaging.chest import FINDINGS

ROOT = Path(__file__).resolve().parents[3]
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)
ROWS = (
    "00000001_000.png,Cardiomegaly,0,1,058Y,M,PA,2682,2749,0.143,0.143,\n"
    "00000001_001.png,Cardiomegaly|Pleural_Thickening,1,1,058Y,M,AP,2894,2729,0.143,0.143,\n"
    "00000002_000.png,No Finding,0,2,411Y,F,PA,2500,2048,0.168,0.168,\n"
    "00000003_000.png,Infiltration,0,3,008M,F,PA,2500,2048,0.168,0.168,\n"
)
BOXES = (
    "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
    "00000001_000.png,Cardiomegaly,200,400,600,300,,,\n"
    "00000003_000.png,Infiltrate,512,100,100.5,200,,,\n"
    "00000003_000.png,Infiltrate,100,100,50,50,,,\n"
)


@pytest.fixture
def official(tmp_path):
    (tmp_path / "Data_Entry_2017.csv").write_text(HEADER + ROWS)
    (tmp_path / "BBox_List_2017.csv").write_text(BOXES)
    for number, name in enumerate(["00000001_000", "00000001_001", "00000002_000", "00000003_000"]):
        folder = tmp_path / f"images_{1 + number // 2:03d}" / "images"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (256, 256)).save(folder / f"{name}.png")  # a quarter of the original 1024
    return tmp_path


def test_the_official_tables(official):
    found = nih_cxr14.load(official)
    images = found.images.set_index("image")
    assert images["patient"].tolist() == ["1", "1", "2", "3"]
    assert images["view"].tolist() == ["PA", "AP", "PA", "PA"]
    assert set(images["site"]) == {"NIH"}
    assert set(images["portable"]) == {""}
    np.testing.assert_allclose(images["age"], [58, 58, np.nan, 8 / 12], atol=1e-3)
    assert found.path("00000003_000.png") == official / "images_002/images/00000003_000.png"
    table = truth_table(found, ("whole",)).set_index("image")
    assert set(table.filter(like="label_")) - {"label_view"} == {f"label_{name}" for name in FINDINGS}
    assert table.loc["00000001_001.png", "label_pleural_thickening"] == 1
    assert table.loc["00000001_000.png", "label_pleural_thickening"] == 0
    nothing = table.loc["00000002_000.png", [f"label_{name}" for name in FINDINGS]]
    assert (nothing == 0).all()


def test_boxes_are_scaled_to_the_pictures_that_are_there(official):
    boxes = truth_table(nih_cxr14.load(official), ("whole",)).set_index("image")["boxes"]
    np.testing.assert_allclose(boxes["00000001_000.png"], [[50, 100, 150, 75]])
    np.testing.assert_allclose(boxes["00000003_000.png"], [[128, 25, 25.125, 50], [25, 25, 12.5, 12.5]])
    rows = nih_cxr14.load(official).targets
    assert rows.loc[rows["box"] != "", "finding"].tolist() == ["cardiomegaly", "infiltration", "infiltration"]


def test_the_official_lists_divide_patients_and_can_be_put_aside(official):
    (official / "test_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    (official / "train_val_list.txt").write_text("00000002_000.png\n00000003_000.png\n")
    split = nih_cxr14.load(official).images["split"]
    assert split[:2].tolist() == ["test", "test"]
    assert set(split[2:]) <= {"train", "tune"}
    assert set(nih_cxr14.load(official, official_split=False).images["split"]) == {""}


def test_an_eighth_of_the_other_patients_tunes(tmp_path):
    patients = [str(number) for number in range(1, 4001)]
    images = pd.DataFrame({"image": [f"{patient}.png" for patient in patients], "patient": patients})
    (tmp_path / "test_list.txt").write_text("1.png\n")
    (tmp_path / "train_val_list.txt").write_text("\n".join(images["image"][1:]))
    share = nih_cxr14._official(tmp_path, images).value_counts(normalize=True)
    assert share["tune"] == pytest.approx(1 / 8, abs=0.02)


def test_missing_pictures_are_an_error_or_counted(official, caplog):
    (official / "images_002/images/00000003_000.png").unlink()
    with pytest.raises(ManifestError, match="1 of 4 films are not there"):
        nih_cxr14.load(official)
    assert len(nih_cxr14.load(official, partial=True)) == 3
    assert "1 of 4" in caplog.text


def test_strange_labels_and_folders_are_refused(official, tmp_path_factory):
    with pytest.raises(ManifestError, match="not a folder of NIH"):
        nih_cxr14.load(tmp_path_factory.mktemp("empty"))
    for wrong in ("Cardiomegali", "No Finding|Mass"):
        (official / "Data_Entry_2017.csv").write_text(HEADER + ROWS.replace("No Finding", wrong))
        with pytest.raises(ManifestError, match=wrong.split("|")[0]):
            nih_cxr14.load(official)


@pytest.mark.parametrize(
    ("cell", "age"), [("058Y", 58), ("58", 58), ("006M", 0.5), ("414", None), ("", None), ("012D", 12 / 365.25)]
)
def test_ages(cell, age):
    assert nih_cxr14.years(cell) == (
        pytest.approx(age, abs=1e-3) if age is not None else pytest.approx(np.nan, nan_ok=True)
    )


@pytest.mark.real_data
def test_the_sample_is_as_its_description_says(shared_data):
    found = nih_cxr14.load(shared_data / "nih_cxr14")
    assert found.images["view"].value_counts().to_dict() == {"PA": 342, "AP": 68}
    assert found.images["patient"].nunique() == 410
    boxes = found.targets[found.targets["box"] != ""]
    assert len(boxes) == 8
    for row in boxes.to_dict("records"):
        assert row[f"label_{row['finding']}"] == 1
        x, y, width, height = map(float, row["box"].split(","))
        assert min(x, y) >= 0
        assert max(x + width, y + height) <= 513
    divided = assign_splits(found, seed=0, fractions={"train": 0.7, "tune": 0.1, "test": 0.2})
    assert divided.images["split"].value_counts()["test"] == pytest.approx(82, abs=3)


@pytest.mark.real_data
def test_a_real_chexnet_has_the_known_areas(shared_data, tmp_path):
    """Effusion and Cardiomegaly on PA and AP films: 0.913, 0.836, 0.939, 0.871, through the tool and the evaluation."""
    output = tmp_path / "chexnet.parquet"
    command = [sys.executable, ROOT / "tools/nih_predictions", f"root={shared_data / 'nih_cxr14'}", f"output={output}"]
    subprocess.run(command, check=True, capture_output=True)
    table = read_table(output)
    assert len(table) == 18294
    known = {("effusion", "PA"): 0.913, ("effusion", "AP"): 0.836}
    known |= {("cardiomegaly", "PA"): 0.939, ("cardiomegaly", "AP"): 0.871}
    for (target, view), value in known.items():
        rows = table[table["view"] == view]
        columns = [rows[f"{kind}_{target}"].to_numpy() for kind in ("label", "score")]
        assert roc.auc(*columns, rows["patient"].to_numpy())["value"] == pytest.approx(value, abs=5e-4)

"""A table in CheXpert's form: which labels mean what, and what uncertain and unmentioned count as."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from domainseg.data.manifest import ManifestError, truth_table
from domainseg.data.sources import chexpert
from domainseg.imaging.chest import FINDINGS

HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices\n"
)
START = "CheXpert-v1.0-small/train/"
ROWS = [
    "patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0",
    "patient00002/study2/view1_frontal.jpg,Male,87,Frontal,PA,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,1.0,,1.0,",
    "patient00002/study2/view2_lateral.jpg,Male,87,Lateral,,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,1.0,,1.0,",
    "patient00003/study1/view1_frontal.jpg,Unknown,0,Frontal,AP,,,1.0,,,1,0,,,,,,,",
]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "train.csv").write_text(HEADER + "".join(f"{START}{row}\n" for row in ROWS))
    for row in ROWS:
        path = tmp_path / "train" / row.split(",")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (32, 32)).save(path)
    return tmp_path


def labels(manifest):
    return truth_table(manifest, ("whole",)).set_index("image")


def test_patients_studies_views_and_files(root, caplog):
    caplog.set_level("INFO")
    found = chexpert.load(root)
    images = found.images.set_index("image")
    assert list(images.index) == [
        "patient00001_study1_view1_frontal", "patient00002_study2_view1_frontal", "patient00003_study1_view1_frontal"
    ]  # fmt: skip
    assert images["patient"].tolist() == ["patient00001", "patient00002", "patient00003"]
    assert images["view"].tolist() == ["AP", "PA", "AP"]
    assert images["sex"].tolist() == ["F", "M", ""]
    np.testing.assert_allclose(images["age"], [68, 87, np.nan])
    assert set(images["site"]) == {"CheXpert"}
    assert "1 of 4 films are lateral: left out" in caplog.text
    assert not found.missing_files()
    both = chexpert.load(root, lateral=True)
    assert len(both) == 4
    assert both.images["view"].tolist()[2] == "LATERAL"


@pytest.mark.parametrize(
    ("settings", "edema", "pneumonia"),
    [
        ({}, [0, None, 1], [0, 0, 0]),
        ({"unmentioned": "unknown"}, [None, None, 1], [None, None, None]),
        ({"uncertain": 1}, [0, 1, 1], [0, 0, 0]),
        ({"uncertain": "0", "unmentioned": "unknown"}, [None, 0, 1], [None, None, None]),
    ],
)
def test_uncertain_and_unmentioned_labels(root, caplog, settings, edema, pneumonia):
    caplog.set_level("INFO")
    table = labels(chexpert.load(root, **settings))
    np.testing.assert_array_equal(table["label_edema"], np.array(edema, float))
    np.testing.assert_array_equal(table["label_pneumonia"], np.array(pneumonia, float))
    assert "8 labels are uncertain" in caplog.text


def test_names_of_labels(root):
    table = labels(chexpert.load(root))
    assert table["label_effusion"].tolist() == [0, 1, 0]
    assert table["label_chest_fracture"].tolist() == [0, 1, 0]
    assert "label_fracture" not in table
    assert table["label_lung_opacity"].tolist() == [0, 1, 0]
    assert table["label_support_devices"].tolist() == [1, 0, 0]
    only_nih = [f"label_{name}" for name in FINDINGS if name not in chexpert.LABELS.values()]
    assert len(only_nih) == 7
    assert table[only_nih].isna().all(axis=None)


def test_wrong_settings_and_tables_are_refused(root):
    with pytest.raises(ManifestError, match="negative or unknown"):
        chexpert.load(root, unmentioned="zero")
    (root / "odd.csv").write_text(HEADER + START + ROWS[3].replace(",1,0,", ",2.0,0,") + "\n")
    with pytest.raises(ManifestError, match="'2' is not 1, 0, -1"):
        chexpert.load(root, table="odd.csv")
    (root / "odd.csv").write_text(HEADER + ROWS[3].replace("patient00003/study1/", "") + "\n")
    with pytest.raises(ManifestError, match="no path like"):
        chexpert.load(root, table="odd.csv")
    (root / "train" / ROWS[0].split(",")[0]).unlink()
    with pytest.raises(ManifestError, match="1 films are not there"):
        chexpert.load(root)

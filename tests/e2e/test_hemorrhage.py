"""The commands of the head CT branch as a user types them, on few and coarse simulated exams."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from domainseg.evaluation.metrics import get
from domainseg.imaging.hemorrhage import CODES, TYPES

from .conftest import command

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run in run/ and its exams in exams/."""
    folder = tmp_path_factory.mktemp("e2e")
    argv = ("+pipeline=hemorrhage", "+experiment=tiny", "data.root=exams", "trainer.threads=1")
    command("train", *argv, "output=run", cwd=folder)
    return folder


def test_no_exam_is_dropped_and_each_has_its_truth(folder: Path) -> None:
    table = pd.read_parquet(folder / "run/predictions.parquet")
    splits = pd.read_csv(folder / "run/splits.csv")
    held = splits[splits["split"].isin(["tune", "test"])]
    assert sorted(table["image"]) == sorted(held["image"])
    targets = pd.read_parquet(folder / "exams/targets.parquet").query("part == 'head'").set_index("image")
    heads = table[table["image"].isin(targets.index)].set_index("image")
    assert (heads["part"] == "head").all()
    for name in ("hemorrhage", *TYPES):
        assert (heads[f"label_{name}"] == targets.loc[heads.index, f"label_{name}"].astype(float)).all()
    scored = heads[heads["excluded_by"] == ""]
    assert len(scored)
    assert scored["score_hemorrhage"].between(0, 1).all()
    wanted = targets.loc[scored.index, "true_ml"].fillna(0).astype(float)
    np.testing.assert_allclose(scored["true_volume_ml"], wanted, rtol=0.02, atol=0.05)
    lesions = pd.read_parquet(folder / "run/lesions.parquet")
    assert set(lesions["image"]) <= set(table["image"])


def test_metrics_and_report_hold_what_was_promised(folder: Path) -> None:
    metrics = json.loads((folder / "run/metrics.json").read_text())
    paths = ["volume_r", "false_lesions_per_normal", "froc.at_0.25", "froc.at_1", "froc.at_4", "auc", "intention.auc"]
    for path in [f"hemorrhage.{name}" for name in paths] + [f"{name}.dice" for name in TYPES]:
        assert {"value", "low", "high", "n", "method"} <= set(get(metrics, f"test.{path}")), path
    html = (folder / "run/report.html").read_text()
    assert "<script src=" not in html
    assert "http://" not in html.replace("http://www.w3.org", "")


def test_the_bundle_predicts_a_folder_of_exams_as_the_run_did(folder: Path) -> None:
    table = pd.read_parquet(folder / "run/predictions.parquet").set_index("image")
    some = folder / "some"
    (some / "broken").mkdir(parents=True)
    (some / "broken/slice.dcm").write_bytes(b"no slice")
    wanted = []
    for image in [image for image in table.index if table.at[image, "excluded_by"] == ""]:
        found = next(path for path in (folder / "exams/images").iterdir() if path.name.partition(".")[0] == image)
        copy = shutil.copytree if found.is_dir() else shutil.copy
        copy(found, some / found.name)
        wanted.append((found.name, image))
    argv = ("bundle=run/bundle", "input=some", "output=read", "masks=true", "overlays=true")
    said = command("predict", *argv, cwd=folder, code=3)
    assert f"exams read: {len(wanted)} of {len(wanted) + 1}" in said
    read = pd.read_parquet(folder / "read/predictions.parquet").set_index("image")
    assert read.at["broken", "excluded_by"] == "read"
    for name, image in wanted:
        for column in table.filter(regex="^score_|^volume_ml").columns:
            np.testing.assert_allclose(read.at[name, column], table.at[image, column], atol=2e-3, rtol=2e-2)
    masked = [one for one in wanted if (folder / f"exams/masks/{one[1]}.nii.gz").is_file()]
    name, image = max(masked, key=lambda one: table.at[one[1], "volume_ml"])
    mask = nibabel.load(next((folder / "read/masks").glob(f"{name.removesuffix('.nii.gz')}*")))
    assert mask.shape == nibabel.load(folder / f"exams/masks/{image}.nii.gz").shape
    voxel = abs(np.linalg.det(mask.affine[:3, :3])) / 1000
    counts = np.bincount(np.asanyarray(mask.dataobj).astype(int).ravel(), minlength=len(TYPES) + 1)
    drawn = {"volume_ml": counts[1:].sum() * voxel}
    drawn |= {f"volume_ml_{kind}": counts[code] * voxel for kind, code in CODES.items()}
    # The written mask is what its row measures; the run's network is the same but for rounding.
    np.testing.assert_allclose([read.at[name, column] for column in drawn], list(drawn.values()), rtol=1e-5)
    np.testing.assert_allclose(drawn["volume_ml"], table.at[image, "volume_ml"], rtol=0.02)


def test_evaluate_judges_a_prediction_with_labels(folder: Path) -> None:
    argv = ("bundle=run/bundle", "input=exams/images.parquet", "labels=exams/targets.parquet", "output=judged")
    command("predict", *argv, "workers=1", cwd=folder)
    command("evaluate", "predictions=judged/predictions.parquet", "output=evaluation", cwd=folder)
    metrics = json.loads((folder / "evaluation/metrics.json").read_text())
    table = pd.read_parquet(folder / "judged/predictions.parquet")
    known = table[(table["excluded_by"] == "") & (table["true_volume_ml"] > 0)]
    assert get(metrics, "test.hemorrhage.sensitivity")["n"] == len(known)
    assert (folder / "evaluation/report.html").is_file()


def test_slices_of_the_test_split_stand_beside_controls(folder: Path) -> None:
    command(
        "audit", "+probe=slices", "run=run", "data=phantom_head_tiny", "data.root=exams", "output=slices", cwd=folder
    )
    slices = pd.read_csv(folder / "slices/slices.csv", dtype={"image": str})
    table = pd.read_parquet(folder / "run/predictions.parquet").set_index("image")
    tested = table[(table["split"] == "test") & (table["excluded_by"] == "")]
    assert sorted(slices["image"].unique()) == sorted(tested.index)
    by_exam = slices.groupby("image")
    np.testing.assert_allclose(by_exam["exam_score"].first(), tested["score_hemorrhage"].sort_index(), rtol=1e-3)
    assert (by_exam["label"].max() == tested["label_hemorrhage"].sort_index()).all()
    assert json.loads((folder / "slices/slices.json").read_text())["exams"] == len(tested)

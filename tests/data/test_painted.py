"""Painted training exams: of whom they are, what they show, and that they stay on their patient's side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest

from domainseg.data.manifest import Manifest, build_manifest
from domainseg.data.painted import with_painted
from domainseg.data.splits import assign_splits, fold_manifest
from domainseg.data.tables import ManifestError
from domainseg.imaging.volumes import read_volume
from domainseg.phantom.heads import files, painted
from domainseg.phantom.heads.settings import HeadSettings

ASKED = {"copies": 2, "alone": False, "seed": 0}


def exams(labels: list[float], **columns: list[str]) -> Manifest:
    """An exam for each label of hemorrhage, two exams a patient."""
    names = [f"e{k:02d}" for k in range(len(labels))]
    images = {"image": names, "patient": [f"P{k // 2}" for k in range(len(labels))], "site": "A", "age": "70"}
    targets = {"image": names, "part": "head", "label_hemorrhage": labels}
    return build_manifest(pd.DataFrame({**images, **columns}), pd.DataFrame(targets), Path("exams"), "mine")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Painting that writes nothing; the list gets what was painted: exam and number of the plan."""
    asked: list[tuple[str, int]] = []

    def into(path: Path, settings: HeadSettings, index: int, output: Path, image: str) -> dict[str, Any] | None:
        asked.append((path.name, index))
        if path.name == "e00":  # no head
            return None
        row = {"image": image, "part": "head", "label_hemorrhage": 1, "label_epidural": 1, "mask": f"masks/{image}"}
        return {"image": {"image": image, "path": f"images/{image}"}, "targets": [row], "files": []}

    monkeypatch.setattr(painted, "into", into)
    return asked


def test_no_painted_exam_is_of_a_patient_who_is_tuned_or_tested_on(
    quick: list[tuple[str, int]], tmp_path: Path
) -> None:
    manifest = exams([0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0])
    divided = assign_splits(manifest, seed=1, fractions={}, folds=4)
    sides: dict[str, set[int]] = {}
    for fold in range(4):
        part = fold_manifest(divided, fold)
        train = with_painted(part.split("train"), tmp_path, **ASKED)
        made = train.images[train.images["painted_of"] != ""].set_index("image")
        assert len(made) == 2 * made["painted_of"].nunique() > 6
        patient = part.images.set_index("image")["patient"]
        assert (made["patient"] == patient[made["painted_of"]].to_numpy()).all()
        held = part.images[part.images["split"].isin(["tune", "test"])]
        assert not set(made["patient"]) & set(held["patient"])
        assert not set(made["painted_of"]) & set(held["image"])
        for base in set(made["painted_of"]):
            sides.setdefault(base, set()).add(fold)
    assert {len(folds) for folds in sides.values()} == {2}  # of four folds, a patient is trained on in two
    assert len(quick) == len(set(quick))  # what one fold has painted, the next finds
    assert {name for name, _ in quick} == set(manifest.targets.query("label_hemorrhage == 0")["image"])


def test_what_is_painted_keeps_its_patients_columns_and_has_labels_of_its_own(
    quick: list[tuple[str, int]], tmp_path: Path
) -> None:
    manifest = exams([0, 0, 1, float("nan")], ward=["w1", "w2", "w3", "w4"])
    found = with_painted(manifest, tmp_path, **ASKED)
    assert found.images["image"].tolist() == ["e00", "e01", "e02", "e03", "e01+0", "e01+1"]  # nothing found in e00
    made = found.images[found.images["painted_of"] == "e01"]
    for column, value in {"patient": "P0", "site": "A", "ward": "w2", "age": 70}.items():
        assert (made[column] == value).all()
    labels = found.targets.set_index("image")[["label_hemorrhage", "label_epidural"]]
    assert labels.loc["e01+0"].tolist() == [1, 1]
    np.testing.assert_array_equal(labels.loc["e01"], [0, np.nan])
    only = with_painted(manifest, tmp_path, **{**ASKED, "alone": True})
    assert only.images["image"].tolist() == ["e00", "e01", "e03", "e01+0", "e01+1"]
    assert "e02" not in set(only.targets["image"])
    private = replace(manifest, films={image: f"/there/{image}" for image in manifest.images["image"]})
    assert with_painted(private, tmp_path, **ASKED).path("e01+1").parent == tmp_path / "images"
    with pytest.raises(ManifestError, match=r"label_hemorrhage = 0.* of the 2 exams .* 0 have"):
        with_painted(exams([1, float("nan")]), tmp_path, **ASKED)


def test_a_painted_exam_reads_as_the_base_exam_but_for_the_bleed(tmp_path: Path) -> None:
    normal = HeadSettings(
        seed=4, reduction=3, bleed=0.0, other=0.0, mimics=0.0, sites={"C": 1.0}, motion=0, metal=0, thin=0
    )
    made = files.write(normal, 0, tmp_path)
    manifest = build_manifest(pd.DataFrame([made["image"]]), pd.DataFrame(made["targets"]), tmp_path, "mine")
    found = with_painted(manifest, tmp_path / "painted", copies=1, alone=True, seed=2)
    base, image = found.images["image"]
    before, after = read_volume(found.path(base)), read_volume(found.path(image))
    row = found.targets[(found.targets["image"] == image) & (found.targets["part"] == "head")].iloc[0]
    mask = after.from_source(np.asanyarray(nibabel.load(found.file(row["mask"])).dataobj).transpose(2, 1, 0))
    assert row["label_hemorrhage"] == 1
    assert (mask > 0).sum() * after.voxel_ml == pytest.approx(float(row["true_ml"]), rel=1e-3)
    changed = after.voxels.astype(float) - before.voxels
    assert changed[mask > 0].mean() > 4
    assert (changed[:, 0] == 0).all()
    assert after.affine == pytest.approx(before.affine)

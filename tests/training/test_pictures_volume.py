"""Which exams of a run are shown, what is said of them, and that one that cannot be read costs no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from domainseg.cascade.case import Case, Exclusion
from domainseg.files import read_json
from domainseg.imaging import ImageReadError
from domainseg.imaging.volume import AIR, Volume
from domainseg.reporting.overlays_volume import CALLED, TRUE
from domainseg.training import pictures_volume
from domainseg.training.pictures_volume import caption, choose, write_volume_pictures


def exam(image: str, **known: Any) -> dict[str, Any]:
    row = {"image": image, "part": "head", "split": "test", "excluded_by": "", "exclusion_reason": "", "mimic": ""}
    row |= {"label_hemorrhage": 1.0, "eligible_hemorrhage": True, "score_hemorrhage": 0.9, "threshold_hemorrhage": 0.5}
    return row | {"dice_hemorrhage": 0.5, "true_volume_ml": 3.0, "volume_ml": 2.0, "label_subdural": 1.0} | known


def false(image: str, mimic: str, score: float, **known: Any) -> dict[str, Any]:
    lesion = {"image": image, "lesion": 1, "source": "predicted", "type": "epidural", "score": score, "called": 1}
    return {**lesion, "matched": 0, "mimic": mimic, "ml": 0.8, "first_slice": 3, "last_slice": 5, **known}


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        [
            exam("good", dice_hemorrhage=0.9),
            exam("also_good", dice_hemorrhage=0.8),
            exam("other_type", dice_hemorrhage=0.7, label_subdural=0.0, label_epidural=1.0),
            exam("fair", dice_hemorrhage=0.6),
            exam("bad", dice_hemorrhage=0.0),
            exam("small_miss", score_hemorrhage=0.2, true_volume_ml=1.0, dice_hemorrhage=0.0),
            exam("large_miss", score_hemorrhage=0.1, true_volume_ml=20.0, dice_hemorrhage=0.0),
            exam("lost", score_hemorrhage=np.nan, excluded_by="head_filter", exclusion_reason="no_head"),
            exam("normal", label_hemorrhage=0.0, label_subdural=0.0, dice_hemorrhage=np.nan, true_volume_ml=0.0),
            exam("tuned", split="tune", dice_hemorrhage=1.0),
        ]
    )


@pytest.fixture
def lesions() -> pd.DataFrame:
    return pd.DataFrame(
        [
            false("normal", "motion", 0.6),
            false("good", "motion", 0.8, lesion=2),
            false("normal", "falx_calcification", 0.7),
            false("fair", "", 0.55),
            false("fair", "metal", 0.4, called=0),
            false("bad", "metal", 0.9, matched=1),
            false("tuned", "metal", 0.9),
        ]
    )


def test_best_worst_missed_and_the_surest_of_each_look_alike(table: pd.DataFrame, lesions: pd.DataFrame) -> None:
    shown: dict[str, list[str]] = {}
    for one in choose(table, lesions):
        shown.setdefault(one.kind, []).append(one.row["image"])
    assert shown == {
        "best": ["good", "other_type", "also_good"],
        "worst": ["bad", "fair"],
        "missed": ["large_miss", "small_miss"],
        "wrongly_excluded": ["lost"],
        "false_lesion": ["good", "normal", "fair"],
    }
    assert [one.lesion["mimic"] for one in choose(table, lesions) if one.lesion] == ["motion", "falx_calcification", ""]
    assert {one.kind for one in choose(table, None)} == {"best", "worst", "missed", "wrongly_excluded"}
    assert choose(table.drop(columns="label_hemorrhage"), None) == []


def test_worst_are_exams_that_were_measured(table: pd.DataFrame) -> None:
    without = [exam(f"label_{k}", dice_hemorrhage=np.nan) for k in range(4)]
    shown = choose(pd.concat([table, pd.DataFrame(without)]), None)
    assert [one.row["image"] for one in shown if one.kind == "worst"] == ["bad", "fair"]
    shown = choose(pd.DataFrame(without), None)
    assert [one.row["image"] for one in shown if one.kind == "worst"] == ["label_3"], "all that there is"


def test_with_folds_a_false_lesion_is_one_of_the_fold_that_tests_the_exam(
    table: pd.DataFrame, lesions: pd.DataFrame
) -> None:
    """Each exam is test in one fold and tune in another, with lesions of its own in both."""
    normal = table[table["image"] == "normal"]
    both = pd.concat([normal.assign(fold=0), normal.assign(fold=1, split="tune")])
    own = pd.DataFrame([false("normal", "motion", 0.6, fold=0), false("normal", "metal", 0.9, fold=1)])
    assert [one.lesion["mimic"] for one in choose(both, own) if one.lesion] == ["motion"]


def test_captions_say_type_volume_and_score(table: pd.DataFrame, lesions: pd.DataFrame) -> None:
    said = {(one.kind, one.row["image"]): caption(one) for one in choose(table, lesions)}
    assert said["best", "good"] == "Exam good: subdural; Dice 0.90, measured 2.0 ml; score 0.90, threshold 0.50"
    assert said["missed", "large_miss"] == "Exam large_miss: subdural; score 0.10, threshold 0.50"
    assert said["wrongly_excluded", "lost"].endswith(
        "excluded by head filter (no head CT that can be read for hemorrhage)"
    )
    assert said["false_lesion", "good"] == (
        "Motion, taken for epidural hemorrhage 0.8 ml, score 0.80; exam good, slices 3 to 5"
    )
    assert said["false_lesion", "fair"].startswith("No known look-alike, taken for epidural")


class Truth:
    """A bleed in slices 10 to 12 of every exam."""

    def __init__(self, manifest: Any) -> None:
        pass

    def outlines(self, image: str, volume: Volume) -> Any:
        codes = np.zeros(volume.shape, np.uint8)
        codes[10:13, 20:30, 30:40] = 2
        return codes

    def exam(self, image: str) -> dict[str, float]:
        return {"head_filter": 1.0, "hemorrhage": 1.0} | dict.fromkeys(pictures_volume.TYPES, 0.0) | {"subdural": 1.0}


class Finds:
    """A cascade that calls what lies beside the truth, and takes one exam for no head."""

    def __init__(self, stages: Any) -> None:
        pass

    def run(self, case: Case) -> list[Case | Exclusion]:
        if case.image == "lost":
            return [Exclusion("lost", "", "head_filter", "no_head")]
        numbers = np.zeros(case.shape, np.uint16)
        numbers[10:13, 22:32, 32:42] = 1
        lesion = {"lesion": 1, "type": "epidural", "score": 0.8, "called": 1, "ml": 1.0}
        arrays = {"lesions": numbers, "grid": np.eye(4)}
        return [replace(case, part="head", lesions=[lesion], arrays=arrays, values={"score_hemorrhage": 0.8})]


def test_pictures_are_written_with_captions_under_headings(
    table: pd.DataFrame, lesions: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = np.full((20, 64, 64), AIR, np.int16)
    voxels[:, 8:56, 8:56] = 40
    volume = Volume(voxels, np.diag([3.0, 3.0, 5.0, 1.0]), source_shape=voxels.shape)

    def read(path: Path, limit: int | None) -> Volume:
        if path.name == "bad":
            raise ImageReadError(path, "is no series")
        return volume

    class Films:
        images = table[["image"]]

        def path(self, image: str) -> Path:
            return tmp_path / image

    monkeypatch.setattr(pictures_volume, "HeadTruth", Truth)
    monkeypatch.setattr(pictures_volume, "Cascade", Finds)
    monkeypatch.setattr(pictures_volume, "load_cascade", lambda *_: [])
    monkeypatch.setattr(pictures_volume, "VOLUMES", replace(pictures_volume.VOLUMES, read=read))
    lesions.to_csv(tmp_path / "lesions.csv", index=False)
    write_volume_pictures(tmp_path, table, Films())  # type: ignore[arg-type]
    captions = read_json(tmp_path / "pictures" / "captions.json")
    written = {path.name for path in (tmp_path / "pictures").glob("*.png")}
    assert written == {*captions, "contact_sheet.png"}
    assert "worst_1.png" not in captions, "cannot be read"
    assert captions["worst_2.png"]["group"] == "Bleeds outlined worst, or called for something else"
    for name in ("best_1.png", "false_lesion_2.png"):
        picture = cv2.imread(str(tmp_path / "pictures" / name))
        assert picture is not None
        for color in (TRUE, CALLED):
            assert (np.abs(picture[120:].astype(int) - color) < 30).all(axis=-1).any(), (name, color)

"""Slices of head CT beside controls: AUCs as sklearn's, controls as counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from domainseg.data.manifest import build_manifest
from domainseg.probes import slices
from domainseg.probes.common import ProbeError
from domainseg.probes.slices import AREA, MODEL, PLACE, PRESENCE, inside, judged, page_of, placed


def test_the_inside_of_the_skull_is_what_bone_encloses() -> None:
    picture = np.full((96, 96), 0.3, np.float32)
    assert inside(picture) == 0
    cv2.circle(picture, (48, 48), 40, 1.0, 5)
    y, x = np.mgrid[:96, :96]
    within = np.hypot(y - 48, x - 48) < 40
    assert inside(picture) == pytest.approx((within & (picture < 1)).mean(), rel=0.01)
    cv2.line(picture, (44, 5), (44, 91), 1.0, 3)  # a falx of bone: the larger half
    assert inside(picture) == pytest.approx((within & (picture < 1) & (x > 44)).mean(), rel=0.02)
    picture[40:56, 80:] = 0.3  # the skull is open here: the smaller half is left
    assert inside(picture) == pytest.approx((within & (picture < 1) & (x < 44)).mean(), rel=0.02)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Thirty exams of twenty slices; blood in the middle of every second one, which the model sees half of the time."""
    rng = np.random.default_rng(0)
    rows = []
    for exam in range(30):
        for z in range(20):
            label = float(exam % 2 == 1 and 8 <= z < 13)
            seen = label and rng.random() < 0.5
            rows.append(
                {
                    "image": str(exam), "patient": str(exam), "fold": exam % 3, "age": 3.0 * exam, "slice": z,
                    "place": z / 19, "label": label, "score": rng.normal() + 6 * bool(seen), PRESENCE: label,
                    AREA: 0.5 - abs(z - 10) / 30, "called": exam % 2,
                    "exam_label": float(exam % 2), "exam_score": rng.random() / 2 + 0.5 * (exam % 2),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def of(record: dict[str, Any], name: str, score: str) -> Any:
    (row,) = [row for row in record["rows"] if (row["of"], row["score"]) == (name, score)]
    return row["auc"]


def test_the_place_is_scored_by_the_other_patients(table: pd.DataFrame) -> None:
    found = placed(table)
    # Places lie 1/19 apart: within 0.05 there is only the slice itself, of 29 others 15 or 14 with blood in the middle.
    assert found[10] == pytest.approx(15 / 29)
    assert found[20 + 10] == pytest.approx(14 / 29)
    assert found[0] == 0


def test_aucs_within_folds_and_places(table: pd.DataFrame) -> None:
    record = judged(table)
    pairs = [
        (len(part[part["label"] == 1]) * len(part[part["label"] == 0]), roc_auc_score(part["label"], part["score"]))
        for _, part in table.groupby("fold")
    ]
    weights, values = np.transpose(pairs)
    assert of(record, "slices", MODEL)["value"] == pytest.approx(np.average(values, weights=weights))
    assert of(record, "slices", AREA)["value"] == pytest.approx(roc_auc_score(table["label"], table[AREA]))
    # The controls know where slices are, and nothing between slices of the same place.
    assert of(record, "slices", PLACE)["value"] > 0.8
    assert of(record, "slices of one place", AREA)["value"] < 0.7
    assert 0.6 < of(record, "slices of one place", MODEL)["value"] < 0.9
    assert of(record, "exams", MODEL)["value"] == 1
    assert of(record, "slices", PRESENCE)["value"] == of(record, "exams", PRESENCE)["value"] == 1
    assert of(record, "exams", AREA)["value"] == 0.5
    assert [of(record, f"exams, {age}", MODEL)["n"] for age in slices.AGE_NAMES] == [6, 14, 10]
    assert record["called"] == {"positive": 15, "negative": 0}
    model, place = (of(record, "slices", name)["value"] for name in (MODEL, PLACE))
    assert record["over_place"]["n_clusters"] == 30
    assert record["over_place"]["value"] == pytest.approx(model - place, abs=0.02)  # the place's is over all folds
    page = page_of({**record, "run": "run", "data": "ct", "exams": 30, "not_scored": 1})
    assert "15 with and 0 without" in page.brief[0]
    assert len(page.warnings) == 1


def test_each_exam_is_asked_of_a_cascade_that_has_not_seen_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    images = pd.DataFrame({"image": list("abcde"), "patient": list("abcde"), "path": list("abcde")})
    manifest = build_manifest(images, pd.DataFrame({"image": list("abcde"), "part": "head"}), tmp_path, "five")
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr("domainseg.training.stages.load_cascade", lambda folder, accelerator: [folder.name])
    monkeypatch.setattr(slices, "of_exam", lambda stages, *of: asked.append((stages[0], of[-1])) or [])
    (tmp_path / "splits.csv").write_text("image,split\na,train\nb,tune\nc,test\n")
    list(slices.asked(tmp_path, manifest))
    assert asked == [(tmp_path.name, image) for image in "cde"]
    asked.clear()
    (tmp_path / "splits.csv").write_text("image,split,fold\na,,1\nb,,0\nc,,1\n")
    for fold in "01":
        (tmp_path / "folds" / fold).mkdir(parents=True)
    list(slices.asked(tmp_path, manifest))
    assert asked == [("0", "b"), ("1", "a"), ("1", "c")]


def test_patients_are_numbers_and_joined_as_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two sites that number alike, a group of two numbers: a name does not leave the program."""
    images = pd.DataFrame(
        {"image": list("abcd"), "path": list("abcd"), "patient": ["7", "7", "8", ""], "site": list("ABAA"),
         "group": ["g", "", "g", "h"]}
    )  # fmt: skip
    manifest = build_manifest(images, pd.DataFrame({"image": list("abcd"), "part": "head"}), tmp_path, "four")
    monkeypatch.setattr("domainseg.training.stages.load_cascade", lambda folder, accelerator: [])
    monkeypatch.setattr(slices, "of_exam", lambda *of: [{}])
    (tmp_path / "splits.csv").write_text("image,split\n")
    assert [rows[0]["patient"] for rows in slices.asked(tmp_path, manifest)] == [0, 1, 0, 2]


def test_a_run_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(slices, "films_in_cohort", lambda cfg: None)
    with pytest.raises(ProbeError, match="run=DIR"):
        slices.run({"run": None}, tmp_path)
    with pytest.raises(ProbeError, match="finished run"):
        list(slices.asked(tmp_path, None))  # type: ignore[arg-type]

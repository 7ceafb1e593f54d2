"""The detector's numbers: what is right on tune is found, written down, and travels as plain numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.head import HemorrhageDetector
from domainseg.cascade.stages import Frozen, Stage
from domainseg.imaging.hemorrhage import TYPES
from domainseg.imaging.volume import Volume
from domainseg.training.tuned import FLOOR, Tuned, tune_hemorrhage

SHAPE = (6, 32, 32)
SLABS = [{"op": "slabs", "size": 32, "slices": 3, "thickness": 5}, {"op": "window", "low": 0, "high": 80}]


@dataclass
class Exams:
    """Simulated tune exams: each one's number stands in its voxels, so that the network knows it again.

    speckle: one voxel of false certainty in every exam. halo: the network is sure of a rim around the bleed as well.
    blind: its mask says nothing, its presence head all.
    """

    count: int = 24
    speckle: bool = False
    halo: bool = False
    masks: bool = True
    blind: bool = False
    image: dict[str, int] = field(default_factory=dict)

    def bleed(self, number: int) -> np.ndarray:
        codes = np.zeros(SHAPE, np.uint8)
        if number % 2:
            codes[2:4, 8:14, 8:14] = 1 + number % 3
        return codes

    def exam(self, image: str, volume: Volume | None = None) -> dict[str, float]:
        number = int(image)
        known = {name: float(bool(number % 2) and number % 3 == k) for k, name in enumerate(TYPES)}
        return {"head_filter": 1.0, "hemorrhage": float(number % 2), **known}

    def labels(self, image: str, volume: Volume) -> np.ndarray | None:
        return self.bleed(int(image)) if self.masks else None

    def __iter__(self) -> Iterator[tuple[Case, Any]]:
        for number in range(self.count):
            voxels = np.full(SHAPE, number, np.int16)
            yield Case.of(str(number), Volume(voxels, np.diag([1, 1, 5, 1.0]), source_shape=SHAPE)), self

    def stage(self, boxes: bool = False) -> Stage:
        def network(pictures: np.ndarray) -> dict[str, np.ndarray]:
            number = round(float(pictures[0, 1].mean()) * 80)
            rng = np.random.default_rng(number)
            codes = self.bleed(number)
            mask = np.zeros((SHAPE[0], 6, *SHAPE[1:]), np.float32)
            mask[:, 0] = rng.normal(-6, 0.3, SHAPE)
            where = codes > 0
            if self.halo and where.any():
                mask[2:4, 0, 5:17, 5:17] = 0.6  # probability 0.65
            mask[:, 0][where] = 1.5 + rng.normal(0, 0.3)
            for code in range(1, 6):
                mask[:, code][codes == code] = 4
            if self.speckle:
                mask[1, 0, 25:27, 25:28] = rng.normal(4, 1)
            found = {"mask": mask, "presence": rng.normal(0, 1, (SHAPE[0], 6)).astype(np.float32)}
            if self.blind:
                mask[:, 0] = rng.normal(-1, 1, SHAPE)
                found["presence"][:, 0] = np.where(where.any((1, 2)), 3, -3)
            if boxes:
                found |= {
                    "boxes": np.tile(np.array([8, 8, 14, 14], np.float32), (6, 2, 1)),
                    "scores": np.stack([np.where(where.any((1, 2)), 0.8, 0.01), np.zeros(6)], 1).astype(np.float32),
                    "labels": np.ones((6, 2), np.float32), "types": np.zeros((6, 2, 5), np.float32),
                    "masks": np.full((6, 2, 56, 56), 3, np.float32),
                }  # fmt: skip
            return found

        return Stage("hemorrhage", SLABS, HemorrhageDetector(), network)


def test_nothing_to_gain_leaves_the_simplest_numbers() -> None:
    exams = Exams()
    stage, record = tune_hemorrhage(exams.stage(), exams, "sensitivity_0.95")
    simple = {"level": 0.5, "outline": 0.5, "smallest": 4.0, "presence": 0.0}
    assert {name: getattr(stage.decision, name) for name in simple} == simple
    assert record["exams"] == 24
    assert record["calls"][0]["auc"] == 1
    assert record["calls"][0]["lesion_sensitivity_at_1"] == 1
    json.dumps(record, allow_nan=False)
    settings = {name: value for name, value in asdict(stage.decision).items() if name != "target"}  # type: ignore[call-overload]
    assert all(isinstance(value, float) and np.isfinite(value) for value in settings.values())


def test_specks_of_false_certainty_are_made_too_small() -> None:
    exams = Exams(speckle=True)
    stage, record = tune_hemorrhage(exams.stage(), exams, "sensitivity_0.95")
    assert isinstance(stage.decision, HemorrhageDetector)
    assert stage.decision.smallest > 6
    assert record["calls"][0]["auc"] < 0.8
    chosen = next(entry for entry in record["calls"] if entry["smallest"] == stage.decision.smallest)
    assert chosen["auc"] == 1


def test_outlines_are_drawn_where_they_fit() -> None:
    exams = Exams(halo=True)
    stage, record = tune_hemorrhage(exams.stage(), exams, "sensitivity_0.95")
    assert isinstance(stage.decision, HemorrhageDetector)
    assert stage.decision.outline == 0.7
    assert max(entry["dice"] for entry in record["outlines"]) == pytest.approx(1)


def test_thresholds_of_types_keep_what_the_rule_asks() -> None:
    exams = Exams()
    stage, record = tune_hemorrhage(exams.stage(), exams, "sensitivity_0.95")
    assert isinstance(stage.decision, HemorrhageDetector)
    assert {name for name, entry in record["types"].items() if entry.get("kept") == 1} == set(TYPES[:3])
    none = {"value": 0.5, "rule": "none", "n_positive": 0, "provisional": True}
    assert [record["types"][name] for name in TYPES[3:]] == [none, none]
    assert stage.decision.threshold_epidural < 1
    assert stage.decision.threshold_subarachnoid == 0.5  # none on tune: as it was
    called = stage.decision.thresholds(Frozen())
    assert called["epidural"] == stage.decision.threshold_epidural


def test_thresholds_of_types_count_exams_that_were_lost() -> None:
    """It has found nothing: of 21 with its type 20 can be kept, and of the others it is a negative that is called."""

    class Some(Exams):
        def __iter__(self) -> Iterator[tuple[Case | Exclusion, Any]]:
            yield from super().__iter__()
            yield Exclusion("999", "", "read", "unreadable"), self

    whole = tune_hemorrhage(Exams(count=120).stage(), Exams(count=120), "sensitivity_0.95")[1]["types"]
    some = tune_hemorrhage(Exams(count=120).stage(), Some(count=120), "sensitivity_0.95")[1]["types"]
    own, *others = TYPES[:3]
    assert (whole[own]["n_positive"], whole[own]["kept"]) == (20, 1)
    assert (some[own]["n_positive"], some[own]["kept"]) == (21, pytest.approx(20 / 21))
    assert all(some[name]["n_negative"] == whole[name]["n_negative"] + 1 for name in others)
    assert all(some[name]["specificity"] < whole[name]["specificity"] for name in others)


def test_the_strongest_are_taken_of_those_that_are_large_enough() -> None:
    """More specks than MOST, each surer than the bleed: as served, those below the smallest size are no candidates."""
    exams = Exams()
    stage = exams.stage()
    plain = stage.network

    def network(pictures: np.ndarray) -> dict[str, np.ndarray]:
        found = plain(pictures)
        found["mask"][0, 0, 1::3, 1::3] = 5.0
        return found

    stage, record = tune_hemorrhage(replace(stage, network=network), exams, "sensitivity_0.95")
    assert isinstance(stage.decision, HemorrhageDetector)
    large = next(entry for entry in record["calls"] if (entry["level"], entry["smallest"]) == (0.5, 16.0))
    assert large["lesion_sensitivity_at_1"] == 1


def test_labels_without_masks_tune_the_exam_alone() -> None:
    exams = Exams(masks=False, blind=True)
    stage, record = tune_hemorrhage(exams.stage(), exams, "sensitivity_0.95")
    assert isinstance(stage.decision, HemorrhageDetector)
    assert stage.decision.presence > 0
    chosen = [entry for entry in record["calls"] if entry["presence"] == stage.decision.presence]
    assert max(entry["auc"] for entry in chosen) == 1
    assert "lesion_sensitivity_at_1" not in record["calls"][0]
    assert record["outlines"] == []


def test_boxes_are_tuned_too() -> None:
    exams = Exams(count=12)
    stage, record = tune_hemorrhage(exams.stage(boxes=True), exams, "sensitivity_0.95")
    assert {"box_level", "mask_weight", "presence"} <= set(record["calls"][0])
    assert "smallest" not in record["calls"][0]
    assert isinstance(stage.decision, HemorrhageDetector)


def test_exams_of_one_kind_change_nothing() -> None:
    exams = Exams(count=1)
    stage = exams.stage()
    same, record = tune_hemorrhage(stage, exams, "sensitivity_0.95")
    assert same is stage
    assert "kept" in record


def test_what_is_kept_of_an_exam_gives_the_same_candidates() -> None:
    exams = Exams(speckle=True, halo=True)
    stage = exams.stage()
    detector = HemorrhageDetector(level=2 * FLOOR, presence=0.3, smallest=1.0)
    for case, truth in list(exams)[:4]:
        kept = Tuned.of(replace(stage, decision=detector), case, truth)
        assert kept.kept.nbytes < 40_000
        full = stage.network(np.full((6, 3, *SHAPE[1:]), int(case.image) / 80, np.float32))
        for one, other in zip(
            detector.candidates(kept.full(), (32, 32)), detector.candidates(full, (32, 32)), strict=True
        ):
            assert len(one.z) == len(other.z)
            assert one.logit == pytest.approx(other.logit, abs=0.01)  # kept as float16

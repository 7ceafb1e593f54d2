"""One contract that every stage decision keeps: keys, reasons, scores, thresholds, geometry, columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from domainseg.cascade import stages
from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.findings import Findings
from domainseg.cascade.operations import Sample, preprocess
from domainseg.cascade.rows import film_rows
from domainseg.cascade.stages import (
    ROI_SIZE,
    Decision,
    FractureDetector,
    Frozen,
    ImplantFilter,
    Localizer,
    Stage,
    ViewFilter,
    WholeFilm,
)
from domainseg.cascade.table import prediction_table
from domainseg.imaging import Film
from domainseg.imaging.geometry import inverse, quarter_turns, transform

FIT = [{"op": "fit", "size": 96}]
LOGITS = (-30.0, -2.0, -0.3, 0.0, 0.4, 1.0, 5.0, 30.0)
WORD = re.compile(r"[a-z][a-z0-9_]*")


def made_film() -> Film:
    """A film of 200 x 300 pixels whose value at (x, y) is (x + 2 y) / 1000, so that every resampling can be checked."""
    y, x = np.mgrid[:200, :300]
    return Film(pixels=((x + 2 * y) / 1000).astype(np.float32), spacing=(0.5, 0.5), metadata={"view": "AP"})


def whole_film() -> Case:
    return Case.of("a", made_film())


def one_hip() -> Case:
    return Localizer().roi(whole_film().with_values(score_view_filter=0.9), "hip_right", np.array([150.0, 80.0]), 30.0)


class DecisionContract:
    """Subclasses give a decision, a case as it reaches the stage, and outputs whose logit is what the test asks for."""

    decision: ClassVar[Decision]
    keeps_above: ClassVar[bool] = True
    """Whether cases with score >= threshold go on; False where these are the ones that are excluded."""
    excludes: ClassVar[bool] = True
    names_part: ClassVar[bool] = False
    columns: ClassVar[frozenset[str]] = frozenset()
    """Columns of the prediction table that the stage fills beside its score."""

    def case(self) -> Case:
        raise NotImplementedError

    def outputs(self, logit: float) -> dict[str, np.ndarray[Any, Any]]:
        raise NotImplementedError

    @pytest.fixture
    def sample(self) -> Sample:
        return preprocess(self.case(), FIT)

    def decide(self, logit: float, frozen: Frozen) -> list[Case | Exclusion]:
        case = self.case()
        result = self.decision.decide(case, preprocess(case, FIT), self.outputs(logit), frozen)
        return [result] if isinstance(result, Exclusion) else list(result)

    @pytest.mark.parametrize("logit", LOGITS)
    def test_logit_is_the_networks(self, logit: float) -> None:
        found = self.decision.logits(self.outputs(logit))
        assert set(found) <= {"", "hip_left", "hip_right"}
        assert list(found.values()) == pytest.approx([logit] * len(found), abs=1e-4)

    @pytest.mark.parametrize("logit", LOGITS)
    def test_score_is_the_calibrated_probability(self, logit: float) -> None:
        """Whether the case goes on or not, the score behind that is among its values."""
        frozen = Frozen(threshold=0.4, slope=0.7, intercept=-0.5)
        for result in self.decide(logit, frozen):
            score = result.values[f"score_{self.decision.target}"]
            assert score == pytest.approx(1 / (1 + np.exp(0.5 - 0.7 * logit)), abs=1e-4)
            assert 0 <= score <= 1

    @pytest.mark.parametrize("threshold", [0.03, 0.5, 0.97])
    def test_call_is_score_at_or_above_threshold(self, threshold: float) -> None:
        frozen = Frozen(threshold=threshold, slope=2.0, intercept=-1.0)
        for logit in LOGITS:
            for result in self.decide(logit, frozen):
                above = result.values[f"score_{self.decision.target}"] >= threshold
                excluded = self.excludes and above != self.keeps_above
                assert isinstance(result, Exclusion) == excluded, logit

    def test_a_score_equal_to_the_threshold_is_called(self) -> None:
        logit = next(iter(self.decision.logits(self.outputs(0.3)).values()))
        frozen = Frozen(slope=1.7, intercept=-0.2)
        at = replace(frozen, threshold=frozen.probability(logit))
        for result in self.decide(0.3, at):
            assert isinstance(result, Exclusion) == (self.excludes and not self.keeps_above)

    @pytest.mark.parametrize("threshold", [-1.0, 2.0])
    def test_reasons_and_keys(self, threshold: float) -> None:
        before = self.case()
        results = self.decide(0.0, Frozen(threshold=threshold))
        keys = [(result.image, result.part) for result in results]
        assert len(set(keys)) == len(keys) > 0
        for result in results:
            assert result.image == before.image
            if self.names_part and isinstance(result, Case):
                assert result.part in ("hip_left", "hip_right")
            else:
                assert result.part == before.part
            if isinstance(result, Exclusion):
                assert result.excluded_by == self.decision.target
                assert WORD.fullmatch(result.reason)
            assert before.values.items() <= result.values.items()

    def test_some_threshold_excludes_if_any_does(self) -> None:
        results = [item for threshold in (-1.0, 2.0) for item in self.decide(0.0, Frozen(threshold=threshold))]
        assert any(isinstance(result, Exclusion) for result in results) == self.excludes
        assert any(isinstance(result, Case) for result in results)

    def test_what_comes_in_is_left_as_it_was(self, sample: Sample) -> None:
        case, outputs = self.case(), self.outputs(0.0)
        copies = {name: np.array(value) for name, value in outputs.items()}
        values, pixels, affine = dict(case.values), sample.pixels.copy(), case.affine.copy()
        self.decision.decide(case, sample, outputs, Frozen())
        assert dict(case.values) == values
        np.testing.assert_array_equal(case.affine, affine)
        np.testing.assert_array_equal(sample.pixels, pixels)
        for name, value in copies.items():
            np.testing.assert_array_equal(outputs[name], value)

    def passed(self) -> list[Case]:
        found = self.decide(0.0, Frozen(threshold=-1.0 if self.keeps_above else 2.0))
        return [result for result in found if isinstance(result, Case)]

    def test_frames_map_to_the_source(self) -> None:
        """The next stage's picture shows at each pixel what the source film holds where the affine points."""
        for case in self.passed():
            for size in (33, 96):
                sample = preprocess(case, [{"op": "fit", "size": size}])
                ys, xs = np.mgrid[:size, :size]
                points = transform(sample.affine, np.stack([xs, ys], -1))
                inside = ((points > 12) & (points < np.array([287, 187]))).all(-1)
                assert inside.mean() > 0.3
                expected = (points[..., 0] + 2 * points[..., 1]) / 1000
                np.testing.assert_allclose(sample.pixels[inside], expected[inside], atol=2e-3)
                np.testing.assert_allclose(inverse(sample.affine) @ sample.affine, np.eye(3), atol=1e-9)

    @pytest.mark.parametrize("threshold", [-1.0, 2.0])
    def test_values_become_columns(self, threshold: float) -> None:
        frozen = Frozen(threshold=threshold, slope=1.5, intercept=0.1)
        stage = Stage(self.decision.target, FIT, self.decision, lambda batch: {}, frozen)
        results = self.decide(0.2, frozen)
        table = prediction_table(film_rows("a", made_film(), results, None), [stage])
        assert len(table) == len(results)
        target = self.decision.target
        assert (table[f"threshold_{target}"] == threshold).all()
        for result in results:
            row = table[table["part"] == result.part].iloc[0]
            for name, value in result.values.items():
                assert row[name] == value, name
            excluded = isinstance(result, Exclusion)
            assert (row["excluded_by"], row["exclusion_reason"]) == (
                (result.excluded_by, result.reason) if isinstance(result, Exclusion) else ("", "")
            )
            if not excluded:
                assert self.columns <= set(table)
            assert all(np.ndim(value) == 0 for value in result.values.values())


class TestViewFilter(DecisionContract):
    decision = ViewFilter()

    def case(self) -> Case:
        return whole_film()

    def outputs(self, logit: float) -> dict[str, np.ndarray[Any, Any]]:
        other = np.log(0.5)  # two other classes, together exp(0)
        turn = np.eye(4, dtype=np.float32)[1]
        return {"view": np.array([logit, other, other], np.float32), "turn": turn}

    def test_the_film_stands_upright(self) -> None:
        (case,) = self.passed()
        np.testing.assert_allclose(case.affine, quarter_turns((200, 300), 1))
        assert case.shape == (300, 200)


ROI_COLUMNS = {f"roi_{axis}{k}" for axis in "xy" for k in range(1, 5)}
HIP_COLUMNS = frozenset({"head_x", "head_y", "side", "image_side", "side_source", *ROI_COLUMNS})


class LocalizerContract(DecisionContract):
    decision = Localizer()
    names_part = True
    columns = HIP_COLUMNS

    def case(self) -> Case:
        return whole_film()

    def test_the_roi_in_the_table_is_the_frame(self) -> None:
        for case in self.passed():
            assert case.shape == (ROI_SIZE, ROI_SIZE)
            edge = ROI_SIZE - 0.5
            corners = transform(case.affine, [[-0.5, -0.5], [edge, -0.5], [edge, edge], [-0.5, edge]])
            named = [[case.values[f"roi_x{k}"], case.values[f"roi_y{k}"]] for k in range(1, 5)]
            np.testing.assert_allclose(named, corners, atol=1e-6)
            head = transform(inverse(case.affine), [case.values["head_x"], case.values["head_y"]])
            assert ((head > 0) & (head < ROI_SIZE)).all()

    def test_sides_are_named_as_in_the_picture(self) -> None:
        for case in self.passed():
            assert case.part == f"hip_{case.values['image_side']}"
            assert case.values["side"] in ("L", "R", "unknown")
            assert case.values["side_source"] in ("orientation", "laterality", "assumed", "none")


class TestLocalizerByHeatmaps(LocalizerContract):
    def outputs(self, logit: float) -> dict[str, np.ndarray[Any, Any]]:
        heat = np.full((2, 48, 48), logit - 20, np.float32)
        heat[0, 24, 14], heat[1, 24, 34] = logit, logit
        return {"head": heat, "diameter": np.full((1, 48, 48), np.log(0.1), np.float32)}


class TestLocalizerByRegression(LocalizerContract):
    def outputs(self, logit: float) -> dict[str, np.ndarray[Any, Any]]:
        center = np.array([[0.3, 0.5], [0.7, 0.5]], np.float32)
        presence, diameter = np.full(2, logit, np.float32), np.full(2, np.log(0.1), np.float32)
        return {"presence": presence, "center": center, "diameter": diameter}


class TestImplantFilter(DecisionContract):
    decision = ImplantFilter()
    keeps_above = False
    columns = HIP_COLUMNS

    def case(self) -> Case:
        return one_hip()

    def outputs(self, logit: float) -> dict[str, np.ndarray[Any, Any]]:
        return {"implant": np.array(logit, np.float32)}


class TestFractureDetector(DecisionContract):
    decision = FractureDetector()
    excludes = False
    columns = HIP_COLUMNS | {
        "location", "score_location_none", "score_location_intra", "score_location_extra", "pointing_x", "pointing_y",
    }  # fmt: skip

    def case(self) -> Case:
        return one_hip()

    def outputs(self, logit: float) -> dict[str, np.ndarray[Any, Any]]:
        heat = np.full((3, 3, 3), -5, np.float32)
        heat[0, 1, 2] = 2
        location = np.array([0, 2, 1], np.float32)
        return {"fracture": np.array(logit, np.float32), "location": location, "map": heat}

    @pytest.mark.parametrize("logit", LOGITS)
    def test_a_place_is_named_exactly_when_the_fracture_is_called(self, logit: float) -> None:
        frozen = Frozen(threshold=0.3, slope=2.0, intercept=-1.0)
        (case,) = self.decide(logit, frozen)
        called = case.values["score_fracture"] >= frozen.threshold
        assert case.values["location"] == ("intra" if called else "none")

    def test_a_place_is_named_at_a_score_equal_to_the_threshold(self) -> None:
        logit = self.decision.logits(self.outputs(0.3))[""]
        frozen = Frozen(slope=1.7, intercept=-0.2)
        (case,) = self.decide(0.3, replace(frozen, threshold=frozen.probability(logit)))
        assert case.values["location"] == "intra"

    def test_it_points_into_the_roi(self) -> None:
        (case,) = self.passed()
        at = transform(inverse(case.affine), [case.values["pointing_x"], case.values["pointing_y"]])
        np.testing.assert_allclose(at, [ROI_SIZE * 5 / 6 - 0.5, ROI_SIZE / 2 - 0.5], atol=1e-6)


class TestWholeFilm(DecisionContract):
    decision = WholeFilm()
    excludes = False

    def case(self) -> Case:
        return whole_film()

    def outputs(self, logit: float) -> dict[str, np.ndarray[Any, Any]]:
        return {"fracture": np.array(logit, np.float32)}


class TestFindings(DecisionContract):
    decision = Findings("pneumonia", {"pneumonia": {"base_rate": 0.1}, "mass": {"base_rate": 0.2, "threshold": 0.3}})
    excludes = False
    columns = frozenset({"score_pneumonia", "score_mass"})

    def case(self) -> Case:
        return whole_film()

    def outputs(self, logit: float) -> dict[str, np.ndarray[Any, Any]]:
        cells = np.full((3, 3), logit, np.float32)
        answers = {"pneumonia": np.array(logit, np.float32), "mass": np.array(-logit, np.float32)}
        return {**answers, "map_pneumonia": cells, "map_mass": -cells}


def decisions() -> Mapping[str, type]:
    """The classes of domainseg.cascade.stages that decide."""
    found = {
        name: value for name, value in vars(stages).items() if isinstance(value, type) and hasattr(value, "decide")
    }
    return {
        name: value for name, value in found.items() if value is not Decision and value.__module__ == stages.__name__
    }


def test_every_decision_is_under_the_contract() -> None:
    tested = {type(case.decision) for case in (TestViewFilter, TestLocalizerByHeatmaps, TestLocalizerByRegression)}
    tested |= {type(case.decision) for case in (TestImplantFilter, TestFractureDetector, TestWholeFilm)}
    assert set(decisions().values()) == tested

"""What each stage decides, on outputs whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from domainseg.cascade.cascade import Cascade
from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.operations import preprocess
from domainseg.cascade.stages import FractureDetector, Frozen, ImplantFilter, Localizer, Stage, ViewFilter
from domainseg.imaging import Film
from domainseg.imaging.geometry import inverse, transform

FIT = [{"op": "fit", "size": 160}]


def view_outputs(k: int, turns: int) -> dict[str, np.ndarray]:
    view, turn = np.full(3, -4.0, np.float32), np.full(4, -4.0, np.float32)
    view[k], turn[turns] = 4, 4
    return {"view": view, "turn": turn}


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_view_filter_turns_the_film_upright(film: Film, turns: int) -> None:
    case = Case.of("a", film)
    sample = preprocess(case, FIT)
    (result,) = ViewFilter().decide(case, sample, view_outputs(0, turns), Frozen())  # type: ignore[misc]
    assert isinstance(result, Case)
    pixels, _ = result.sample(result.affine, result.shape)
    np.testing.assert_allclose(pixels, np.rot90(film.pixels, turns), atol=1e-5)


@pytest.mark.parametrize(("k", "reason"), [(1, "other_view_of_hip"), (2, "other_body_part")])
def test_view_filter_says_what_it_took_the_film_for(film: Film, k: int, reason: str) -> None:
    case = Case.of("a", film)
    result = ViewFilter().decide(case, preprocess(case, FIT), view_outputs(k, 0), Frozen())
    assert isinstance(result, Exclusion)
    assert result.reason == reason
    assert 0 <= result.values["score_view_filter"] < 0.5


def head_outputs(points: dict[int, tuple[float, float]], diameter: float) -> dict[str, np.ndarray]:
    """Heatmaps at stride 2 of a 160 px input with Gaussian peaks at ``points`` (input pixels)."""
    heat = np.full((2, 80, 80), -8.0, np.float32)
    ys, xs = np.mgrid[:80, :80]
    for k, (x, y) in points.items():
        distance = (xs - (x - 0.5) / 2) ** 2 + (ys - (y - 0.5) / 2) ** 2
        heat[k] = np.maximum(heat[k], 6 - 1.2 * distance)
    return {"head": heat, "diameter": np.full((1, 80, 80), np.log(diameter / 160), np.float32)}


def test_localizer_finds_heads_to_a_fraction_of_a_map_cell(film: Film) -> None:
    case = Case.of("a", film)
    sample = preprocess(case, FIT)
    truth = {"hip_left": (50.3, 80.8), "hip_right": (110.6, 79.1)}
    outputs = head_outputs({0: truth["hip_left"], 1: truth["hip_right"]}, diameter=20)
    hips = Localizer().decide(case, sample, outputs, Frozen())
    assert not isinstance(hips, Exclusion)
    assert [hip.part for hip in hips] == ["hip_left", "hip_right"]
    for hip in hips:
        expected = transform(sample.affine, truth[hip.part])
        assert np.hypot(*(np.array([hip.values["head_x"], hip.values["head_y"]]) - expected)) < 0.6
        assert hip.values["head_diameter"] == pytest.approx(20 * 300 / 160, rel=1e-4)
    assert [hip.values["side"] for hip in hips] == ["R", "L"]


def test_both_hips_look_alike_in_their_rois(film: Film) -> None:
    """Head at the same place of the ROI, trochanter to the left of it, shaft below: the right hip is mirrored."""
    case = Case.of("a", film)
    hips = {}
    for part, x in (("hip_left", 80.0), ("hip_right", 220.0)):
        hips[part] = Localizer().roi(case, part, np.array([x, 90.0]), 30.0)
    places = {}
    for part, lateral in (("hip_left", -20), ("hip_right", 20)):
        head = np.array([80.0 if part == "hip_left" else 220.0, 90.0])
        points = [head, head + np.array([lateral, 0]), head + np.array([0, 25])]
        places[part] = transform(inverse(hips[part].affine), points)
    np.testing.assert_allclose(places["hip_left"], places["hip_right"], atol=1e-6)
    assert places["hip_left"][1, 0] < places["hip_left"][0, 0]
    assert (places["hip_left"] > 0).all()
    assert (places["hip_left"] < 1023).all()


def test_roi_is_as_large_as_the_head_says_whatever_the_spacing(film: Film) -> None:
    for spacing in ((0.1, 0.1), (0.9, 0.9)):
        case = Case.of("a", replace(film, spacing=spacing))
        hip = Localizer(roi_heads=3.0).roi(case, "hip_left", np.array([100.0, 90.0]), 40.0)
        assert hip.values["roi_x2"] - hip.values["roi_x1"] == pytest.approx(120.0)


def test_one_hip_seen_on_both_sides_is_one_hip(film: Film) -> None:
    case = Case.of("a", film)
    outputs = head_outputs({0: (50, 80), 1: (56, 82)}, 20)
    outputs["head"][1] -= 2
    hips = Localizer().decide(case, preprocess(case, FIT), outputs, Frozen())
    assert not isinstance(hips, Exclusion)
    assert [hip.part for hip in hips] == ["hip_left"]


@pytest.mark.parametrize(("x", "diameter", "side"), [(50.0, 20.0, ("R", "assumed")), (90.0, 40.0, ("L", "laterality"))])
def test_a_tag_speaks_of_a_hip_that_is_alone_in_the_film(
    film: Film, x: float, diameter: float, side: tuple[str, str]
) -> None:
    """Of 160 pixels: the other head lies at 120 and was not found, as a prosthesis is not; or at 230, outside."""
    tagged = replace(film, laterality="L", orientation=None, metadata={"body_part": "HIP", "view": "AP"})
    case = Case.of("a", tagged)
    hips = Localizer().decide(case, preprocess(case, FIT), head_outputs({0: (x, 80)}, diameter), Frozen())
    assert not isinstance(hips, Exclusion)
    assert [(hip.part, hip.values["side"], hip.values["side_source"]) for hip in hips] == [("hip_left", *side)]


def test_localizer_without_a_peak_excludes(film: Film) -> None:
    case = Case.of("a", film)
    result = Localizer().decide(case, preprocess(case, FIT), head_outputs({}, 20), Frozen())
    assert isinstance(result, Exclusion)
    assert result.reason == "no_hip_found"


def test_regression_outputs_give_the_same_hip(film: Film) -> None:
    case = Case.of("a", film)
    sample = preprocess(case, FIT)
    outputs = {
        "presence": np.array([5.0, -5.0], np.float32),
        "center": np.array([[(50.0 + 0.5) / 160, (80.0 + 0.5) / 160], [0.5, 0.5]], np.float32),
        "diameter": np.full(2, np.log(20 / 160), np.float32),
    }
    (hip,) = Localizer().decide(case, sample, outputs, Frozen())  # type: ignore[misc]
    assert isinstance(hip, Case)
    assert hip.part == "hip_left"
    expected = transform(sample.affine, [50.0, 80.0])
    np.testing.assert_allclose([hip.values["head_x"], hip.values["head_y"]], expected, atol=1e-3)


def test_metal_excludes_its_own_side_only(film: Film) -> None:
    def network(batch: np.ndarray) -> dict[str, np.ndarray]:
        return {"implant": np.array([6.0, -6.0], np.float32)[: len(batch)]}

    def locate(batch: np.ndarray) -> dict[str, np.ndarray]:
        one = head_outputs({0: (50, 80), 1: (110, 80)}, 20)
        return {name: value[None] for name, value in one.items()}

    cascade = Cascade(
        [Stage("localizer", FIT, Localizer(), locate), Stage("implant_filter", FIT, ImplantFilter(), network)]
    )
    results = {result.part: result for result in cascade.run(Case.of("a", film))}
    assert isinstance(results["hip_left"], Exclusion)
    assert results["hip_left"].reason == "metal"
    assert isinstance(results["hip_right"], Case)


@pytest.mark.parametrize(("logit", "location"), [(3.0, "extra"), (-3.0, "none")])
def test_location_is_named_where_the_fracture_is_called(film: Film, logit: float, location: str) -> None:
    case = Localizer().roi(Case.of("a", film), "hip_right", np.array([150.0, 90.0]), 40.0)
    sample = preprocess(case, [{"op": "fit", "size": 1024}])
    heat = np.full((3, 32, 32), -5.0, np.float32)
    heat[0, 10, 20] = 4
    outputs = {
        "fracture": np.float32(logit),
        "location": np.array([2.0, 0.0, 1.0], np.float32),
        "map": heat,
    }
    (result,) = FractureDetector().decide(case, sample, outputs, Frozen())  # type: ignore[misc,arg-type]
    assert isinstance(result, Case)
    assert result.values["location"] == location
    assert sum(result.values[f"score_location_{name}"] for name in ("none", "intra", "extra")) == pytest.approx(1)
    pointed = transform(case.affine, [20 * 32 + 15.5, 10 * 32 + 15.5])
    np.testing.assert_allclose([result.values["pointing_x"], result.values["pointing_y"]], pointed, atol=1e-6)


def test_calibration_moves_scores_not_their_order() -> None:
    frozen = Frozen(slope=2.0, intercept=-1.0)
    assert frozen.probability(0.5) == pytest.approx(0.5)
    assert frozen.probability(1e9) == pytest.approx(1)
    assert frozen.probability(-1e9) == pytest.approx(0)

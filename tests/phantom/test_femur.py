from __future__ import annotations

import numpy as np
import pytest

from domainseg.phantom.femur import Femur, Patch, build
from domainseg.phantom.fracture import Fracture, break_femur, draw, gap

PATCH = Patch.of(0.5, 160.0)


def at(image: np.ndarray, u: float, v: float) -> float:
    row = int(np.argmin(np.abs(PATCH.v[:, 0] - v)))
    column = int(np.argmin(np.abs(PATCH.u[0] - u)))
    return float(image[row, column])


def test_the_head_is_a_sphere_of_the_stated_radius() -> None:
    femur = Femur(head=24.0, scale=1.0)
    outer = build(PATCH, femur).outer
    for medial in (0.0, 8.0, 16.0, 22.0):  # away from the neck, only the head is in the beam
        expected = 2 * np.sqrt(24.0**2 - medial**2)
        assert at(outer, -medial, 0.0) == pytest.approx(expected, rel=0.04)
    assert at(outer, -26.0, 0.0) == 0
    assert at(outer, 0.0, -25.5) == 0


def test_the_shaft_is_a_tube_with_dense_walls() -> None:
    femur = Femur(scale=1.0)
    bone = build(PATCH, femur)
    ju, jv = femur.junction
    middle, wall = at(bone.dense, ju + 1.5, jv + 110), at(bone.dense, ju - 9.5, jv + 110)
    assert wall > 1.15 * middle
    assert at(bone.outer, ju + 25, jv + 110) == 0


def test_osteoporosis_thins_bone_and_rotation_shortens_the_neck() -> None:
    assert build(PATCH, Femur(density=0.4, cortex=0.7)).dense.sum() < 0.8 * build(PATCH, Femur()).dense.sum()
    straight, turned = Femur(rotation=0).junction, Femur(rotation=50).junction
    assert turned[0] < 0.7 * straight[0]
    assert turned[1] == straight[1]


@pytest.mark.parametrize("place", ["subcapital", "transcervical", "intertrochanteric", "subtrochanteric"])
def test_the_fragments_part_on_the_right_side(place: str) -> None:
    femur = Femur()
    broken = draw(np.random.default_rng(4), femur, "displaced", place, 1.0)
    u = np.array([[0.0, femur.junction[0]]], np.float32)
    v = np.array([[0.0, femur.junction[1] + 140]], np.float32)
    across = broken.coordinates(u, v)[1][0]
    assert across[0] < 0 < across[1]  # the head is proximal, the shaft distal
    whole, bone = build(PATCH, femur), break_femur(PATCH, femur, broken)[0]
    assert at(bone.outer, -12, 0) == pytest.approx(at(whole.outer, -12, 0), rel=0.05)  # the head stays where it was
    assert np.abs(bone.dense - whole.dense)[PATCH.v[:, 0] > 100].max() > 3  # the shaft does not
    total = (bone.dense.sum() / whole.dense.sum(), 0.75, 1.25)
    assert total[1] < total[0] < total[2]


def test_the_gap_is_as_wide_as_stated() -> None:
    line = Fracture(
        "hairline", "transcervical", np.zeros(2), np.array([0.0, 1.0]), np.zeros(145), (-90.0, 90.0), 0.8, 0.5,
        np.zeros(2), 0.0, 0.0,
    )  # fmt: skip
    u = np.arange(-3, 3, 0.01, dtype=np.float32)[None, :]
    v = np.arange(-20, 20, 0.5, dtype=np.float32)[:, None]
    profile = gap(line, u, v, seed=1).mean(0)
    wide = (profile > profile.max() / 2).sum() * 0.01
    assert wide == pytest.approx(0.8, abs=0.1)
    assert profile[0] < 0.01 * profile.max()


def test_classes_have_their_widths() -> None:
    rng = np.random.default_rng(0)
    for kind, low, high in (("hairline", 0.2, 1.0), ("undisplaced", 1.0, 2.0), ("displaced", 2.0, 60.0)):
        for _ in range(40):
            broken = draw(rng, Femur(), kind, "transcervical", 1.0)
            assert low <= broken.visible_width <= high
            assert kind == "displaced" or broken.displacement < 3

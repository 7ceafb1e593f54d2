"""The patient's side: a picture with a known right hip is mirrored and turned, and must still be told right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from domainseg.imaging import Film, patient_side
from domainseg.imaging.geometry import identity, mirror, quarter_turns

SHAPE = (30, 20)


def film(orientation: tuple[str, str] | None = None, laterality: str | None = None, **metadata: str) -> Film:
    return Film(np.zeros(SHAPE, np.float32), orientation=orientation, laterality=laterality, metadata=metadata)


@pytest.mark.parametrize("view", ["AP", "PA", ""])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_orientation(view: str, turns: int, mirrored: bool) -> None:
    """A film as stored: the standing patient seen from the front (or mirrored), then turned by quarter turns."""
    across, down = ("R" if mirrored else "L"), "F"
    opposite = {"L": "R", "R": "L", "F": "H"}
    # What np.rot90 does to the directions to the right and down.
    stored = [(across, down), (down, opposite[across]), (opposite[across], opposite[down]), (opposite[down], across)]
    turned = film(stored[turns], view=view)
    upright = quarter_turns(SHAPE, -turns)  # turning back by the same number shows the patient upright
    left = "L" if mirrored else "R"
    assert patient_side(turned, upright, "left") == (left, "orientation")
    assert patient_side(turned, upright, "right") == (opposite[left], "orientation")


def test_quarter_turn_table_by_painting() -> None:
    """The directions above, by an independent route: a mark at the patient's right ends up where the side says."""
    picture = np.zeros(SHAPE)
    picture[15, 1] = 1  # the patient's right in a frontal film as hung
    for turns, orientation in enumerate([("L", "F"), ("F", "R"), ("R", "H"), ("H", "L")]):
        stored = np.rot90(picture, turns)
        row, column = np.argwhere(stored)[0]
        height, width = stored.shape
        towards = {
            orientation[0]: column > width * 0.8, orientation[1]: row > height * 0.8,
            {"L": "R", "R": "L", "F": "H", "H": "F"}[orientation[0]]: column < width * 0.2,
            {"L": "R", "R": "L", "F": "H", "H": "F"}[orientation[1]]: row < height * 0.2,
        }  # fmt: skip
        assert towards["R"]


def test_secondary_directions_do_not_matter() -> None:
    assert patient_side(film(("LH", "FP")), identity(), "left") == ("R", "orientation")


@pytest.mark.parametrize("body_part", ["HIP", ""])
@pytest.mark.parametrize("image_side", ["left", "right"])
def test_laterality(body_part: str, image_side: str) -> None:
    assert patient_side(film(laterality="L", body_part=body_part), identity(), image_side) == ("L", "laterality")


def test_orientation_comes_before_laterality() -> None:
    assert patient_side(film(("L", "F"), "L"), identity(), "left") == ("R", "orientation")


def test_laterality_of_a_pelvis_is_that_of_one_hip_only() -> None:
    pelvis = film(laterality="L", body_part="PELVIS")
    assert patient_side(pelvis, identity(), "right") == ("L", "laterality")
    assert patient_side(pelvis, identity(), "left") == ("R", "assumed")


def test_two_hips_of_one_film_never_share_a_tag() -> None:
    hips = film(laterality="L", body_part="HIP")
    assert patient_side(hips, identity(), "right", alone=False) == ("L", "laterality")
    assert patient_side(hips, identity(), "left", alone=False) == ("R", "assumed")


@pytest.mark.parametrize("view", ["", "AP", "PA"])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_viewing_convention(view: str, turns: int) -> None:
    upright = quarter_turns(SHAPE, turns)
    assert patient_side(film(view=view), upright, "left") == ("R", "assumed")
    assert patient_side(film(view=view), upright, "right") == ("L", "assumed")
    assert patient_side(film(view=view), upright @ mirror(SHAPE[1]), "left") == ("L", "assumed")


@pytest.mark.parametrize(
    "settings",
    [
        {"view": "LL"},
        {"view": "LATERAL"},
        {"orientation": ("A", "F")},  # a lateral film
        {"orientation": ("F", "L")},  # lies on its side, but is said to be upright
        {"orientation": ("L", "R")},  # contradicts itself
    ],
)
def test_unknown(settings: dict[str, Any]) -> None:
    assert patient_side(film(**settings), identity(), "left") == ("unknown", "none")


def test_a_laterality_tag_helps_a_lateral_film() -> None:
    assert patient_side(film(("A", "F"), "R", body_part="HIP"), identity(), "left") == ("R", "laterality")


@pytest.mark.parametrize("view", ["antero-posterior", "POSTEROANTERIOR"])
def test_a_view_in_words_is_frontal(view: str) -> None:
    """As ViewCodeSequence says it."""
    assert patient_side(film(view=view), identity(), "left") == ("R", "assumed")


def test_sides_have_names() -> None:
    with pytest.raises(ValueError, match="image_side"):
        patient_side(film(), identity(), "L")


def test_small_rotations() -> None:
    rotation = 0.3
    cos, sin = np.cos(rotation), np.sin(rotation)
    turned: NDArray[np.float64] = np.array([[cos, -sin, 3.0], [sin, cos, -2.0], [0, 0, 1]])
    assert patient_side(film(("L", "F")), turned, "left") == ("R", "orientation")

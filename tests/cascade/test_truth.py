"""What is known of films and hips, and that unknown stays unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from domainseg.cascade.case import Case, roi_corners
from domainseg.cascade.stages import Localizer
from domainseg.cascade.truth import Truth
from domainseg.data.manifest import build_manifest
from domainseg.imaging import Film, ImageReadError
from domainseg.imaging.geometry import inverse, quarter_turns, transform

ROI = np.array([[10.0, 10.0], [50.0, 10.0], [50.0, 50.0], [10.0, 50.0]])
INSIDE, ACROSS, ELSEWHERE = "20 20 30 20 30 30", "45 45 80 45 80 80", "100 100 120 100 120 120"


def truth(*targets: dict[str, Any], root: Path | str = ".") -> Truth:
    """Truth about the images that the targets name, and about one of which nothing is known."""
    names = list(dict.fromkeys([*(row["image"] for row in targets), "blank"]))
    images = pd.DataFrame({"image": names, "patient": names}, dtype=object)
    return Truth(build_manifest(images, pd.DataFrame(list(targets), dtype=object), root, "made"))


def test_unknown_labels_stay_nan() -> None:
    known = truth({"image": "a", "part": "hip_left", "label_localizer": 1, "label_fracture": ""})
    for target in ("localizer", "implant_filter", "fracture"):
        assert np.isnan(known.label(target, "blank", "hip_left"))
        assert np.isnan(known.label(target, "a", "hip_right"))
    assert np.isnan(known.label("fracture", "a", "hip_left"))
    assert known.label("localizer", "a", "hip_left") == 1
    assert np.isnan(known.film("blank")["label_view_filter"])
    assert np.isnan(known.film("blank")["label_turn"])
    assert known.film("blank")["label_view"] == ""
    assert known.part("blank", "hip_left")["label_location"] == ""


def test_a_negative_film_has_two_negative_hips_and_a_positive_one_says_nothing_of_either() -> None:
    known = truth(
        {"image": "none", "part": "whole", "label_fracture": 0},
        {"image": "some", "part": "whole", "label_fracture": 1},
    )
    assert [known.label("fracture", "none", part) for part in ("hip_left", "hip_right")] == [0, 0]
    assert np.isnan([known.label("fracture", "some", part) for part in ("hip_left", "hip_right")]).all()


@pytest.mark.parametrize(("polygon", "expected"), [(INSIDE, 1.0), (ACROSS, 1.0), (ELSEWHERE, np.nan)])
def test_the_hip_whose_roi_meets_the_outline_is_positive(polygon: str, expected: float) -> None:
    known = truth({"image": "a", "part": "whole", "label_fracture": 1, "polygon": polygon})
    np.testing.assert_equal(known.label("fracture", "a", "hip_left", ROI), expected)
    assert np.isnan(known.label("fracture", "a", "hip_left"))  # no ROI, no answer


def test_what_is_known_of_the_hip_goes_before_the_outline() -> None:
    known = truth(
        {"image": "a", "part": "whole", "label_fracture": 1, "polygon": INSIDE},
        {"image": "a", "part": "hip_left", "label_fracture": 0},
    )
    assert known.label("fracture", "a", "hip_left", ROI) == 0
    assert known.label("fracture", "a", "hip_right", ROI) == 1


@pytest.mark.parametrize(
    ("row", "there"),
    [
        ({"label_localizer": 1}, True),
        ({"x": 5, "y": 6}, True),
        ({"label_fracture": 1}, True),
        ({"label_fracture": 0}, True),
        ({"label_implant_filter": 1}, True),
        ({"label_localizer": 0}, False),
        ({"label_localizer": 0, "label_fracture": 0}, False),
        ({"label_fracture": ""}, False),
    ],
)
def test_a_hip_is_known_by_a_label_of_its_own(row: dict[str, Any], there: bool) -> None:
    known = truth({"image": "a", "part": "hip_left", **row})
    assert known.has("a", "hip_left") == there
    assert not known.has("a", "hip_right")
    assert not known.has("blank", "hip_left")


def test_a_hip_with_a_marked_head_is_in_the_film() -> None:
    marks = [{"image": name, "part": "hip_left", "x": 9, "y": 9} for name in "ab"]
    assert truth(*marks).label("localizer", "a", "hip_left") == 1
    known = truth({**marks[0], "label_localizer": ""}, {**marks[1], "label_localizer": 0})
    assert known.label("localizer", "a", "hip_left") == 1
    assert known.label("localizer", "b", "hip_left") == 0
    # Said elsewhere: of the hip in another row, or of the film.
    for other in ({"image": "a", "part": "hip_left", "label_localizer": 0}, {"image": "a", "label_localizer": 0}):
        assert truth(marks[0], {"part": "whole", **other}).label("localizer", "a", "hip_left") == 0


def test_what_one_row_of_a_film_says_another_need_not() -> None:
    rows = [{"image": "a", "part": "whole", "label_view": view} for view in ("", "hip_other")]
    assert truth(*rows).film("a")["label_view"] == "hip_other"


def test_a_label_of_the_film_makes_no_hip() -> None:
    """A negative film of one hip has no second hip."""
    known = truth({"image": "a", "part": "whole", "label_fracture": 0, "label_implant_filter": 0})
    assert not known.has("a", "hip_left")
    assert not known.has("a", "hip_right")


def test_lesions_are_the_hips_own_masks_or_else_the_films_outlines() -> None:
    known = truth(
        {"image": "a", "part": "hip_left", "mask": "one.png", "label_fracture": 1},
        {"image": "a", "part": "hip_left", "mask": "two.png", "label_fracture": 1},
        {"image": "a", "part": "whole", "polygon": INSIDE},
    )
    case = Case("a", Film(np.zeros((4, 4), np.float32)), np.eye(3), (4, 4), part="hip_left")
    assert known.lesions(case) == ["one.png", "two.png"]
    other = Case("a", Film(np.zeros((4, 4), np.float32)), np.eye(3), (4, 4), part="hip_right")
    assert known.lesions(other) == [[[20, 20], [30, 20], [30, 30]]]


@pytest.mark.parametrize("part", ["hip_left", "hip_right"])
@pytest.mark.parametrize("turns", [0, 1])
def test_masks_and_outlines_are_drawn_where_the_film_shows_them(
    film: Film, tmp_path: Path, part: str, turns: int
) -> None:
    """A square of the source, as a mask and as a polygon, covers the ROI pixels that map into it."""
    mask = np.zeros(film.shape, np.uint8)
    mask[95:121, 120:151] = 255
    cv2.imwrite(str(tmp_path / "lesion.png"), mask)
    known = truth({"image": "a", "part": part, "label_fracture": 1, "mask": "lesion.png"}, root=tmp_path)
    whole = Case.of("a", film)
    affine = whole.affine @ quarter_turns(film.shape, turns)
    upright = Case("a", film, affine, film.shape if turns == 0 else film.shape[::-1])
    hip = Localizer().roi(upright, part, np.array([135.0, 100.0]), 30.0)
    shape = (256, 256)
    frame = hip.affine @ np.array([[4, 0, 1.5], [0, 4, 1.5], [0, 0, 1]])
    ys, xs = np.mgrid[:256, :256]
    points = transform(frame, np.stack([xs, ys], -1))
    away = np.maximum(np.abs(points[..., 0] - 135) - 15.5, np.abs(points[..., 1] - 107.5) - 13)  # > 0: outside
    outline = [[119.5, 94.5], [150.5, 94.5], [150.5, 120.5], [119.5, 120.5]]
    for sources in (known.lesions(hip), [outline]):
        drawn = known.draw(sources, frame, shape, film.shape)
        assert drawn[away < -0.6].all()
        assert not drawn[away > 1.0].any()


def test_a_mask_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    known = truth({"image": "a", "part": "hip_left", "mask": "lost.png"}, root=tmp_path)
    with pytest.raises(ImageReadError, match=r"lost\.png"):
        known.draw(["lost.png"], np.eye(3), (8, 8), (8, 8))


@pytest.mark.parametrize("kind", ["16 bits", "palette", "colours", "alpha"])
def test_a_mask_is_what_is_not_0(kind: str, tmp_path: Path) -> None:
    """Label maps of 1 in 16 bits, palettes whose first colours are black, colours in one channel."""
    codes = np.zeros((8, 9), np.uint16)
    codes[2:5, 3:7] = 1
    if kind == "16 bits":
        Image.fromarray(codes).save(tmp_path / "m.png")
    elif kind == "palette":
        picture = Image.fromarray(codes.astype(np.uint8), "P")
        picture.putpalette([0] * 768)
        picture.save(tmp_path / "m.png")
    else:
        channels = np.zeros((8, 9, 4 if kind == "alpha" else 3), np.uint8)
        channels[..., 2] = codes
        if kind == "alpha":
            channels[..., 3] = 255
        Image.fromarray(channels).save(tmp_path / "m.png")
    known = truth({"image": "a", "part": "hip_left", "mask": "m.png"}, root=tmp_path)
    np.testing.assert_array_equal(known.draw(["m.png"], np.eye(3), (8, 9), (8, 9)), codes == 1)
    with pytest.raises(ImageReadError, match="the mask has 9 x 8 pixels, its film 18 x 16"):
        known.draw(["m.png"], np.eye(3), (8, 9), (16, 18))


def test_roi_corners_are_the_outer_corners_of_the_frame(film: Film) -> None:
    hip = Localizer(roi_heads=2.0, lateral=0.0, distal=0.0).roi(
        Case.of("a", film), "hip_left", np.array([100, 90.0]), 30
    )
    np.testing.assert_allclose(roi_corners(hip), [[70, 60], [130, 60], [130, 120], [70, 120]])
    np.testing.assert_allclose(transform(inverse(hip.affine), [100, 90]), [511.5, 511.5])

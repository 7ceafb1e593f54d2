"""Masks of padding and shutters, against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from domainseg.imaging import Film, ImageReadError
from domainseg.imaging.shutters import valid_pixels

Pixels = NDArray[np.uint16]
ROWS, COLUMNS = np.mgrid[1:41, 1:49]  # DICOM counts from 1
RECTANGLE = {
    "ShutterLeftVerticalEdge": 5, "ShutterRightVerticalEdge": 40, "ShutterUpperHorizontalEdge": 3,
    "ShutterLowerHorizontalEdge": 30,
}  # fmt: skip
CIRCLE = {"CenterOfCircularShutter": [20, 24], "RadiusOfCircularShutter": 12}
TRIANGLE = {"VerticesOfThePolygonalShutter": [1, 1, 1, 40, 40, 1]}
INSIDE_RECTANGLE = (COLUMNS >= 5) & (COLUMNS <= 40) & (ROWS >= 3) & (ROWS <= 30)
INSIDE_CIRCLE = (ROWS - 20) ** 2 + (COLUMNS - 24) ** 2 <= 144


def masked(read: Film) -> NDArray[np.bool_]:
    assert read.valid is not None
    assert not read.pixels[~read.valid].any()
    return read.valid


def test_rectangle(film: Callable[..., Film], ramp: Pixels) -> None:
    assert_array_equal(masked(film(ramp, ShutterShape="RECTANGULAR", **RECTANGLE)), INSIDE_RECTANGLE)


def test_circle(film: Callable[..., Film], ramp: Pixels) -> None:
    assert_array_equal(masked(film(ramp, ShutterShape="CIRCULAR", **CIRCLE)), INSIDE_CIRCLE)


def test_polygon(film: Callable[..., Film], ramp: Pixels) -> None:
    assert_array_equal(masked(film(ramp, ShutterShape="POLYGONAL", **TRIANGLE)), ROWS + COLUMNS <= 41)


def test_several_shapes_show_what_is_inside_all(film: Callable[..., Film], ramp: Pixels) -> None:
    read = film(ramp, ShutterShape=["RECTANGULAR", "CIRCULAR"], **RECTANGLE, **CIRCLE)
    assert_array_equal(masked(read), INSIDE_RECTANGLE & INSIDE_CIRCLE)


def test_padding_range_and_inversion(film: Callable[..., Film], ramp: Pixels) -> None:
    read = film(ramp, PixelPaddingValue=4000, PixelPaddingRangeLimit=4095, PhotometricInterpretation="MONOCHROME1")
    assert_array_equal(masked(read), ramp < 4000)
    assert read.pixels[0, 0] == 1


def test_signed_padding(film: Callable[..., Film], ramp: Pixels) -> None:
    signed = (ramp.astype(np.int16) - 1000).astype(np.int16)
    assert_array_equal(masked(film(signed, PixelPaddingValue=-1000)), signed != -1000)


def test_signed_padding_that_was_written_unsigned(ramp: Pixels) -> None:
    signed = (ramp.astype(np.int16) - 1000).astype(np.int16)
    header = Dataset()
    header.add_new("PixelPaddingValue", "US", 65536 - 1000)
    assert_array_equal(valid_pixels(header, signed), signed != -1000)


def test_a_film_without_either_has_no_mask(film: Callable[..., Film], ramp: Pixels) -> None:
    assert film(ramp).valid is None
    assert film(ramp, PixelPaddingValue=4094).valid is None or 4094 in ramp


@pytest.mark.parametrize(
    "tags",
    [
        {"ShutterShape": "RECTANGULAR"},
        {"ShutterShape": "STAR"},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [5, 5], "RadiusOfCircularShutter": 0},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 1, 5, 5]},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [500, 500], "RadiusOfCircularShutter": 3},
        {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4095},
    ],
)
def test_implausible_shutters(film: Callable[..., Film], ramp: Pixels, tags: dict[str, Any]) -> None:
    with pytest.raises(ImageReadError, match=r"shutter|Shutter"):
        film(ramp, **tags)

"""Grey values, against pydicom's own LUT and window functions and closed forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from domainseg.imaging import Film, ImageReadError, read_film
from domainseg.imaging.windows import Window

Pixels = NDArray[np.uint16]


def table(first: int, entries: list[int], bits: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item["LUTDescriptor"].VR = "US"
    item.add_new("LUTData", "US", entries)
    return item


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("slope", "intercept"), [(None, None), (2.0, -1000.0), (-0.5, 300.5)])
def test_windows_agree_with_pydicom(
    write: Callable[..., Any], ramp: Pixels, function: str | None, slope: float | None, intercept: float | None
) -> None:
    center = 1000.0 if slope is None else 1000 * slope + float(intercept or 0)
    tags: dict[str, Any] = {"WindowCenter": center, "WindowWidth": 801.0}
    tags |= {"VOILUTFunction": function} if function else {}
    tags |= {"RescaleSlope": slope, "RescaleIntercept": intercept} if slope is not None else {}
    path = write(ramp, **tags)
    dataset = pydicom.dcmread(path)
    measured = apply_modality_lut(ramp, dataset)
    windowed = apply_voi_lut(measured.astype(np.float64), dataset)
    # pydicom scales to what the stored values 0 and 4095 become after the modality transform.
    low, high = (stored * (slope or 1) + (intercept or 0) for stored in (0, 4095))
    assert_allclose(read_film(path).pixels, (windowed - low) / (high - low), atol=1e-5)


def test_linear_window_at_its_edges() -> None:
    # The example of DICOM PS3.3 C.11.2.1.2.1: centre 2048, width 4096 maps 0 to 0 and 4095 to 1.
    values = np.array([0.0, 2047.5, 4095.0])
    assert_allclose(Window(2048, 4096)(values), [0, 0.5, 1], atol=1e-12)
    assert_array_equal(Window(100, 1)(np.array([99.0, 99.5, 100.0])), [0, 0, 1])
    assert_allclose(Window(100, 10, "LINEAR_EXACT")(np.array([95.0, 100.0, 105.0])), [0, 0.5, 1])
    assert_allclose(Window(100, 10, "SIGMOID")(np.array([-1e9, 100.0, 1e9])), [0, 0.5, 1], atol=1e-12)


def test_first_of_several_windows(film: Callable[..., Film], ramp: Pixels) -> None:
    several = film(ramp, WindowCenter=[2000, 50], WindowWidth=[3000, 10])
    assert_array_equal(several.pixels, film(ramp, WindowCenter=2000, WindowWidth=3000).pixels)


def test_voi_lut_comes_before_the_window(write: Callable[..., Any], ramp: Pixels) -> None:
    entries = [int(1023 * (index / 99) ** 2) for index in range(100)]
    path = write(ramp, VOILUTSequence=[table(1500, entries, 10)], WindowCenter=10, WindowWidth=5)
    truth = apply_voi_lut(ramp, pydicom.dcmread(path)) / 1023
    assert_allclose(read_film(path).pixels, truth, atol=1e-6)


def test_modality_lut(write: Callable[..., Any], ramp: Pixels) -> None:
    entries = list(range(4095, -1, -1))
    path = write(ramp, ModalityLUTSequence=[table(0, entries, 16)], WindowCenter=2048, WindowWidth=4096)
    assert_allclose(read_film(path).pixels, apply_modality_lut(ramp, pydicom.dcmread(path)) / 4095, atol=1e-6)


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", True),
    ],
)
def test_one_inversion_at_most(
    film: Callable[..., Film], ramp: Pixels, photometric: str, shape: str | None, inverted: bool
) -> None:
    tags = {"PresentationLUTShape": shape} if shape else {}
    pixels = film(ramp, PhotometricInterpretation=photometric, **tags).pixels
    assert pixels[0, 0] == inverted
    assert pixels[-1, -1] == (not inverted)


def test_without_a_window_the_valid_range_is_stretched(film: Callable[..., Film], ramp: Pixels) -> None:
    pixels = (ramp // 4 + 500).astype(np.uint16)
    pixels[:, :5] = 4095
    read = film(pixels, PixelPaddingValue=4095)
    assert read.valid is not None
    assert_array_equal(read.valid, pixels != 4095)
    assert_array_equal(read.pixels[~read.valid], 0)
    inside = pixels[read.valid].astype(float)
    assert_allclose(read.pixels[read.valid], (inside - inside.min()) / np.ptp(inside), atol=1e-6)


def test_signed_pixels(film: Callable[..., Film], ramp: Pixels) -> None:
    signed = (ramp.astype(np.int16) - 2048).astype(np.int16)
    assert_allclose(film(signed).pixels, ramp / 4095, atol=1e-6)


def test_eight_bits(film: Callable[..., Film], ramp: Pixels) -> None:
    eight = (ramp >> 4).astype(np.uint8)
    assert_allclose(film(eight, WindowCenter=128, WindowWidth=256).pixels, eight / 255, atol=1e-6)


def test_a_blank_film_is_read(film: Callable[..., Film]) -> None:
    assert_array_equal(film(np.full((10, 12), 7, np.uint16)).pixels, 0)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"WindowCenter": 20000, "WindowWidth": 10}, "one grey"),
        ({"WindowCenter": 20}, "only one of WindowCenter"),
        ({"WindowCenter": 20, "WindowWidth": 0}, "too small"),
        ({"WindowCenter": 20, "WindowWidth": 10, "VOILUTFunction": "CUBIC"}, "VOILUTFunction"),
        ({"RescaleSlope": 2}, "only one of RescaleSlope"),
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "implausible"),
        ({"PresentationLUTShape": "LOG"}, "PresentationLUTShape"),
        ({"VOILUTSequence": [table(0, [0, 5000], 12)]}, "does not hold"),
    ],
)
def test_implausible_settings(film: Callable[..., Film], ramp: Pixels, tags: dict[str, Any], reason: str) -> None:
    with pytest.raises(ImageReadError, match=reason):
        film(ramp, **tags)

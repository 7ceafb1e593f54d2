"""Affines against what numpy and OpenCV do to pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from domainseg.imaging.geometry import identity, mirror, quarter_turns, resize, square, step, transform, warp

SHAPES = st.tuples(st.integers(2, 40), st.integers(2, 40))


def points(shape: tuple[int, int]) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.stack([columns.ravel(), rows.ravel()], axis=1)


@given(SHAPES, st.integers(-4, 7))
@settings(deadline=None, max_examples=60)
def test_quarter_turns_are_those_of_numpy(shape: tuple[int, int], turns: int) -> None:
    image = np.arange(shape[0] * shape[1]).reshape(shape)
    turned = np.rot90(image, turns)
    at = points(turned.shape)
    source = transform(quarter_turns(shape, turns), at).astype(int)
    assert_array_equal(turned[at[:, 1], at[:, 0]], image[source[:, 1], source[:, 0]])
    warped = warp(image.astype(np.float32), quarter_turns(shape, turns), turned.shape)
    assert_array_equal(warped, turned)


@given(SHAPES)
@settings(deadline=None, max_examples=30)
def test_mirror(shape: tuple[int, int]) -> None:
    image = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
    assert_array_equal(warp(image, mirror(shape[1]), shape), image[:, ::-1])
    assert_allclose(mirror(shape[1]) @ mirror(shape[1]), identity())


@given(SHAPES, SHAPES, st.integers(0, 3), st.floats(2, 50), st.integers(4, 64), st.booleans())
@settings(deadline=None, max_examples=60)
def test_chains_compose_and_invert(
    shape: tuple[int, int], new: tuple[int, int], turns: int, side: float, size: int, mirrored: bool
) -> None:
    chain = resize(shape, new) @ quarter_turns(new, turns) @ square((3.5, 4.25), side, size, mirrored=mirrored)
    at = points((3, 3)) * 7.5
    one_by_one = transform(square((3.5, 4.25), side, size, mirrored=mirrored), at)
    one_by_one = transform(resize(shape, new), transform(quarter_turns(new, turns), one_by_one))
    assert_allclose(transform(chain, at), one_by_one, atol=1e-9)
    assert_allclose(transform(np.linalg.inv(chain), transform(chain, at)), at, atol=1e-6)
    scale = np.sqrt(shape[0] / new[0] * shape[1] / new[1]) * side / size
    assert step(chain) == pytest.approx(scale)


def test_resize_keeps_the_corners_of_the_area() -> None:
    # The outer edge of the first pixel, half a pixel before its centre, is the outer edge in both frames.
    affine = resize((100, 60), (25, 20))
    assert_allclose(transform(affine, [[-0.5, -0.5], [19.5, 24.5]]), [[-0.5, -0.5], [59.5, 99.5]])


def test_square_is_where_it_should_be() -> None:
    affine = square((50, 30), side=20, size=40)
    assert_allclose(transform(affine, [[-0.5, -0.5], [39.5, 39.5], [19.5, 19.5]]), [[40, 20], [60, 40], [50, 30]])
    flipped = square((50, 30), side=20, size=40, mirrored=True)
    assert_allclose(transform(flipped, [[-0.5, -0.5]]), [[60, 20]])


@pytest.mark.parametrize("factor", [2, 3, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_reduction_by_a_whole_factor_is_area_averaging(factor: int, dtype: type) -> None:
    image = (np.random.default_rng(3).random((30, 45)) * 200).astype(dtype)[: 30 // factor * factor]
    shape = (image.shape[0] // factor, image.shape[1] // factor)
    image = np.ascontiguousarray(image[:, : shape[1] * factor])
    expected = cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA)
    assert_allclose(
        warp(image, resize(image.shape, shape), shape).astype(float),
        expected,
        atol=1.0 if dtype != np.float32 else 1e-3,
    )


def test_reduction_does_not_alias() -> None:
    stripes = np.tile(np.array([0.0, 1.0], np.float32), (64, 32))
    reduced = warp(stripes, resize(stripes.shape, (20, 20)), (20, 20))
    assert_allclose(reduced[2:-2, 2:-2], 0.5, atol=0.15)


def test_a_linear_picture_stays_linear() -> None:
    rows, columns = np.mgrid[:80, :100].astype(np.float32)
    picture = 2 * columns + rows
    affine = square((50, 40), side=33, size=24)
    source = transform(affine, points((24, 24)))
    expected = (2 * source[:, 0] + source[:, 1]).reshape(24, 24)
    assert_allclose(warp(picture, affine, (24, 24)), expected, atol=0.25)  # a tenth of a pixel


def test_outside_is_filled_and_masks_stay_masks() -> None:
    picture = np.ones((20, 20), np.float32)
    cropped = warp(picture, square((0, 0), side=20, size=20), (20, 20), fill=0.25)
    assert cropped[0, 0] == 0.25
    assert cropped[-1, -1] == 1
    mask = warp(picture > 0, square((0, 0), side=20, size=20), (20, 20))
    assert mask.dtype == np.bool_
    assert mask[15:, 15:].all()
    assert not mask[:5].any()

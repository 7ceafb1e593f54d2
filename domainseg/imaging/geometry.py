"""Affines between pixel frames, and the one resampler that training and serving share.

An affine is a float64 3x3 matrix that maps (x, y, 1) of one frame to (x, y, 1) of another; x runs along columns,
y along rows, and a pixel's centre has whole-number coordinates. ``case.affine`` always maps the frame at hand to
the untouched source, so a chain of crops, turns and resizes is a product of matrices and any point can be drawn
on the source film.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Affine = NDArray[np.float64]
Array = NDArray[Any]


def identity() -> Affine:
    """The affine that changes nothing."""
    return np.eye(3)


def resize(shape: Sequence[int], new_shape: Sequence[int]) -> Affine:
    """From pixels of ``new_shape`` (height, width) to pixels of ``shape``, both covering the same area."""
    sy, sx = shape[0] / new_shape[0], shape[1] / new_shape[1]
    return np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])


def quarter_turns(shape: Sequence[int], turns: int) -> Affine:
    """From pixels of ``np.rot90(image, turns)`` to pixels of ``image`` with ``shape`` (height, width)."""
    height, width = int(shape[0]), int(shape[1])
    return {
        0: np.eye(3),
        1: np.array([[0, -1, width - 1], [1, 0, 0], [0, 0, 1]], dtype=float),
        2: np.array([[-1, 0, width - 1], [0, -1, height - 1], [0, 0, 1]], dtype=float),
        3: np.array([[0, 1, 0], [-1, 0, height - 1], [0, 0, 1]], dtype=float),
    }[turns % 4]


def mirror(width: int) -> Affine:
    """From pixels of the left-right mirrored picture to pixels of the picture, ``width`` pixels wide."""
    return np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]], dtype=float)


def square(center: ArrayLike, side: float, size: int, *, mirrored: bool = False) -> Affine:
    """From pixels of a ``size`` x ``size`` crop to the frame with a square of ``side`` pixels around ``center``."""
    x, y = np.asarray(center, dtype=float)
    step = side / size
    affine = np.array([[step, 0, x - step * (size - 1) / 2], [0, step, y - step * (size - 1) / 2], [0, 0, 1]])
    return affine @ mirror(size) if mirrored else affine


def inverse(affine: Affine) -> Affine:
    """The affine back."""
    return np.asarray(np.linalg.inv(affine), dtype=np.float64)


def transform(affine: Affine, points: ArrayLike) -> NDArray[np.float64]:
    """Map points [..., 2] as (x, y) through an affine."""
    points = np.asarray(points, dtype=float)
    mapped = points @ affine[:2, :2].T + affine[:2, 2]
    return np.asarray(mapped, dtype=np.float64)


def step(affine: Affine) -> float:
    """Pixels of the target frame that one pixel of the source frame of the affine spans (geometric mean)."""
    return float(np.sqrt(abs(np.linalg.det(affine[:2, :2]))))


def warp(image: Array, affine: Affine, shape: Sequence[int], *, fill: float = 0.0) -> Array:
    """Resample ``image`` [H, W] onto a frame of ``shape`` (height, width); ``affine`` maps that frame to the image.

    Reductions are anti-aliased: the image is first shrunk with area averaging by the factor that the affine spans,
    then interpolated linearly. Outside the image the value is ``fill``. Keeps the dtype (uint8, uint16 or
    float32; bool is returned as bool, by majority).
    """
    if image.dtype == np.bool_:
        return np.asarray(warp(image.astype(np.float32), affine, shape) >= 0.5)
    height, width = int(shape[0]), int(shape[1])
    span = step(affine)
    if span > 1.05:
        reduced = (max(1, round(image.shape[0] / span)), max(1, round(image.shape[1] / span)))
        small = cv2.resize(image, (reduced[1], reduced[0]), interpolation=cv2.INTER_AREA)
        affine = inverse(resize(image.shape, reduced)) @ affine
    else:
        small = np.ascontiguousarray(image)
    return cv2.warpAffine(
        small,
        affine[:2],
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )

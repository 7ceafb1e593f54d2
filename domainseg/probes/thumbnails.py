"""Which pictures are nearly the same: small pictures with local contrast, and a search among all pairs by blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 48  # pixels of a small picture
SIGMA = 3.0  # of the Gaussian that local means and contrasts are taken with, in these pixels
FLOOR = 0.02  # contrast below this is noise
BASIS = 128  # directions that are compared first
SAMPLE = 1024  # films that these are found from
BLOCK = 2048  # films compared at once with as many

Unit = NDArray[np.float32]


def thumbnail(pixels: NDArray[Any]) -> Unit:
    """A film [H, W] in 0..1 as a unit vector [SIDE * SIDE]: local contrast of the small picture, mean 0; 0 if flat.

    What does not matter to it: size, compression, noise, and what changes grey values smoothly.
    """
    small = cv2.resize(np.asarray(pixels, np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    contrast = small - _blurred(small)
    contrast /= np.sqrt(_blurred(contrast**2)) + FLOOR
    contrast -= contrast.mean()
    length = float(np.linalg.norm(contrast))
    return np.asarray(contrast / length if length > 1e-6 else np.zeros_like(contrast), np.float32).ravel()


def mirrored(units: NDArray[Any]) -> NDArray[Any]:
    """The thumbnails [n, SIDE * SIDE] of the left-right mirrored films."""
    return units.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(len(units), -1)


def near_pairs(units: NDArray[Any], level: float, *, mirror: bool = False) -> Iterator[tuple[int, int, float]]:
    """All pairs (i, j, correlation) with i < j whose correlation is ``level`` or more, none missed.

    units: thumbnails [n, d], float16 or float32. mirror: j is compared as its mirror image. Compared first in BASIS
    directions: what lies outside of them adds at most the product of both lengths there, so that only pairs that may
    reach the level are compared in full. Memory beside ``units``: n x BASIS numbers and one block.
    """
    basis = _basis(units)
    ours, outside = _projected(units, basis, mirror=False)
    theirs, beyond = _projected(units, basis, mirror=True) if mirror else (ours, outside)
    for first in range(0, len(units), BLOCK):
        rows = slice(first, first + BLOCK)
        for second in range(first, len(units), BLOCK):
            columns = slice(second, second + BLOCK)
            most = ours[rows] @ theirs[columns].T
            most += outside[rows, None] * beyond[None, columns]
            i, j = np.nonzero(most >= level - 1e-3)  # float16 rounds
            i, j = i + first, j + second
            keep = i < j
            yield from _compared(units, i[keep], j[keep], level, mirror)


def _compared(
    units: NDArray[Any], i: NDArray[np.intp], j: NDArray[np.intp], level: float, mirror: bool
) -> Iterator[tuple[int, int, float]]:
    for start in range(0, len(i), BLOCK):
        a, b = i[start : start + BLOCK], j[start : start + BLOCK]
        other = mirrored(units[b]) if mirror else units[b]
        found = np.einsum("nd,nd->n", units[a].astype(np.float32), other.astype(np.float32))
        for k in np.flatnonzero(found >= level):
            yield int(a[k]), int(b[k]), float(found[k])


def _basis(units: NDArray[Any]) -> Unit:
    """Orthonormal directions [d, BASIS or fewer] in which films differ most."""
    sample = units[np.linspace(0, len(units) - 1, min(SAMPLE, len(units))).astype(int)].astype(np.float32)
    _, _, directions = np.linalg.svd(sample, full_matrices=False)
    return np.asarray(directions[:BASIS].T, np.float32)


def _projected(units: NDArray[Any], basis: Unit, *, mirror: bool) -> tuple[Unit, Unit]:
    """Coordinates [n, k] of thumbnails, or their mirror images, in the basis; length of what is outside of it [n]."""
    inside = np.empty((len(units), basis.shape[1]), np.float32)
    rest = np.empty(len(units), np.float32)
    for start in range(0, len(units), BLOCK):
        part = units[start : start + BLOCK].astype(np.float32)
        part = mirrored(part) if mirror else part
        inside[start : start + BLOCK] = part @ basis
        length = np.einsum("nd,nd->n", part, part) - (inside[start : start + BLOCK] ** 2).sum(axis=1)
        rest[start : start + BLOCK] = np.sqrt(np.maximum(length, 0))
    return inside, rest


def _blurred(picture: NDArray[Any]) -> NDArray[Any]:
    return cv2.GaussianBlur(picture, (0, 0), SIGMA, borderType=cv2.BORDER_REFLECT)

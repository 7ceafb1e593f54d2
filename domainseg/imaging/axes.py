"""The axes of a stored array and those of a Volume: turned by flips and permutations only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.imaging.dicom import Refusal
from domainseg.imaging.geometry import Affine

_COARSEST = 3.5  # mm between pixels of the axial plane, our choice: thick sagittal or coronal slices are no volume

Axes = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def axes_of(affine: Affine) -> Axes:
    """For each of x (patient's left), y (back), z (head) the stored axis that runs most along it, and its direction.

    affine: 4x4 from stored (i, j, k) to LPS millimetres. Of the six orders the one with the largest product of
    direction cosines.
    """
    steps = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    best = max(permutations(range(3)), key=lambda order: float(abs(np.prod(steps[[0, 1, 2], order]))))
    x, y, z = ((stored, 1 if steps[axis, stored] >= 0 else -1) for axis, stored in enumerate(best))
    return x, y, z


def turned_shape(shape: Sequence[int], axes: Axes) -> tuple[int, int, int]:
    """Shape (z, y, x) of a Volume whose stored array has ``shape`` (k, j, i)."""
    x, y, z = (int(shape[2 - stored]) for stored, _ in axes)
    return z, y, x


def turned_affine(affine: Affine, shape: Sequence[int], axes: Axes) -> Affine:
    """From (x, y, z) of the Volume to millimetres; ``affine`` does so for stored (i, j, k), ``shape`` is (k, j, i).

    Raises Refusal when the axial plane is too coarse to be read.
    """
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for axis, (stored, direction) in enumerate(axes):
        turn[stored, axis] = direction
        if direction < 0:
            turn[stored, 3] = shape[2 - stored] - 1
    turned = np.asarray(affine @ turn, np.float64)
    coarse = float(np.linalg.norm(turned[:3, :2], axis=0).max())
    if coarse > _COARSEST:
        raise Refusal(
            f"its axial plane has pixels of {coarse:.1f} mm (at most {_COARSEST:g}): thick slices that are not axial; "
            "export the axial series"
        )
    return turned


def stored_view(voxels: NDArray[Any], axes: Axes) -> NDArray[Any]:
    """A view of voxels [z, y, x] in the order of the stored array, [k, j, i]: what is written there is turned."""
    placed = voxels.transpose(2, 1, 0)
    for axis, (_, direction) in enumerate(axes):
        if direction < 0:
            placed = np.flip(placed, axis)
    order = np.argsort([stored for stored, _ in axes])
    return placed.transpose(order).transpose(2, 1, 0)

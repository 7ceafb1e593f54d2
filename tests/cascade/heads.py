"""Heads made by hand: what a test can read the answer off."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domainseg.imaging.volume import AIR, Volume

SPACING = (2.0, 2.0, 5.0)  # mm
SHAPE = (40, 128, 128)


def positions(shape: tuple[int, int, int] = SHAPE) -> tuple[NDArray[np.float64], ...]:
    """z, y, x in mm from the middle of the volume's floor."""
    z, y, x = np.indices(shape, dtype=float)
    sx, sy, sz = SPACING
    return z * sz, (y - (shape[1] - 1) / 2) * sy, (x - (shape[2] - 1) / 2) * sx


def head(
    *, centre: tuple[float, float, float] = (100.0, 0.0, 0.0), axes: tuple[float, float, float] = (80.0, 95.0, 75.0),
    rest: bool = False, shoulders: bool = False, tilt: float = 0.0,
) -> Volume:  # fmt: skip
    """An ellipsoid of brain (30 HU) in bone (1000 HU) around ``centre`` (z, y, x, mm) with half axes ``axes``.

    rest: a shell of plastic under it. shoulders: a wide body below it. tilt: shear of y along z, in mm a mm.
    """
    z, y, x = positions()
    r = ((z - centre[0]) / axes[0]) ** 2 + ((y - centre[1]) / axes[1]) ** 2 + ((x - centre[2]) / axes[2]) ** 2
    voxels = np.full(SHAPE, AIR, np.int16)
    if shoulders:
        voxels[(z < centre[0] - 0.95 * axes[0]) & (np.abs(y) < 60)] = 40
    if rest:
        around = np.hypot(y - centre[1], x - centre[2])
        voxels[(np.abs(around - 108) < 4) & (y > 0)] = 60
    voxels[r < 1] = 1000
    voxels[r < 0.88] = 30
    affine = np.diag([*SPACING, 1.0])
    affine[1, 2] = tilt * SPACING[2]
    affine[:3, 3] = (-120, -110, 7)
    return Volume(voxels=voxels, affine=affine, source_shape=SHAPE)

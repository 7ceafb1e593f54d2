"""Pictures of a volume for two-dimensional networks: slabs of neighbouring slices in windows, and projections.

A slab answers for its middle slice. Slices lie on a grid of about ``thickness`` millimetres: thin ones are averaged in
whole groups, so that each source slice belongs to one slice of the grid and masks go back without interpolation. In
plane the case's frame is fitted into a square.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.cascade.case import Case
from domainseg.imaging.geometry import Affine, warp
from domainseg.imaging.volume import AIR, Volume

Pixels = NDArray[np.float32]
Settings = Sequence[Mapping[str, Any]]
PROJECTIONS = 6  # channels of ``projections``
SOFT, BONE = (-20.0, 100.0), (100.0, 1000.0)  # HU of the windows that projections are made of
THICK, FIELD = 5.0, 250.0  # mm: slices of projections; side of an exported picture of a head (our choice)


def window(voxels: NDArray[Any], *, low: float, high: float) -> Pixels:
    """HU to 0..1 between ``low`` and ``high``, clipped."""
    scaled = (voxels.astype(np.float32, copy=False) - np.float32(low)) / np.float32(high - low)
    return np.clip(scaled, 0, 1, out=scaled)


# What may follow ``slabs``: each adds one channel a slice. Name -> (version, function).
OPERATIONS: dict[str, tuple[int, Callable[..., Pixels]]] = {"window": (1, window)}


def grid(case: Case, size: int, thickness: float) -> tuple[Pixels, Affine]:
    """HU of a case's frame on the grid of its slabs, float32 [Z, size, size]; 4x4 from (x, y, z) there to voxels.

    Z is the frame's depth over the slices that are averaged: the nearest whole number to ``thickness`` over their
    distance, 1 where that is unknown. AIR outside the volume.
    """
    volume = case.film
    assert isinstance(volume, Volume)
    depth = case.shape[0]
    count = group_size(volume, thickness)
    affine = _affine(case, size, count)
    plane = _plane(case, size)
    first = round(float(case.affine[2, 3]))
    slices = []
    for start in range(first, first + depth, count):
        members = [z for z in range(start, min(start + count, first + depth)) if 0 <= z < volume.shape[0]]
        mean = volume.voxels[members].mean(axis=0, dtype=np.float32) if members else None
        slices.append(
            np.full((size, size), AIR, np.float32) if mean is None else warp(mean, plane, (size, size), fill=AIR)
        )
    return np.stack(slices), affine


def _affine(case: Case, size: int, count: int) -> Affine:
    """4x4 from (x, y, z) of the grid to voxels; in plane the frame is fitted into the square, never turned."""
    _, height, width = case.shape
    scale = max(height, width) / size
    fitted = np.eye(4)
    fitted[0, 0] = fitted[1, 1] = scale
    fitted[:2, 3] = [(side - 1) / 2 - scale * (size - 1) / 2 for side in (width, height)]
    fitted[2, 2], fitted[2, 3] = count, (count - 1) / 2
    return np.asarray(case.affine @ fitted, np.float64)


def _plane(case: Case, size: int) -> Affine:
    """3x3 from pixels of a slice of the grid to those of a slice of the volume."""
    return _affine(case, size, 1)[np.ix_([0, 1, 3], [0, 1, 3])]


def on_grid(case: Case, labels: NDArray[np.uint8], size: int, thickness: float) -> NDArray[np.uint8]:
    """Codes [z, y, x] of a volume on the grid of its slabs, uint8 [Z, size, size].

    A voxel of the grid is labelled when at least half of what it covers is, with the code that covers most of it.
    """
    volume = case.film
    assert isinstance(volume, Volume)
    count = group_size(volume, thickness)
    plane, first = _plane(case, size), round(float(case.affine[2, 3]))
    drawn = []
    for start in range(first, first + case.shape[0], count):
        members = [z for z in range(start, min(start + count, first + case.shape[0])) if 0 <= z < volume.shape[0]]
        found = np.zeros((size, size), np.uint8)
        codes = [int(code) for code in np.unique(labels[members]) if code] if members else []
        if codes:
            shares = [
                warp((labels[members] == code).mean(axis=0, dtype=np.float32), plane, (size, size)) for code in codes
            ]
            most = np.array(codes, np.uint8)[np.argmax(shares, axis=0)]
            found = np.where(np.sum(shares, axis=0) >= 0.5, most, 0).astype(np.uint8)
        drawn.append(found)
    return np.stack(drawn)


def slices_on_grid(case: Case, known: NDArray[np.float64], thickness: float) -> NDArray[np.float64]:
    """Labels [z, n] of a volume's slices (1, 0 or NaN) on the grid of its slabs, [Z, n].

    1 where any slice that is averaged has 1, 0 where all have 0, else NaN.
    """
    volume = case.film
    assert isinstance(volume, Volume)
    count, first = group_size(volume, thickness), round(float(case.affine[2, 3]))
    found = []
    for start in range(first, first + case.shape[0], count):
        members = [z for z in range(start, min(start + count, first + case.shape[0])) if 0 <= z < volume.shape[0]]
        rows = known[members]
        found.append(np.where((rows == 1).any(axis=0), 1.0, np.where((rows == 0).all(axis=0), 0.0, np.nan)))
    return np.stack(found)


def group_size(volume: Volume, thickness: float) -> int:
    """How many slices are averaged to reach about ``thickness`` millimetres."""
    return 1 if volume.spacing is None else max(1, round(thickness / volume.spacing[2]))


def neighbours(depth: int, slices: int) -> NDArray[np.intp]:
    """[depth, slices] which slices each slab holds; beyond the ends the last one is repeated."""
    around = np.arange(slices) - slices // 2
    return np.asarray(np.clip(np.arange(depth)[:, None] + around, 0, depth - 1), np.intp)


def slabs(case: Case, operations: Settings) -> tuple[Pixels, Affine]:
    """[Z, windows * slices, size, size] in 0..1 and the affine of the grid; channels are ordered window by window."""
    settings, windows = operations[0], operations[1:]
    voxels, affine = grid(case, int(settings["size"]), float(settings["thickness"]))
    return windowed(voxels, int(settings["slices"]), windows), affine


def windowed(voxels: Pixels, slices: int, windows: Settings) -> Pixels:
    """Slabs of a grid [Z, size, size] in HU, as ``slabs`` gives them; one implementation for training and serving."""
    around = neighbours(len(voxels), slices)
    channels = [window(voxels, low=float(w["low"]), high=float(w["high"]))[around] for w in windows]
    return np.concatenate(channels, axis=1)


def channels(operations: Settings) -> int:
    """Channels of a slab."""
    return int(operations[0]["slices"]) * len(operations[1:])


def projections(case: Case, operations: Settings) -> tuple[Pixels, Affine]:
    """[1, 6, size, size] in 0..1: along z, y and x the mean of the soft-tissue window and the highest bone.

    What part of a body it is shows here at a glance. Without spacing, slices are taken for THICK apart and the picture
    for FIELD wide. The affine leads from (x, y) of the first channel to the frame's plane.
    """
    size = int(operations[0]["size"])
    voxels, affine = grid(case, size, THICK)
    volume = case.film
    assert isinstance(volume, Volume)
    soft, bone = (window(voxels, low=low, high=high) for low, high in (SOFT, BONE))
    planes = []
    rows, aspect = len(voxels), THICK / (FIELD / size)
    if volume.spacing is not None:
        pixel = volume.spacing[0] * float(np.hypot(*affine[:2, 0]))
        aspect = group_size(volume, THICK) * volume.spacing[2] / pixel
    for axis in range(3):
        for values in (soft.mean(axis=axis), bone.max(axis=axis)):
            if axis:  # z runs up: turned so that the head is on top, stretched to square pixels, in the middle
                scale = np.diag([1.0, 1 / aspect, 1.0]).astype(float)
                scale[1, 2] = (rows - 1) / 2 - (size - 1) / 2 / aspect
                values = warp(np.ascontiguousarray(values[::-1]), scale, (size, size))
            planes.append(values.astype(np.float32))
    return np.stack(planes)[None], affine

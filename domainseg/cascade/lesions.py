"""Lesions as a table has them: a candidate divided into types, measured in millilitres and patient millimetres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainseg.cascade.case import Case
from domainseg.imaging.geometry import Affine, inverse
from domainseg.imaging.hemorrhage import TYPES, UNKNOWN
from domainseg.imaging.volume import Volume

SECOND = 0.2  # a type with less of a lesion than this is none of its types (our choice)
_FAR = 600  # points of a lesion's hull between which the longest diameter is sought

Codes = NDArray[np.uint8]
Points = NDArray[np.float64]


def divided(codes: NDArray[np.integer[Any]], shares: NDArray[np.floating[Any]] | None = None) -> Codes:
    """The types of a lesion's voxels [n] with small ones gone: each voxel has a type that holds SECOND of the lesion.

    codes: the type of each voxel, 1 to UNKNOWN. shares: [n, 5] of the types in each voxel, to give a voxel of a type
    that is gone to the likeliest of the others; without them it goes to the largest type.
    """
    counts = np.bincount(codes, minlength=UNKNOWN + 1)
    kept = np.flatnonzero(counts >= SECOND * len(codes))
    if not len(kept):  # five types share it evenly
        kept = np.array([int(np.argmax(counts))])
    out = codes.astype(np.uint8)
    lost = ~np.isin(codes, kept)
    if not lost.any():
        return out
    if shares is None:
        out[lost] = int(np.argmax(counts))
    else:
        out[lost] = kept[np.argmax(shares[np.ix_(lost, kept - 1)], axis=1)]
    return out


def names(codes: NDArray[np.integer[Any]]) -> list[tuple[str, int]]:
    """(type, code) of each code that is there; "" for a bleed of unknown type."""
    return [("" if code == UNKNOWN else TYPES[code - 1], int(code)) for code in np.unique(codes) if code]


@dataclass(frozen=True)
class Grid:
    """The grid of a network's slabs in its volume: 4x4 from (x, y, z) to voxels, and how much of each slice counts.

    members: voxel slices [Z] that each slice of the grid stands for; the last group may hold fewer than the others.
    """

    volume: Volume
    affine: Affine
    members: NDArray[np.intp]

    @classmethod
    def of(cls, case: Case, affine: Affine, depth: int) -> Grid:
        """The grid that ``slabs`` made of a case."""
        volume = case.film
        assert isinstance(volume, Volume)
        first = round(float(case.affine[2, 3]))
        last = min(first + case.shape[0], volume.shape[0])
        low, high = _range(affine, np.arange(depth))
        members = np.minimum(high, last - 1) - np.maximum(low, max(first, 0)) + 1
        return cls(volume, affine, np.clip(members, 0, None).astype(np.intp))

    @property
    def slice_ml(self) -> NDArray[np.float64]:
        """Millilitres of a voxel of each slice [Z]; NaN where the volume has no spacing."""
        plane = abs(float(np.linalg.det(self.affine[:2, :2])))
        return np.asarray(self.volume.voxel_ml * plane * self.members, np.float64)

    def millimetres(self, points: Points) -> Points | None:
        """Points (x, y, z) of the grid [n, 3] in LPS millimetres; None where nothing is known of the place."""
        if self.volume.affine is None:
            return None
        to_patient = self.volume.affine @ self.affine
        return np.asarray(points @ to_patient[:3, :3].T + to_patient[:3, 3], np.float64)

    def source_slices(self, z: NDArray[np.intp]) -> tuple[int, int]:
        """First and last source slice, zero-based, of slices of the grid."""
        volume = self.volume
        low, high = _range(self.affine, np.array([z.min(), z.max()]))
        places = np.arange(volume.shape[0], dtype=float) if volume.source_z is None else volume.source_z
        inside = np.flatnonzero((np.rint(places) >= low[0]) & (np.rint(places) <= high[1]))
        if not len(inside):  # a slice that was missing and made of its neighbours
            inside = np.array([int(np.abs(places - (low[0] + high[1]) / 2).argmin())])
        return int(inside.min()), int(inside.max())


def _range(affine: Affine, z: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last voxel slice of slices of a grid."""
    count = max(1, round(float(affine[2, 2])))
    first = np.rint(affine[2, 2] * z + affine[2, 3] - (count - 1) / 2).astype(np.intp)
    return first, first + count - 1


def measured(grid: Grid, z: NDArray[np.intp], y: NDArray[np.intp], x: NDArray[np.intp]) -> dict[str, Any]:
    """Size and place of voxels [n] of the grid as a lesion's columns; millimetres NaN where they are unknown."""
    first, last = grid.source_slices(z)
    row: dict[str, Any] = {"ml": float(grid.slice_ml[z].sum()), "first_slice": first, "last_slice": last}
    centre = grid.millimetres(np.array([[x.mean(), y.mean(), z.mean()]]))
    hull = grid.millimetres(_hull(z, y, x))
    if centre is None or hull is None:
        empty = dict.fromkeys([f"{axis}_mm" for axis in "xyz"], np.nan)
        empty |= dict.fromkeys([f"box_{end}_{axis}_mm" for end in ("low", "high") for axis in "xyz"], np.nan)
        return {**row, "diameter_mm": np.nan, **empty}
    row["diameter_mm"] = _longest(hull)
    assert grid.volume.affine is not None
    half = np.abs((grid.volume.affine @ grid.affine)[:3, 2]) / 2  # the hull has whole pixels, but the middle of slices
    low, high = hull.min(axis=0) - half, hull.max(axis=0) + half
    for name, point in (("", centre[0]), ("box_low_", low), ("box_high_", high)):
        row |= {f"{name}{axis}_mm": float(point[k]) for k, axis in enumerate("xyz")}
    return row


def _hull(z: NDArray[np.intp], y: NDArray[np.intp], x: NDArray[np.intp]) -> Points:
    """Corners (x, y, z) [m, 3] of the convex hulls of the pixels of each slice: the hull of all voxels is theirs."""
    corners = []
    for place in np.unique(z):
        here = np.stack([x[z == place], y[z == place]], axis=1).astype(np.float32)
        pixels = (here[:, None] + np.array([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]], np.float32)).reshape(
            -1, 2
        )
        outline = cv2.convexHull(pixels)[:, 0]
        corners.append(np.column_stack([outline, np.full(len(outline), place)]))
    return np.concatenate(corners).astype(np.float64)


def _longest(points: Points) -> float:
    """The longest distance between two points [m, 3] of a hull."""
    if len(points) > _FAR:  # those far out in some direction: no other can be an end
        directions = np.random.default_rng(0).normal(size=(3, _FAR // 2))
        along = points @ directions
        points = points[np.unique(np.concatenate([along.argmax(axis=0), along.argmin(axis=0)]))]
    squared = (points**2).sum(axis=1)
    distances = squared[:, None] + squared[None] - 2 * points @ points.T
    return float(np.sqrt(max(float(distances.max()), 0.0)))


def on_volume(codes: NDArray[np.unsignedinteger[Any]], affine: Affine, shape: Sequence[int]) -> NDArray[Any]:
    """Numbers [Z, H, W] of a grid on the voxels [z, y, x] of its volume; ``affine``: 4x4 from the grid to voxels.

    A voxel gets the number that covers most of it, numbers enlarged linearly: edges are smooth, not steps.
    """
    depth, height, width = shape
    out = np.zeros((depth, height, width), codes.dtype)
    to_grid = inverse(affine[np.ix_([0, 1, 3], [0, 1, 3])])
    for z in np.flatnonzero(codes.any(axis=(1, 2))):
        drawn = np.zeros((height, width), codes.dtype)
        found = [int(number) for number in np.unique(codes[z]) if number]
        cover = [_enlarged(codes[z] == number, to_grid, (height, width)) for number in found]
        some = np.sum(cover, axis=0) >= 0.5
        best = np.zeros((height, width), np.float32)
        for number, share in zip(found, cover, strict=True):
            better = some & (share > best)
            drawn[better] = number
            best[better] = share[better]
        low, high = _range(affine, np.array([z]))
        out[max(int(low[0]), 0) : min(int(high[0]), depth - 1) + 1] = drawn
    return out


def _enlarged(mask: NDArray[np.bool_], to_grid: Affine, shape: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(
        cv2.warpAffine(
            mask.astype(np.float32), to_grid[:2], shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        ),
        np.float32,
    )


def labels_on_volume(case: Case) -> Codes:
    """The codes of the called lesions of a case on its volume's voxels, uint8 [z, y, x]."""
    assert isinstance(case.film, Volume)
    return on_volume(case.arrays["types"], case.arrays["grid"], case.film.shape)


def by_type(lesions: Sequence[Mapping[str, Any]], *, known: bool) -> dict[str, float]:
    """volume_ml and volume_ml_<type> of the called lesions among these; NaN where volumes are not ``known``."""
    called = [lesion for lesion in lesions if lesion["called"]]
    sums = {"volume_ml": sum(lesion["ml"] for lesion in called)}
    sums |= {f"volume_ml_{name}": sum(one["ml"] for one in called if one["type"] == name) for name in TYPES}
    return {name: float(value) if known else np.nan for name, value in sums.items()}

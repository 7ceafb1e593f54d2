"""Lesions as a table has them: a candidate divided into types, measured in millilitres and patient millimetres."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainseg.cascade.case import Case
from domainseg.imaging.geometry import Affine, inverse
from domainseg.imaging.hemorrhage import CODES, TYPES, UNKNOWN
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
    """The grid of a network's slabs in its volume: 4x4 from (x, y, z) to voxels, and the slices that each one covers.

    first, last: voxel slices [Z] that each slice of the grid stands for, within the case and the volume; the last group
    may hold fewer than the others, and where there is none ``last`` is below ``first``.
    """

    volume: Volume
    affine: Affine
    first: NDArray[np.intp]
    last: NDArray[np.intp]

    @classmethod
    def of(cls, case: Case, affine: Affine, depth: int) -> Grid:
        """The grid that ``slabs`` made of a case."""
        volume = case.film
        assert isinstance(volume, Volume)
        start = round(float(case.affine[2, 3]))
        end = min(start + case.shape[0], volume.shape[0])
        first, last = _range(affine, np.arange(depth))
        return cls(volume, affine, np.maximum(first, max(start, 0)), np.minimum(last, end - 1))

    @classmethod
    def of_voxels(cls, volume: Volume) -> Grid:
        """The volume's own."""
        slices = np.arange(volume.shape[0])
        return cls(volume, np.eye(4), slices, slices)

    def planes(self, numbers: NDArray[np.unsignedinteger[Any]]) -> Iterator[tuple[int, NDArray[Any]]]:
        """Numbers [Z, H, W] of the grid on the voxels of its volume: (slice of the grid, plane) where there are any.

        A voxel gets the number that covers most of it, numbers enlarged linearly: edges are smooth, not steps.
        """
        to_voxels = self.affine[np.ix_([0, 1, 3], [0, 1, 3])]
        shape = self.volume.shape[1:]
        for z in np.flatnonzero(numbers.any(axis=(1, 2)) & (self.last >= self.first)):
            found = [int(number) for number in np.unique(numbers[z]) if number]
            cover = [_enlarged(numbers[z] == number, to_voxels, shape) for number in found]
            plane = np.zeros(shape, numbers.dtype)
            covered, best = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
            for here, share in cover:
                covered[here] += share
            for number, (here, share) in zip(found, cover, strict=True):
                better = (covered[here] >= 0.5) & (share > best[here])
                plane[here][better] = number
                best[here][better] = share[better]
            yield int(z), plane

    def on_voxels(self, numbers: NDArray[np.unsignedinteger[Any]], values: NDArray[Any]) -> NDArray[Any]:
        """``values`` [n] of the numbers that lie on each voxel of the volume [z, y, x]; values[0] is 0."""
        out = np.zeros(self.volume.shape, values.dtype)
        for z, plane in self.planes(numbers):
            out[self.first[z] : self.last[z] + 1] = values[plane]
        return out

    def ml(self, numbers: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.float64]:
        """Millilitres of each number as ``on_voxels`` draws it, [highest number + 1]; NaN without spacing."""
        counts = np.zeros(int(numbers.max()) + 1)
        for z, plane in self.planes(numbers):
            counts += np.bincount(plane.ravel(), minlength=len(counts)) * (self.last[z] - self.first[z] + 1)
        return np.asarray(counts * self.volume.voxel_ml, np.float64)

    def millimetres(self, points: Points) -> Points | None:
        """Points (x, y, z) of the grid [n, 3] in LPS millimetres; None where nothing is known of the place."""
        if self.volume.affine is None:
            return None
        to_patient = self.volume.affine @ self.affine
        return np.asarray(points @ to_patient[:3, :3].T + to_patient[:3, 3], np.float64)

    def faces(self, points: Points) -> Points:
        """Points (x, y, z) in the middle of slices of the grid [n, 3], on the two faces of these slices [2n, 3].

        The uppermost slice may be thinner than the others: the frame ends inside of it.
        """
        z = points[:, 2].astype(np.intp)
        ends = np.concatenate([self.first[z] - 0.5, self.last[z] + 0.5])
        return np.column_stack([np.tile(points[:, :2], (2, 1)), (ends - self.affine[2, 3]) / self.affine[2, 2]])

    def middle(self, z: NDArray[np.intp]) -> NDArray[np.float64]:
        """Where the middle of what the frame holds of slices of the grid [n] lies on its z axis [n]."""
        return np.asarray(((self.first[z] + self.last[z]) / 2 - self.affine[2, 3]) / self.affine[2, 2], np.float64)

    def source_slices(self, z: NDArray[np.intp]) -> tuple[int, int]:
        """First and last source slice, zero-based, of slices of the grid."""
        inside = self.volume.source_slices(int(self.first[z.min()]), int(self.last[z.max()]))
        return int(inside.min()), int(inside.max())


def _range(affine: Affine, z: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last voxel slice of slices of a grid."""
    count = max(1, round(float(affine[2, 2])))
    first = np.rint(affine[2, 2] * z + affine[2, 3] - (count - 1) / 2).astype(np.intp)
    return first, first + count - 1


def measured(grid: Grid, z: NDArray[np.intp], y: NDArray[np.intp], x: NDArray[np.intp]) -> dict[str, Any]:
    """Extent and place of voxels [n] of the grid as a lesion's columns; millimetres NaN where they are unknown."""
    first, last = grid.source_slices(z)
    row: dict[str, Any] = {"first_slice": first, "last_slice": last}
    thick = grid.last[z] - grid.first[z] + 1  # the uppermost slice of the grid may hold fewer of the source's
    centre = grid.millimetres(np.array([[np.average(axis, weights=thick) for axis in (x, y, grid.middle(z))]]))
    corners = _hull(z, y, x)
    middles = np.column_stack([corners[:, :2], grid.middle(corners[:, 2].astype(np.intp))])
    hull, ends = grid.millimetres(middles), grid.millimetres(grid.faces(corners))
    if centre is None or hull is None or ends is None:
        empty = dict.fromkeys([f"{axis}_mm" for axis in "xyz"], np.nan)
        empty |= dict.fromkeys([f"box_{end}_{axis}_mm" for end in ("low", "high") for axis in "xyz"], np.nan)
        return {**row, "diameter_mm": np.nan, **empty}
    row["diameter_mm"] = _longest(hull)
    for name, point in (("", centre[0]), ("box_low_", ends.min(axis=0)), ("box_high_", ends.max(axis=0))):
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


def _enlarged(
    mask: NDArray[np.bool_], to_voxels: Affine, shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], NDArray[np.float32]]:
    """How much of each voxel of a plane of ``shape`` a mask of the grid covers: the window where it may, and that."""
    places = [np.flatnonzero(mask.any(axis=axis)) for axis in (0, 1)]  # columns, rows
    corners = np.array([[x, y, 1] for x in places[0][[0, -1]] + [-1, 1] for y in places[1][[0, -1]] + [-1, 1]])
    reached = (corners @ to_voxels.T)[:, :2]
    low = np.clip(np.floor(reached.min(axis=0)).astype(int), 0, shape[::-1])
    high = np.clip(np.ceil(reached.max(axis=0)).astype(int) + 1, low, shape[::-1])
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    if (high <= low).any():
        return window, np.zeros((high - low)[::-1], np.float32)
    to_grid = inverse(to_voxels) @ np.array([[1, 0, low[0]], [0, 1, low[1]], [0, 0, 1]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cover = cv2.warpAffine(mask.astype(np.float32), to_grid[:2], (high - low).tolist(), flags=how)
    return window, np.asarray(cover, np.float32)


def numbers_on_volume(case: Case) -> NDArray[np.uint16]:
    """The numbers of all lesions of a case, called or not, on its volume's voxels, uint16 [z, y, x]."""
    numbers = case.arrays["lesions"]
    return _grid(case).on_voxels(numbers, np.arange(int(numbers.max()) + 1, dtype=np.uint16))


def labels_on_volume(case: Case) -> Codes:
    """The codes of the called lesions of a case on its volume's voxels, uint8 [z, y, x]."""
    numbers = case.arrays["lesions"]
    codes = np.zeros(int(numbers.max()) + 1, np.uint8)
    for lesion in case.lesions:
        if lesion["called"]:
            codes[lesion["lesion"]] = CODES.get(lesion["type"], UNKNOWN)
    return _grid(case).on_voxels(numbers, codes)


def _grid(case: Case) -> Grid:
    return Grid.of(case, case.arrays["grid"], len(case.arrays["lesions"]))


def by_type(lesions: Sequence[Mapping[str, Any]], *, known: bool) -> dict[str, float]:
    """volume_ml and volume_ml_<type> of the called lesions among these; NaN where volumes are not ``known``."""
    called = [lesion for lesion in lesions if lesion["called"]]
    sums = {"volume_ml": sum(lesion["ml"] for lesion in called)}
    sums |= {f"volume_ml_{name}": sum(one["ml"] for one in called if one["type"] == name) for name in TYPES}
    return {name: float(value) if known else np.nan for name, value in sums.items()}

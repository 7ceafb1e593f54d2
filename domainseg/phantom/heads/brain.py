"""Where the brain lies in a real head CT, found from the voxels: inside bone, soft, in one piece. For painting into it.

Careful rather than complete: slices in which the skull is open (the base) or the brain small are left out, because
a bleed painted there would lie anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from domainseg.imaging.volume import Volume

WIDTH = 132.0  # mm across the brain, taken for granted where a picture has no spacing
SLICE = 5.0  # mm between pictures, likewise
BONE, SMALLEST, SOFT = 90.0, 20.0, 0.9  # HU; cm2 of brain in a slice; share of it that is soft tissue


@dataclass(frozen=True)
class Brain:
    """The brain of a volume [z, y, x]. mask: inside of the skull, of the slices where it is closed. depth: mm to its
    outer edge in plane; calcified spots within are none. smooth: HU without noise. spacing: mm along x, y, z, assumed
    where the volume does not say. middle: column of the midline, by slice.
    """

    mask: NDArray[np.bool_]
    depth: NDArray[np.float32]
    smooth: NDArray[np.float32]
    spacing: tuple[float, float, float]
    middle: NDArray[np.float32]

    @property
    def ml(self) -> float:
        """Millilitres of a voxel."""
        x, y, z = self.spacing
        return x * y * z / 1000

    def cut_out(self) -> tuple[tuple[slice, ...], Brain]:
        """The box around the brain, and the brain in it."""
        ends = [np.flatnonzero(self.mask.any(axis=axes))[[0, -1]] for axes in ((1, 2), (0, 2), (0, 1))]
        box = tuple(slice(int(first), int(last) + 1) for first, last in ends)
        parts = self.mask[box], self.depth[box], self.smooth[box]
        return box, Brain(*parts, self.spacing, self.middle[box[0]] - box[2].start)

    def grid(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """x [1, 1, w] from the midline to the left, y [1, h, 1], z [d, 1, 1], in mm."""
        d, h, w = self.mask.shape
        x = (np.arange(w, dtype=np.float32)[None, None] - self.middle[:, None, None]) * np.float32(self.spacing[0])
        y = np.arange(h, dtype=np.float32)[None, :, None] * np.float32(self.spacing[1])
        return x, y, np.arange(d, dtype=np.float32)[:, None, None] * np.float32(self.spacing[2])


def find(volume: Volume) -> Brain | None:
    """The brain of a head CT, or None when no three slices show a closed skull around one."""
    voxels = volume.voxels
    known = volume.spacing
    pixel = known[0] if known else _pixel(voxels)
    mask = np.stack([_slice(picture, pixel) for picture in voxels])
    mask = _longest(mask)
    if np.count_nonzero(mask.any((1, 2))) < 3:
        return None
    spacing = known or (pixel, pixel, SLICE)
    depth = np.stack(
        [cv2.distanceTransform(np.pad(_filled(part), 1), cv2.DIST_L2, 5)[1:-1, 1:-1] for part in mask]
    ) * np.float32(pixel)
    smooth = smoothed(voxels.astype(np.float32), mask, 1.1 / pixel)
    middle = np.zeros(len(mask), np.float32)
    for k, part in enumerate(mask):
        columns = np.flatnonzero(part.any(0))
        middle[k] = (columns[0] + columns[-1]) / 2 if len(columns) else voxels.shape[2] / 2
    return Brain(mask, depth, smooth, spacing, middle)


def smoothed(values: NDArray[np.float32], mask: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """Each slice blurred within the mask: nothing of the bone around reaches the brain at its edge."""
    found = values.copy()
    for k in np.flatnonzero(mask.any((1, 2))):
        weight = mask[k].astype(np.float32)
        share = np.maximum(cv2.GaussianBlur(weight, (0, 0), sigma), 1e-3)
        found[k] = np.where(mask[k], cv2.GaussianBlur(values[k] * weight, (0, 0), sigma) / share, values[k])
    return found


def _filled(part: NDArray[np.bool_]) -> NDArray[np.uint8]:
    outlines, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(np.zeros(part.shape, np.uint8), outlines, -1, 1, cv2.FILLED), np.uint8)


def _pixel(voxels: NDArray[np.int16]) -> float:
    """Millimetres of a pixel, from the widest inside of the skull, which is taken for WIDTH."""
    widest = 0
    for picture in voxels:
        inside = _inside(picture, max(3, picture.shape[1] // 100))
        columns = np.flatnonzero(inside.sum(0) > 3)
        widest = max(widest, int(columns[-1] - columns[0]) if len(columns) else 0)
    return float(WIDTH / max(widest, voxels.shape[2] // 5))


def _inside(picture: NDArray[np.int16], gap: int) -> NDArray[np.bool_]:
    """The largest piece that bone shuts off from the edge of the picture."""
    bone = (picture >= BONE).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * gap + 1, 2 * gap + 1))
    shut = np.pad(cv2.morphologyEx(bone, cv2.MORPH_CLOSE, kernel), 1)
    filled = shut.copy()
    cv2.floodFill(filled, None, (0, 0), 2)
    enclosed = (filled[1:-1, 1:-1] == 0).astype(np.uint8)
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(enclosed, connectivity=4)
    if count < 2:
        return np.zeros(picture.shape, bool)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return np.asarray(pieces == largest)


def _slice(picture: NDArray[np.int16], pixel: float) -> NDArray[np.bool_]:
    found = _inside(picture, max(1, round(1.5 / pixel)))
    area = found.sum() * pixel * pixel / 100
    soft = (picture[found] > -15) & (picture[found] < BONE)
    return found if area > SMALLEST and soft.mean() > SOFT else np.zeros_like(found)


def _longest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The longest run of slices that have a brain; others are emptied."""
    runs, count = ndimage.label(mask.any((1, 2)))
    if not count:
        return mask
    longest = 1 + int(np.argmax(np.bincount(runs)[1:]))
    return np.asarray(mask & (runs == longest)[:, None, None])

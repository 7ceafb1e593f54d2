"""Coverage of simple bodies in millimetres, maps over directions, and the noise that makes them irregular."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from domainseg.phantom.canvas import sample

Field = NDArray[Any]  # float32
Point = tuple[float, float, float]

AZIMUTHS, ELEVATIONS = 480, 241  # of the maps over directions: three quarters of a degree


Window = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Place:
    """Where the voxels of a piece of a scan lie: millimetres in the head, x to its left, y to its back, z up.

    x, y, z: [thin slices, rows, columns]. to_voxels: 3x4 from millimetres in the head to (column, row, thin slice) of
    this piece. margin: mm by which places may have been moved away from where they are in the scan.
    """

    x: Field
    y: Field
    z: Field
    to_voxels: NDArray[np.float64]
    margin: float = 0.0

    def window(self, centre: ArrayLike, reach: float) -> Window | None:
        """The part of this piece that holds all of a ball; None when they do not meet."""
        middle = self.to_voxels[:, :3] @ np.asarray(centre, float) + self.to_voxels[:, 3]
        half = np.linalg.norm(self.to_voxels[:, :3], axis=1) * (reach + self.margin)
        low, high = np.floor(middle - half).astype(int), np.ceil(middle + half).astype(int) + 1
        size = self.x.shape[::-1]
        if any(high[k] <= 0 or low[k] >= size[k] for k in range(3)):
            return None
        (u0, v0, _), (u1, v1, _) = np.clip(low, 0, size), np.clip(high, 0, size)
        return slice(None), slice(int(v0), int(v1)), slice(int(u0), int(u1))

    def cut(self, window: Window) -> Place:
        """A part of this piece."""
        to_voxels = self.to_voxels.copy()
        to_voxels[:2, 3] -= window[2].start or 0, window[1].start or 0
        return Place(self.x[window], self.y[window], self.z[window], to_voxels, self.margin)

    def around(self, centre: ArrayLike, reach: float) -> tuple[Window, Place] | None:
        """The window of a ball and the places in it; None when the ball does not meet this piece."""
        window = self.window(centre, reach)
        return None if window is None else (window, self.cut(window))


def inside(distance: Field, soft: float = 1.0) -> Field:
    """Coverage 0..1 of a body from the signed distance in mm to its surface, positive inside; the edge is soft."""
    return np.asarray(np.clip(distance * np.float32(1 / soft) + np.float32(0.5), 0, 1))


def ellipsoid(place: Place, centre: Point, axes: Point) -> Field:
    """About the signed distance in mm to an ellipsoid along the axes, positive inside; -99 far from it."""
    found = np.full_like(place.x, -99)
    if (part := place.around(centre, max(axes) + 6)) is not None:
        window, near = part
        u = (near.x - np.float32(centre[0])) * np.float32(1 / axes[0])
        v = (near.y - np.float32(centre[1])) * np.float32(1 / axes[1])
        w = (near.z - np.float32(centre[2])) * np.float32(1 / axes[2])
        r = np.sqrt(u * u + v * v + w * w)
        found[window] = (1 - r) * np.float32(min(axes) ** 0.5 * float(np.cbrt(np.prod(axes))) ** 0.5)
    return found


def tube(place: Place, points: ArrayLike, radii: ArrayLike) -> Field:
    """Signed distance in mm to a chain of tapered tubes, positive inside; -99 far from it."""
    found = np.full_like(place.x, -99)
    points, radii = np.asarray(points, float), np.asarray(radii, float)
    for a, b, ra, rb in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
        part = place.around((a + b) / 2, float(np.linalg.norm(b - a)) / 2 + max(ra, rb) + 6)
        if part is None:
            continue
        window, near = part
        d = b - a
        p = [axis - np.float32(start) for axis, start in zip((near.x, near.y, near.z), a, strict=True)]
        along = np.clip(sum(q * np.float32(k / (d @ d)) for q, k in zip(p, d, strict=True)), 0, 1)
        distance = np.sqrt(sum((q - along * np.float32(k)) ** 2 for q, k in zip(p, d, strict=True)))
        np.maximum(found[window], np.float32(ra) + along * np.float32(rb - ra) - distance, out=found[window])
    return found


@lru_cache(maxsize=4)
def _solid(wave: int, size: int = 64) -> Field:
    """Periodic noise in a cube, mean 0, variance 1, of waves about ``wave`` voxels long and longer ones weaker."""
    rng = np.random.default_rng([11, wave])
    white = rng.standard_normal((size, size, size)).astype(np.float32)
    noise = ndimage.gaussian_filter(white, wave / 5, mode="wrap") - ndimage.gaussian_filter(
        white, wave / 2, mode="wrap"
    )
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)


@lru_cache(maxsize=1)
def directions() -> tuple[Field, Field, Field]:
    """Unit vectors (x, y, z) of the cells of a map over directions [ELEVATIONS, AZIMUTHS]."""
    azimuth = np.arange(AZIMUTHS, dtype=np.float32) * np.float32(2 * np.pi / AZIMUTHS)
    elevation = (np.arange(ELEVATIONS, dtype=np.float32) / (ELEVATIONS - 1) - np.float32(0.5)) * np.float32(np.pi)
    level = np.cos(elevation)[:, None]
    return level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)[:, None] + np.zeros_like(azimuth)


def over_directions(rng: np.random.Generator, length: float, radius: float = 70.0) -> Field:
    """Noise over directions, mean 0, variance about 1: waves of ``length`` mm on a ball of ``radius`` mm."""
    wave = 8
    scale = radius / length * wave
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0].astype(np.float32) * np.float32(scale)
    start = rng.uniform(0, 64, 3)
    every = 3 if length >= 30 else 1  # long waves are read from fewer cells
    unit = [axis[::every, ::every] for axis in directions()]
    places = [sum(turn[k, m] * unit[m] for m in range(3)) + np.float32(start[k]) for k in range(3)]
    found = np.asarray(ndimage.map_coordinates(_solid(wave), places, order=1, mode="grid-wrap"), np.float32)
    if every == 1:
        return found
    u, v = np.meshgrid(np.arange(AZIMUTHS, dtype=np.float32) / every, np.arange(ELEVATIONS, dtype=np.float32) / every)
    return np.asarray(cv2.remap(np.concatenate([found, found[:, :1]], axis=1), u, v, cv2.INTER_LINEAR), np.float32)


def look(atlas: NDArray[np.float32], azimuth: Field, elevation: Field) -> Field:
    """Read a map over directions (up to four channels, last axis) at angles in radians; any shape."""
    u = azimuth * np.float32(AZIMUTHS / (2 * np.pi))
    v = elevation * np.float32((ELEVATIONS - 1) / np.pi) + np.float32((ELEVATIONS - 1) / 2)
    flat = (-1, u.shape[-1])
    wide = np.concatenate([atlas, atlas[:, :2]], axis=1)  # azimuth goes round; elevation does not
    found = cv2.remap(wide, u.reshape(flat), v.reshape(flat), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.float32).reshape(*u.shape, *atlas.shape[2:])


@lru_cache(maxsize=1)
def tile() -> Field:
    """Periodic noise, mean 0, variance 1, of waves about 40 cells long, [256, 256]."""
    white = np.random.default_rng(17).standard_normal((256, 256))
    noise = ndimage.gaussian_filter(white, 7, mode="wrap") - ndimage.gaussian_filter(white, 16, mode="wrap")
    noise += 0.35 * ndimage.gaussian_filter(white, 3, mode="wrap") * 3 / 7
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)


def rough(place: Place, length: float, offset: float) -> Field:
    """Noise in space, mean 0, variance about 1, waves of about ``length`` mm: two crossed tiles.

    The same for all thin slices of a piece, [1, rows, columns].
    """
    k, middle = np.float32(40 / length), len(place.x) // 2
    height, width = place.x.shape[1:]
    # Of every second voxel: the waves are longer.
    x, y, z = (axis[middle, ::2, ::2] * k for axis in (place.x, place.y, place.z))
    one = sample(
        tile(), x + np.float32(0.7) * z + np.float32(offset), y - np.float32(0.7) * z + np.float32(offset * 1.7)
    )
    two = sample(tile(), y + np.float32(0.6) * x + np.float32(offset * 2.3), z + np.float32(offset * 3.1))
    half = (one + two) * np.float32(0.7)
    return np.asarray(cv2.resize(half, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)[None]

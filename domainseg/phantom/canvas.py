"""A raster in millimetres on the detector, and the few drawing operations that anatomy is made of.

Maps of anatomy are drawn at half the film's resolution: ``step`` is two source pixels, so that canvas pixel j covers
source pixels 2j and 2j + 1. Positions are (x, y) in mm from the centre of source pixel (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Map = NDArray[np.float32]
Points = NDArray[np.float64]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Canvas:
    """Raster of ``height`` x ``width`` canvas pixels, each two source pixels of ``spacing`` mm wide."""

    height: int
    width: int
    spacing: float

    @property
    def step(self) -> float:
        """Size of a canvas pixel in mm."""
        return 2 * self.spacing

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the film in mm."""
        return self.width * self.step, self.height * self.step

    def zeros(self) -> Map:
        """An empty map."""
        return np.zeros((self.height, self.width), np.float32)

    def pixels(self, points: ArrayLike) -> Points:
        """Canvas pixel coordinates of points in mm."""
        return (np.asarray(points, float) - 0.5 * self.spacing) / self.step

    def box(self, points: ArrayLike, margin: float = 0.0) -> Box:
        """Rows and columns (y0, y1, x0, x1) that hold all points with a margin in mm, cut to the canvas."""
        found = self.pixels(points).reshape(-1, 2)
        low, high = found.min(0) - margin / self.step, found.max(0) + margin / self.step + 1
        y0, y1 = (int(np.clip(value, 0, self.height)) for value in (low[1], high[1] + 1))
        x0, x1 = (int(np.clip(value, 0, self.width)) for value in (low[0], high[0] + 1))
        return y0, y1, x0, x1

    def grid(self, box: Box) -> tuple[Map, Map]:
        """x [1, w] and y [h, 1] in mm of the canvas pixels in a box."""
        y0, y1, x0, x1 = box
        x = (np.arange(x0, x1, dtype=np.float32) * 2 + 0.5) * np.float32(self.spacing)
        y = (np.arange(y0, y1, dtype=np.float32) * 2 + 0.5) * np.float32(self.spacing)
        return x[None, :], y[:, None]

    def filled(self, points: ArrayLike, box: Box) -> Map:
        """Coverage 0..1 of a closed polygon (mm) in a box."""
        y0, y1, x0, x1 = box
        mask = np.zeros((max(y1 - y0, 0), max(x1 - x0, 0)), np.uint8)
        if mask.size:
            cv2.fillPoly(mask, [fixed(self.pixels(points) - (x0, y0))], 255, cv2.LINE_AA, 4)
        return mask.astype(np.float32) * np.float32(1 / 255)

    def stroke(self, target: Map, points: ArrayLike, width: float, weight: float, *, soft: float = 0.0) -> None:
        """Add a line of ``width`` mm and height ``weight`` along points (mm); ``soft`` mm of blur."""
        box = self.box(points, width + 3 * soft + 2 * self.step)
        y0, y1, x0, x1 = box
        if y1 <= y0 or x1 <= x0:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        pixels = max(1, round(width / self.step))
        strength = weight * min(1.0, width / (pixels * self.step))
        cv2.polylines(mask, [fixed(self.pixels(points) - (x0, y0))], False, 255, pixels, cv2.LINE_AA, 4)
        line = mask.astype(np.float32)
        if soft > 0.2 * self.step:
            line = blur(line, soft / self.step)
        target[y0:y1, x0:x1] += line * np.float32(strength / 255)


def fixed(points: Points) -> NDArray[np.int32]:
    """Points in OpenCV's fixed point with four fractional bits."""
    return np.round(np.clip(points, -3e4, 3e4) * 16).astype(np.int32)


def blur(image: Map, sigma: float) -> Map:
    """Gaussian blur; wide ones are done on a reduced picture."""
    if sigma < 0.2:
        return image
    factor = max(1, int(sigma / 4))
    if factor == 1:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)
    height, width = image.shape
    small = cv2.resize(image, (max(2, width // factor), max(2, height // factor)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / factor, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def curve(points: ArrayLike, *, closed: bool = False, each: int = 8) -> Points:
    """Catmull-Rom curve through control points [n, 2], ``each`` points a span."""
    p = np.asarray(points, float)
    if closed:
        p = np.concatenate([p[-1:], p, p[:2]])
    else:
        p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, 1, each, endpoint=False)[:, None]
    spans = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True)
    ]
    return np.concatenate(spans if closed else [*spans, p[-2:-1]])


@lru_cache(maxsize=8)
def noise_tile(exponent: float, stretch: float = 1.0, size: int = 1024) -> Map:
    """Periodic noise tile with power ~ 1/f^exponent, mean 0, variance 1; ``stretch`` > 1 elongates it along y."""
    rng = np.random.default_rng([7, int(exponent * 100), int(stretch * 100)])
    frequency = np.fft.rfftfreq(size)[None, :] ** 2 + (np.fft.fftfreq(size)[:, None] * stretch) ** 2
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * frequency ** (-exponent / 4)
    spectrum[0, 0] = 0
    tile = np.fft.irfft2(spectrum, s=(size, size))
    return np.asarray(tile / tile.std(), np.float32)


@lru_cache(maxsize=8)
def ridge_tile(exponent: float, stretch: float = 1.0) -> Map:
    """Like ``noise_tile``, but a mesh of thin bright lines, as trabeculae throw: the zero crossings of such a noise."""
    mesh = np.exp(-np.abs(noise_tile(exponent, stretch)) * 2.2)
    return np.asarray((mesh - mesh.mean()) / mesh.std(), np.float32)


def sample(tile: Map, x: Map, y: Map) -> Map:
    """Read a periodic tile at coordinates (arrays of one shape, in tile pixels)."""
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    return np.asarray(cv2.remap(tile, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), np.float32)


def depth_inside(mask: NDArray[np.uint8], step: float) -> Map:
    """Distance in mm of each pixel of a mask to the nearest 0, at most 1 m (a mask may hold none)."""
    return np.asarray(
        np.minimum(cv2.distanceTransform(mask, cv2.DIST_L2, 3), 1000 / step) * np.float32(step), np.float32
    )


def rotation(degrees: float) -> Points:
    """2x2 matrix that turns (x, y) clockwise on the screen."""
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])

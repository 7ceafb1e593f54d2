"""Sites with their scanners: sharpness, noise with its grain, streaks, motion, headrest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from domainseg.phantom.heads.shapes import Field


@dataclass(frozen=True)
class Site:
    """One hospital's CT. field_mm: smallest and largest field of view. blur_mm: of the kernel; sharpen: overshoot of
    edges, 0 none. noise: HU at 5 mm. ramp: exponent of the noise' rise with frequency, cut: where it falls, cycles/mm.
    rest: what the head lies in. padding: HU stored outside the round field, None without one.
    """

    name: str
    field_mm: tuple[float, float]
    blur_mm: float
    sharpen: float
    noise: float
    cut: float
    rest: str
    padding: int | None
    institution: str
    manufacturer: str
    model: str
    kernel: str


SITES = {
    "A": Site(
        "A", (215, 240), 0.60, 0.0, 2.9, 0.21, "cup", None, "Northfield General Hospital", "Lumora", "Axis 64", "H30s"
    ),
    "B": Site(
        "B", (220, 250), 0.42, 0.35, 3.4, 0.29, "rails", -2000, "St. Aldwin Infirmary", "Helion", "Rotor 16", "STD+"
    ),
    "C": Site(
        "C", (225, 250), 0.70, 0.15, 2.6, 0.19, "", None, "Riverside Trauma Centre", "Korvex", "Spiral 128", "J40s"
    ),
}  # fmt: skip


@lru_cache(maxsize=8)
def grain(cut: float, pixel: float, size: int = 512) -> Field:
    """Periodic noise of a reconstruction, mean 0, variance 1: rises with frequency, falls beyond ``cut`` cycles/mm."""
    rng = np.random.default_rng([13, round(cut * 1000)])
    f = np.sqrt(np.fft.rfftfreq(size)[None] ** 2 + np.fft.fftfreq(size)[:, None] ** 2) / pixel
    shape = (f + 0.06) * np.exp(-((f / cut) ** 2))
    tile = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * shape, s=(size, size))
    return np.asarray(tile / tile.std(), np.float32)


def sharpness(site: Site, picture: Field, pixel: float) -> Field:
    """A slice as the site's kernel shows it."""
    soft = cv2.GaussianBlur(picture, (0, 0), max(site.blur_mm / pixel, 0.25))
    if site.sharpen:  # of soft tissue: the edge of bone would throw a dark line on the brain
        tame = np.clip(soft, -60, 140)
        soft = soft + np.float32(site.sharpen) * (tame - cv2.GaussianBlur(tame, (0, 0), 1.3 / pixel))
    return np.asarray(soft)


def noise(rng: np.random.Generator, site: Site, picture: Field, pixel: float, thickness: float) -> Field:
    """Noise of a slice in HU: more in thin slices, in large and bony cross-sections, and in their middle."""
    tile = grain(site.cut, round(pixel, 1))
    rows, columns = picture.shape
    top, left = rng.integers(0, len(tile) - rows + 1), rng.integers(0, len(tile) - columns + 1)
    turned = tile[top : top + rows, left : left + columns]
    turned = turned[:: int(rng.choice([-1, 1])), :: int(rng.choice([-1, 1]))]
    small = cv2.resize(np.clip(picture + 1000, 0, 2600), (32, 32), interpolation=cv2.INTER_AREA)
    dense = cv2.GaussianBlur(small, (0, 0), 7)
    level = np.sqrt(dense * np.float32(1 / 900) + np.float32(0.15))
    level = cv2.resize(level, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return np.asarray(turned * level * np.float32(site.noise * np.sqrt(5 / thickness)))


def rest(site: Site, x: Field, y: Field) -> Field:
    """HU to be laid over the air around the head: what it lies in; x, y in mm from the middle of the field."""
    r = np.sqrt((x / np.float32(112)) ** 2 + ((y - 4) / np.float32(118)) ** 2)
    if site.rest == "cup":
        shell = (np.abs(r - 0.99) < 0.012) & (y > 55)
        return np.where(shell, np.float32(-120), np.float32(-1000))
    if site.rest == "rails":
        shell = (np.abs(r - 0.97) < 0.01) & (np.abs(x) > 60) & (y > 10)
        return np.where(shell, np.float32(350), np.float32(-1000))
    return np.full_like(r, -1000)


def streaks(rng: np.random.Generator, picture: Field, pixel: float) -> Field:
    """HU that the petrous bones add to a slice: dark bars between dense bones and faint lines across."""
    rows, columns = picture.shape
    dense = np.clip(picture - 300, 0, 1200) * np.float32(1 / 1000)
    amount = dense.sum(1) * np.float32(pixel)
    bars = cv2.GaussianBlur(amount[:, None], (1, 0), 1, sigmaY=4 / pixel) if rows > 3 else amount[:, None]
    bars = np.clip(bars - 18, 0, 50) * np.float32(-0.22)
    lines = np.convolve(rng.standard_normal((rows,)), np.hanning(5) / 2, "same")[:, None]
    lines = np.asarray(lines * np.clip(-bars, 0, 12) * 0.35, np.float32)
    inner = np.exp(-(((np.arange(columns) - columns / 2) * pixel / 45) ** 2)).astype(np.float32)
    return np.asarray((bars + lines) * inner[None])


def metal(picture: Field, row: float, column: float, pixel: float, strength: float, phase: float) -> Field:
    """HU that a metal clip adds to a slice: itself, and streaks away from it, bright and dark."""
    rows, columns = picture.shape
    y, x = np.ogrid[:rows, :columns]
    dy, dx = (y - row) * pixel, (x - column) * pixel
    r = np.sqrt(dx * dx + dy * dy) + 0.5
    angle = np.arctan2(dy, dx)
    star = np.cos(6 * angle + phase) ** 5 + 0.5 * np.cos(11 * angle + 2 * phase) ** 3
    added = strength * star * np.exp(-r / 32) / np.sqrt(1 + r / 4) + 3000 * (r < 2.2)
    return np.asarray(added, np.float32)


def moved(rng: np.random.Generator, picture: Field, pixel: float) -> Field:
    """A slice during which the patient moved: two poses mixed, with streaks."""
    turn = float(rng.normal(0, 2.2))
    shift = rng.normal(0, 2.5, 2) / pixel
    rows, columns = picture.shape
    warp = np.array(cv2.getRotationMatrix2D((columns / 2, rows / 2), turn, 1.0))
    warp = np.column_stack([warp[:, :2], warp[:, 2] + shift])
    other = cv2.warpAffine(picture, warp, (columns, rows), borderMode=cv2.BORDER_REPLICATE)
    share = float(rng.uniform(0.3, 0.5))
    mixed = picture * np.float32(1 - share) + other * np.float32(share)
    edges = cv2.blur(other - picture, (1, max(3, round(60 / pixel)))) + cv2.blur(
        other - picture, (max(3, round(60 / pixel)), 1)
    )
    return np.asarray(mixed + np.float32(0.12) * edges)

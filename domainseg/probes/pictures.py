"""What a film or exam looks like to a linear probe: a small picture, its grey values, its borders and its noise.

The size of the file is no part of it, since a network sees films at one size. Of an exam three slices are taken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainseg.imaging import ImageReadError, read_film
from domainseg.imaging.volumes import read_volume

log = logging.getLogger(__name__)

Picture = NDArray[np.float32]
_SMALL = 24  # side of the small picture
_SIDE = 512  # longer side, in pixels, at which noise is measured
_OCTAVES = 4
_GREYS = np.linspace(0, 1, 17)
_EDGE = 0.05  # of the side: what counts as border
_WINDOW = (-100.0, 200.0)  # HU of black and white in slices: soft tissue, with fat


def features_of(files: Sequence[tuple[str, Path]], workers: int = 2) -> tuple[dict[str, Picture], dict[str, str]]:
    """Features [m] of each film or exam by image name, and of those that cannot be read the reason."""
    found, unread = {}, {}
    for image, features in _ahead(files, workers):
        if isinstance(features, ImageReadError):
            unread[image] = features.reason
        else:
            found[image] = features
    return found, unread


def _ahead(files: Sequence[tuple[str, Path]], workers: int) -> Iterator[tuple[str, Picture | ImageReadError]]:
    def load(path: Path) -> Picture | ImageReadError:
        try:
            return np.concatenate([picture_features(picture) for picture in pictures(path)])
        except ImageReadError as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for start in range(0, len(files), 16 * workers):  # a few at once, so that no more are in memory
            some = files[start : start + 16 * workers]
            yield from zip((image for image, _ in some), pool.map(load, (path for _, path in some)), strict=True)


def pictures(path: Path) -> list[Picture]:
    """The film, or three slices of the exam (a folder or a NIfTI file), as float32 [H, W] in 0..1."""
    if not (path.is_dir() or path.name.lower().endswith((".nii", ".nii.gz"))):
        return [read_film(path).pixels]
    voxels = read_volume(path).voxels
    low, high = _WINDOW
    places = [int(share * (len(voxels) - 1)) for share in (0.25, 0.5, 0.75)]
    return [np.clip((voxels[z].astype(np.float32) - low) / (high - low), 0, 1) for z in places]


def picture_features(pixels: Picture) -> Picture:
    """A picture [H, W] in 0..1 as features [m]: small picture, quantiles, borders and corners, noise by octave."""
    small = cv2.resize(pixels, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA)
    greys = np.quantile(pixels, _GREYS)
    ends = [float((pixels <= 0).mean()), float((pixels >= 1).mean())]
    parts: list[Any] = [small.ravel(), greys, ends, _borders(pixels), _noise(pixels)]
    return np.concatenate(parts).astype(np.float32)


def _borders(pixels: Picture) -> list[float]:
    """Mean and spread of the four border strips, and the brightest value of the four corners."""
    rows, columns = (max(1, round(_EDGE * side)) for side in pixels.shape)
    strips = (pixels[:rows], pixels[-rows:], pixels[:, :columns], pixels[:, -columns:])
    tall, wide = (max(1, side // 6) for side in pixels.shape)
    corners = (pixels[:tall, :wide], pixels[:tall, -wide:], pixels[-tall:, :wide], pixels[-tall:, -wide:])
    of: tuple[Callable[[Picture], Any], ...] = (np.mean, np.std)
    return [float(f(strip)) for strip in strips for f in of] + [float(np.max(corner)) for corner in corners]


def _noise(pixels: Picture) -> list[float]:
    """Log of the spread of what each octave of detail adds, and of its typical size, which edges move less."""
    factor = min(1.0, _SIDE / max(pixels.shape))
    level = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else pixels
    out = []
    for _ in range(_OCTAVES):
        blurred = cv2.GaussianBlur(level, (0, 0), 1.0)
        detail = level - blurred
        out += [float(np.log(detail.std() + 1e-4)), float(np.log(np.median(np.abs(detail)) + 1e-4))]
        level = cv2.resize(blurred, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        if min(level.shape) < 4:
            level = cv2.resize(level, (4, 4))
    return out

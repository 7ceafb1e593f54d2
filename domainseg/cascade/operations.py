"""Preprocessing as data: a closed, versioned list of named operations, the same in training, prediction and bundle.

A stage's preprocessing is a list such as ``[{op: fit, size: 1024}, {op: local_contrast, sigma: 36, clip: 4}]``.
The first operation samples the case's frame, the others work on float32 pixels in 0..1 and keep that range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainseg.cascade.case import Case
from domainseg.files import DomainsegError
from domainseg.imaging.geometry import Affine

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]


class PreprocessingError(DomainsegError):
    """A preprocessing list that names an unknown operation or parameter."""


@dataclass(frozen=True)
class Sample:
    """What a network sees: pixels float32 [H, W] in 0..1, and the affine from its pixels to source pixels."""

    pixels: Pixels
    affine: Affine


def fit_frame(case: Case, size: int) -> tuple[Affine, tuple[int, int]]:
    """The frame of ``size`` x ``size`` pixels that holds the case's whole frame, centred; affine to source pixels."""
    height, width = case.shape
    scale = max(height, width) / size
    middle = np.array(
        [
            [scale, 0, (width - 1) / 2 - scale * (size - 1) / 2],
            [0, scale, (height - 1) / 2 - scale * (size - 1) / 2],
            [0, 0, 1],
        ]
    )
    return case.affine @ middle, (size, size)


def stretch(pixels: Pixels, valid: Mask, *, low: float = 1.0, high: float = 99.0) -> Pixels:
    """Map the ``low`` and ``high`` percentiles of the valid pixels to 0 and 1 and clip; invalid pixels become 0."""
    inside = pixels[::2, ::2][valid[::2, ::2]]
    if inside.size == 0:
        return np.zeros_like(pixels)
    bottom, top = np.percentile(inside, [low, high])
    result = np.clip((pixels - bottom) / max(float(top - bottom), 1e-6), 0, 1)
    return np.where(valid, result, 0).astype(np.float32)


def local_contrast(pixels: Pixels, valid: Mask, *, sigma: float = 36.0, clip: float = 4.0) -> Pixels:
    """High-pass by a Gaussian of ``sigma`` pixels, divided by the median absolute value; +-``clip`` maps to 0..1.

    Removes exposure, window and large-scale scatter, which differ between scanners, and leaves edges and lines. The
    blur is normalised by the valid area, so that the border of the film makes no edge.
    """
    # A wide Gaussian needs no full resolution: blurred at a quarter of the size, then enlarged. Full-size arrays are
    # worked on in place: at 1024 x 1024 each new one costs more than the arithmetic.
    factor = max(1, int(sigma // 6))
    height, width = pixels.shape
    small = (max(1, width // factor), max(1, height // factor))
    whole = bool(valid.all())
    weight = cv2.resize(valid.astype(np.float32), small, interpolation=cv2.INTER_AREA)
    masked = cv2.resize(pixels if whole else np.where(valid, pixels, 0), small, interpolation=cv2.INTER_AREA)
    border = cv2.BORDER_REFLECT_101 if min(small) > 1 else cv2.BORDER_REPLICATE
    blurred = cv2.GaussianBlur(masked, (0, 0), sigma / factor, borderType=border)
    area = cv2.GaussianBlur(weight, (0, 0), sigma / factor, borderType=border)
    mean = cv2.resize(blurred / np.maximum(area, 1e-3), (width, height), interpolation=cv2.INTER_LINEAR)
    detail: Pixels = np.subtract(pixels, mean, out=mean)
    if not whole:
        detail[~valid] = 0
    inside = np.abs(detail[::2, ::2] if whole else detail[::2, ::2][valid[::2, ::2]])
    spread = float(np.median(inside, overwrite_input=True)) * 1.4826 if inside.size else 1.0
    detail /= np.float32(2 * clip * max(spread, 1e-6))
    detail += np.float32(0.5)
    return np.clip(detail, 0, 1, out=detail)


# Name -> (version, function). A change of what an operation does raises its version: caches and bundles depend on it.
OPERATIONS: Mapping[str, tuple[int, Callable[..., Pixels]]] = {
    "stretch": (1, stretch),
    "local_contrast": (1, local_contrast),
}
FIT_VERSION = 1


def versioned(operations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The list with each operation's version written in, as it goes into cache keys and bundles.

    Raises PreprocessingError when an operation or a parameter is unknown or the first is not ``fit``.
    """
    if not operations or set(operations[0]) - {"version"} != {"op", "size"} or operations[0]["op"] != "fit":
        raise PreprocessingError("preprocessing must begin with {op: fit, size: PIXELS}")
    result = [{**operations[0], "version": FIT_VERSION}]
    for operation in operations[1:]:
        name = str(operation.get("op"))
        if name not in OPERATIONS:
            raise PreprocessingError(f"unknown preprocessing operation {name!r}; known: fit, {', '.join(OPERATIONS)}")
        version, function = OPERATIONS[name]
        known = [key for key, value in signature(function).parameters.items() if value.kind is value.KEYWORD_ONLY]
        if wrong := sorted(set(operation) - {"op", "version", *known}):
            raise PreprocessingError(f"preprocessing {name}: unknown parameter {wrong[0]!r}; known: {', '.join(known)}")
        result.append({**operation, "version": version})
    return result


def preprocess(case: Case, operations: Sequence[Mapping[str, Any]]) -> Sample:
    """Run a preprocessing list on a case. Raises PreprocessingError when the list is not valid."""
    versioned(operations)
    affine, shape = fit_frame(case, int(operations[0]["size"]))
    pixels, valid = case.sample(affine, shape)
    for operation in operations[1:]:
        settings = {key: value for key, value in operation.items() if key not in ("op", "version")}
        pixels = OPERATIONS[str(operation["op"])][1](pixels, valid, **settings)
    return Sample(pixels=pixels, affine=affine)

"""Preprocessing as data: a closed, versioned list of named operations, the same in training, prediction and bundle.

A stage's preprocessing is a list such as ``[{op: fit, size: 1024}, {op: local_contrast, sigma: 36, clip: 4}]``.
The first operation samples the case's frame: ``fit`` a film's, ``slabs`` or ``projections`` a volume's
(domainseg/cascade/volumes.py). The others work on what it gives and end in 0..1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainseg.cascade import volumes
from domainseg.cascade.case import Case
from domainseg.files import DomainsegError
from domainseg.imaging.geometry import Affine

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]


class PreprocessingError(DomainsegError):
    """A preprocessing list that names an unknown operation or parameter."""


@dataclass(frozen=True)
class Sample:
    """What a network sees of a case: pixels float32 in 0..1, and the affine from them to the source as read.

    Of a film pixels are one picture [H, W] and the affine is 3x3. Of a volume they are N pictures of C channels
    [N, C, H, W]; the affine is 4x4, from (x, y, number of the picture) to voxels.
    """

    pixels: Pixels
    affine: Affine

    @property
    def pictures(self) -> Pixels:
        """As a network takes them, [N, C, H, W]."""
        return self.pixels if self.pixels.ndim == 4 else self.pixels[None, None]

    @property
    def count(self) -> int:
        """N."""
        return len(self.pictures)

    def own(self, outputs: Pixels) -> Pixels:
        """Of a network's output [N, ...] what a decision sees: all of it for a volume, without the N for a film."""
        return outputs if self.pixels.ndim == 4 else outputs[0]


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
OPERATIONS: dict[str, tuple[int, Callable[..., Pixels]]] = {
    "stretch": (1, stretch),
    "local_contrast": (1, local_contrast),
}


def versioned(operations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The list with each operation's version written in, as it goes into cache keys and bundles.

    Raises PreprocessingError when an operation or a parameter is unknown or the first makes no frame.
    """
    first = dict(operations[0]) if operations else {}
    if (name := str(first.get("op"))) not in FRAMES or set(first) - {"version"} != {"op", *FRAMES[name].settings}:
        begin = " or ".join("{op: " + ", ".join([op, *frame.settings]) + "}" for op, frame in FRAMES.items())
        raise PreprocessingError(f"preprocessing must begin with {begin}")
    frame = FRAMES[name]
    result = [{**first, "version": frame.version}]
    for operation in operations[1:]:
        name = str(operation.get("op"))
        if name not in frame.operations:
            raise PreprocessingError(
                f"unknown preprocessing operation {name!r} after {first['op']}; known: {', '.join(frame.operations)}"
            )
        version, function = frame.operations[name]
        known = [key for key, value in signature(function).parameters.items() if value.kind is value.KEYWORD_ONLY]
        if wrong := sorted(set(operation) - {"op", "version", *known}):
            raise PreprocessingError(f"preprocessing {name}: unknown parameter {wrong[0]!r}; known: {', '.join(known)}")
        result.append({**operation, "version": version})
    return result


def fit(case: Case, operations: Sequence[Mapping[str, Any]]) -> Sample:
    """A film's frame in a square of ``size`` pixels, then the operations."""
    affine, shape = fit_frame(case, int(operations[0]["size"]))
    pixels, valid = case.sample(affine, shape)
    for operation in operations[1:]:
        settings = {key: value for key, value in operation.items() if key not in ("op", "version")}
        pixels = OPERATIONS[str(operation["op"])][1](pixels, valid, **settings)
    return Sample(pixels=pixels, affine=affine)


@dataclass(frozen=True)
class Frame:
    """What a preprocessing list may begin with.

    reads: film or volume. settings: its parameters, all needed. operations: what may follow, name -> (version,
    function). run: makes the sample of a case. channels: of a picture, of the whole list.
    """

    version: int
    reads: str
    settings: tuple[str, ...]
    operations: Mapping[str, tuple[int, Callable[..., Pixels]]]
    run: Callable[[Case, Sequence[Mapping[str, Any]]], Sample]
    channels: Callable[[Sequence[Mapping[str, Any]]], int]


def _of(make: Callable[[Case, Sequence[Mapping[str, Any]]], tuple[Pixels, Affine]]) -> Callable[..., Sample]:
    return lambda case, operations: Sample(*make(case, operations))


FRAMES: Mapping[str, Frame] = {
    "fit": Frame(1, "film", ("size",), OPERATIONS, fit, lambda operations: 1),
    "projections": Frame(1, "volume", ("size",), {}, _of(volumes.projections), lambda operations: volumes.PROJECTIONS),
    "slabs": Frame(
        1, "volume", ("size", "slices", "thickness"), volumes.OPERATIONS, _of(volumes.slabs), volumes.channels
    ),
}


def picture_shape(operations: Sequence[Mapping[str, Any]]) -> tuple[int, int, int]:
    """Channels, height and width of the pictures that a preprocessing list makes."""
    size = int(operations[0]["size"])
    return FRAMES[str(operations[0]["op"])].channels(operations), size, size


def preprocess(case: Case, operations: Sequence[Mapping[str, Any]]) -> Sample:
    """Run a preprocessing list on a case. Raises PreprocessingError when the list is not valid."""
    versioned(operations)
    return FRAMES[str(operations[0]["op"])].run(case, operations)

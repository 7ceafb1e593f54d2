"""Where a film shows the patient: pixels that are neither padding nor hidden by a display shutter.

DICOM PS3.3 C.7.5.1.1.2 (pixel padding) and C.7.6.11 (display shutter). Rows and columns of shutters count from 1 and
the edge itself is visible; several shapes show what lies inside all of them.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from domainseg.imaging.dicom import Refusal, integer, number, numbers

Mask = NDArray[np.bool_]


def valid_pixels(dataset: Dataset, pixels: NDArray[np.integer]) -> Mask | None:
    """Mask [H, W] of pixels that show something, None when all do; raises Refusal when none does."""
    padding = padding_of(dataset, pixels.dtype)
    padded = None if padding is None else unpadded(pixels, padding)
    masks = [mask for mask in (padded, _unshuttered(dataset, pixels.shape)) if mask is not None]
    if not masks:
        return None
    valid = masks[0] if len(masks) == 1 else masks[0] & masks[1]
    if valid.all():
        return None
    if not valid.any():
        raise Refusal("padding and shutters leave no pixel to show")
    return valid


def padding_of(dataset: Dataset, kind: np.dtype[Any]) -> tuple[float, float] | None:
    """Lowest and highest stored value that is padding, None where the header names none.

    kind: of the pixels as stored; a value that does not fit it was written with the other sign.
    """
    value = number(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = number(dataset, "PixelPaddingRangeLimit")
    bounds = np.iinfo(kind)
    both = (value, value if limit is None else limit)
    low, high = sorted(v if bounds.min <= v <= bounds.max else v + (65536 if v < 0 else -65536) for v in both)
    return low, high


def unpadded(pixels: NDArray[np.integer], padding: tuple[float, float]) -> Mask:
    """Mask of pixels outside the range of padding, both ends included."""
    low, high = padding
    if low == high:
        return np.asarray(pixels != low)
    return np.asarray((pixels < low) | (pixels > high))


def _unshuttered(dataset: Dataset, shape: tuple[int, ...]) -> Mask | None:
    shapes = dataset.get("ShutterShape") or []
    shapes = [shapes] if isinstance(shapes, str) else list(shapes)
    if not shapes:
        return None
    visible = np.ones(shape, dtype=np.uint8)
    for name in shapes:
        draw = {"RECTANGULAR": _rectangle, "CIRCULAR": _circle, "POLYGONAL": _polygon}.get(str(name).strip())
        if draw is None:
            raise Refusal("ShutterShape (0018,1600) is none of RECTANGULAR, CIRCULAR, POLYGONAL")
        one = np.zeros(shape, dtype=np.uint8)
        draw(dataset, one)
        visible &= one
    return visible.view(np.bool_)


def _rectangle(dataset: Dataset, mask: NDArray[np.uint8]) -> None:
    left, right = (integer(dataset, f"Shutter{side}VerticalEdge") for side in ("Left", "Right"))
    upper, lower = (integer(dataset, f"Shutter{side}HorizontalEdge") for side in ("Upper", "Lower"))
    mask[max(upper - 1, 0) : max(lower, 0), max(left - 1, 0) : max(right, 0)] = 1


def _circle(dataset: Dataset, mask: NDArray[np.uint8]) -> None:
    center = numbers(dataset, "CenterOfCircularShutter")
    radius = number(dataset, "RadiusOfCircularShutter")
    if len(center) != 2 or radius is None or radius <= 0:
        raise Refusal("its circular shutter has no centre or no radius")
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    mask[(rows - (center[0] - 1)) ** 2 + (columns - (center[1] - 1)) ** 2 <= radius**2] = 1


def _polygon(dataset: Dataset, mask: NDArray[np.uint8]) -> None:
    vertices = numbers(dataset, "VerticesOfThePolygonalShutter")
    if len(vertices) < 6 or len(vertices) % 2 or max(map(abs, vertices)) > 1e6:
        raise Refusal("its polygonal shutter has fewer than three corners, or corners far away")
    corners = np.array(vertices).reshape(-1, 2)[:, ::-1] - 1  # (row, column) from 1 to (x, y) from 0
    cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 1.0)

"""Stored values to Hounsfield units, and whether they can be that."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.imaging.dicom import MAX_BYTES, NotHounsfield, Refusal, TooLarge, check_size
from domainseg.imaging.volume import AIR

MAX_VOXELS = MAX_BYTES // 2

# What a CT of a person holds, our choice: some air near -1000 HU, and soft tissue among what is no air or lung.
_AIR, _LEAST_AIR = (-1100, -800), 0.001
_SOFT, _LEAST_SOFT, _BODY = (-150, 150), 0.1, -300


def check_voxels(depth: int, rows: int, columns: int, max_voxels: int | None) -> None:
    """Refuse volumes larger than any CT, or than ``max_voxels``, before memory is taken for them."""
    check_size(rows, columns)
    count = depth * rows * columns
    if depth < 1 or count > MAX_VOXELS:
        raise Refusal(f"its {depth} slices of {rows} x {columns} are no plausible size: at most {MAX_VOXELS} voxels")
    if max_voxels is not None and count > max_voxels:
        raise TooLarge(
            f"its {depth} slices of {rows} x {columns} need more memory than there is for a volume "
            f"({max_voxels} voxels)"
        )


def to_int16(
    values: NDArray[Any], slope: float, intercept: float, valid: NDArray[np.bool_] | None
) -> NDArray[np.int16]:
    """HU as int16 of stored ``values``; AIR where not valid. What lies below AIR is left for ``Hounsfield.clamped``."""
    scaled = np.rint(values * np.float64(slope) + np.float64(intercept)) if (slope, intercept) != (1, 0) else values
    if scaled.dtype.kind == "f":
        scaled = np.rint(scaled)
    hu = np.clip(scaled, -32768, 32767).astype(np.int16)
    if valid is not None:
        hu[~valid] = AIR
    return hu


class Hounsfield:
    """Counts, slice by slice, what a CT must hold."""

    def __init__(self) -> None:
        self._air = self._soft = self._body = self._all = 0
        self._low, self._high = 32767, -32768

    def clamped(self, hu: NDArray[np.int16], valid: NDArray[np.bool_] | None = None) -> NDArray[np.int16]:
        """Count one slice (a sixteenth of it), and return it with nothing below AIR."""
        part = hu[::4, ::4] if valid is None else hu[::4, ::4][valid[::4, ::4]]
        if part.size:
            self._all += part.size
            self._air += int(np.count_nonzero((part >= _AIR[0]) & (part <= _AIR[1])))
            self._soft += int(np.count_nonzero((part >= _SOFT[0]) & (part <= _SOFT[1])))
            self._body += int(np.count_nonzero(part > _BODY))
            self._low, self._high = min(self._low, int(part.min())), max(self._high, int(part.max()))
        return np.maximum(hu, np.int16(AIR))

    def check(self) -> None:
        """Raise NotHounsfield when the slices counted cannot be a CT of a person in HU."""
        if not self._all:
            raise NotHounsfield("holds nothing but padding")
        span = f"its values run from {self._low} to {self._high}"
        if self._air < _LEAST_AIR * self._all:
            windowed = self._low >= 0 and self._high <= 255
            eight = " as grey values of a window do, which cannot be undone" if windowed else ""
            raise NotHounsfield(
                f"holds no Hounsfield units: no air near -1000 is in it, {span}{eight}. Another modality, a label "
                "volume, or rescaled: export the CT in Hounsfield units"
            )
        if self._soft < _LEAST_SOFT * self._body or not self._soft:
            raise NotHounsfield(
                f"holds no Hounsfield units: no soft tissue between {_SOFT[0]} and {_SOFT[1]} is in it, {span}. "
                "Export the CT with its rescale slope and intercept"
            )

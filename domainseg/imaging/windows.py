"""Grey values as a person would see them: modality LUT, then VOI LUT or window, then at most one inversion.

Films hold 8- or 16-bit integers, so all of it is one table over the 256 or 65,536 codes, built in float64 and applied
once. The formulas are those of DICOM PS3.3, C.11.1 (modality LUT), C.11.2 (VOI LUT, window functions).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Lut:
    """A lookup table: ``data[value - first]``, the ends held outside of it; entries have ``bits`` bits."""

    first: int
    bits: int
    data: NDArray[np.int64]

    def __call__(self, values: Values) -> Values:
        index = np.clip(np.rint(values) - self.first, 0, len(self.data) - 1).astype(np.int64)
        return np.asarray(self.data[index], dtype=np.float64)


@dataclass(frozen=True)
class Rescale:
    """Stored value times slope plus intercept."""

    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, values: Values) -> Values:
        return values * self.slope + self.intercept


@dataclass(frozen=True)
class Window:
    """A window of DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3 (LINEAR, LINEAR_EXACT or SIGMOID); gives 0..1."""

    center: float
    width: float
    function: str = "LINEAR"

    def __call__(self, values: Values) -> Values:
        if self.function == "SIGMOID":
            # Beyond 700 the exponential overflows, and the result has been 0 or 1 for long.
            return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - self.center) / self.width, -700.0, 700.0)))
        if self.function == "LINEAR_EXACT":
            return np.clip((values - self.center) / self.width + 0.5, 0.0, 1.0)
        if self.width == 1.0:
            return (values > self.center - 0.5).astype(np.float64)
        return np.clip((values - (self.center - 0.5)) / (self.width - 1.0) + 0.5, 0.0, 1.0)


@dataclass(frozen=True)
class Presentation:
    """How stored values become 0..1: ``voi`` None stretches the range that valid pixels span to 0..1."""

    modality: Lut | Rescale = Rescale()
    voi: Lut | Window | None = None
    inverted: bool = False

    def apply(self, pixels: NDArray[np.integer], valid: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """Bring integer pixels [H, W] (8 or 16 bits) to float32 0..1, bright = dense; 0 where not valid.

        Raises ValueError when the window or LUT makes one grey of a film that has several.
        """
        low, high = extremes(pixels, valid)
        unsigned = np.dtype(f"u{pixels.dtype.itemsize}")
        values = np.arange(256**pixels.dtype.itemsize).astype(unsigned).view(pixels.dtype).astype(np.float64)
        measured = self.modality(values)
        used = measured[(values >= low) & (values <= high)]
        bottom, top = float(used.min()), float(used.max())
        shown = self._show(measured, bottom, top)
        if top > bottom and np.ptp(shown[(values >= low) & (values <= high)]) <= 0:
            raise ValueError("the window or VOI LUT lies outside the pixel values: the whole film would be one grey")
        if self.inverted:
            shown = 1.0 - shown
        film = cv2.LUT(np.ascontiguousarray(pixels).view(unsigned), shown.astype(np.float32))
        if valid is not None:
            np.copyto(film, np.float32(0), where=~valid)
        return np.asarray(film, dtype=np.float32)

    def _show(self, measured: Values, bottom: float, top: float) -> Values:
        if self.voi is None:
            return np.clip((measured - bottom) / max(top - bottom, np.finfo(float).tiny), 0.0, 1.0)
        shown = self.voi(measured)
        return shown / (2.0**self.voi.bits - 1.0) if isinstance(self.voi, Lut) else shown


def extremes(pixels: NDArray[np.integer], valid: NDArray[np.bool_] | None) -> tuple[int, int]:
    """Lowest and highest of the valid pixels."""
    low, high, _, _ = cv2.minMaxLoc(pixels, mask=None if valid is None else valid.view(np.uint8))
    return int(low), int(high)

"""What a film is once it is read, and the one error for everything that cannot be."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainseg.files import DomainsegError
from domainseg.imaging.geometry import Affine, identity

# Part of every cache key: a change of what read_film makes of a file raises it.
READER_VERSION = "2"


class ImageReadError(DomainsegError):
    """A file that cannot be read, or whose content is implausible.

    ``path`` is for the person at the terminal only: logs and tables name the image, never the path. ``reason`` says
    what was wrong and what to do, and holds no patient data. ``kind`` is the reason that tables give: unreadable, or
    exceeds_memory, not_ct (another modality where a CT is needed), not_hounsfield (values that no CT has), crashed (a
    process died at the file) or failed.
    """

    kind = "unreadable"

    def __init__(self, path: Path | str, reason: str, kind: str | None = None) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason
        self.kind = kind or self.kind

    def __reduce__(self) -> tuple[type[ImageReadError], tuple[Path, str, str]]:
        return type(self), (self.path, self.reason, self.kind)  # whole from another process


class FilmTooLargeError(ImageReadError):
    """A film with more pixels than the caller has memory for (``max_pixels`` of ``read_film``)."""

    kind = "exceeds_memory"


@dataclass(frozen=True)
class Film:
    """One radiograph in presentation sense.

    pixels: float32 [H, W] in 0..1 after modality LUT, VOI LUT or window and at most one inversion; bright = dense.
    valid: bool [H, W], False in padding and behind shutters (pixels are 0 there); None where all of it is image.
    geometry: 3x3 affine from array pixels to source pixels; the identity as read.
    spacing: (row, column) distance in mm between source pixels, or None.
    spacing_kind: "calibrated" (in the patient), "detector" (at the detector plane) or "unknown".
    orientation: DICOM PatientOrientation, for instance ("L", "F"), or None.
    laterality: "L", "R" or None, from the laterality tags (None when both or unpaired).
    metadata: what an audit needs, as text, never a name, birth date or patient number: view, station, institution,
        department, date, portable, manufacturer, model, modality, body_part; a missing one is absent.
    """

    pixels: NDArray[np.float32]
    valid: NDArray[np.bool_] | None = None
    geometry: Affine = field(default_factory=identity)
    spacing: tuple[float, float] | None = None
    spacing_kind: str = "unknown"
    orientation: tuple[str, str] | None = None
    laterality: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

"""What a CT series is once it is read: Hounsfield units, and where they lie in the patient and in the source."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.imaging.film import ImageReadError
from domainseg.imaging.geometry import Affine

AIR = -1024  # HU of padding and of what lies outside

# Part of every cache key: a change of what read_volume makes of its files raises it.
VOLUME_READER_VERSION = "3"


class VolumeTooLargeError(ImageReadError):
    """A series with more voxels than the caller has memory for (``max_voxels`` of ``read_volume``)."""

    kind = "exceeds_memory"


@dataclass(frozen=True)
class Volume:
    """One CT series, its axes turned so that x runs to the patient's left, y to the back and z to the head.

    voxels: int16 [z, y, x] in HU, AIR in padding.
    affine: 4x4, from (x, y, z) of a voxel to LPS millimetres; gantry tilt is a shear in it. None where nothing is known
        of the place and size of voxels (exported pictures).
    rendering: None for Hounsfield units as stored; (low, high) in HU for 8-bit pictures of a window: voxels are then
        HU as the picture shows them, clipped to the window.
    source_shape: (k, j, i) of the array as stored: slices in order along the normal (DICOM, pictures) or the file's
        own third, second, first axis (NIfTI). source_axes: for each of x, y, z of ``voxels`` the stored axis (0 = i,
        1 = j, 2 = k) and its direction (1 or -1). source_z: float64 [slices of the source] the place of each source
        slice along z, in voxels; whole numbers where nothing was resampled.
    files: those of the source slices in order, or the one of all. For people and for DICOM SEG, never in a table.
    notes: what a reader of the results must know: which series was chosen and which were left out, what was resampled,
        what is missing. No patient data.
    metadata: what an audit needs, as text, never a name, birth date or patient number: station, institution,
        department, date, manufacturer, model, modality, body_part, kernel, kvp, thickness, tilt; a missing one is
        absent.
    """

    voxels: NDArray[np.int16]
    affine: Affine | None
    rendering: tuple[float, float] | None = None
    source_shape: tuple[int, int, int] = (0, 0, 0)
    source_axes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] = ((0, 1), (1, 1), (2, 1))
    source_z: NDArray[np.float64] | None = None
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        depth, height, width = self.voxels.shape
        return depth, height, width

    @property
    def geometry(self) -> Affine:
        """From voxels to voxels of the volume as read: the identity."""
        return np.eye(4)

    @cached_property
    def spacing(self) -> tuple[float, float, float] | None:
        """Millimetres between columns, between rows, and between slices along the normal; None where unknown."""
        if self.affine is None:
            return None
        x, y, z = (self.affine[:3, k] for k in range(3))
        normal = np.cross(x, y) / np.linalg.norm(np.cross(x, y))
        return float(np.linalg.norm(x)), float(np.linalg.norm(y)), float(abs(z @ normal))

    @property
    def voxel_ml(self) -> float:
        """Millilitres of a voxel; NaN where unknown."""
        return float("nan") if self.affine is None else float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    def from_source(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Labels in the source's own order, an array of ``source_shape``, on the voxels of this volume [z, y, x].

        Each slice gets the labels of the nearest source slice. Raises ValueError for another shape.
        """
        if labels.shape != self.source_shape:
            raise ValueError(f"labels of shape {labels.shape} for a source of {self.source_shape}")
        placed = labels.transpose(2, 1, 0).transpose([stored for stored, _ in self.source_axes])
        for axis, (_, direction) in enumerate(self.source_axes):
            if direction < 0 and axis != 2:
                placed = np.flip(placed, axis)
        depth = self.voxels.shape[0]
        nearest = np.abs(self._places[None] - np.arange(depth)[:, None]).argmin(axis=1)
        return np.ascontiguousarray(placed.transpose(2, 1, 0)[nearest])

    @property
    def _places(self) -> NDArray[np.float64]:
        """Where on the slices of this volume each source slice lies."""
        return np.arange(self.voxels.shape[0], dtype=float) if self.source_z is None else self.source_z

    def source_slices(self, first: int, last: int) -> NDArray[np.intp]:
        """The source slices, zero-based, that ``to_source`` gives the labels of these slices of the volume to."""
        depth, places = self.voxels.shape[0], self._places
        z = np.clip(np.rint(places).astype(int), 0, depth - 1)
        between = np.setdiff1d(np.arange(first, last + 1), z)
        own = np.flatnonzero((z >= first) & (z <= last))
        return np.union1d(own, np.abs(places[None] - between[:, None]).argmin(axis=1)).astype(np.intp)

    def to_source(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Labels [z, y, x] on the voxels of this volume, as an array of ``source_shape`` in the source's own order.

        Each source slice gets the labels of the nearest slice of the volume; of one that is nearest to no source slice
        the labels go, where there are none yet, to its own nearest one: nothing that is labelled is lost.
        """
        depth, places = self.voxels.shape[0], self._places
        z = np.clip(np.rint(places).astype(int), 0, depth - 1)
        placed = labels[z]
        for between in np.setdiff1d(np.arange(depth), z):
            (nearest,) = self.source_slices(int(between), int(between))
            placed[nearest] = np.where(placed[nearest] > 0, placed[nearest], labels[between])
        # [z, y, x] -> axes (x, y, z), each undone: first its direction, then its place.
        placed = placed.transpose(2, 1, 0)
        for axis, (_, direction) in enumerate(self.source_axes):
            # source_z lists the slices in the source's own order already.
            if direction < 0 and axis != 2:
                placed = np.flip(placed, axis)
        order = np.argsort([stored for stored, _ in self.source_axes])
        return np.ascontiguousarray(placed.transpose(order).transpose(2, 1, 0))

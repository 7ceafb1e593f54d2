"""Volumes and label volumes of exams as NIfTI, byte for byte the same each time; classes of their volumes."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from domainseg.files import write_bytes

SIZE_CLASSES = ((3.0, "under 3 ml"), (10.0, "3 to 10 ml"), (30.0, "10 to 30 ml"), (np.inf, "30 ml and over"))


def size_class(ml: float) -> str:
    """The class of a volume in ml."""
    return next(name for limit, name in SIZE_CLASSES if ml < limit)


def write_nifti(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64], *, rows_up: bool = True) -> None:
    """Write [slices, rows, columns] as .nii.gz; same voxels, same bytes. affine: (column, row, slice) to LPS mm.

    rows_up: the second axis runs from the last row to the first, as converters of DICOM write it.
    """
    stored, matrix = voxels.transpose(2, 1, 0), affine.copy()
    if rows_up:
        stored = stored[:, ::-1]
        matrix = affine @ np.array([[1, 0, 0, 0], [0, -1, 0, voxels.shape[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    library: Any = nibabel  # it has no types
    image = library.Nifti1Image(stored, np.diag([-1.0, -1, 1, 1]) @ matrix, dtype=voxels.dtype)  # NIfTI is RAS
    image.header.set_xyzt_units("mm")
    write_bytes(path, gzip.compress(image.to_bytes(), 1, mtime=0))

"""Small DICOM files, written by the tests themselves."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from domainseg.imaging import Film, read_film

DX = "1.2.840.10008.5.1.4.1.1.1.1"
NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)


def dicom_bytes(pixels: NDArray[Any], *, syntax: str = ExplicitVRLittleEndian, bits: int = 12, **tags: Any) -> bytes:
    """A DX film with ``pixels`` (8- or 16-bit integers); ``tags`` are set last, None removes a tag."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = tags.get("SOPClassUID") or DX
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored = min(bits, dataset.BitsAllocated)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    big = syntax == ExplicitVRBigEndian
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    if syntax not in NATIVE:
        dataset.compress(syntax)
    dataset.file_meta.TransferSyntaxUID = syntax
    for keyword, value in tags.items():
        if value is None:
            delattr(dataset, keyword)
        elif keyword == "TransferSyntaxUID":
            dataset.file_meta.TransferSyntaxUID = value
        else:
            setattr(dataset, keyword, value)
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian,
                    little_endian=not big)  # fmt: skip
    return stream.getvalue()


@pytest.fixture(scope="session")
def make_dicom() -> Callable[..., bytes]:
    """``dicom_bytes``."""
    return dicom_bytes


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a DX film (arguments of ``dicom_bytes``) to a file."""

    def _write(pixels: NDArray[Any], **settings: Any) -> Path:
        path = tmp_path / "film.dcm"
        path.write_bytes(dicom_bytes(pixels, **settings))
        return path

    return _write


@pytest.fixture
def film(write: Callable[..., Path]) -> Callable[..., Film]:
    """Write a DX film and read it."""
    return lambda pixels, **settings: read_film(write(pixels, **settings))


@pytest.fixture(scope="session")
def ramp() -> NDArray[np.uint16]:
    """40 x 48 pixels that hold 0 to 4095, all different along a line."""
    return np.linspace(0, 4095, 40 * 48).astype(np.uint16).reshape(40, 48)

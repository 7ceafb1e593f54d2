"""Small DICOM files and CT series, written by the tests themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
CT = "1.2.840.10008.5.1.4.1.1.2"
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


def hounsfield_at(points: NDArray[Any]) -> NDArray[np.float64]:
    """HU at LPS millimetres [..., 3]: linear, so that interpolation is exact; air at one corner, tissue at another."""
    return np.asarray(-400 + (points - (0, 0, 25)) @ (5.0, -4.0, 3.0))


def ct_slice(
    position: Sequence[float],
    turn: Sequence[float] = (1, 0, 0, 0, 1, 0),
    *,
    size: tuple[int, int] = (32, 36),
    spacing: tuple[float, float] = (3.0, 2.5),
    number: int = 1,
    **tags: Any,
) -> bytes:
    """A CT slice of ``hounsfield_at``; ``spacing`` between (rows, columns) in mm, ``tags`` as for ``dicom_bytes``."""
    down, along = np.mgrid[: size[0], : size[1]].astype(float)
    across = np.array(turn[:3]) * spacing[1], np.array(turn[3:]) * spacing[0]
    points = np.array(position) + along[..., None] * across[0] + down[..., None] * across[1]
    stored = np.rint(hounsfield_at(points)).astype(np.int32) + 1024
    named = {
        "SOPClassUID": CT, "Modality": "CT", "SOPInstanceUID": f"1.2.826.0.1.3680043.8.498.7.{number}",
        "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.8", "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.9",
        "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.10", "PatientName": "Doe^Jane", "PatientID": "4711",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "ImagePositionPatient": [f"{v:.4f}" for v in position],
        "ImageOrientationPatient": [f"{v:.8f}" for v in turn], "PixelSpacing": list(spacing), "SliceThickness": 5,
        "InstanceNumber": number, "RescaleSlope": 1, "RescaleIntercept": -1024, "BodyPartExamined": "HEAD",
    }  # fmt: skip
    tags = {name: value for name, value in {**named, **tags}.items() if value is not None or name not in named}
    return dicom_bytes(stored.astype(np.uint16), bits=16, **tags)


@pytest.fixture(scope="session")
def make_slice() -> Callable[..., bytes]:
    """``ct_slice``."""
    return ct_slice


@pytest.fixture(scope="session")
def truth() -> Callable[..., NDArray[np.float64]]:
    """``hounsfield_at``."""
    return hounsfield_at


AXIAL = [(-43.75, -46.5, 5.0 * k) for k in range(8)]  # positions of the slices of the usual small series


@pytest.fixture
def make_series(tmp_path: Path) -> Callable[..., Path]:
    """Write a CT series, one file for each of ``positions`` (arguments of ``ct_slice``), into a folder."""

    def _write(
        positions: Sequence[Sequence[float]] = AXIAL, name: str = "exam", start: int = 1, **settings: Any
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        # Names in another order than the slices.
        order = np.random.default_rng(7).permutation(len(positions))
        for at, position in enumerate(positions):
            data = ct_slice(position, number=start + at, **settings)
            (folder / f"{settings.get('SeriesNumber', 1)}-{order[at]:03d}-{start}.dcm").write_bytes(data)
        return folder

    return _write

"""Damaged files give a film or volume or an ImageReadError: never a crash, a hang, another exception or nonsense."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import gdcm
import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset

from domainseg.imaging import Film, ImageReadError, Volume, patient_side, read_film, read_pixels, read_volume

MUTATIONS, OF_SERIES, OF_NIFTI = 8_000, 400, 1_000
TEXTS = (
    "",
    "\\",
    "L\\F",
    "FOR PROCESSING",
    "MONOCHROME1",
    "RGB",
    "1e308",
    "-0",
    "nan",
    "inf",
    "9" * 40,
    "Ä\x00\x1b$B",
    "RF",
)
NUMBERS = (0, 1, 2, 7, 8, 12, 16, 17, 32, 255, 4095, 32768, 65535)
TAGS = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "NumberOfFrames", "PhotometricInterpretation", "WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleSlope",
    "RescaleIntercept", "PixelSpacing", "ImagerPixelSpacing", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "ShutterShape", "ShutterLeftVerticalEdge", "CenterOfCircularShutter", "RadiusOfCircularShutter",
    "VerticesOfThePolygonalShutter", "PatientOrientation", "ImageLaterality", "Modality", "SOPClassUID",
    "PresentationLUTShape", "PresentationIntentType", "EstimatedRadiographicMagnificationFactor", "StudyDate",
    "SpecificCharacterSet", "VOILUTSequence", "PixelData", "ImagePositionPatient", "ImageOrientationPatient",
    "SliceThickness", "SeriesInstanceUID", "InstanceNumber", "ConvolutionKernel", "ImageType", "RescaleType",
)  # fmt: skip


def seeds(make_dicom: Callable[..., bytes], pixels: NDArray[np.uint16], folder: Path) -> list[bytes]:
    """Small good files of every kind that can be written here."""
    table = Dataset()
    table.LUTDescriptor = [16, 0, 12]
    table.LUTData = np.arange(0, 4096, 256, dtype="<u2").tobytes()
    full: dict[str, Any] = {
        "WindowCenter": [2000, 1000], "WindowWidth": [3000, 10], "PixelSpacing": [0.14, 0.14], "StudyDate": "20240102",
        "ImagerPixelSpacing": [0.15, 0.15], "PatientOrientation": ["L", "F"], "ImageLaterality": "R",
        "PixelPaddingValue": 0, "ShutterShape": ["RECTANGULAR", "CIRCULAR", "POLYGONAL"], "ShutterLeftVerticalEdge": 2,
        "ShutterRightVerticalEdge": 30, "ShutterUpperHorizontalEdge": 2, "ShutterLowerHorizontalEdge": 23,
        "CenterOfCircularShutter": [12, 16], "RadiusOfCircularShutter": 20, "PatientName": "Doe^Jane",
        "VerticesOfThePolygonalShutter": [1, 1, 1, 32, 24, 16], "RescaleSlope": 1, "RescaleIntercept": 0,
    }  # fmt: skip
    native = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian)
    packed = (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless)
    files = [make_dicom(pixels, syntax=syntax, **full) for syntax in native + packed]
    files.append(make_dicom(pixels, PhotometricInterpretation="MONOCHROME1", VOILUTSequence=[table]))
    files.append(make_dicom((pixels >> 4).astype(np.uint8), WindowCenter=100, WindowWidth=80, VOILUTFunction="SIGMOID"))
    files.append(_deflated(files[0]))
    files += [_with_jpeg(make_dicom, pixels, quality) for quality in (50, 95)]
    files.append(_lossless_jpeg(files[0], folder))
    for format_, settings in (("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("JPEG", {})):
        for picture in (pixels, (pixels >> 4).astype(np.uint8)):
            if format_ != "JPEG" or picture.dtype == np.uint8:
                stream = BytesIO()
                Image.fromarray(picture).save(stream, format_, **settings)
                files.append(stream.getvalue())
    return files


def _deflated(data: bytes) -> bytes:
    dataset = pydicom.dcmread(BytesIO(data))
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _lossless_jpeg(data: bytes, folder: Path) -> bytes:
    """The same film as lossless JPEG, process 14, which gdcm encodes."""
    source, target = folder / "raw.dcm", folder / "lossless.dcm"
    source.write_bytes(data)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return target.read_bytes()


def _with_jpeg(make_dicom: Callable[..., bytes], pixels: NDArray[np.uint16], quality: int) -> bytes:
    """A DX film whose frame is a baseline JPEG."""
    stream = BytesIO()
    eight = (pixels >> 4).astype(np.uint8)
    Image.fromarray(eight).save(stream, "JPEG", quality=quality)
    dataset = pydicom.dcmread(BytesIO(make_dicom(eight)))
    dataset.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    written = BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One to four kinds of damage, in the header as often as in the payload."""
    if chance.random() < 0.3 and data[128:132] == b"DICM":
        data = _swap_tags(data, chance)
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        header = min(len(changed), 900)
        at = chance.randrange(header if chance.random() < 0.5 else len(changed))
        kind = chance.randrange(6)
        if kind == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[at : at + chance.choice((1, 2, 4))] = chance.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff"))
        elif kind == 2:
            del changed[max(at, 1) :]
        elif kind == 3:
            del changed[at : at + chance.randrange(1, 20)]
        elif kind == 4:
            source = chance.randrange(len(changed))
            changed[at:at] = changed[source : source + chance.randrange(1, 40)]
        else:
            changed[at] = chance.randrange(256)
        if not changed:
            return b""
    return bytes(changed)


def _swap_tags(data: bytes, chance: random.Random) -> bytes:
    """Give one to three elements a value that fits their VR badly or not at all."""
    dataset = pydicom.dcmread(BytesIO(data), force=True)
    for keyword in chance.sample(TAGS, chance.randrange(1, 4)):
        kind = chance.randrange(4)
        try:
            if kind == 0:
                delattr(dataset, keyword)
            elif kind == 1:
                setattr(dataset, keyword, chance.choice(NUMBERS))
            elif kind == 2:
                setattr(dataset, keyword, chance.choice(TEXTS))
            else:
                other = chance.choice(TAGS)
                setattr(dataset, keyword, dataset[other].value)
        except Exception:  # pydicom refuses some values by itself
            continue
    stream = BytesIO()
    try:
        dataset.save_as(stream)
    except Exception:
        return data
    return stream.getvalue()


def attempt(path: Path) -> tuple[Film | None, str]:
    """The film, or None and why not."""
    try:
        return read_film(path), ""
    except ImageReadError as error:
        return None, error.reason


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # pydicom's, while it writes the bad values
def test_mutated_files(tmp_path: Path, make_dicom: Callable[..., bytes], ramp: NDArray[np.uint16]) -> None:
    chance = random.Random(20240607)
    files = seeds(make_dicom, ramp, tmp_path)
    path = tmp_path / "mutated"
    for data in files:
        path.write_bytes(data)
        assert read_film(path).shape == ramp.shape
    read = 0
    for number in range(MUTATIONS):
        path.write_bytes(mutate(files[number % len(files)], chance))
        film, reason = attempt(path)
        if film is None:
            assert reason
            assert "Doe" not in reason
        else:
            read += 1
            assert film.pixels.dtype == np.float32
            assert film.pixels.ndim == 2
            assert 0 <= film.pixels.min() <= film.pixels.max() <= 1
            assert film.spacing is None or all(0 < value < 100 for value in film.spacing)
            assert patient_side(film, np.eye(3), "left")[0] in ("L", "R", "unknown")
        if number % 10 == 0:
            with contextlib.suppress(ImageReadError):
                assert read_pixels(path).size
    assert 0.05 * MUTATIONS < read < 0.8 * MUTATIONS  # the damage is neither all fatal nor all harmless


def check_volume(path: Path, whole: Volume) -> bool:
    """Whether the damaged exam is read; then it is as the whole one, or its notes say what is not."""
    reason = ""
    try:
        volume = read_volume(path, max_voxels=1_000_000)
    except ImageReadError as error:
        reason = error.reason or "none"
    if reason:
        assert reason != "none"
        assert "Doe" not in reason
        return False
    assert volume.voxels.dtype == np.int16
    assert "Doe" not in " ".join((*volume.notes, *volume.metadata.values()))
    if volume.notes == whole.notes:
        assert volume.shape == whole.shape
        np.testing.assert_allclose(volume.affine, whole.affine, atol=0.3)
        differ = (volume.voxels != whole.voxels).any(axis=(1, 2))
        assert differ.sum() <= 1  # the damaged slice's pixels
    return True


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_series_with_a_mutated_slice(make_series: Callable[..., Path]) -> None:
    chance = random.Random(20240608)
    folder = make_series([(-43.75, -46.5, 5.0 * k) for k in range(5)])
    whole = read_volume(folder)
    read = 0
    for number in range(OF_SERIES):
        path = whole.files[number % len(whole.files)]
        data = path.read_bytes()
        path.write_bytes(mutate(data, chance))
        read += check_volume(folder, whole)
        path.write_bytes(data)
    assert 0.05 * OF_SERIES < read < 0.8 * OF_SERIES


def test_mutated_nifti(tmp_path: Path) -> None:
    chance = random.Random(20240609)
    k, j, i = np.indices((5, 16, 18))
    image = nibabel.Nifti1Image((-1000 + 60 * i + 5 * j + k).astype(np.int16).T, np.diag([-3.0, -3, 4, 1]))
    read = 0
    for suffix in (".nii", ".nii.gz"):
        path = tmp_path / f"a{suffix}"
        nibabel.save(image, path)
        data, whole = path.read_bytes(), read_volume(path)
        for _ in range(OF_NIFTI // 2):
            path.write_bytes(mutate(data, chance))
            with contextlib.suppress(ImageReadError):
                volume = read_volume(path, max_voxels=1_000_000)
                read += 1
                assert volume.voxels.size <= 1_000_000
                assert volume.affine is not None
                assert 0.001 < abs(np.linalg.det(volume.affine[:3, :3])) < 1e5
                if suffix == ".nii.gz":  # its checksum finds what changes a voxel
                    np.testing.assert_array_equal(volume.voxels, whole.voxels)
    assert 0.02 * OF_NIFTI < read < 0.8 * OF_NIFTI

"""What is a film and what is not, spacing, orientation, metadata, privacy."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from pydicom import uid

from domainseg.imaging import Film, ImageReadError, read_film, read_pixels

Pixels = NDArray[np.uint16]


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ExplicitVRLittleEndian,
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.RLELossless,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
    ],
)
def test_lossless_syntaxes(write: Callable[..., Path], ramp: Pixels, syntax: str) -> None:
    path = write(ramp, syntax=syntax, WindowCenter=2048, WindowWidth=4096)
    assert_array_equal(read_pixels(path), ramp)
    np.testing.assert_allclose(read_film(path).pixels, ramp / 4095, atol=1e-6)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1"}, "FOR PROCESSING"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "FOR PROCESSING"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT"}, "CT Image Storage"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "Modality": "SR", "PixelData": None}, "Basic Text SR"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1", "PixelData": None}, "Encapsulated PDF"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1", "PixelData": None}, "Presentation State"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "MR"}, "modality MR"),
        ({"NumberOfFrames": 2, "Rows": 20}, "2 frames"),
        ({"Rows": 20}, "bytes of pixels"),
        ({"Rows": 65535, "Columns": 65535}, "size"),
        ({"PixelData": None}, "no pixel data"),
        ({"BitsStored": 17, "HighBit": 16}, "bits stored"),
        ({"HighBit": 14}, "HighBit"),
        ({"PhotometricInterpretation": "HSV"}, "PhotometricInterpretation"),
        ({"PhotometricInterpretation": "RGB"}, "samples"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour"),
        ({"PixelSpacing": [0, 0]}, "PixelSpacing"),
        ({"ImagerPixelSpacing": [0.1, -0.1]}, "ImagerPixelSpacing"),
        ({"EstimatedRadiographicMagnificationFactor": 0}, "Magnification"),
    ],
)
def test_refused_by_name(film: Callable[..., Film], ramp: Pixels, tags: dict[str, Any], reason: str) -> None:
    with pytest.raises(ImageReadError, match=reason):
        film(ramp, **tags)


@pytest.mark.parametrize(
    ("syntax", "reason"), [(uid.JPEGBaseline8Bit, "frame"), ("1.2.840.10008.1.2.4.55", "Full Progression.*no decoder")]
)
def test_another_transfer_syntax_than_the_stream(
    write: Callable[..., Path], ramp: Pixels, syntax: str, reason: str
) -> None:
    path = write(ramp, syntax=uid.JPEG2000Lossless)
    path.write_bytes(path.read_bytes().replace(uid.JPEG2000Lossless.encode(), syntax.encode(), 1))
    with pytest.raises(ImageReadError, match=reason):
        read_pixels(path)


def test_colour(write: Callable[..., Path]) -> None:
    colour = np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3)
    path = write(colour, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, Modality="OT")
    assert_array_equal(read_pixels(path), colour)
    with pytest.raises(ImageReadError, match="colour"):
        read_film(path)


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        ("1.2.840.10008.5.1.4.1.1.1", "CR"),
        ("1.2.840.10008.5.1.4.1.1.1.1", "DX"),
        ("1.2.840.10008.5.1.4.1.1.1.2", "MG"),
        ("1.2.840.10008.5.1.4.1.1.7", "OT"),
        ("1.2.840.10008.5.1.4.1.1.7", "DX"),
    ],
)
def test_kinds_of_film(film: Callable[..., Film], ramp: Pixels, sop_class: str, modality: str) -> None:
    assert film(ramp, SOPClassUID=sop_class, Modality=modality).metadata["modality"] == modality


@pytest.mark.parametrize(
    ("tags", "spacing", "kind"),
    [
        ({}, None, "unknown"),
        ({"PixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "unknown"),
        ({"PixelSpacing": [0.2, 0.2], "PixelSpacingCalibrationType": "FIDUCIAL"}, (0.2, 0.2), "calibrated"),
        ({"ImagerPixelSpacing": [0.15, 0.15]}, (0.15, 0.15), "detector"),
        ({"ImagerPixelSpacing": [0.15, 0.15], "PixelSpacing": [0.15, 0.15]}, (0.15, 0.15), "detector"),
        ({"ImagerPixelSpacing": [0.15, 0.15], "PixelSpacing": [0.13, 0.13]}, (0.13, 0.13), "calibrated"),
        (
            {"ImagerPixelSpacing": [0.15, 0.15], "EstimatedRadiographicMagnificationFactor": 1.2},
            (0.125, 0.125),
            "calibrated",
        ),
        (
            {
                "ImagerPixelSpacing": [0.15, 0.15],
                "PixelSpacing": [0.13, 0.13],
                "EstimatedRadiographicMagnificationFactor": 1.2,
            },
            (0.13, 0.13),
            "calibrated",
        ),
        ({"NominalScannedPixelSpacing": [0.1, 0.1]}, (0.1, 0.1), "detector"),
    ],
)
def test_spacing(
    film: Callable[..., Film], ramp: Pixels, tags: dict[str, Any], spacing: tuple[float, float] | None, kind: str
) -> None:
    read = film(ramp, **tags)
    assert read.spacing == pytest.approx(spacing)
    assert read.spacing_kind == kind


def test_metadata_holds_no_patient(film: Callable[..., Film], ramp: Pixels) -> None:
    read = film(
        ramp, PatientName="Planted^Name", PatientID="PLANTED7", PatientBirthDate="19330303", ViewPosition="AP",
        StationName="ROOM 3", InstitutionName="General", InstitutionalDepartmentName="Emergency", StudyDate="20240102",
        Manufacturer="Maker", ManufacturerModelName="Model", BodyPartExamined="HIP", SeriesDescription="Hip portable",
        PatientOrientation=["L", "F"], ImageLaterality="R",
    )  # fmt: skip
    assert read.metadata == {
        "view": "AP", "station": "ROOM 3", "institution": "General", "department": "Emergency", "date": "2024-01-02",
        "manufacturer": "Maker", "model": "Model", "body_part": "HIP", "modality": "DX", "portable": "1",
    }  # fmt: skip
    assert read.orientation == ("L", "F")
    assert read.laterality == "R"


@pytest.mark.parametrize(
    ("text", "portable"),
    [("PORTABLE HIP", True), ("Pelvis bedside", True), ("non-portable", False), ("hip mobilisation", False)],
)
def test_portable_only_when_plainly_stated(film: Callable[..., Film], ramp: Pixels, text: str, portable: bool) -> None:
    assert ("portable" in film(ramp, StudyDescription=text).metadata) == portable


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # pydicom's, while the test writes the bad value
def test_nothing_of_the_header_is_logged(
    write: Callable[..., Path], ramp: Pixels, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(ramp, Modality="PLANTED^NAME^THAT^IS^TOO^LONG")
    caplog.clear()
    with caplog.at_level(logging.DEBUG), pytest.raises(ImageReadError) as error:
        read_film(path)
    assert not caplog.records
    assert "PLANTED" not in str(error.value)


def test_half_the_rows_is_refused(write: Callable[..., Path], ramp: Pixels) -> None:
    # pydicom alone gives an array of two frames.
    with pytest.raises(ImageReadError, match="bytes of pixels"):
        read_pixels(write(ramp, Rows=ramp.shape[0] // 2))


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("not an image " * 50)
    (tmp_path / "nul").write_bytes(bytes(5000))
    for name in ("missing", "empty", "text", "nul", "."):
        for read in (read_film, read_pixels):
            with pytest.raises(ImageReadError) as error:
                read(tmp_path / name)
            assert error.value.path == tmp_path / name
            assert error.value.reason


def test_a_dicom_file_with_a_tiff_preamble_is_dicom(write: Callable[..., Path], ramp: Pixels) -> None:
    path = write(ramp)
    path.write_bytes(b"II*\0" + path.read_bytes()[4:])
    assert read_film(path).metadata["modality"] == "DX"


def test_deflated_bomb(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    blank = np.zeros((100, 100), np.uint16)
    path = _deflated(write, blank)
    assert_array_equal(read_pixels(path), blank)
    monkeypatch.setattr("domainseg.imaging.dicom.MAX_BYTES", 1000)
    with pytest.raises(ImageReadError, match="inflates"):
        read_pixels(path)


def _deflated(write: Callable[..., Path], pixels: Pixels) -> Path:
    path = write(pixels)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    return path

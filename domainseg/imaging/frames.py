"""The pixels of CT slices in Hounsfield units, one at a time; multi-frame (Enhanced CT) files frame by frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from domainseg.imaging.dicom import Refusal, decode, number, numbers, open_dicom, read_header, text
from domainseg.imaging.hounsfield import to_int16
from domainseg.imaging.reading import file_bytes
from domainseg.imaging.shutters import padding_of, unpadded
from domainseg.imaging.slices import ENHANCED_CLASSES, Image, Slice, placed

_LARGEST_SLOPE, _LARGEST_INTERCEPT = 100.0, 1e5
_TISSUE = -300.0  # HU above which a padding value would hide tissue
_UNITS = ("HU", "US", "")  # what RescaleType may say; US: unspecified


class Frames:
    """Reads slices; of a multi-frame file the decoded frames are kept until another file is asked for."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._dataset = Dataset()
        self._pixels: NDArray[Any] = np.zeros((0, 0, 0))

    def hounsfield(self, one: Slice) -> tuple[NDArray[np.int16], NDArray[np.bool_] | None]:
        """HU [rows, columns] and which pixels are no padding (None: all); raises Refusal."""
        if self._file != one.file:
            self._open(one)
        pixels = self._pixels[one.frame]
        slope, intercept = one.slope, one.intercept
        if slope is None or intercept is None:
            raise Refusal(f"{one.place} has no RescaleSlope and RescaleIntercept, so its Hounsfield units are unknown")
        if not 0 < slope <= _LARGEST_SLOPE or abs(intercept) > _LARGEST_INTERCEPT:
            raise Refusal(f"{one.place} has an implausible RescaleSlope or RescaleIntercept: damaged")
        padding = padding_of(self._dataset, pixels.dtype)
        valid = None if padding is None else unpadded(pixels, padding)
        if padding is not None and padding[1] * slope + intercept > _TISSUE and valid is not None and not valid.all():
            raise Refusal(f"{one.place} has a PixelPaddingValue that tissue has too: damaged by an export")
        return to_int16(pixels, slope, intercept, valid), valid

    def _open(self, one: Slice) -> None:
        dataset = open_dicom(file_bytes(one.file))
        header = read_header(dataset)
        if header.samples > 1 or header.photometric != "MONOCHROME2" or header.bits_allocated not in (8, 16):
            raise Refusal(f"{one.place} is no grey CT slice of 8 or 16 bits")
        if header.frames > 1 and dataset.get("SOPClassUID") not in ENHANCED_CLASSES:
            raise Refusal(f"{one.place} holds {header.frames} frames, and a CT slice is one: damaged")
        if (header.rows, header.columns) != (one.rows, one.columns):
            raise Refusal(f"{one.place} has another size than its header: damaged")
        if "ModalityLUTSequence" in dataset:
            raise Refusal(f"{one.place} has a modality LUT instead of a rescale slope")
        if text(dataset, "RescaleType").upper() not in _UNITS:
            raise Refusal(f"{one.place} holds no Hounsfield units (RescaleType)")
        pixels = decode(dataset, header)
        self._pixels = pixels if header.frames > 1 else pixels[None]
        del dataset.PixelData
        self._file, self._dataset = one.file, dataset


def frames_of(image: Image) -> list[Slice]:
    """The slices of an Enhanced CT file, by its functional groups; raises Refusal."""
    dataset = open_dicom(file_bytes(image.file))
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    header = read_header(dataset)
    size = header.rows, header.columns
    if len(frames) != header.frames:
        raise Refusal(f"{image.place} has {header.frames} frames and {len(frames)} descriptions of frames: damaged")
    slices = []
    for index, frame in enumerate(frames):

        def group(name: str, frame: Dataset = frame) -> Dataset:
            return _first(frame, name) if name in frame else _first(shared, name)

        kind = group("CTImageFrameTypeSequence").get("FrameType") or []
        if not {"LOCALIZER", "PROJECTION IMAGE"}.isdisjoint(str(word).upper() for word in kind):
            raise Refusal(f"{image.place} mixes slices with localizers")
        if text(group("PixelValueTransformationSequence"), "RescaleType").upper() not in _UNITS:
            raise Refusal(f"{image.place} holds no Hounsfield units (RescaleType)")
        measures, value = group("PixelMeasuresSequence"), group("PixelValueTransformationSequence")
        position = numbers(group("PlanePositionSequence"), "ImagePositionPatient")
        turn = numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient")
        spacing = numbers(measures, "PixelSpacing")
        if (len(position), len(turn), len(spacing)) != (3, 6, 2):
            raise Refusal(f"{image.place} does not say where its frames lie: incomplete")
        thickness = number(measures, "SliceThickness")
        slope, intercept = number(value, "RescaleSlope"), number(value, "RescaleIntercept")
        slices.append(placed(image, index, size, position, turn, spacing, thickness, None, slope, intercept))
    return slices


def _first(dataset: Dataset, keyword: str) -> Dataset:
    items = dataset.get(keyword)
    return items[0] if items else Dataset()

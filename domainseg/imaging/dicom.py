"""DICOM files to pixels: the header is checked before anything is allocated, one decoder for each transfer syntax.

A damaged file must not become another picture: pydicom and the codecs accept headers that contradict the pixel data
(half the rows, say, makes it two frames), so sizes, bits and counts are compared here first.
"""

from __future__ import annotations

import logging
import math
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.filereader import read_dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from domainseg.imaging import codecs

MAX_SIDE = 20_000  # pixels: twice the largest detector
MAX_PIXELS = 400_000_000
MAX_BYTES = 1 << 31  # of a file and of its decoded pixels

PHOTOMETRIC_SAMPLES = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_PARTIAL_420": 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
}

_quiet_lock = threading.Lock()


class Refusal(Exception):
    """Why a file is not read; its text holds no value that could be patient data. ``kind`` is ImageReadError's."""

    kind: str | None = None


class TooLarge(Refusal):
    """A plausible film or volume, but larger than the caller has memory for."""


class NotCt(Refusal):
    """An image, but no computed tomography where one is needed."""

    kind = "not_ct"


class NotHounsfield(Refusal):
    """Voxels whose values cannot be Hounsfield units: another modality, labels, or rescaled."""

    kind = "not_hounsfield"


@contextmanager
def quiet() -> Iterator[None]:
    """Swallow warnings and log records of pydicom, nibabel and the codecs.

    Their texts quote values of the header, and so the patient; what matters here is checked by value. Filters and log
    levels belong to the process, so threads take turns.
    """
    loggers = [logging.getLogger(name) for name in ("pydicom", "pylibjpeg", "openjpeg", "PIL", "nibabel.global")]
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = [logger.level for logger in loggers]
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@dataclass(frozen=True)
class PixelHeader:
    """The checked description of the pixel data."""

    rows: int
    columns: int
    frames: int
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str
    syntax: str


def open_dicom(data: bytes) -> Dataset:
    """Parse a file's bytes, with or without the 128-byte preamble. Sequences and values are read when asked for."""
    start = 132 if data[128:132] == b"DICM" else 0
    meta = _meta(data, start)
    if UID(str(meta.get("TransferSyntaxUID", ""))) == pydicom.uid.DeflatedExplicitVRLittleEndian:
        return _inflate(data, start, meta)
    dataset = pydicom.dcmread(BytesIO(data), force=True)
    if not isinstance(dataset, Dataset) or not dataset:
        raise Refusal("holds no DICOM elements: not a DICOM file, or cut off")
    return dataset


def read_header(dataset: Dataset, max_pixels: int = MAX_PIXELS) -> PixelHeader:
    """Check all that the size and meaning of the pixels depend on; raises Refusal with what is wrong."""
    if "PixelData" not in dataset:
        if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
            raise Refusal("holds floating-point pixels, which radiographs never have")
        raise Refusal("holds no pixel data: cut off, or not an image")
    syntax = str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", "") or "")
    if not syntax:
        raise Refusal("names no transfer syntax (0002,0010), so its pixels cannot be interpreted; export it again")
    photometric = text(dataset, "PhotometricInterpretation")
    if photometric not in PHOTOMETRIC_SAMPLES:
        raise Refusal("PhotometricInterpretation (0028,0004) is missing or unknown")
    samples = integer(dataset, "SamplesPerPixel", default=1)
    if samples != PHOTOMETRIC_SAMPLES[photometric]:
        raise Refusal(f"{samples} samples a pixel do not fit {photometric}")
    header = PixelHeader(
        rows=integer(dataset, "Rows"),
        columns=integer(dataset, "Columns"),
        frames=integer(dataset, "NumberOfFrames", default=1),
        samples=samples,
        bits_allocated=integer(dataset, "BitsAllocated"),
        bits_stored=integer(dataset, "BitsStored"),
        signed=bool(integer(dataset, "PixelRepresentation", default=0)),
        photometric=photometric,
        syntax=syntax,
    )
    if integer(dataset, "PixelRepresentation", default=0) not in (0, 1):
        raise Refusal("PixelRepresentation (0028,0103) is neither 0 nor 1")
    high_bit = integer(dataset, "HighBit", default=header.bits_stored - 1)
    if header.bits_allocated not in (1, 8, 16, 32) or not 1 <= header.bits_stored <= header.bits_allocated:
        raise Refusal(f"{header.bits_stored} bits stored in {header.bits_allocated} allocated is impossible")
    if high_bit != header.bits_stored - 1:
        raise Refusal(f"HighBit {high_bit} does not fit {header.bits_stored} bits stored")
    check_size(header.rows, header.columns, max_pixels)
    if header.frames < 1:
        raise Refusal(f"NumberOfFrames is {header.frames}")
    if _expected_bytes(header) > MAX_BYTES:
        raise Refusal(f"{header.frames} frames of {header.rows} x {header.columns} are more than {MAX_BYTES} bytes")
    return header


def decode(dataset: Dataset, header: PixelHeader) -> NDArray[Any]:
    """Stored pixels, [rows, columns], with frames first and samples last where there are several."""
    plugin = codecs.plugin(header.syntax)
    if plugin is None:
        raise Refusal(f"its pixels are stored as {UID(header.syntax).name}, which domainseg has no decoder for")
    buffer = dataset.PixelData
    if not isinstance(buffer, bytes):
        raise Refusal("its pixel data are not bytes")
    if codecs.is_native(header.syntax):
        expected = _expected_bytes(header)
        # One byte more is the padding to an even length; more than that is another size than the header's.
        if len(buffer) not in (expected, expected + expected % 2):
            raise Refusal(
                f"holds {len(buffer)} bytes of pixels where {header.frames} x {header.rows} x {header.columns} x "
                f"{header.samples} at {header.bits_allocated} bits need {expected}: damaged or cut off"
            )
    else:
        _check_streams(buffer, header)
    pixels = np.asarray(pixel_array(dataset, decoding_plugin=plugin))
    shape = ((header.frames,) if header.frames > 1 else ()) + (header.rows, header.columns)
    shape += (header.samples,) if header.samples > 1 else ()
    if pixels.shape != shape:
        raise Refusal(f"its pixels decode to {pixels.shape}, the header says {shape}")
    return pixels if pixels.dtype.isnative else pixels.astype(pixels.dtype.newbyteorder("="))


def check_size(rows: int, columns: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse pictures larger than any film, or than ``max_pixels``, before memory is taken for them."""
    if not (1 <= rows <= MAX_SIDE and 1 <= columns <= MAX_SIDE and rows * columns <= MAX_PIXELS):
        raise Refusal(
            f"its size {rows} x {columns} is no plausible size: at most {MAX_SIDE} a side, {MAX_PIXELS} in all"
        )
    if rows * columns > max_pixels:
        raise TooLarge(f"its {rows} x {columns} pixels need more memory than there is for a film ({max_pixels} pixels)")


def text(dataset: Dataset, keyword: str) -> str:
    """One text value (the first of several) without control characters and surrounding blanks; "" when absent."""
    value = dataset.get(keyword)
    if isinstance(value, (list, tuple, pydicom.multival.MultiValue)):
        value = value[0] if len(value) else ""
    if value is None or isinstance(value, (bytes, Dataset, pydicom.sequence.Sequence)):
        return ""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(value)).split())


def numbers(dataset: Dataset, keyword: str) -> list[float]:
    """All values of a numeric element as finite floats; [] when absent or empty."""
    value = dataset.get(keyword)
    if value is None or (isinstance(value, (str, bytes)) and not value):
        return []
    values = value if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value]
    try:
        found = [float(item) for item in values]
    except (TypeError, ValueError):
        raise Refusal(f"{keyword} holds something that is not a number") from None
    if not all(math.isfinite(item) for item in found):
        raise Refusal(f"{keyword} is not finite")
    return found


def number(dataset: Dataset, keyword: str) -> float | None:
    """One number, or None when absent or empty; several are refused."""
    values = numbers(dataset, keyword)
    if len(values) > 1:
        raise Refusal(f"{keyword} holds {len(values)} values instead of one")
    return values[0] if values else None


def integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """One whole number; ``default`` when absent, refused when there is no default."""
    value = number(dataset, keyword)
    if value is None:
        if default is None:
            raise Refusal(f"{keyword} is missing")
        return default
    if value != int(value):
        raise Refusal(f"{keyword} is {value}, not a whole number")
    return int(value)


def _expected_bytes(header: PixelHeader) -> int:
    count = header.rows * header.columns * header.frames * header.samples
    if header.photometric == "YBR_FULL_422" and codecs.is_native(header.syntax):
        count = count // 3 * 2  # two pixels share their colour
    return -(-count * header.bits_allocated // 8)


def _check_streams(buffer: bytes, header: PixelHeader) -> None:
    """Hold each compressed frame's own header against the DICOM header."""
    count = 0
    for frame in generate_frames(buffer, number_of_frames=header.frames):
        count += 1
        if count > header.frames:
            break
        problem = codecs.stream_problem(
            frame, header.syntax, header.rows, header.columns, header.samples, header.bits_allocated
        )
        if problem:
            raise Refusal(problem)
    if count != header.frames:
        raise Refusal(f"NumberOfFrames is {header.frames}, but {'more' if count > header.frames else count} are there")


def _meta(data: bytes, start: int) -> FileMetaDataset:
    stream = BytesIO(data)
    stream.seek(start)
    try:
        return FileMetaDataset(read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2))
    except Exception:  # without meta elements dcmread decides what the bytes are
        return FileMetaDataset()


def _inflate(data: bytes, start: int, meta: FileMetaDataset) -> Dataset:
    """Inflate with a limit: a small file can unpack to more than the memory holds."""
    stream = BytesIO(data)
    stream.seek(start)
    read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = inflater.decompress(data[stream.tell() :], MAX_BYTES)
    if inflater.unconsumed_tail:
        raise Refusal(f"inflates to more than {MAX_BYTES} bytes")
    if not inflater.eof:
        raise Refusal("its deflated part is cut off")
    dataset = read_dataset(BytesIO(plain), False, True)
    dataset.file_meta = meta
    dataset.set_original_encoding(False, True, dataset.get("SpecificCharacterSet", "ISO_IR 6"))
    return dataset

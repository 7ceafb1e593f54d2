"""Read one film or its raw pixels from a file; everything that goes wrong is an ImageReadError."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from domainseg.imaging.film import Film, FilmTooLargeError, ImageReadError

Result = TypeVar("Result")

_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


def read_film(path: Path | str, *, max_pixels: int | None = None) -> Film:
    """Read a single-frame greyscale radiograph: DICOM (CR, DX, MG, secondary capture), PNG, JPEG or TIFF.

    Grey values: modality LUT, then VOI LUT or else the first window (LINEAR, LINEAR_EXACT or SIGMOID), then at most one
    inversion (MONOCHROME1 or PresentationLUTShape INVERSE), so that bright = dense. Without either, and in 16-bit
    pictures, the range of the valid pixels is stretched to 0..1; 8-bit pictures are divided by 255. Padding and what
    lies outside shutters is 0 and not valid; it counts for no range.

    Spacing follows DICOM PS3.3 10.7.1.3. Calibrated: PixelSpacing with PixelSpacingCalibrationType, or one that differs
    from ImagerPixelSpacing; or ImagerPixelSpacing divided by EstimatedRadiographicMagnificationFactor. Detector:
    ImagerPixelSpacing alone, PixelSpacing equal to it, or NominalScannedPixelSpacing. Unknown: PixelSpacing alone.
    Pictures have none.

    Raises ImageReadError, and nothing else, for what is unreadable, implausible or not such a film: FOR PROCESSING,
    several frames, colour, other modalities, reports, segmentations. It is a FilmTooLargeError for a film of more than
    ``max_pixels``, found before memory is taken for its pixels.
    """
    return _read(path, partial(_film, max_pixels=max_pixels))


def read_pixels(path: Path | str) -> NDArray[Any]:
    """Stored pixels of a DICOM file, before any LUT, window or inversion: [rows, columns], or [frames, rows, columns].

    Colour has its samples last; YBR is returned as RGB. Transfer syntaxes: uncompressed (little and big endian,
    deflated), RLE, JPEG baseline, extended (12 bit) and lossless, JPEG-LS, JPEG 2000, HTJ2K. Raises ImageReadError.
    """
    return _read(path, _pixels)


def _read(path: Path | str, reader: Callable[[bytes], Result]) -> Result:
    from domainseg.imaging.dicom import quiet

    with one_error(Path(path), FilmTooLargeError):
        data = file_bytes(Path(path))
        with quiet():
            return reader(data)


@contextmanager
def one_error(path: Path, too_large: type[ImageReadError]) -> Iterator[None]:
    """Whatever goes wrong inside becomes an ImageReadError of ``path``; what is too large, a ``too_large``."""
    from domainseg.imaging.dicom import Refusal, TooLarge

    try:
        yield
    except TooLarge as refusal:
        raise too_large(path, str(refusal)) from None
    except Refusal as refusal:
        raise ImageReadError(path, str(refusal), refusal.kind) from None
    except MemoryError:
        raise too_large(path, "the memory did not suffice") from None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic inside pylibjpeg-rle is no Exception
        # Texts of other errors can quote the header, and so the patient: only the kind of error is told.
        raise ImageReadError(path, f"damaged or not an image ({type(error).__name__})") from None


def file_bytes(path: Path) -> bytes:
    """All bytes of a file; raises Refusal when it cannot be opened or is too large."""
    from domainseg.imaging.dicom import MAX_BYTES, Refusal

    try:
        if not path.is_file():
            raise Refusal("is no file" if path.exists() else "does not exist")
        if path.stat().st_size > MAX_BYTES:
            raise Refusal(f"is larger than {MAX_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise Refusal(f"cannot be opened: {error.strerror}") from None


def _film(data: bytes, max_pixels: int | None = None) -> Film:
    from domainseg.imaging.dicom import MAX_PIXELS

    limit = MAX_PIXELS if max_pixels is None else max_pixels
    if is_picture(data):
        from domainseg.imaging.pictures import picture_film

        return picture_film(data, limit)
    from domainseg.imaging.radiographs import dicom_film

    return dicom_film(_dicom(data), limit)


def _pixels(data: bytes) -> NDArray[Any]:
    from domainseg.imaging.dicom import decode, read_header

    dataset = _dicom(data)
    return decode(dataset, read_header(dataset))


def is_picture(data: bytes) -> bool:
    """Whether a file that begins with these bytes (132 of them) is a PNG, JPEG or TIFF picture."""
    # A DICOM file's preamble may hold a TIFF header (both names are then right); the DICOM header knows more.
    return data.startswith(_PICTURES) and data[128:132] != b"DICM"


def _dicom(data: bytes) -> Any:
    from domainseg.imaging.dicom import Refusal, open_dicom

    if is_picture(data):
        raise Refusal("is a picture; only DICOM files have stored pixels")
    if len(data) < 140:
        raise Refusal("is too short for an image")
    return open_dicom(data)

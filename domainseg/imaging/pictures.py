"""PNG, JPEG and TIFF exports of films. Size and kind are checked in the header, before any pixel is decoded."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainseg.imaging.dicom import MAX_PIXELS, Refusal, check_size
from domainseg.imaging.film import Film, FilmTooLargeError
from domainseg.imaging.reading import file_bytes, one_error
from domainseg.imaging.windows import Presentation

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B")
EIGHT_BITS = ("1", "L", "LA", "P", "RGB", "RGBA")
_GREY_TOLERANCE = 3  # between colour channels of a grey picture: what JPEG's colour transform may leave
_WHITE_IS_ZERO, _PHOTOMETRIC_TAG, _ORIENTATION_TAG = 0, 262, 274


def picture_film(data: bytes, max_pixels: int = MAX_PIXELS) -> Film:
    """Read a film from a picture file's bytes; raises Refusal.

    Pixels are as stored: rotation tags of JPEG and PNG are ignored, a TIFF with one is refused.
    """
    try:
        opened = Image.open(BytesIO(data), formats=["PNG", "JPEG", "TIFF"])  # reads the header only
    except Image.DecompressionBombError:
        raise Refusal("has more pixels than any film") from None
    with opened as picture:
        check_size(picture.height, picture.width, max_pixels)
        if getattr(picture, "n_frames", 1) != 1:
            raise Refusal("holds several pictures: films have one")
        check_stored(picture)
        if picture.mode in _SIXTEEN_BITS or (picture.mode == "I" and picture.format == "PNG"):
            pixels = np.asarray(picture).astype(np.uint16)
            inverted = picture.format == "TIFF" and _photometric(picture) == _WHITE_IS_ZERO
            return Film(pixels=Presentation(inverted=inverted).apply(pixels, None))
        if picture.mode not in EIGHT_BITS:
            raise Refusal(f"has pixels of kind {picture.mode}: films are grey with 8 or 16 bits")
        return Film(pixels=grey(picture).astype(np.float32) / np.float32(255))


def check_stored(picture: Any) -> None:
    """Refuse a TIFF that is to be turned or mirrored: pillow does so on loading, and heads and masks are as stored."""
    if picture.format == "TIFF" and picture.tag_v2.get(_ORIENTATION_TAG, 1) != 1:
        raise Refusal("is a TIFF with an Orientation tag: save it the way up that it is to be read, without the tag")


def picture_mask(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pixels of a mask (PNG, JPEG or TIFF, of any depth, its numbers, palette or colours) are not 0, [H, W].

    Raises ImageReadError for a file that cannot be read, and for one of another size than ``shape``.
    """
    with one_error(path, FilmTooLargeError):
        try:
            opened = Image.open(BytesIO(file_bytes(path)), formats=["PNG", "JPEG", "TIFF"])
        except (Image.DecompressionBombError, OSError):
            raise Refusal("the mask cannot be read as a picture") from None
        with opened as picture:
            check_stored(picture)
            if (picture.height, picture.width) != tuple(shape):
                got, want = f"{picture.width} x {picture.height}", f"{shape[1]} x {shape[0]}"
                raise Refusal(f"the mask has {got} pixels, its film {want}")
            # A palette that begins with black names codes, whatever colours they have; another one is a picture.
            by_colour = picture.mode == "P" and any(picture.getpalette()[:3])  # type: ignore[index]
            values = np.asarray(picture.convert("RGB") if by_colour or "A" in picture.mode else picture)
    return np.asarray(values != 0 if values.ndim == 2 else (values != 0).any(axis=2))


def _photometric(picture: Any) -> int:
    return int(picture.tag_v2.get(_PHOTOMETRIC_TAG, 1))


def grey(picture: Image.Image) -> NDArray[np.uint8]:
    """The grey values of an 8-bit picture; raises Refusal for colour and transparency."""
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"))
    channels = np.asarray(picture.convert("RGBA" if "A" in picture.mode or "transparency" in picture.info else "RGB"))
    if channels.shape[2] == 4 and channels[..., 3].min() < 255:
        raise Refusal("is partly transparent: save it without an alpha channel")
    red, green, blue = (channels[..., index].astype(np.int16) for index in range(3))
    if max(int(np.abs(red - green).max()), int(np.abs(green - blue).max())) > _GREY_TOLERANCE:
        raise Refusal("is a colour picture: films are grey")
    return np.ascontiguousarray(channels[..., 1])

"""Exported PNG, JPEG and TIFF."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from domainseg.imaging import ImageReadError, read_film, read_pixels

Pixels = NDArray[np.uint16]


def test_eight_bit_png(tmp_path: Path, ramp: Pixels) -> None:
    eight = (ramp >> 5).astype(np.uint8)  # at most 127: pictures of 8 bits are not stretched
    Image.fromarray(eight).save(tmp_path / "film.png")
    read = read_film(tmp_path / "film.png")
    assert_allclose(read.pixels, eight / 255, atol=1e-7)
    assert read.spacing is None
    assert read.orientation is None
    assert read.metadata == {}


@pytest.mark.parametrize(("name", "settings"), [
    ("film.png", {}), ("film.tif", {}), ("film.tif", {"compression": "tiff_lzw"}),
    ("film.tiff", {"compression": "tiff_adobe_deflate"}),
])  # fmt: skip
def test_sixteen_bits_are_stretched(tmp_path: Path, ramp: Pixels, name: str, settings: dict[str, Any]) -> None:
    pixels = (ramp + 100).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / name, **settings)
    assert_allclose(read_film(tmp_path / name).pixels, ramp / 4095, atol=1e-6)


@pytest.mark.parametrize(("order", "white"), [("<", 0), ("<", 1), (">", 1)])
def test_byte_order_and_white_as_zero(tmp_path: Path, ramp: Pixels, order: str, white: int) -> None:
    entries = {256: ramp.shape[1], 257: ramp.shape[0], 258: 16, 259: 1, 262: white, 273: 200, 277: 1,
               278: ramp.shape[0], 279: ramp.nbytes}  # fmt: skip
    directory = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in entries.items())
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    path = tmp_path / "film.tif"
    path.write_bytes((start + directory).ljust(200, b"\0") + ramp.astype(f"{order}u2").tobytes())
    assert_allclose(read_film(path).pixels, ramp / 4095 if white else 1 - ramp / 4095, atol=1e-6)


@pytest.mark.parametrize("orientation", [1, 2, 3, 6])
def test_a_tiff_that_would_be_turned_on_loading_is_refused(tmp_path: Path, ramp: Pixels, orientation: int) -> None:
    """Heads, outlines and masks are in pixels as stored: a mirrored film would have its labels on the wrong hip."""
    Image.fromarray((ramp >> 4).astype(np.uint8)).save(tmp_path / "film.tif", tiffinfo={274: orientation})
    if orientation == 1:
        assert_allclose(read_film(tmp_path / "film.tif").pixels, (ramp >> 4) / 255, atol=1e-6)
    else:
        with pytest.raises(ImageReadError, match="Orientation tag"):
            read_film(tmp_path / "film.tif")


@pytest.mark.parametrize("colours", [1, 3])
def test_jpeg(tmp_path: Path, ramp: Pixels, colours: int) -> None:
    eight = (ramp >> 4).astype(np.uint8)
    picture = eight if colours == 1 else np.repeat(eight[..., None], 3, axis=2)
    cv2.imwrite(str(tmp_path / "film.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert_allclose(read_film(tmp_path / "film.jpg").pixels, eight / 255, atol=0.03)


def test_colour_and_transparency_are_refused(tmp_path: Path) -> None:
    colour = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    with pytest.raises(ImageReadError, match="colour"):
        read_film(tmp_path / "colour.png")
    grey = np.full((20, 30, 4), 100, np.uint8)
    Image.fromarray(grey).save(tmp_path / "alpha.png")
    with pytest.raises(ImageReadError, match="transparent"):
        read_film(tmp_path / "alpha.png")
    grey[..., 3] = 255
    Image.fromarray(grey).save(tmp_path / "opaque.png")
    assert_array_equal(read_film(tmp_path / "opaque.png").pixels, np.float32(100 / 255))


def test_several_pages_and_floats_are_refused(tmp_path: Path, ramp: Pixels) -> None:
    page = Image.fromarray(ramp)
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
    with pytest.raises(ImageReadError, match="several"):
        read_film(tmp_path / "pages.tif")
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ImageReadError, match="kind F"):
        read_film(tmp_path / "float.tif")


@pytest.mark.parametrize("side", [19_000, 30_000, 2**31 - 1])
def test_bombs(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(ImageReadError, match="pixels"):
        read_film(tmp_path / "bomb.png")


def test_a_cut_off_picture_is_refused(tmp_path: Path, ramp: Pixels) -> None:
    for name in ("film.png", "film.jpg", "film.tif"):
        path = tmp_path / name
        Image.fromarray((ramp >> 4).astype(np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ImageReadError):
            read_film(path)


def test_pictures_have_no_stored_pixels(tmp_path: Path, ramp: Pixels) -> None:
    Image.fromarray(ramp).save(tmp_path / "film.png")
    with pytest.raises(ImageReadError, match="DICOM"):
        read_pixels(tmp_path / "film.png")

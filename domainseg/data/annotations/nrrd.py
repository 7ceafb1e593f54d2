"""NRRD files of one slice, as 3D Slicer saves segmentations of a film.

Format: teem.sourceforge.net/nrrd/format.html
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from domainseg.data.annotations.rle import MAX_PIXELS
from domainseg.data.annotations.shapes import AnnotationProblem

_TYPES = {
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("short", "short int", "signed short", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
}
_SIGNS = {
    **dict.fromkeys(("left-posterior-superior", "LPS"), 1.0),
    **dict.fromkeys(("right-anterior-superior", "RAS"), -1.0),
}
_HEADER = 1 << 20  # bytes


class Header(NamedTuple):
    """fields: name -> text, of ``name: text`` and ``name:=text`` alike. start: where the data begin, in bytes."""

    fields: dict[str, str]
    start: int


class Nrrd(NamedTuple):
    """pixels: integers [layers, rows, columns]; origin and step (x, y) in LPS mm of the first pixel's centre."""

    pixels: NDArray[np.integer]
    origin: tuple[float, float]
    step: tuple[float, float]


def read_nrrd_header(path: Path) -> Header:
    """The fields of the header. Raises AnnotationProblem when it is no NRRD, or its data lie elsewhere."""
    with open(path, "rb") as stream:
        return _header(stream)


def read_nrrd(path: Path) -> Nrrd:
    """Read a file of one slice along the axes of the film (raw or gzip). Raises AnnotationProblem."""
    with open(path, "rb") as stream:
        fields, _ = _header(stream)
        data = stream.read()
    sizes = [int(number) for number in fields["sizes"].split()]
    kind = _TYPES.get(fields["type"])
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "little"))
    if kind is None or order is None or any(size < 1 for size in sizes) or np.prod(sizes, dtype=float) > MAX_PIXELS:
        raise AnnotationProblem("a type or size that no segmentation of a film has")
    layers = sizes.pop(0) if len(sizes) == 4 else 1
    if len(sizes) == 2:
        sizes.append(1)
    if len(sizes) != 3 or sizes[2] != 1:
        raise AnnotationProblem("several slices; a film has one")
    count = layers * sizes[0] * sizes[1] * int(kind[1])
    if fields["encoding"] in ("gzip", "gz"):
        try:
            data = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, count + 1)
        except zlib.error:
            raise AnnotationProblem("its compressed part is damaged") from None
    elif fields["encoding"] != "raw":
        raise AnnotationProblem("an encoding other than raw and gzip")
    if len(data) != count:
        raise AnnotationProblem("more or fewer pixels than its header says")
    # The first axis runs fastest: layers, columns, rows.
    pixels = np.frombuffer(data, order + kind).reshape(sizes[1], sizes[0], layers).transpose(2, 0, 1)
    sign = _SIGNS.get(fields.get("space", ""))
    if sign is None:
        raise AnnotationProblem("a space that is neither LPS nor RAS")
    vectors = [_vector(text) for text in re.findall(r"\([^)]*\)", fields["space directions"])]
    along, down = vectors[0], vectors[1]
    slack = 1e-4 * max(abs(along[0]), abs(down[1]))
    if max(abs(along[1]), abs(along[2]), abs(down[0]), abs(down[2])) > slack or not along[0] or not down[1]:
        raise AnnotationProblem("turned axes; save the segmentation in the geometry of the film")
    origin = _vector(fields.get("space origin", "(0,0,0)"))
    return Nrrd(pixels, (sign * origin[0], sign * origin[1]), (sign * along[0], sign * down[1]))


def _header(stream: BinaryIO) -> Header:
    if not stream.readline(64).startswith(b"NRRD000"):
        raise AnnotationProblem("not an NRRD file")
    fields: dict[str, str] = {}
    while (line := stream.readline(_HEADER)).strip():
        text = line.decode("utf-8", "replace").strip()
        if stream.tell() > _HEADER:
            raise AnnotationProblem("a header without end")
        if not text.startswith("#"):
            name, _, value = text.partition(":=") if ":=" in text else text.partition(":")
            fields[name.strip()] = value.strip()
    if "data file" in fields or "datafile" in fields:
        raise AnnotationProblem("its data lie in another file; save it as one file")
    if missing := {"type", "sizes", "encoding"} - set(fields):
        raise AnnotationProblem(f"no {sorted(missing)[0]} in its header")
    return Header(fields, stream.tell())


def _vector(text: str) -> tuple[float, float, float]:
    numbers = [float(number) for number in text.strip("() ").split(",")]
    if len(numbers) != 3 or not np.isfinite(numbers).all():
        raise AnnotationProblem("a vector that has not three numbers")
    return numbers[0], numbers[1], numbers[2]

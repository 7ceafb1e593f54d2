"""A folder of pictures exported from a brain window: a degraded volume that says so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from domainseg.imaging.dicom import Refusal
from domainseg.imaging.hounsfield import check_voxels
from domainseg.imaging.pictures import EIGHT_BITS, check_stored, grey
from domainseg.imaging.reading import file_bytes
from domainseg.imaging.volume import Volume

WINDOW = (-20.0, 100.0)  # HU that black and white are taken for: the usual brain window, assumed
_NUMBER = re.compile(r"(\d+)")


def natural(name: str) -> tuple[tuple[str, int, str], ...]:
    """A key that sorts names by the numbers in them, whatever the case of letters: 2 before 10."""
    return tuple(("", int(part), "") if part.isdecimal() else (part, 0, part) for part in _NUMBER.split(name.lower()))


def read_pictures(files: Sequence[Path], max_voxels: int | None) -> Volume:
    """Read 8-bit grey pictures in the order of the one number that varies in their names, the lowest slice first.

    Raises Refusal, also for names in which more than that varies.
    """
    if len({file.parent for file in files}) > 1:
        raise Refusal("holds pictures in several folders: an exam is one folder of them")
    files = sorted(files, key=lambda file: natural(file.stem))
    kinds = {_NUMBER.sub("#", file.name.lower()) for file in files}
    numbers = [[int(number) for number in _NUMBER.findall(file.stem)] for file in files]
    # Two numbers that vary are two series in one folder as often as not: IM-0001-0001, IM-0002-0001.
    varying = [] if len(kinds) > 1 else [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    if len(kinds) > 1 or len(varying) > 1 or len({natural(file.stem) for file in files}) < len(files):
        raise Refusal(
            "its pictures' names differ in more than one number's value, so their order is unknown: "
            "name them 1, 2, 3, ... from the feet to the head, of one kind (one window)"
        )
    first = _picture(file_bytes(files[0]), 1)
    check_voxels(len(files), first.height, first.width, max_voxels)
    voxels = np.empty((len(files), first.height, first.width), np.int16)
    table = np.rint(WINDOW[0] + np.arange(256) / 255 * (WINDOW[1] - WINDOW[0])).astype(np.int16)
    for number, file in enumerate(files):
        with _picture(file_bytes(file), number + 1) as picture:
            if picture.size != first.size:
                raise Refusal(f"picture {number + 1} in order of names has another size than the first")
            voxels[number] = table[grey(picture)]
    if voxels.min() == voxels.max():
        raise Refusal("its pictures are of one grey")
    return Volume(
        voxels=voxels,
        affine=None,
        rendering=WINDOW,
        source_shape=voxels.shape,
        source_z=np.arange(len(files), dtype=np.float64),
        files=tuple(files),
        notes=(
            f"exported pictures: taken for a window of {WINDOW[0]:g} to {WINDOW[1]:g} HU (assumed)",
            "the first name is taken for the lowest slice, the picture's left for the patient's right (assumed)",
            "no spacing, so no millimetres and no ml",
            *_skipped(varying),
        ),
    )


def _skipped(varying: Sequence[Sequence[int]]) -> list[str]:
    """A note where the numbers of the names, in their order, leave some out."""
    steps = [after - before for column in varying for before, after in pairwise(column)]
    missing = sum(step // min(steps) - 1 for step in steps)
    return [f"{missing} numbers are left out in its names: slices may be missing"] if missing else []


def _picture(data: bytes, number: int) -> Image.Image:
    try:
        picture = Image.open(BytesIO(data), formats=["PNG", "JPEG", "TIFF"])  # reads the header only
    except (OSError, Image.DecompressionBombError):
        raise Refusal(f"picture {number} in order of names is damaged, or larger than any slice") from None
    if picture.mode not in EIGHT_BITS or getattr(picture, "n_frames", 1) != 1:
        raise Refusal(f"picture {number} in order of names is no single 8-bit grey picture")
    check_stored(picture)
    return picture

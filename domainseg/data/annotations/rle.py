"""Run-length codes of masks, as COCO and CVAT write them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from domainseg.data.annotations.shapes import AnnotationProblem

MAX_PIXELS = 400_000_000


def coco_mask(counts: str | Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """bool [height, width] from COCO's runs, column by column, background first; packed text or a list of lengths.

    Raises AnnotationProblem when they do not fill the picture.
    """
    lengths = unpack(counts) if isinstance(counts, str) else counts
    return _runs(lengths, width, height).T


def cvat_mask(counts: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """bool [height, width] from CVAT's runs, row by row, background first. Raises AnnotationProblem."""
    return _runs(counts, height, width)


def unpack(text: str) -> list[int]:
    """The run lengths in COCO's packed text: five bits a letter from "0" on, the sixth says that more follow, numbers
    are signed, and from the fourth on each is the difference to the last but one. Raises AnnotationProblem."""
    lengths: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 60:
            raise AnnotationProblem("not a packed run-length code")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise AnnotationProblem("a run-length code is cut off")
    return lengths


def _runs(counts: Sequence[int], first: int, second: int) -> NDArray[np.bool_]:
    if not 0 < first * second <= MAX_PIXELS:
        raise AnnotationProblem("a mask of no plausible size")
    lengths = np.asarray(counts, dtype=np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or int(lengths.sum()) != first * second:
        raise AnnotationProblem("run lengths do not fill the mask")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(first, second)

"""What a cascade reads, films or volumes, and what depends on that wherever a cascade is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from domainseg.cascade.rows import film_rows
from domainseg.cascade.stages import Stage
from domainseg.imaging.film import READER_VERSION, Film
from domainseg.imaging.reading import read_film
from domainseg.imaging.volume import VOLUME_READER_VERSION, Volume

if TYPE_CHECKING:
    from domainseg.data.manifest import Manifest


@dataclass(frozen=True)
class Reading:
    """Films or volumes.

    name: as a decision's ``reads`` says it; plural: what people are told of several. version: of the reader: another
    one, other pixels. read(path, limit): the film or volume; limit: most pixels or voxels, None for any number. Raises
    ImageReadError.
    rows(image, film or error, results, truth): its rows of the prediction table. truth(manifest): what ``rows`` and
    training ask for the truth. blank: a small empty one, to try decisions on. bytes_a_pixel: memory that one pixel or
    voxel takes on its way, at most; ordinary: pixels or voxels of one that every worker must have room for. ahead: how
    many may be read before they are needed.
    """

    name: str
    plural: str
    version: str
    read: Callable[[Path, int | None], Film | Volume]
    rows: Callable[..., list[dict[str, Any]]]
    truth: Callable[[Manifest], Any]
    blank: Callable[[], Film | Volume]
    bytes_a_pixel: int
    ordinary: int
    ahead: int


def _read_film(path: Path, limit: int | None) -> Film:
    return read_film(path, max_pixels=limit)


def _film_truth(manifest: Manifest) -> Any:
    from domainseg.cascade.truth import Truth  # late: pandas

    return Truth(manifest)


def _blank_film() -> Film:
    return Film(pixels=np.zeros((8, 8), np.float32), spacing=(1.0, 1.0))


FILMS = Reading("film", "films", READER_VERSION, _read_film, film_rows, _film_truth, _blank_film, 16, 20_000_000, 4)


def _whole_rows(*args: Any) -> list[dict[str, Any]]:
    from domainseg.cascade.whole import whole_rows

    return whole_rows(*args)


def _whole_truth(manifest: Manifest) -> Any:
    from domainseg.cascade.whole import WholeTruth

    return WholeTruth(manifest)


# Films that are judged whole: a row is one of a film, not of a hip in it.
WHOLE_FILMS = replace(FILMS, rows=_whole_rows, truth=_whole_truth)


def _read_volume(path: Path, limit: int | None) -> Volume:
    from domainseg.imaging.volumes import read_volume

    return read_volume(path, max_voxels=limit)


def _volume_rows(*args: Any) -> list[dict[str, Any]]:
    from domainseg.cascade.head_rows import volume_rows

    return volume_rows(*args)


def _volume_truth(manifest: Manifest) -> Any:
    from domainseg.cascade.head_truth import HeadTruth

    return HeadTruth(manifest)


def _blank_volume() -> Volume:
    return Volume(voxels=np.zeros((4, 8, 8), np.int16), affine=np.eye(4), source_shape=(4, 8, 8))


VOLUMES = Reading(
    "volume",
    "exams",
    VOLUME_READER_VERSION,
    _read_volume,
    _volume_rows,
    _volume_truth,
    _blank_volume,
    40,
    40 * 512 * 512,
    0,
)


def reading_of(stages: Sequence[Stage]) -> Reading:
    """What the first stage of a cascade, and so all of it, reads."""
    return reading_for(stages[0].decision)


def reading_for(decision: Any) -> Reading:
    """What a decision, or its class, reads; one that judges films whole says so by ``part``."""
    if decision.reads == VOLUMES.name:
        return VOLUMES
    return WHOLE_FILMS if getattr(decision, "part", "") == "whole" else FILMS

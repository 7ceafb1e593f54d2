"""Pictures of volumes: slices side by side in the order in which one pages through them, lesions outlined.

Slices run from the skull base to the vertex and are seen from the feet, as radiologists see them: the patient's right
is on the left of the picture, and the letters say so. Exported pictures have no sides, and no letters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.lesions import labels_on_volume, numbers_on_volume
from domainseg.cascade.volumes import group_size, window
from domainseg.imaging.geometry import Affine, inverse, transform, warp
from domainseg.imaging.volume import AIR, Volume
from domainseg.reporting.overlays import write_png
from domainseg.reporting.words import REASONS, title

Picture = NDArray[np.uint8]
Color = tuple[int, int, int]

TILE = 224  # pixels of a slice's side
COLUMNS = 6
NAMED = 8  # lesions above a picture
MOST, FEW = 24, 12  # slices of an overlay with lesions, and without
THICKNESS = 5.0  # mm; thinner slices are averaged to about this
CLOSE = 64.0  # mm; the side of what is magnified
BRAIN = (0.0, 80.0)  # HU
TRUE, CALLED, EXCLUDED, PLAIN = (255, 190, 60), (40, 150, 255), (40, 190, 235), (225, 225, 225)  # BGR


@dataclass(frozen=True)
class Outlines:
    """What is outlined: codes uint8 [z, y, x] on a volume's voxels (0 is none), in one colour, and what it is.

    numbers: of lesions on the same voxels; said: what is written beside each.
    """

    codes: NDArray[np.uint8]
    color: Color
    name: str
    numbers: NDArray[Any] | None = None
    said: Mapping[int, str] = field(default_factory=dict)


def draw_volume_overlay(volume: Volume, result: Case | Exclusion, path: Path) -> None:
    """Write the overlay of one exam as PNG, atomically."""
    write_png(volume_overlay(volume, result), path)


def volume_overlay(volume: Volume, result: Case | Exclusion) -> Picture:
    """The slices with called lesions and their neighbours, or a few of all where there is none, 8-bit BGR [h, w, 3].

    Above them stand the exam's score or why it was excluded, and each called lesion with its score and volume, by the
    number that it has in the table of lesions and beside its outlines.
    """
    lines = described(result)
    if isinstance(result, Exclusion):
        return montage(Case.of(result.image, volume), (), lines, most=FEW)
    outlines = called(result)
    return montage(result, outlines, lines, most=MOST if any(layer.codes.any() for layer in outlines) else FEW)


def called(case: Case) -> list[Outlines]:
    """The outlines of the lesions that a cascade has called."""
    if "lesions" not in case.arrays:
        return []
    numbers = numbers_on_volume(case)
    said = {int(lesion["lesion"]): str(lesion["lesion"]) for lesion in case.lesions if lesion["called"]}
    return [Outlines(labels_on_volume(case), CALLED, "called", numbers, said)]


def described(result: Case | Exclusion) -> list[tuple[str, Color]]:
    """Lines of text for the head of a picture: the exam's call, and its called lesions."""
    if isinstance(result, Exclusion):
        stage = result.excluded_by.replace("_", " ")
        return [(f"excluded by {stage}: {title(result.reason, REASONS)}", EXCLUDED)]
    found = [lesion for lesion in result.lesions if lesion["called"]]
    score = result.values.get("score_hemorrhage", float("nan"))
    lines = [(f"hemorrhage {score:.2f}, lesions called: {len(found)}", CALLED if found else PLAIN)]
    said = [f"{each['lesion']}: {each['type'] or 'hemorrhage'} {each['score']:.2f}{_ml(each)}" for each in found]
    if len(said) > NAMED:
        said[NAMED - 1 :] = [f"and {len(said) - NAMED + 1} more in the table of lesions"]
    return lines + [("; ".join(said[k : k + 4]), CALLED) for k in range(0, len(said), 4)]


def _ml(lesion: Mapping[str, Any]) -> str:
    return f" {lesion['ml']:.1f} ml" if np.isfinite(lesion["ml"]) else ""


def montage(
    case: Case,
    outlines: Sequence[Outlines],
    lines: Sequence[tuple[str, Color]] = (),
    *,
    most: int = MOST,
) -> Picture:
    """Slices of a case's frame as tiles, lowest first, under lines of text; 8-bit BGR.

    Those with outlines and their neighbours, or all where there is none; at most ``most``.
    """
    places = paged(case)
    tiles = [page(case, places[k], outlines) for k in choose(places, outlines, most)]
    wide = min(COLUMNS, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % wide)
    rows = [np.concatenate(tiles[k : k + wide], axis=1) for k in range(0, len(tiles), wide)]
    return np.concatenate([_head(case, lines, outlines, wide * TILE), *rows])


def _head(case: Case, lines: Sequence[tuple[str, Color]], outlines: Sequence[Outlines], width: int) -> Picture:
    """What stands above the slices: lines of text, the window, and what each colour outlines."""
    volume = case.film
    assert isinstance(volume, Volume)
    low, high = _window(volume)
    seen = "as exported, sides not known" if volume.affine is None else "seen from the feet"
    told = [*lines, (f"window {low:.0f} to {high:.0f} HU, from below upwards, {seen}", PLAIN)]
    head = np.zeros((8 + 19 * len(told) + (19 if outlines else 0), width, 3), np.uint8)
    for k, (text, color) in enumerate(told):
        _text(head, text, (6, 18 + 19 * k), color, 0.45)
    x = 6
    for layer in outlines:
        cv2.line(head, (x, head.shape[0] - 12), (x + 16, head.shape[0] - 12), layer.color, 2, cv2.LINE_AA)
        _text(head, layer.name, (x + 21, head.shape[0] - 8), layer.color, 0.45)
        x += 40 + 9 * len(layer.name)
    return head


def closeup(
    case: Case, outlines: Sequence[Outlines], lesion: NDArray[np.bool_], lines: Sequence[tuple[str, Color]] = ()
) -> Picture:
    """A lesion [z, y, x] in its slice, and magnified there and in the slices below and above; 8-bit BGR."""
    volume = case.film
    assert isinstance(volume, Volume)
    y, x = (np.flatnonzero(lesion.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    middle = int(np.argmax(lesion.sum(axis=(1, 2))))
    places = paged(case)
    k = next((k for k, place in enumerate(places) if middle in place), len(places) // 2)
    pixel = volume.spacing[0] if volume.spacing else 0.5
    side = max(CLOSE / pixel, 1.5 * (x[-1] - x[0] + 1), 1.5 * (y[-1] - y[0] + 1))
    frame = np.eye(4)
    frame[:, 3] = ((x[0] + x[-1]) / 2 - (side - 1) / 2, (y[0] + y[-1]) / 2 - (side - 1) / 2, case.affine[2, 3], 1)
    near = replace(case, affine=frame, shape=(case.shape[0], round(side), round(side)))
    unsaid = [replace(layer, said={}) for layer in outlines]
    tiles = [page(case, places[k], outlines)]
    tiles += [page(near, places[n], unsaid) for n in (k - 1, k, k + 1) if 0 <= n < len(places)]
    return np.concatenate([_head(case, lines, outlines, TILE * len(tiles)), np.concatenate(tiles, axis=1)])


def paged(case: Case) -> list[range]:
    """The slices of the volume, lowest first, that each page of a case's frame averages to about THICKNESS."""
    volume = case.film
    assert isinstance(volume, Volume)
    count, first = group_size(volume, THICKNESS), max(0, round(float(case.affine[2, 3])))
    last = min(first + case.shape[0], volume.shape[0])
    return [range(start, min(start + count, last)) for start in range(first, last, count)]


def choose(places: Sequence[range], outlines: Sequence[Outlines], most: int) -> list[int]:
    """Which pages to show: with an outline, then their neighbours; all where there is none; at most ``most``.

    No page with an outline gives way to a neighbour. Where these are too many by themselves, of each lesion, or of each
    code of what has none, the page with the most of it goes first.
    """
    held, musts = set(), set()
    for layer in outlines:
        marks = layer.codes if layer.numbers is None else np.where(layer.codes > 0, layer.numbers, 0)
        for mark in np.unique(marks[marks > 0]):
            areas = [np.count_nonzero(marks[place.start : place.stop] == mark) for place in places]
            held |= {k for k, area in enumerate(areas) if area}
            musts.add(int(np.argmax(areas)))
    near = {n for k in held for n in (k - 1, k + 1) if 0 <= n < len(places)} if held else set(range(len(places)))
    first, others = (held, sorted(near - held)) if len(held) <= most else (musts, sorted(held - musts))
    room = max(0, most - len(first))
    if len(others) > room:
        others = [others[int(k)] for k in np.linspace(0, len(others) - 1, room)]
    return sorted({*first, *others})[:most]


def page(case: Case, place: range, outlines: Sequence[Outlines], tile: int = TILE) -> Picture:
    """One page of a case's frame, 8-bit BGR [tile, tile, 3], with outlines, lesions' numbers, its slices and sides."""
    volume = case.film
    assert isinstance(volume, Volume)
    plane = to_voxels(case, tile)
    mean = np.asarray(volume.voxels[place.start : place.stop].mean(axis=0, dtype=np.float32))
    low, high = _window(volume)
    grey = (255 * window(warp(mean, plane, (tile, tile), fill=AIR), low=low, high=high)).astype(np.uint8)
    picture = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)
    for layer in outlines:
        inside = np.asarray((layer.codes[place.start : place.stop] > 0).any(axis=0))
        if inside.any():
            # A share of 0.3: what is a pixel or two wide is still outlined.
            mask = warp(inside.astype(np.float32), plane, (tile, tile)) >= 0.3
            edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, edges, -1, layer.color, 1, cv2.LINE_AA)
    for layer in outlines:
        for text, corner in _labels(layer, place, plane):
            x, y = np.clip(corner, (0, 12), (tile - 34, tile - 4)).astype(int)
            _text(picture, text, (int(x), int(y) - 2), layer.color, 0.36)
    _text(picture, source_slices(volume, place), (4, tile - 6), PLAIN, 0.36)
    if volume.affine is not None:
        _text(picture, "R", (4, tile // 2), PLAIN, 0.4)
        _text(picture, "L", (tile - 13, tile // 2), PLAIN, 0.4)
    return picture


def to_voxels(case: Case, tile: int) -> Affine:
    """3x3 from pixels of a tile to columns and rows of the volume; the case's frame is fitted into the square."""
    _, height, width = case.shape
    scale = max(height, width) / tile
    fitted = np.eye(3)
    fitted[0, 0] = fitted[1, 1] = scale
    fitted[:2, 2] = [(side - 1) / 2 - scale * (tile - 1) / 2 for side in (width, height)]
    return np.asarray(case.affine[np.ix_([0, 1, 3], [0, 1, 3])] @ fitted, np.float64)


def source_slices(volume: Volume, place: range) -> str:
    """The source slices, zero-based, that get the labels of some slices of the volume: 12, or 12-16."""
    here = volume.source_slices(place.start, place.stop - 1)
    return f"{here[0]}" if len(here) == 1 else f"{here[0]}-{here[-1]}"


def _labels(layer: Outlines, place: range, plane: Affine) -> list[tuple[str, NDArray[np.float64]]]:
    """What is written beside the lesions of a page, and the left upper corner of each in the tile."""
    if layer.numbers is None or not layer.said:
        return []
    here, found = layer.numbers[place.start : place.stop], []
    for number in np.unique(here[here > 0]):
        if int(number) in layer.said:
            _, y, x = np.nonzero(here == number)
            found.append((layer.said[int(number)], transform(inverse(plane), [x.min(), y.min()])))
    return found


def _window(volume: Volume) -> tuple[float, float]:
    """HU that are shown: the brain's, or those of exported pictures."""
    return BRAIN if volume.rendering is None else volume.rendering


def _text(picture: Picture, text: str, place: tuple[int, int], color: Color, size: float) -> None:
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(picture, plain, place, cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(picture, plain, place, cv2.FONT_HERSHEY_SIMPLEX, size, color, 1, cv2.LINE_AA)

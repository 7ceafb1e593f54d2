"""Where the head lies in a volume: found in the voxels, by what is solid and how it is stacked. Our own method.

Solid is what is denser than fat. A head rest, a table and the frame of a picture are thin: an opening takes them away,
or they enclose far more than they fill. Of each slice the largest piece is looked at; slices whose pieces overlap make
a stack, and the largest stack is the body, whatever lies above it. Its uppermost BRAIN millimetres give the vertex and
the box in plane, which holds for an infant's head as well: its shoulders come later. Millimetres are guessed where they
are unknown (pictures): a field of view of 250, slices of 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from domainseg.imaging.geometry import Affine
from domainseg.imaging.volume import Volume

BRAIN = 100.0  # mm below the vertex in which every head, also an infant's, is at its widest
LENGTH = 200.0  # mm from the vertex down that are kept
MARGIN = 0.06  # of the head's larger side, on either side of it
THIN = 8.0  # mm; what is thinner than twice this is no head
FIELD, SLICE = 250.0, 5.0  # mm that are guessed for pictures
_SOLID = -300.0  # HU, denser than fat and lung
_COARSE = 3.0  # mm; the search needs no finer pixels
_HOLLOW = 0.3  # what fills less of its own outline is a frame, no body
_VERTEX = 0.1  # of the largest area within BRAIN: where the head begins
_CUT = 0.6  # of it in the uppermost slice: there the head goes on (0.52 at most in 45 real heads)
_WHOLE = 0.3  # of it on both sides of slices that show nothing or something else: the same body (our choice)
_GAP = 15.0  # mm that such slices may take

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Frame:
    """A frame of voxels: 4x4 affine from it to the volume as read, and its shape (slices, rows, columns).

    cut: whether the head goes on above the uppermost slice.
    """

    affine: Affine
    shape: tuple[int, int, int]
    cut: bool = False


def head_frame(volume: Volume) -> Frame:
    """The frame of a volume's head: a square in plane around it, its slices down to LENGTH below the vertex.

    Pixels of the square are as fine as the finer side of a voxel. Where nothing solid is found, all of the volume.
    """
    depth, height, width = volume.shape
    sx, sy, sz = volume.spacing or (FIELD / max(height, width), FIELD / max(height, width), SLICE)
    step_x, step_y = (max(1, int(_COARSE / side)) for side in (sx, sy))
    step_z = max(1, int(_COARSE / sz))
    coarse = volume.voxels[::step_z, ::step_y, ::step_x]
    pieces = _pieces(coarse, volume.rendering, THIN / (sx * step_x), THIN / (sy * step_y))
    areas = pieces.sum(axis=(1, 2))
    if not areas.any():
        return Frame(volume.geometry, volume.shape)
    brain = max(1, round(BRAIN / (sz * step_z)))
    uppermost = _top(pieces, areas, brain, max(1, round(_GAP / (sz * step_z))))
    widest = areas[max(0, uppermost - brain + 1) : uppermost + 1].max()
    vertex = int(np.flatnonzero(areas[: uppermost + 1] >= _VERTEX * widest)[-1])
    kept = _stacked(pieces, vertex, max(0, vertex - brain + 1))
    rows, columns = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
    top, bottom = rows[0] * step_y - 0.5, min((rows[-1] + 1) * step_y, height) - 0.5
    left, right = columns[0] * step_x - 0.5, min((columns[-1] + 1) * step_x, width) - 0.5
    side_mm = max((bottom - top) * sy, (right - left) * sx) * (1 + 2 * MARGIN)
    pixel = min(sx, sy)
    side = max(1, int(np.ceil(side_mm / pixel)))
    last = depth if vertex == len(pieces) - 1 else min(depth, (vertex + 1) * step_z + 1)
    first = 0 if volume.spacing is None else max(0, last - round(LENGTH / sz))
    affine = np.eye(4)
    affine[0, 0], affine[1, 1] = pixel / sx, pixel / sy
    # On whole voxels: where a pixel is a voxel, nothing is interpolated.
    affine[0, 3] = np.rint((left + right) / 2 - affine[0, 0] * (side - 1) / 2)
    affine[1, 3] = np.rint((top + bottom) / 2 - affine[1, 1] * (side - 1) / 2)
    affine[2, 3] = first
    return Frame(
        volume.geometry @ affine,
        (last - first, side, side),
        cut=uppermost == len(areas) - 1 and bool(areas[-1] >= _CUT * widest),
    )


def _pieces(voxels: NDArray[np.int16], rendering: tuple[float, float] | None, thin_x: float, thin_y: float) -> Mask:
    """The largest solid piece of each slice, its holes filled, without what is thin."""
    if rendering is None:
        solid = voxels > _SOLID
    else:
        low, high = rendering
        solid = voxels > low + 0.1 * (high - low)
        _unframe(solid, voxels > high - 0.02 * (high - low))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(thin_x) + 1, 2 * round(thin_y) + 1))
    out = np.zeros(solid.shape, bool)
    for z, plane in enumerate(solid):
        opened = cv2.morphologyEx(_filled(plane), cv2.MORPH_OPEN, kernel)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
        if count > 1:
            out[z] = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return out


def _filled(plane: Mask) -> NDArray[np.uint8]:
    """A slice with the holes of its bodies filled; a frame around everything is no body."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(plane.astype(np.uint8), connectivity=8)
    out = np.zeros(plane.shape, np.uint8)
    for label in range(1, count):
        own = int(stats[label, cv2.CC_STAT_AREA])
        if own * 500 < plane.size:  # too small to be anything
            continue
        contours, _ = cv2.findContours((labels == label).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        body = cv2.drawContours(np.zeros(plane.shape, np.uint8), contours, -1, 1, cv2.FILLED)
        if own >= _HOLLOW * int(body.sum()):
            out[body > 0] = 1
    return out


def _unframe(solid: Mask, white: Mask) -> None:
    """Clear, in place, lines at the edges of pictures that are white from end to end: they are drawn, not scanned."""
    for axis in (1, 2):
        here, there = np.moveaxis(solid, axis, 0), np.moveaxis(white, axis, 0)
        most = max(1, len(here) // 20)
        for lines in (range(most), range(len(here) - 1, len(here) - 1 - most, -1)):
            drawn = np.ones(len(solid), bool)
            for line in lines:
                drawn &= there[line].mean(axis=1) > 0.95
                here[line][drawn] = False


def _top(pieces: Mask, areas: NDArray[np.intp], brain: int, gap: int) -> int:
    """The uppermost slice of the largest stack of pieces, each of which overlaps the next.

    A stack above it belongs to it if it is near and both are wide there: a slice without a picture is no end.
    """
    joint = [bool((one & other).any()) for one, other in pairwise(pieces)]
    starts = [0, *(k + 1 for k, met in enumerate(joint) if not met)]
    stacks = list(pairwise([*starts, len(pieces)]))
    best = max(range(len(stacks)), key=lambda k: int(areas[slice(*stacks[k])].sum()))
    top = stacks[best][1] - 1
    for first, end in stacks[best + 1 :]:
        wide = _WHOLE * areas[max(0, top - brain + 1) : top + 1].max()
        near = first - top - 1 <= gap and min(areas[top], areas[first]) >= wide
        if near and (pieces[top] & pieces[first]).any():
            top = end - 1
    return top


def _stacked(pieces: Mask, vertex: int, last: int) -> Mask:
    """The union [y, x] of the pieces from the vertex down to ``last`` that lie under what was kept above them."""
    kept: Mask = pieces[vertex].copy()
    above = pieces[vertex]
    for z in range(vertex - 1, last - 1, -1):
        if (pieces[z] & above).any():
            above = pieces[z]
            kept |= above
    return kept

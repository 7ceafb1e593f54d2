"""Slices in space: their order along the normal, what is missing or there twice, and the grid they are read on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from domainseg.imaging.dicom import Refusal
from domainseg.imaging.geometry import Affine
from domainseg.imaging.slices import Slice

# Our choices, in mm, degrees or as a ratio.
FEWEST = 3  # slices of a volume
_SAME_PLACE = 0.05  # mm along the normal within which two slices lie at one place
_UNEVEN = 0.05  # of the distance: positions are rounded in headers, and this much is no unevenness
_ROUNDED = 0.06  # mm: the same for thin slices, whose positions have one decimal
_SAME_DISTANCE = 0.1  # distances that differ by less are one protocol's
_REGULAR = 3  # equal distances in a row that make a protocol's distance of them
_HOLE = 1.5  # times the protocol's distance beside it, or the thickness: a slice is missing
_TOUCHING = 1.25  # times the thickness: slices nearer than that leave no gap
WIDEST = 12.0  # mm: nothing is interpolated over more
_ON_GRID = 0.005  # of the distance: a source slice that near to one of the grid is it
_RUNS = 3  # times that instance numbers may turn back before they are taken for numbers without order
_STEEPEST = 45.0  # degrees between the normal and the way the slices follow each other


@dataclass(frozen=True)
class Stack:
    """Slices in order (each with the others at its place) and the grid that they are read on.

    affine: from (i, j, k) to LPS millimetres, k along slices of the grid; depth: how many. places: float64, the k of
    each source slice; whole numbers where nothing is resampled.
    """

    slices: tuple[tuple[Slice, ...], ...]
    affine: Affine
    depth: int
    places: NDArray[np.float64]
    notes: tuple[str, ...]

    @property
    def even(self) -> bool:
        """Whether every slice of the grid is a slice of the source."""
        return self.depth == len(self.slices) and bool((self.places == np.arange(self.depth)).all())


def stacked(slices: Sequence[Slice]) -> Stack:
    """Order slices along their normal, towards the head (or the patient's left, or back), and find their grid.

    Distances that are even within 5 percent are one grid. Uneven ones (a base of 4 mm and a vertex of 7 mm, say) are
    read on an even grid of the smallest distance that at least three neighbours have, linearly between the two slices
    around. Gantry tilt, the same for all slices, becomes a shear. Raises Refusal where that is not possible: slices
    turned against each other, shifted in plane, a hole as of a missing slice, more than 12 mm between two.
    """
    first = slices[0]
    for one in slices:
        if (one.rows, one.columns) != (first.rows, first.columns):
            raise Refusal("its slices have different sizes: two series in one, or damaged")
        if not np.allclose(one.spacing, first.spacing, rtol=1e-3):
            raise Refusal("its slices have different pixel spacings: two series in one, or damaged")
        if (one.slope, one.intercept) != (first.slope, first.intercept):
            raise Refusal("its slices have different rescale slopes or intercepts: two series in one, or damaged")
    _check_turns(slices)
    normal = first.normal
    axis = int(np.abs(normal).argmax())
    upward = normal if normal[axis] > 0 else -normal  # LPS: to the left, the back, the head
    _check_runs(slices, upward)
    grouped = _grouped(sorted(slices, key=lambda one: float(one.position @ upward)), upward)
    if len(grouped) < FEWEST:
        raise Refusal(f"has slices at {len(grouped)} places: a volume needs {FEWEST}")
    positions = np.array([group[0].position for group in grouped])
    heights = positions @ upward
    way = (positions[-1] - positions[0]) / (heights[-1] - heights[0])
    shift = np.linalg.norm(positions - positions[0] - np.outer(heights - heights[0], way), axis=1).max()
    if shift > min(first.spacing) / 2 + _ROUNDED:
        raise Refusal(f"its slices are shifted in plane, by up to {shift:.1f} mm: two acquisitions in one series?")
    tilt = float(np.degrees(np.arccos(min(1.0, 1 / float(np.linalg.norm(way))))))
    if tilt > _STEEPEST:
        raise Refusal(f"its slices follow each other at {tilt:.0f} degrees to their normal: damaged")
    gaps = np.diff(heights)
    usual = protocol_distances(gaps)
    _check_gaps(gaps, usual, [group[0] for group in grouped])
    step, depth, places, notes = _grid(heights, gaps, usual)
    notes += _doubts(gaps, usual, [group[0] for group in grouped])
    thickness, gap = float(np.median([group[0].thickness for group in grouped])), float(np.median(gaps))
    if 0 < thickness < gap / _TOUCHING:
        notes.append(f"slices of {thickness:.1f} mm lie {gap:.1f} mm apart: what is between them was not seen")
    if tilt > 0.5:
        notes.append(f"gantry tilt of {tilt:.1f} degrees kept as a shear of the affine")
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = first.along * first.spacing[1], first.down * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = way * step, positions[0]
    return Stack(tuple(grouped), affine, depth, places, tuple(notes))


def protocol_distances(gaps: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each gap the distance of the run of equal ones that it belongs to; NaN in runs of less than three."""
    usual = np.full(len(gaps), np.nan)
    start = 0
    for end in range(1, len(gaps) + 1):
        if end == len(gaps) or abs(gaps[end] - gaps[start]) > max(_SAME_DISTANCE * gaps[start], _ROUNDED):
            if end - start >= _REGULAR:
                usual[start:end] = np.median(gaps[start:end])
            start = end
    return usual


def _check_turns(slices: Sequence[Slice]) -> None:
    """Refuse slices that are turned against each other by more than half a pixel at the edge of the picture."""
    first = slices[0]
    half = first.columns * first.spacing[1], first.rows * first.spacing[0]
    for one in slices:
        turned = np.linalg.norm(one.along - first.along) * half[0] + np.linalg.norm(one.down - first.down) * half[1]
        if turned > min(first.spacing):
            angle = np.degrees(np.arccos(np.clip(abs(one.normal @ first.normal), 0, 1)))
            raise Refusal(
                f"its slices are turned against each other (by {angle:.1f} degrees between their normals), so they are "
                "no stack: the tilt was changed during the scan, or two series are in one"
            )


def _check_runs(slices: Sequence[Slice], upward: NDArray[np.float64]) -> None:
    """Refuse a scan that was repeated under one series: by instance number its slices run over the same places again.

    Numbers that follow no order, or the same number twice, say nothing of it; slices of two passes that fill each
    other's gaps are one scan.
    """
    numbers = [one.number for one in slices]
    if None in numbers or len(set(numbers)) < len(numbers):
        return
    heights = np.array([float(one.position @ upward) for one in sorted(slices, key=lambda one: one.number or 0)])
    runs = _runs(heights)
    if not 2 <= len(runs) <= _RUNS + 1 or min(map(len, runs)) < FEWEST:
        return
    gap = float(np.median(np.abs(np.diff(heights))))
    between = np.diff(np.sort(heights))
    thickness = float(np.median([one.thickness for one in slices]))
    if between.max() <= (1 + _UNEVEN) * between.min() and 0 < thickness <= (1 + _UNEVEN) * between.min():
        return
    ordered = sorted(runs, key=min)
    if any(max(below) > min(above) + gap for below, above in pairwise(ordered)):
        raise Refusal(
            f"its slices run over the same part of the body {len(runs)} times, by their instance numbers: a repeated "
            "scan in one series; export one of them"
        )


def _runs(heights: NDArray[np.float64]) -> list[list[float]]:
    """Heights in pieces of one direction and without a leap: a scan that is repeated may run back or begin again."""
    runs: list[list[float]] = [[float(heights[0])]]
    for height in map(float, heights[1:]):
        run = runs[-1]
        onward = len(run) == 1 or (height - run[-1]) * (run[-1] - run[-2]) >= 0
        if onward and abs(height - run[-1]) <= WIDEST:
            run.append(height)
        else:
            runs.append([height])
    return runs


def _grouped(ordered: Sequence[Slice], upward: NDArray[np.float64]) -> list[tuple[Slice, ...]]:
    groups: list[list[Slice]] = []
    for one in ordered:
        if groups and abs((one.position - groups[-1][0].position) @ upward) <= _SAME_PLACE:
            groups[-1].append(one)
        else:
            groups.append([one])
    return [tuple(group) for group in groups]


def _check_gaps(gaps: NDArray[np.float64], usual: NDArray[np.float64], slices: Sequence[Slice]) -> None:
    """Refuse holes: gaps half as wide again as the trusted ones nearest to them, or as the slices are thick.

    Trusted are gaps of a protocol between slices whose instance numbers follow each other (or all of a protocol, when
    no numbers do). Thickness tells only in series that have slices without a gap.
    """
    steps = [a.number is None or b.number is None or abs(a.number - b.number) <= 1 for a, b in pairwise(slices)]
    thickness = np.array([max(a.thickness, b.thickness) or np.inf for a, b in pairwise(slices)])
    trusted = np.isfinite(usual) & np.array(steps)
    if not trusted.any():
        trusted = np.isfinite(usual)
    for at, gap in enumerate(gaps):
        where = f"between slices {at + 1} and {at + 2} of {len(gaps) + 1} from below"
        if gap > WIDEST:
            raise Refusal(f"{gap:.1f} mm lie {where}: slices are missing, or too far apart for a volume")
        expected = float(thickness[at]) if (gaps < _TOUCHING * thickness).any() else np.inf
        if not trusted[at]:
            beside = [usual[:at][trusted[:at]][-1:], usual[at + 1 :][trusted[at + 1 :]][:1]]
            expected = min(expected, float(np.concatenate(beside).max() if trusted.any() else np.median(gaps)))
        if gap > _HOLE * expected:
            raise Refusal(
                f"{gap:.1f} mm lie {where}, where {expected:.1f} mm are usual: slices are missing; "
                "export the whole series"
            )


def _doubts(gaps: NDArray[np.float64], usual: NDArray[np.float64], slices: Sequence[Slice]) -> list[str]:
    """Notes on gaps where instance numbers skip and distances change: no hole of the wider one, but of the narrower."""
    notes = []
    for at, (a, b) in enumerate(pairwise(slices)):
        skipped = a.number is not None and b.number is not None and abs(a.number - b.number) > 1
        beside = [usual[:at][np.isfinite(usual[:at])][-1:], usual[at + 1 :][np.isfinite(usual[at + 1 :])][:1]]
        if skipped and len(near := np.concatenate(beside)) and gaps[at] > _HOLE * near.min():
            notes.append(
                f"{gaps[at]:.1f} mm lie between slices {at + 1} and {at + 2} from below, where instance numbers skip: "
                "a slice may be missing"
            )
    return notes


def _grid(
    heights: NDArray[np.float64], gaps: NDArray[np.float64], usual: NDArray[np.float64]
) -> tuple[float, int, NDArray[np.float64], list[str]]:
    """The distance of the grid, its slices, where those of the source lie on it, and what to note."""
    count = len(heights)
    mean = float(heights[-1] - heights[0]) / (count - 1)
    even = np.abs(heights - heights[0] - mean * np.arange(count)).max()
    if even <= min(max(_UNEVEN * mean, _ROUNDED), 0.2 * mean):
        return mean, count, np.arange(count, dtype=np.float64), []
    regular = usual[np.isfinite(usual)]
    step = float(regular.min() if len(regular) else np.median(gaps))
    places = (heights - heights[0]) / step
    whole = np.rint(places)
    places = np.where(np.abs(places - whole) < _ON_GRID, whole, places)
    note = f"uneven slice distance, {gaps.min():.2f} to {gaps.max():.2f} mm: resampled along z to {step:.2f} mm"
    # The last slice of the grid is the last that lies between two of the source, or one past it, so that the uppermost
    # slice is not lost: where the last but one lies on the grid already, nothing would be read of it.
    last = int(np.rint(places[-1]))
    if places[-1] > last and places[-2] >= last:
        last += 1
    return step, last + 1, np.asarray(places, np.float64), [note]

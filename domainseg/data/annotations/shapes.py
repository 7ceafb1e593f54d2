"""What every annotation file is read into: shapes with a name, on a film that is called something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


class AnnotationProblem(ValueError):
    """Why a file or a shape cannot be read; its text holds nothing that stands in the file."""


class Mask(NamedTuple):
    """pixels: bool [h, w]; the centre of its first pixel is at ``origin`` (x, y), neighbours are ``step`` (x, y) apart.

    Both are in pixels of the film or, in a shape with ``millimetres``, in mm.
    """

    pixels: NDArray[np.bool_]
    origin: tuple[float, float] = (0.0, 0.0)
    step: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class Shape:
    """One thing that was drawn or said.

    films: what the file calls the film, likeliest first (names or paths). name: category or label as written.
    kind and points [N, 2] as (x, y), the centre of the film's first pixel being (0, 0): points (one: a centre; two: a
    centre and a place on the rim), line (two ends), box (corner of smallest and of largest x and y), ellipse (centre,
    then its half axes), polygon (outline), mask (see ``mask``), label (no place).
    mask: makes the mask when it is asked for. attributes: name -> value. size: width and height that the file gives.
    millimetres: points and mask are in mm from the centre of the first pixel, x right and y down.
    """

    films: tuple[str, ...]
    name: str
    kind: str
    points: Points = field(default_factory=lambda: np.zeros((0, 2)))
    mask: Callable[[], Mask] | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    millimetres: bool = False


def head(kind: str, points: Points) -> tuple[float, float, float] | None:
    """Centre x, y and diameter (NaN when unknown) of a femoral head from a shape; None when the shape cannot tell."""
    if kind == "points" and len(points) in (1, 2):
        diameter = 2 * float(np.hypot(*(points[1] - points[0]))) if len(points) == 2 else float("nan")
        return float(points[0, 0]), float(points[0, 1]), diameter
    if kind in ("line", "box") and len(points) == 2:
        centre, extent = points.mean(axis=0), np.abs(points[1] - points[0])
        across = float(np.hypot(*extent)) if kind == "line" else float(extent.mean())
        return float(centre[0]), float(centre[1]), across
    if kind == "ellipse":
        return float(points[0, 0]), float(points[0, 1]), float(points[1].sum())
    if kind == "polygon" and _is_rectangle(points):  # a box that was turned, or written as an outline
        centre, sides = points[:4].mean(axis=0), np.hypot(*(points[1:3] - points[:2]).T)
        return float(centre[0]), float(centre[1]), float(sides.mean())
    if kind == "polygon" and len(points) >= 3:
        return _circle_of(points)
    return None


def outline(kind: str, points: Points, attributes: Mapping[str, str]) -> Points:
    """The outline [N, 2] of a polygon, or of an ellipse turned by its attribute ``rotation`` (degrees, clockwise)."""
    if kind == "polygon":
        return points
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    around = np.stack([np.cos(angle), np.sin(angle)], axis=1) * points[1]
    around = turned(around, float(attributes.get("rotation", 0) or 0))
    return np.asarray(points[0] + around, dtype=np.float64)


def turned(points: Points, degrees: float) -> Points:
    """Points turned about the origin, clockwise as seen in a picture whose y runs down."""
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return np.asarray(points @ np.array([[cosine, sine], [-sine, cosine]]), dtype=np.float64)


def _is_rectangle(points: Points) -> bool:
    """Four corners with right angles; the first may stand there again at the end."""
    if len(points) == 5 and np.allclose(points[0], points[4]):
        points = points[:4]
    if len(points) != 4:
        return False
    along, across = points[1] - points[0], points[2] - points[1]
    slack = 1e-2 * float(np.hypot(*along) * np.hypot(*across))
    closed = np.allclose(points[0] + points[2], points[1] + points[3], atol=0.1)
    return bool(closed and slack > 0 and abs(float(along @ across)) <= slack)


def _circle_of(points: Points) -> tuple[float, float, float] | None:
    """Centroid of an outline and the diameter of the circle of its area."""
    after = np.roll(points, -1, axis=0)
    cross = points[:, 0] * after[:, 1] - after[:, 0] * points[:, 1]
    area = float(cross.sum()) / 2
    if abs(area) < 1e-9:
        return None
    centre = ((points + after) * cross[:, None]).sum(axis=0) / (6 * area)
    return float(centre[0]), float(centre[1]), 2 * float(np.sqrt(abs(area) / np.pi))

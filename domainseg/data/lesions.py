"""Lesions drawn on films, and what they say about one hip."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]


def polygon_points(cell: str) -> Points:
    """The points [N, 2] as (x, y) of a manifest's ``polygon`` cell."""
    return np.array([float(number) for number in cell.split()]).reshape(-1, 2)


def draw_polygons(polygons: Sequence[ArrayLike], shape: Sequence[int]) -> NDArray[np.bool_]:
    """Polygons [N, 2] in pixels, filled: bool mask [H, W] of ``shape``; a pixel on the outline is inside."""
    mask = np.zeros((int(shape[0]), int(shape[1])), np.uint8)
    for points in polygons:
        cv2.fillPoly(mask, [np.round(np.asarray(points, dtype=float)).astype(np.int32)], 1)
    return mask.astype(bool)


def meets(roi: ArrayLike, polygon: ArrayLike) -> bool:
    """Whether a polygon [N, 2] and a convex ROI, given by its corners [4, 2] in order, share a point.

    The polygon is clipped by each side of the ROI in turn (Sutherland and Hodgman, Commun. ACM 17:32, 1974); they
    meet when something is left. The polygon need not be convex; the ROI may be turned or mirrored.
    """
    corners = np.asarray(roi, dtype=float)
    left = np.asarray(polygon, dtype=float)
    following = np.roll(corners, -1, axis=0)
    twice_area = float(np.sum(corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0]))
    if twice_area == 0:
        raise ValueError("an ROI needs an area")
    for start, end in zip(corners, following, strict=True):
        if len(left) == 0:
            break
        edge, offset = end - start, left - start
        inside = np.sign(twice_area) * (edge[0] * offset[:, 1] - edge[1] * offset[:, 0])
        clipped = []
        for here, point in enumerate(left):
            before = here - 1
            if (inside[before] < 0) != (inside[here] < 0):
                share = inside[before] / (inside[before] - inside[here])
                clipped.append(left[before] + share * (point - left[before]))
            if inside[here] >= 0:
                clipped.append(point)
        left = np.array(clipped).reshape(-1, 2)
    return len(left) > 0


def lesion_to_part(roi: ArrayLike, polygons: Sequence[ArrayLike], film_label: float) -> tuple[float, str]:
    """The label of a hip from the film's label, the film's lesions and the hip's ROI: the operation lesion_to_part.

    roi: its corners [4, 2] in source pixels. polygons: each [N, 2] in source pixels, all that were drawn on the film.
    film_label: 1, 0 or NaN. Returns the label and its origin, for the column label_origin:
        (0, "film without lesion")    a film without fracture has none in either hip
        (1, "lesion meets roi")       a fractured film, and a polygon meets the ROI
        (NaN, "lesion elsewhere")     a fractured film, and no polygon meets it: what was drawn lies elsewhere, and
                                      nobody said that this hip is whole
        (NaN, "film unknown")
    """
    if np.isnan(film_label):
        return float("nan"), "film unknown"
    if film_label == 0:
        return 0.0, "film without lesion"
    if any(meets(roi, polygon) for polygon in polygons):
        return 1.0, "lesion meets roi"
    return float("nan"), "lesion elsewhere"

"""3D Slicer: markups (.mrk.json: fiducials, lines, closed curves, regions) and segmentations (.seg.nrrd, .nrrd).

Slicer loads a radiograph with its first pixel's centre at the origin, x to the right and y down in LPS millimetres;
RAS has both reversed. Divided by the spacing that Slicer used, they are pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from domainseg.data.annotations.nrrd import Nrrd, read_nrrd, read_nrrd_header
from domainseg.data.annotations.shapes import AnnotationProblem, Mask, Shape


def read_markups(content: Mapping[str, Any], films: tuple[str, ...]) -> Iterator[Shape]:
    """The shapes of a parsed .mrk.json. Points of one label (without Slicer's number, F-1) belong together.

    Raises AnnotationProblem, KeyError or TypeError when it is not one.
    """
    for node in content["markups"]:
        system = str(node.get("coordinateSystem", "LPS")).upper()
        if system not in ("LPS", "RAS", "0", "1"):
            raise AnnotationProblem("a coordinate system that is neither LPS nor RAS")
        if str(node.get("coordinateUnits", "mm")) not in ("mm", "['mm', 'mm', 'mm']"):
            raise AnnotationProblem("coordinates that are not millimetres")
        sign = -1.0 if system in ("RAS", "0") else 1.0
        groups: dict[str, list[list[float]]] = {}
        for point in node.get("controlPoints", []):
            if point.get("positionStatus", "defined") == "defined":
                label = re.sub(r"[-_ ]\d+$", "", str(point.get("label", "")))
                groups.setdefault(label, []).append([float(value) for value in point["position"][:2]])
        kind = {"Line": "line", "ClosedCurve": "polygon", "ROI": "box"}.get(str(node["type"]), "points")
        if kind != "points":
            name = next(iter(groups), "")
            points = [place for group in groups.values() for place in group]
            if kind == "box":
                centre, extent = np.array(node["center"][:2], float), np.array(node["size"][:2], float)
                points = [list(centre - extent / 2), list(centre + extent / 2)]
            groups = {name: points} if points else {}
        for name, places in groups.items():
            marks = sign * np.array(places, dtype=np.float64)
            if kind == "box":
                marks = np.sort(marks, axis=0)
            yield Shape(films, name, kind, marks, millimetres=True)


def read_segments(path: Path, films: tuple[str, ...]) -> Iterator[Shape]:
    """One shape a segment of a .seg.nrrd, or a label of a label map (called label_1, label_2, ...).

    Raises AnnotationProblem.
    """
    header = read_nrrd_header(path)
    names = sorted(
        (match[1] for field in header.fields if (match := re.fullmatch(r"(Segment\d+)_Name", field))),
        key=lambda name: int(name[7:]),
    )
    if names:
        for name in names:
            value = int(header.fields.get(f"{name}_LabelValue", 1))
            layer = int(header.fields.get(f"{name}_Layer", 0))
            yield Shape(
                films, header.fields[f"{name}_Name"], "mask", mask=partial(_mask, path, value, layer), millimetres=True
            )
        return
    for value in np.unique(read_nrrd(path).pixels):
        if value:
            yield Shape(films, f"label_{value}", "mask", mask=partial(_mask, path, int(value), 0), millimetres=True)


def _mask(path: Path, value: int, layer: int) -> Mask:
    found: Nrrd = read_nrrd(path)
    if not 0 <= layer < len(found.pixels):
        raise AnnotationProblem("a layer that is not there")
    pixels = found.pixels[layer] == value
    origin, step = np.array(found.origin), np.array(found.step)
    for axis, flat in ((0, 1), (1, 0)):  # x runs along columns
        if step[axis] < 0:
            pixels = np.flip(pixels, flat)
            origin[axis] += step[axis] * (pixels.shape[flat] - 1)
            step[axis] = -step[axis]
    return Mask(pixels, (float(origin[0]), float(origin[1])), (float(step[0]), float(step[1])))

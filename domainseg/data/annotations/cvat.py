"""CVAT for images 1.1 (XML): points, boxes, polygons, polylines of two points, ellipses, masks, skeletons and tags.

CVAT measures from the corner of the picture, so half a pixel is taken off.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, iterparse

import numpy as np

from domainseg.data.annotations.rle import cvat_mask
from domainseg.data.annotations.shapes import AnnotationProblem, Mask, Points, Shape, turned

_HEAD = 1 << 20  # bytes in which the first element stands
_TAGS = {"points", "box", "polygon", "polyline", "ellipse", "mask", "tag"}


def read_cvat(path: Path) -> Iterator[Shape]:
    """The shapes of a file, one picture at a time. Raises AnnotationProblem when it is not CVAT for images."""
    with open(path, "rb") as stream:
        head = stream.read(_HEAD)
        if b"<!DOCTYPE" in head or b"<!ENTITY" in head:
            raise AnnotationProblem("it declares entities, which CVAT never does")
        if b"<annotations" not in head:
            raise AnnotationProblem("not a CVAT file")
        stream.seek(0)
        try:
            for _, element in iterparse(stream):
                if element.tag == "track":
                    raise AnnotationProblem("CVAT for video; export the task as CVAT for images 1.1")
                if element.tag == "image":
                    yield from _image(element)
                    element.clear()
        except ParseError:
            raise AnnotationProblem("not readable XML") from None


def _image(image: Element) -> Iterator[Shape]:
    size = (int(image.attrib["width"]), int(image.attrib["height"]))
    for element in image.iter():
        if element.tag not in _TAGS or element.get("outside") == "1":
            continue
        attributes = {str(item.get("name")): (item.text or "").strip() for item in element.findall("attribute")}
        shape = partial(Shape, films=(image.attrib["name"],), name=element.get("label", ""), size=size)
        where = element.attrib
        if element.tag == "tag":
            yield shape(kind="label", attributes=attributes)
        elif element.tag == "mask":
            counts = [int(number) for number in where["rle"].split(",")]
            place = [int(float(where[name])) for name in ("height", "width", "left", "top")]
            yield shape(kind="mask", mask=partial(_mask, counts, *place), attributes=attributes)
        elif element.tag == "box":
            corners = np.array([[float(where[f"{axis}{end}"]) for axis in "xy"] for end in ("tl", "br")]) - 0.5
            if angle := float(where.get("rotation", 0)):
                yield shape(kind="polygon", points=_turned_box(corners, angle), attributes=attributes)
            else:
                yield shape(kind="box", points=corners, attributes=attributes)
        elif element.tag == "ellipse":
            points = np.array(
                [[float(where["cx"]) - 0.5, float(where["cy"]) - 0.5], [float(where["rx"]), float(where["ry"])]]
            )
            rotation = {"rotation": where["rotation"]} if "rotation" in where else {}
            yield shape(kind="ellipse", points=points, attributes=attributes | rotation)
        else:
            points = np.array([[float(x) for x in pair.split(",")] for pair in where["points"].split(";")]) - 0.5
            kind = {"points": "points", "polygon": "polygon", "polyline": "line"}[element.tag]
            yield shape(kind=kind, points=points.reshape(-1, 2), attributes=attributes)


def _turned_box(corners: Points, degrees: float) -> Points:
    (left, top), (right, bottom) = corners
    around = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    centre = corners.mean(axis=0)
    return np.asarray(centre + turned(around - centre, degrees), dtype=np.float64)


def _mask(counts: list[int], height: int, width: int, left: int, top: int) -> Mask:
    return Mask(cvat_mask(counts, height, width), (float(left), float(top)))

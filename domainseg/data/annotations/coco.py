"""COCO JSON: boxes, polygons, run-length masks and keypoints.

COCO measures boxes and outlines from the corner of the picture, so half a pixel is taken off; keypoints are numbers of
pixels and stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from domainseg.data.annotations.rle import coco_mask
from domainseg.data.annotations.shapes import AnnotationProblem, Mask, Shape

_RIM = ({"centre", "rim"}, {"center", "rim"}, {"centre", "edge"}, {"center", "edge"})


def read_coco(content: Mapping[str, Any]) -> Iterator[Shape]:
    """The shapes of a parsed file. Raises ValueError, KeyError or TypeError when it is not COCO.

    An annotation with keypoints gives one shape for each visible one, called like the keypoint (two that are called
    centre and rim give one shape, called like the category); otherwise its segmentation, otherwise its box; without
    any, a label.
    """
    images = {image["id"]: image for image in content["images"]}
    categories = {category["id"]: category for category in content["categories"]}
    for note in content["annotations"]:
        image, category = images[note["image_id"]], categories[note["category_id"]]
        size = (int(image["width"]), int(image["height"])) if "width" in image and "height" in image else None
        common: dict[str, Any] = {
            "films": (str(image["file_name"]),),
            "attributes": {str(name): _text(value) for name, value in (note.get("attributes") or {}).items()},
            "size": size,
        }
        shape = partial(Shape, name=str(category["name"]), **common)
        outline = note.get("segmentation") or None
        if any(note.get("keypoints") or []):
            marks = np.asarray(note["keypoints"], dtype=np.float64).reshape(-1, 3)
            names = [str(name) for name in category.get("keypoints") or []] or [str(category["name"])] * len(marks)
            if {name.casefold() for name in names} in _RIM and (marks[:, 2] > 0).all():
                order = sorted(range(2), key=lambda place: names[place].casefold() in ("rim", "edge"))
                yield shape(kind="points", points=marks[order, :2])
                continue
            for name, mark in zip(names, marks, strict=True):
                if mark[2] > 0:
                    yield Shape(name=name, kind="points", points=mark[None, :2], **common)
        elif isinstance(outline, Mapping):
            height, width = (int(side) for side in outline["size"])
            if size is not None and size != (width, height):
                raise AnnotationProblem("a mask of another size than its picture")
            yield shape(kind="mask", mask=partial(_mask, outline["counts"], height, width), size=(width, height))
        elif outline is not None:
            for ring in outline:
                points = np.asarray(ring, dtype=np.float64).reshape(-1, 2) - 0.5
                yield shape(kind="polygon", points=points)
        elif note.get("bbox"):
            left, top, wide, high = (float(value) for value in note["bbox"])
            corners = np.array([[left, top], [left + wide, top + high]]) - 0.5
            yield shape(kind="box", points=corners)
        else:
            yield shape(kind="label")


def _mask(counts: Any, height: int, width: int) -> Mask:
    return Mask(coco_mask(counts, height, width))


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)

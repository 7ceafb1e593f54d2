"""Points, boxes, outlines and masks that people drew in COCO, CVAT or 3D Slicer, as rows of the targets table."""

from domainseg.data.annotations.read import find_annotations, read_annotations
from domainseg.data.annotations.shapes import Mask, Shape

__all__ = ["Mask", "Shape", "find_annotations", "read_annotations"]

"""Points, boxes, outlines and masks that people drew in COCO, CVAT or 3D Slicer, as rows of the targets table."""

from domainseg.data.annotations.read import read_annotations
from domainseg.data.annotations.shapes import Mask, Shape

__all__ = ["Mask", "Shape", "read_annotations"]

"""Annotation files as COCO tools, CVAT and 3D Slicer write them, against what was drawn."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from domainseg.data.annotations import Shape, read_annotations
from domainseg.data.annotations.rle import coco_mask, cvat_mask, unpack
from domainseg.data.annotations.shapes import AnnotationProblem, head
from domainseg.data.tables import ManifestError


def one(path: Path) -> Shape:
    (shape,) = read_annotations(path)
    return shape


# ---------------------------------------------------------------- run lengths


def test_packed_runs_of_pycocotools() -> None:
    """Written by pycocotools 2.0.10 for a block of ones with a broken last row."""
    mask = np.zeros((7, 5), dtype=bool)
    mask[1:3, 2:4] = True
    mask[6] = [True, True, True, False, False]
    assert (coco_mask("6160K12ON1:", 7, 5) == mask).all()


@settings(max_examples=100, deadline=None)
@given(mask=arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_runs_fill_columns_or_rows(exported: ModuleType, mask: np.ndarray) -> None:
    height, width = mask.shape
    assert (coco_mask(exported.pack(mask), height, width) == mask).all()
    by_hand, last = [0], False
    for value in mask.ravel():
        if value != last:
            by_hand.append(0)
            last = value
        by_hand[-1] += 1
    assert (cvat_mask(by_hand, height, width) == mask).all()
    assert (coco_mask(by_hand, width, height) == mask.T).all()


@pytest.mark.parametrize("counts", ["", "\x7f", "o", [3, 4], [-1, 36], "x" * 40])
def test_damaged_runs_are_refused(counts: Any) -> None:
    with pytest.raises(AnnotationProblem):
        coco_mask(counts, 7, 5)
    with pytest.raises(AnnotationProblem):
        unpack("o")


# ---------------------------------------------------------------- COCO


def coco(tmp_path: Path, *notes: dict[str, Any], keypoints: list[str] | None = None) -> Path:
    category = {"id": 7, "name": "hip_left"} | ({"keypoints": keypoints} if keypoints else {})
    image = {"id": 3, "file_name": "a/b.dcm", "width": 30, "height": 20}
    rows = [{"id": number, "image_id": 3, "category_id": 7, **note} for number, note in enumerate(notes)]
    file = tmp_path / "notes.json"
    file.write_text(json.dumps({"images": [image], "categories": [category], "annotations": rows}))
    return file


def test_coco_boxes_are_measured_from_the_corner(tmp_path: Path) -> None:
    """A box around the first pixel only, [0, 0, 1, 1], has its middle where the centre of the first pixel is."""
    shape = one(coco(tmp_path, {"bbox": [0, 0, 1, 1], "attributes": {"label_fracture": True, "side": "left"}}))
    assert head(shape.kind, shape.points) == (0, 0, 1)
    assert shape.attributes == {"label_fracture": "1", "side": "left"}
    assert (shape.films, shape.name, shape.size) == (("a/b.dcm",), "hip_left", (30, 20))


def test_coco_segmentations(tmp_path: Path, exported: ModuleType) -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[3:9, 4:25] = True
    ring = [2, 2, 10, 2, 10, 8]
    lengths = [4 * 20 + 3] + [6, 14] * 20 + [6, 11 + 5 * 20 - 0]
    code = {"counts": exported.pack(mask), "size": [20, 30]}
    file = coco(
        tmp_path, {"segmentation": code, "bbox": [4, 3, 21, 6]}, {"segmentation": [ring, ring], "bbox": [0] * 4}
    )
    shapes = list(read_annotations(file))
    assert [shape.kind for shape in shapes] == ["mask", "polygon", "polygon"]
    assert shapes[0].mask is not None
    assert (shapes[0].mask().pixels == mask).all()
    assert shapes[1].points.tolist() == [[1.5, 1.5], [9.5, 1.5], [9.5, 7.5]]
    plain = {"counts": lengths, "size": [20, 30]}
    assert sum(lengths) == 600
    again = one(coco(tmp_path, {"segmentation": plain}))
    assert again.mask is not None
    assert (again.mask().pixels == mask).all()


def test_coco_keypoints_are_pixels(tmp_path: Path) -> None:
    marks = {"keypoints": [5, 6, 2, 0, 0, 0, 15, 6, 1], "bbox": [0, 0, 30, 20]}
    shapes = list(read_annotations(coco(tmp_path, marks, keypoints=["head_left", "head_right", "x"])))
    assert [(shape.name, shape.points.tolist()) for shape in shapes] == [("head_left", [[5, 6]]), ("x", [[15, 6]])]
    rim = one(coco(tmp_path, {"keypoints": [9, 10, 2, 5, 7, 2]}, keypoints=["rim", "centre"]))
    assert (rim.name, head(rim.kind, rim.points)) == ("hip_left", (5, 7, 10))


# ---------------------------------------------------------------- CVAT

CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task/></meta>
<image id="0" name="a.png" width="30" height="20">{}</image></annotations>"""


@pytest.mark.parametrize(
    ("element", "found"),
    [
        ('<points label="h" points="10.50,8.50"/>', (10, 8, None)),
        ('<points label="h" points="10.50,8.50;13.5,12.5"/>', (10, 8, 10)),
        ('<polyline label="h" points="6.50,8.50;14.5,8.5"/>', (10, 8, 8)),
        ('<box label="h" xtl="6.5" ytl="4.5" xbr="14.5" ybr="12.5"/>', (10, 8, 8)),
        ('<ellipse label="h" cx="10.5" cy="8.5" rx="5" ry="3" rotation="30"/>', (10, 8, 8)),
        ('<polygon label="h" points="6.5,4.5;14.5,4.5;14.5,12.5;6.5,12.5"/>', (10, 8, 8)),
        (
            '<polygon label="h" points="8.5,4.5;12.5,4.5;14.5,6.5;14.5,10.5;12.5,12.5;8.5,12.5;6.5,10.5;6.5,6.5"/>',
            (10, 8, 2 * np.sqrt(56 / np.pi)),
        ),
        ('<skeleton label="s"><points label="h" points="10.5,8.5" outside="0"/></skeleton>', (10, 8, None)),
    ],
)
def test_cvat_heads(tmp_path: Path, element: str, found: tuple[float, float, float | None]) -> None:
    (tmp_path / "a.xml").write_text(CVAT.format(element))
    shape = one(tmp_path / "a.xml")
    assert shape.size == (30, 20)
    x, y, diameter = head(shape.kind, shape.points) or (0, 0, 0)
    assert (x, y) == pytest.approx(found[:2])
    assert np.isnan(diameter) if found[2] is None else diameter == pytest.approx(found[2])


def test_cvat_masks_attributes_tags_and_turned_boxes(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        CVAT.format(
            '<mask label="fracture" rle="1, 2, 4, 2" left="4" top="3" width="3" height="3">'
            '<attribute name="side">left</attribute></mask><tag label="frontal"/>'
            '<box label="b" xtl="4.5" ytl="2.5" xbr="8.5" ybr="4.5" rotation="90"/>'
        )
    )
    mask, tag, box = read_annotations(tmp_path / "a.xml")
    assert mask.mask is not None
    assert mask.mask().pixels.astype(int).tolist() == [[0, 1, 1], [0, 0, 0], [0, 1, 1]]
    assert mask.mask().origin == (4, 3)
    assert mask.attributes == {"side": "left"}
    assert (tag.kind, tag.name) == ("label", "frontal")
    # (4..8) x (2..4) about (6, 3) by a quarter turn: (5..7) x (1..5); the first corner goes clockwise
    assert box.points == pytest.approx(np.array([[7, 1], [7, 5], [5, 5], [5, 1]]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotations/>', "entities"),
        ("<annotations><track id='0'/></annotations>", "CVAT for video"),
        ("<annotations><image", "XML"),
        ("<html/>", "not a CVAT"),
        (CVAT.format('<points label="h" points="Mustermann,2"/>'), "not what its ending says"),
    ],
)
def test_other_xml_is_refused_without_a_word_of_it(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "a.xml").write_text(content)
    with pytest.raises(ManifestError, match=words) as error:
        list(read_annotations(tmp_path / "a.xml"))
    assert "Mustermann" not in str(error.value)


# ---------------------------------------------------------------- 3D Slicer


def markups(kind: str, system: str, *points: tuple[str, float, float], **more: Any) -> dict[str, Any]:
    control = [{"id": str(n), "label": p[0], "position": [p[1], p[2], 0.0]} for n, p in enumerate(points)]
    node = {"type": kind, "coordinateSystem": system, "coordinateUnits": "mm", "controlPoints": control, **more}
    return {"@schema": "markups-schema-v1.0.3.json#", "markups": [node]}


def test_slicer_points_in_lps_and_ras(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    lps = markups("Fiducial", "LPS", ("head_left-1", 12.0, 30.0), ("head_right-2", 4.0, 31.0))
    ras = markups("Fiducial", "RAS", ("head_left-1", -12.0, -30.0), ("head_right-2", -4.0, -31.0))
    (tmp_path / "p/F.mrk.json").write_text(json.dumps(lps))
    (tmp_path / "q.mrk.json").write_text(json.dumps(ras))
    shapes = list(read_annotations(tmp_path))
    assert [shape.films for shape in shapes] == [("p/F", "p")] * 2 + [("q",)] * 2
    assert [shape.name for shape in shapes] == ["head_left", "head_right"] * 2
    assert all(shape.millimetres for shape in shapes)
    assert [shape.points.tolist() for shape in shapes] == [[[12, 30]], [[4, 31]]] * 2


def test_slicer_lines_curves_regions_and_pairs(tmp_path: Path) -> None:
    def read(content: dict[str, Any]) -> Shape:
        (tmp_path / "f.mrk.json").write_text(json.dumps(content))
        return one(tmp_path / "f.mrk.json")

    line = read(markups("Line", "LPS", ("head_left-1", 2, 5), ("head_left-2", 8, 5)))
    assert (line.name, head(line.kind, line.points)) == ("head_left", (5, 5, 6))
    pair = read(markups("Fiducial", "LPS", ("head_left-1", 2, 5), ("head_left-2", 5, 9)))
    assert head(pair.kind, pair.points) == (2, 5, 10)
    curve = read(markups("ClosedCurve", "LPS", ("fracture-1", 0, 0), ("fracture-2", 4, 0), ("fracture-3", 4, 4)))
    assert (curve.kind, len(curve.points)) == ("polygon", 3)
    region = read(markups("ROI", "RAS", ("fracture-1", -5, -6), center=[-5, -6, 0], size=[4, 2, 1]))
    assert region.points.tolist() == [[3, 5], [7, 7]]


@pytest.mark.parametrize("change", [{"coordinateSystem": "IJK"}, {"coordinateUnits": "um"}])
def test_slicer_coordinates_of_another_kind_are_refused(tmp_path: Path, change: dict[str, str]) -> None:
    content = markups("Fiducial", "LPS", ("F-1", 1, 2))
    content["markups"][0] |= change
    (tmp_path / "f.mrk.json").write_text(json.dumps(content))
    with pytest.raises(ManifestError, match="coordinate"):
        list(read_annotations(tmp_path / "f.mrk.json"))


NRRD = """NRRD0004
# made by hand
type: {type}
dimension: {dimension}
space: {space}
sizes: {sizes}
space directions: {directions}
kinds: domain domain domain
endian: little
encoding: {encoding}
space origin: {origin}
Segment0_ID:=Segment_1
Segment0_Name:=femur left
Segment0_LabelValue:=1
Segment0_Layer:=0
Segment1_Name:=fracture left
Segment1_LabelValue:=2
Segment1_Layer:={layer}

"""


@pytest.mark.parametrize(("space", "sign"), [("left-posterior-superior", 1), ("right-anterior-superior", -1)])
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("layers", [1, 2])
def test_slicer_segmentation(tmp_path: Path, space: str, sign: int, encoding: str, layers: int) -> None:
    """4 columns of 0.2 mm, 3 rows of 0.5 mm, from the pixel in column 5, row 7 on."""
    femur, line = np.zeros((3, 4), bool), np.zeros((3, 4), bool)
    femur[0, 1:], line[2, 3] = True, True
    if layers == 1:
        data = (femur + 2 * line).astype("<u2")
    else:
        data = np.stack([femur, 2 * line], axis=-1).astype("<u2")
    text = NRRD.format(
        type="unsigned short",
        dimension=layers + 2,
        space=space,
        sizes=("2 " if layers == 2 else "") + "4 3 1",
        directions=("none " if layers == 2 else "") + f"({sign * 0.2},0,0) (0,{sign * 0.5},0) (0,0,1)",
        encoding=encoding,
        origin=f"({sign * 1.0},{sign * 3.5},0)",
        layer=layers - 1,
    )
    raw = data.tobytes()
    (tmp_path / "IM1.seg.nrrd").write_bytes(text.encode() + (gzip.compress(raw) if encoding == "gzip" else raw))
    shapes = list(read_annotations(tmp_path / "IM1.seg.nrrd"))
    assert [shape.name for shape in shapes] == ["femur left", "fracture left"]
    assert [shape.films for shape in shapes] == [("IM1",)] * 2
    for shape, truth in zip(shapes, (femur, line), strict=True):
        assert shape.mask is not None
        found = shape.mask()
        assert (found.pixels == truth).all()
        assert found.origin == pytest.approx((1.0, 3.5))
        assert found.step == pytest.approx((0.2, 0.5))


def test_a_bomb_and_a_cut_file_are_refused(tmp_path: Path) -> None:
    fields = {"type": "uchar", "dimension": 3, "space": "LPS", "directions": "(1,0,0) (0,1,0) (0,0,1)", "layer": 0}
    text = NRRD.format(**fields, sizes="4 3 1", encoding="gzip", origin="(0,0,0)").encode()
    for data in (gzip.compress(b"\0" * 10_000_000), gzip.compress(b"\0" * 12)[:-12], b""):
        (tmp_path / "a.seg.nrrd").write_bytes(text + data)
        for shape in read_annotations(tmp_path / "a.seg.nrrd"):
            assert shape.mask is not None
            with pytest.raises((AnnotationProblem, ValueError, OSError)):
                shape.mask()


def test_a_label_map_is_about_the_film_before_its_ending(tmp_path: Path) -> None:
    text = (
        "NRRD0005\ntype: uint8\ndimension: 3\nspace: LPS\nsizes: 2 2 1\nencoding: raw\n"
        "space directions: (0.25,0,0) (0,0.5,0) (0,0,1)\nspace origin: (0,0,0)\n\n"
    )
    (tmp_path / "IM1-label.nrrd").write_bytes(text.encode() + bytes([0, 3, 0, 1]))
    (tmp_path / "IM1.nrrd").write_bytes(b"the film itself, saved with the scene")
    shapes = list(read_annotations(tmp_path))
    assert [(shape.films, shape.name) for shape in shapes] == [(("IM1",), "label_1"), (("IM1",), "label_3")]
    assert shapes[1].mask is not None
    assert shapes[1].mask().pixels.tolist() == [[False, True], [False, False]]

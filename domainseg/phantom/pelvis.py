"""The pelvic ring, sacrum and lower lumbar spine as thickness maps of dense bone, seen from the front.

The hip bone is drawn from its outline, regions of different thickness, and the lines that surfaces tangential to the
beam throw: iliac crest, pelvic brim, ilioischial line, teardrop, roof and rims of the acetabulum.
Frame of one half: origin at the midline at the height of the hip centres, x lateral, y down, mm in the patient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

from domainseg.phantom.canvas import Canvas, Map, Points, blur, curve, depth_inside, noise_tile, ridge_tile, rotation

HIP_X = 86.0  # distance of the hip's centre from the midline in the drawn pelvis

ILIUM = [
    (60, -104), (63, -126), (74, -142), (90, -151), (108, -151), (126, -142), (137, -125), (135, -110), (127, -88),
    (119, -64), (113, -48), (108, -38), (107, -28), (104, -20), (101, -8), (101, 6), (96, 20), (88, 29), (82, 38),
    (80, 52), (75, 66), (65, 74), (54, 73), (46, 66), (34, 56), (21, 47), (9, 43), (2.6, 37), (2.3, 17), (4.5, 9),
    (13, 5), (24, 5), (38, -2), (52, -13), (62, -28), (66, -44), (63, -60), (54, -70), (46, -78), (47, -90),
]  # fmt: skip
FORAMEN = [(22, 26), (31, 17), (45, 13), (57, 18), (62, 31), (60, 46), (53, 57), (44, 57), (32, 46), (24, 36)]
BRIM = [(47, -76), (55, -69), (64, -58), (66.5, -44), (62, -28), (52, -13), (38, -2), (24, 5), (12, 6)]
ILIOISCHIAL = [(66, -40), (65, -22), (61, -6), (59, 10), (60, 24), (64, 36)]
TEARDROP = [(57, -6), (56, 8), (58, 18), (62, 20), (65, 14), (66, 2), (64, -10)]
POSTERIOR_RIM = [(103, -20), (104, -6), (101, 10), (95, 22), (87, 31)]
ANTERIOR_RIM = [(103, -21), (99, -10), (90, 3), (78, 12), (68, 16)]
SACROILIAC = [(60, -106), (55, -96), (50, -86), (47, -74)]
SACROILIAC_BACK = [(70, -112), (64, -98), (58, -84), (52, -72)]
SACRUM = [
    (0, -106), (22, -106), (34, -114), (54, -114), (63, -104), (57, -88), (47, -74), (36, -54), (27, -36), (17, -26),
    (11, -18), (5, -14), (6, -4), (4, 6), (0, 10),
]  # fmt: skip


@dataclass(frozen=True)
class Pelvis:
    """Where a pelvis stands on the film and how it is shaped; centre and lengths in mm on the detector."""

    centre: tuple[float, float]
    scale: float = 1.15
    turn: float = 0.0
    rotation: float = 0.0
    tilt: float = 0.0
    female: bool = True
    hip_distance: float = 88.0
    head: float = 24.0
    density: float = 1.0
    arthritis: float = 0.0
    grain: int = 0

    def map(self, side: int) -> Callable[[ArrayLike], Points]:
        """Map from the drawn frame to film mm for the half at image ``side`` (-1 left, 1 right)."""
        wide = self.hip_distance / HIP_X * (1 - 0.010 * side * self.rotation)
        turn = rotation(self.turn)
        rise = 1 + 0.012 * self.tilt

        def place(points: ArrayLike) -> Points:
            p = np.array(points, float)
            x, y = p[..., 0], p[..., 1]
            # Inlet and outlet views lengthen or shorten what lies in front of the hip axis.
            low = np.where(y > 0, y * rise * (0.92 if self.female else 1.0), y)
            flare = np.where(y < -40, 1 + (0.0008 if self.female else 0.0) * (-40 - y), 1.0)
            inlet = np.where(x < 70, x * (1.0 if self.female else 0.97), x)
            q = np.stack([side * inlet * wide * flare, low], -1) * self.scale
            shift = (1.4 * self.rotation * np.clip(1 - x / 60, 0, 1)) * self.scale
            q[..., 0] += shift
            return np.asarray(q @ turn.T + self.centre)

        return place

    def hip(self, side: int) -> Points:
        """The hip centre of an image side in film mm."""
        return self.map(side)(np.array([HIP_X, 0.0]))


def draw(canvas: Canvas, pelvis: Pelvis, sides: tuple[int, ...] = (-1, 1)) -> Map:
    """Dense bone in mm of the whole pelvis with sacrum and the last lumbar vertebrae."""
    bone = canvas.zeros()
    for side in sides:
        _half(canvas, bone, pelvis, side)
    _sacrum(canvas, bone, pelvis)
    spine(canvas, bone, pelvis.map(1), pelvis.scale, (-112, -150, -188), pelvis.density, pelvis.grain)
    return bone


def plate(canvas: Canvas, target: Map, outline: Points, thickness: Map | float, edge: float, rim: float) -> None:
    """Add a flat bone: ``thickness`` mm, rounded over ``edge`` mm at the border, with a cortical ``rim`` mm high."""
    box = canvas.box(outline, 2.0)
    y0, y1, x0, x1 = box
    if y1 - y0 < 3 or x1 - x0 < 3:
        return
    cover = canvas.filled(outline, box)
    # Distances are wanted from the outline only, not from where the film ends.
    mask = np.pad((cover > 0.5).astype(np.uint8), 1, mode="edge")
    distance = depth_inside(mask, canvas.step)[1:-1, 1:-1]
    near = np.sqrt(np.clip(distance / edge, 0, 1) * (2 - np.clip(distance / edge, 0, 1)))
    line = np.exp(-distance / 1.6) * np.minimum(distance / 0.5, 1)
    local = thickness[y0:y1, x0:x1] if isinstance(thickness, np.ndarray) else np.float32(thickness)
    target[y0:y1, x0:x1] += cover * (local * near + np.float32(rim) * line)


def _half(canvas: Canvas, bone: Map, pelvis: Pelvis, side: int) -> None:
    place, k = pelvis.map(side), pelvis.scale
    outline, hole = place(curve(ILIUM, closed=True)), place(curve(FORAMEN, closed=True))
    box = canvas.box(outline, 4.0)
    y0, y1, x0, x1 = box
    if y1 - y0 < 3 or x1 - x0 < 3:
        return
    # Thickness: thin in the wing's middle, thick above and behind the acetabulum, along the crest and the ramus.
    x, y = canvas.grid(box)
    centre = pelvis.centre
    px = side * (x - centre[0]) / (k * pelvis.hip_distance / HIP_X) + 0 * y
    py = (y - centre[1]) / k + 0 * x

    def hill(cx: float, cy: float, sx: float, sy: float) -> Map:
        return np.asarray(np.exp(-(((px - cx) / sx) ** 2) - ((py - cy) / sy) ** 2), np.float32)

    small = slice(None, None, 4)
    px, py = px[small, small], py[small, small]
    thick = (
        5.0
        - 3.9 * hill(101, -112, 24, 30)
        + 5.5 * hill(84, -40, 20, 24)
        + 3.0 * hill(68, -62, 12, 26)
        + 3.5 * hill(70, 0, 16, 26)
        + 4.5 * hill(70, 56, 16, 18)
        + 3.5 * hill(58, -92, 16, 20)
        + 2.0 * hill(16, 24, 22, 22)
    )
    thick = cv2.resize(thick, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
    rough = 0.6 * noise_tile(1.7) + 0.8 * ridge_tile(2.2)
    oy, ox = (int(value) for value in np.random.default_rng([pelvis.grain, 3, side + 1]).integers(0, 200, 2))
    tiles = (-(-(oy + y1 - y0) // 1024), -(-(ox + x1 - x0) // 1024))
    rough = np.tile(rough, tiles)[oy : oy + y1 - y0, ox : ox + x1 - x0]
    thick = thick * (1 + (0.10 + 0.10 * (1 - pelvis.density)) * rough) * (0.55 + 0.45 * pelvis.density)
    half = canvas.zeros()[y0:y1, x0:x1].copy()
    local = _Local(canvas, half, box)
    local.plate(outline, thick, 5.0 * k, 3.0)
    away = canvas.filled(hole, box)
    distance = depth_inside((away < 0.5).astype(np.uint8), canvas.step)
    half *= 1 - away
    half *= 0.35 + 0.65 * np.clip(distance / (6 * k), 0, 1)
    half += (1 - away) * 3.2 * np.exp(-distance / 1.4) * (half > 0.2)

    def line(points: object, width: float, weight: float, soft: float = 0.3) -> None:
        local.stroke(place(curve(np.asarray(points, float))), width, weight * (0.6 + 0.4 * pelvis.density), soft)

    line(BRIM, 1.6, 6.5, 0.35)
    line(BRIM, 5.0, 2.0, 1.6)
    line(ILIOISCHIAL, 1.3, 3.4, 0.6)
    line(TEARDROP, 1.2, 3.0, 0.4)
    line(ILIUM[6:12], 3.5, 3.0, 1.0)
    line(ILIUM[2:7], 4.0, 2.6, 1.2)
    line(SACROILIAC, 1.3, 3.2, 0.5)
    line(SACROILIAC_BACK, 1.2, 2.4, 0.6)
    line(POSTERIOR_RIM, 1.2, 3.6, 0.35)
    line(ANTERIOR_RIM, 1.0, 2.0, 0.5)
    # Roof of the acetabulum: a bright arc one joint space above the head; medial wall thinner.
    hip, gap = pelvis.hip(side), (4.6 - 2.6 * pelvis.arthritis)
    radius = (pelvis.head + gap) * k
    for start, end, width, weight in (
        (-46, 40, 2.2, 6.5),
        (-46, 40, 6.0, 2.5 + 4 * pelvis.arthritis),
        (-100, -44, 1.2, 2.6),
    ):
        angle = np.deg2rad(np.linspace(start, end, 40) + side * pelvis.turn)
        extra = 1 + (0.5 * width - 1.0) / radius
        arc = hip + radius * extra * np.stack([side * np.sin(angle), -np.cos(angle)], -1)
        local.stroke(arc, width, weight * (0.6 + 0.4 * pelvis.density), 0.25 * width)
    bone[y0:y1, x0:x1] += half


class _Local:
    """Drawing into the part of a canvas that a box cuts out."""

    def __init__(self, canvas: Canvas, target: Map, box: tuple[int, int, int, int]) -> None:
        self.canvas = Canvas(box[1] - box[0], box[3] - box[2], canvas.spacing)
        self.target = target
        self.offset = np.array([box[2], box[0]]) * canvas.step

    def plate(self, outline: Points, thickness: Map | float, edge: float, rim: float) -> None:
        plate(self.canvas, self.target, outline - self.offset, thickness, edge, rim)

    def stroke(self, points: Points, width: float, weight: float, soft: float) -> None:
        self.canvas.stroke(self.target, points - self.offset, width, weight, soft=soft)


def _sacrum(canvas: Canvas, bone: Map, pelvis: Pelvis) -> None:
    both = [pelvis.map(side)(curve(SACRUM)) for side in (1, -1)]
    outline = np.concatenate([both[0], both[1][::-1]])
    sacrum = canvas.zeros()
    plate(canvas, sacrum, outline, 6.0 * (0.5 + 0.5 * pelvis.density), 12.0, 1.4)
    strength = 0.6 + 0.4 * pelvis.density
    for side in (1, -1):
        place = pelvis.map(side)
        for x, y in ((24, -92), (21, -74), (18, -58), (14, -44)):
            angle = np.linspace(-0.3, np.pi + 0.5, 24)
            arc = np.stack([x + 6.5 * np.cos(angle), y - 4.5 * np.sin(angle)], -1)
            canvas.stroke(sacrum, place(arc), 1.0, 3.0 * strength, soft=0.5)
            hole = place(np.stack([x + 5 * np.cos(2 * angle), y + 3.5 * np.sin(2 * angle)], -1))
            box = canvas.box(hole, 2)
            sacrum[box[0] : box[1], box[2] : box[3]] *= 1 - 0.45 * canvas.filled(hole, box)
        canvas.stroke(sacrum, place(curve([(2, -100), (3, -70), (2, -40), (1, -24)])), 2.2, 2.2 * strength, soft=0.9)
    bone += blur(sacrum, 0.7 / canvas.step)


def spine(
    canvas: Canvas,
    bone: Map,
    place: Callable[[ArrayLike], Points],
    scale: float,
    bottoms: tuple[float, ...],
    density: float,
    grain: int,
) -> None:
    """Add lumbar vertebrae seen from the front; ``bottoms`` are the heights of their lower end plates in mm."""
    rng = np.random.default_rng([grain, 17])
    s = 0.6 + 0.4 * density
    for bottom in bottoms:
        y, sway = bottom, float(rng.normal(0, 1))
        half, height = 25.0, 28.0
        body = [(-half, y), (-half + 3, y - height / 2), (-half, y - height), (0, y - height + 1.5), (half, y - height),
                (half - 3, y - height / 2), (half, y), (0, y - 1)]  # fmt: skip
        plate(canvas, bone, place(curve(np.add(body, (sway, 0)), closed=True)), 4.5 * s, 6.0, 3.4 * s)
        for end in (y, y - height):
            line = [(-half + 1, end), (0, end + 1), (half - 1, end)]
            canvas.stroke(bone, place(curve(np.add(line, (sway, 0)))), 1.6, 4.5 * s, soft=0.4)
        for side in (-1, 1):
            angle = np.linspace(0, 2 * np.pi, 30)
            ring = np.stack([side * 15 + 4.2 * np.cos(angle), y - 19 + 6 * np.sin(angle)], -1)
            canvas.stroke(bone, place(np.add(ring, (sway, 0))), 1.3, 4.0 * s, soft=0.3)
            process = [(side * 20, y - 20), (side * 32, y - 23), (side * 44, y - 21), (side * 43, y - 16),
                       (side * 32, y - 16), (side * 20, y - 12)]  # fmt: skip
            plate(canvas, bone, place(curve(np.add(process, (sway, 0)), closed=True)), 2.4 * s, 3.0, 1.5 * s)
            facet = [(side * 12, y - 8), (side * 15, y + 4), (side * 10, y + 10)]
            canvas.stroke(bone, place(curve(np.add(facet, (sway, 0)))), 4.0, 3.0 * s, soft=1.0)
        spinous = [(-3, y - 10), (3, y - 10), (4, y + 6), (0, y + 9), (-4, y + 6)]
        plate(canvas, bone, place(curve(np.add(spinous, (sway, 0)), closed=True)), 4.0 * s, 3.0, 2.6 * s)

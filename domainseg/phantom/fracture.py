"""Breaking a femur: a jagged line, the gap along it, and the far fragment moved, turned and impacted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from domainseg.phantom.canvas import Map, Points, blur, rotation
from domainseg.phantom.femur import MEDIAL, PROXIMAL, Bone, Femur, Patch, build

SITES = ("subcapital", "transcervical", "intertrochanteric", "subtrochanteric")


@dataclass(frozen=True)
class Fracture:
    """One fracture in the femur's frame (mm on the detector).

    The line runs through ``centre`` along ``direction`` (unit vector) with offsets ``jag`` every ``JAG_STEP`` mm along
    it, along its normal. The bone beyond it (positive normal) is the distal fragment. ``span`` is the visible part
    along the line, in mm from the centre.
    ``width`` is the visible width; ``depth`` the share of bone missing within it (negative: impacted, denser).
    ``shift`` and ``turn`` move the distal fragment about ``centre``; ``twist`` is its external rotation in degrees.
    """

    kind: str
    place: str
    centre: Points
    direction: Points
    jag: Points
    span: tuple[float, float]
    width: float
    depth: float
    shift: Points
    turn: float
    twist: float

    @property
    def location(self) -> str:
        return "intra" if self.place in SITES[:2] else "extra"

    @property
    def displacement(self) -> float:
        """Shift of the distal fragment at the line's centre, mm on the detector."""
        return float(np.hypot(*self.shift))

    @property
    def visible_width(self) -> float:
        """Width of the line as seen in the film, mm: the gap, or how far apart the displaced edges lie."""
        return max(self.width, self.displacement) if self.kind == "displaced" else self.width

    def coordinates(self, u: Map, v: Map) -> tuple[Map, Map]:
        """Position along the line and signed distance from its jagged course, both in mm."""
        du, dv = u - np.float32(self.centre[0]), v - np.float32(self.centre[1])
        along = du * np.float32(self.direction[0]) + dv * np.float32(self.direction[1])
        across = du * np.float32(self.direction[1]) - dv * np.float32(self.direction[0])
        steps = np.arange(-90.0, 90.0, 0.25)
        knots = np.arange(len(self.jag)) * JAG_STEP - JAG_STEP * (len(self.jag) // 2)
        table = np.interp(steps, knots, self.jag).astype(np.float32)
        index = np.clip((along + 90) * 4, 0, len(table) - 1).astype(np.int32)
        return along, across - table[index]


JAG_STEP = 1.25


def draw(rng: np.random.Generator, femur: Femur, kind: str, place: str, contrast: float) -> Fracture:
    """A fracture of a class ("hairline", "undisplaced", "displaced") at a place of ``SITES``."""
    ju, jv = femur.junction
    k, r = femur.scale, femur.head * femur.scale
    axis = np.array([ju, jv]) / np.hypot(ju, jv)
    normal = np.array([-axis[1], axis[0]])  # across the neck, towards the calcar
    tilt = rng.normal(0, 13)
    if place == "subcapital":
        centre, direction = axis * r * rng.uniform(0.74, 0.95), rotation(tilt) @ normal
    elif place == "transcervical":
        reach = np.hypot(ju, jv)
        centre = axis * float(np.clip(reach * rng.uniform(0.55, 0.72), r * 0.98, reach * 0.85))
        direction = rotation(tilt) @ normal
    elif place == "intertrochanteric":
        top = np.array([ju + 22 * k, jv - rng.uniform(2, 18) * k])
        low = np.array([ju - 20 * k, jv + rng.uniform(20, 34) * k])
        centre, direction = (top + low) / 2, (low - top) / np.linalg.norm(low - top)
        direction = rotation(tilt * 0.4) @ direction
    else:
        centre = np.array([ju, jv + rng.uniform(44, 68) * k])
        direction = rotation(rng.choice([-1, 1]) * rng.uniform(8, 42)) @ np.array([-1.0, 0.0])
    direction = direction / np.linalg.norm(direction)
    count = 145
    rough = {"hairline": 0.55, "undisplaced": 0.8, "displaced": 1.0}[kind]
    walk = np.cumsum(rng.normal(0, 0.55, count)) * rough
    walk -= np.convolve(np.pad(walk, 12, mode="edge"), np.ones(25) / 25, mode="valid")
    jag = np.convolve(np.pad(walk, 2, mode="edge"), np.ones(5) / 5, mode="valid") * 1.6 + rng.normal(0, 0.10, count)
    span, width, depth = (-90.0, 90.0), 0.0, 0.0
    shift, turn, twist = np.zeros(2), 0.0, 0.0
    inward = np.array([-direction[1], direction[0]])  # from the distal fragment to the proximal one
    if kind == "hairline":
        width = float(rng.uniform(0.45, 0.95))
        depth = float(rng.uniform(0.30, 0.55)) * contrast
        if rng.random() < 0.35:  # incomplete: from one cortex only
            cut = float(rng.uniform(-6, 9))
            span = (-90.0, cut) if rng.random() < 0.5 else (-cut, 90.0)
    elif kind == "undisplaced":
        width = float(rng.uniform(1.0, 2.0))
        depth = float(rng.uniform(0.24, 0.62)) * contrast
        shift = direction * rng.choice([-1, 1]) * rng.uniform(0.5, 1.9)
        turn = float(rng.normal(0, 2))
        if place in SITES[:2] and rng.random() < 0.4:  # impacted in valgus: a dense band instead of a gap
            depth, turn = -0.75 * depth, float(rng.uniform(-8, -2))
            shift = shift + inward * rng.uniform(0.5, 1.5)
    else:
        width = float(rng.uniform(2.0, 4.0))
        twist = float(rng.uniform(12, 50))
        up = float(rng.triangular(4, 7, 24))
        if place in SITES[:2]:
            shift, turn = np.array([rng.uniform(-2, 8), -up]), float(rng.uniform(-4, 14))
        elif place == "intertrochanteric":
            shift, turn = np.array([rng.uniform(-7, 7), -0.7 * up]), float(rng.uniform(-2, 14))
        else:
            shift, turn = np.array([rng.uniform(-16, 4), -0.6 * up]), float(rng.uniform(-6, 14))
    return Fracture(kind, place, centre, direction, jag, span, width, depth, shift, turn, twist)


def break_femur(patch: Patch, femur: Femur, fracture: Fracture | None) -> tuple[Bone, Map]:
    """The femur's thickness with its fragments in place, and the fracture line's mask (0..1) on the patch.

    The thin gap of hairline and undisplaced fractures is not in here: ``gap`` gives it for the film's own pixels.
    """
    whole = build(patch, femur)
    if fracture is None:
        return whole, np.zeros(patch.shape, np.float32)
    along, across = fracture.coordinates(patch.u, patch.v)
    seen = ((along >= fracture.span[0]) & (along <= fracture.span[1])).astype(np.float32)
    band = np.maximum(fracture.width / 2, 0.8)
    line = (np.abs(across) < band) * seen * (whole.outer > 0)
    if fracture.displacement < 0.05 and abs(fracture.turn) < 0.1:
        return whole, line.astype(np.float32)
    # A displaced break is oblique to the beam and crushed at its border: its edge is seen 2 mm wide, not razor sharp.
    soft = np.float32(0.45 if fracture.kind == "displaced" else 1 / patch.step)
    proximal = np.clip(0.5 - across * soft, 0, 1)
    distal_bone, moved = whole, fracture
    if fracture.twist:
        # The far fragment turns about the shaft, whose axis stays where it was.
        turned = replace(femur, rotation=femur.rotation + fracture.twist)
        move = np.array(
            [[1, 0, femur.junction[0] - turned.junction[0]], [0, 1, femur.junction[1] - turned.junction[1]]]
        )
        pixel_move = move.copy()
        pixel_move[:, 2] /= patch.step
        rebuilt = build(patch, turned)
        distal_bone = Bone(_warp(rebuilt.outer, pixel_move), _warp(rebuilt.dense, pixel_move))
        if fracture.location == "intra":
            # What is left of the neck lies where the turned neck does, so the line is cut nearer to the shaft.
            near = np.array(femur.junction) + (fracture.centre - femur.junction) * (
                np.hypot(*turned.junction) / np.hypot(*femur.junction)
            )
            moved = replace(fracture, centre=near)
            along, across = moved.coordinates(patch.u, patch.v)
    distal = np.clip(0.5 + across * soft, 0, 1)
    pose = _pose(fracture, patch.step)
    far_outer = _warp(distal_bone.outer * distal, pose)
    far_dense = _warp(distal_bone.dense * distal, pose)
    far_line = _warp(((np.abs(across) < band) & (distal_bone.outer > 0)).astype(np.float32) * seen, pose)
    bone = Bone(
        np.maximum(whole.outer * proximal, far_outer),
        whole.dense * proximal + far_dense * np.where(proximal > 0.5, 0.8, 1.0),
    )
    both = np.maximum(line, far_line).astype(np.uint8)
    if fracture.kind == "displaced":
        size = max(3, int(6 / patch.step) | 1)
        both = cv2.morphologyEx(both, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    return bone, both.astype(np.float32)


def gap(fracture: Fracture, u: Map, v: Map, seed: int) -> Map:
    """Share of bone missing (negative: added) at points of the femur's frame, for the film's own pixels.

    The surface of a break is rough and oblique to the beam: the share varies along the line and has a soft flank.
    """
    along, across = fracture.coordinates(u, v)
    rng = np.random.default_rng([seed, 5])
    waves = blur(rng.standard_normal((1, 200)).astype(np.float32), 2.0)[0]
    waves = np.clip(1 + 0.5 * waves / max(float(waves.std()), 1e-6), 0.15, 1.9)
    steps = np.clip(np.round((along + 90) * 1.1), 0, 199).astype(np.int32)
    half = np.float32(fracture.width / 2)
    flank = np.float32(0.10 + 0.12 * fracture.width)
    profile = 1 / (1 + np.exp(np.minimum((np.abs(across) - half) / (flank / 2), 40)))
    lower, upper = fracture.span
    fade = np.clip((along - lower) / 4, 0, 1) * np.clip((upper - along) / 4, 0, 1)
    return np.asarray(np.clip(profile * fade * waves[steps] * fracture.depth, -1.2, 0.96), np.float32)


def _pose(fracture: Fracture, step: float) -> Points:
    """Affine in patch pixels that carries the distal fragment into its place."""
    turn = rotation(fracture.turn)
    centre = np.add(fracture.centre, (MEDIAL, PROXIMAL)) / step
    offset = centre + fracture.shift / step - turn @ centre
    return np.concatenate([turn, offset[:, None]], axis=1)


def _warp(image: Map, affine: Points) -> Map:
    """Cubic, so that a moved fragment keeps the grain of one that was not moved."""
    moved = cv2.warpAffine(image, affine, image.shape[::-1], flags=cv2.INTER_CUBIC)
    return np.asarray(np.maximum(moved, 0), np.float32)

"""A healthy chest seen from the front: lungs, heart and mediastinum, vessels, body, as maps on the canvas.

Frame of the patient: mm, x to the right of the picture (the patient's left), y down, origin on the midline at the
height of the hila. A side is -1 (left in the picture, the patient's right) or 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from domainseg.phantom.canvas import Canvas, Map, Points, blur, curve, depth_inside, fixed, noise_tile, rotation, sample
from domainseg.phantom.chest.cohort import ChestPlan

# Outline of a lung without its base: from the costophrenic angle up the chest wall, over the apex, down the midline.
WALL = [(136, 96), (134, 60), (129, 20), (121, -20), (108, -60), (88, -95), (64, -119), (42, -126)]
MIDDLE = [(24, -112), (19, -70), (17, -20), (17, 30), (19, 74)]
SIDES = (-1, 1)


@dataclass(frozen=True)
class Build:
    """A patient's build, the same on all films: relative width and height of the thorax, cardiothoracic ratio, body
    depth in mm, and whether there are breasts."""

    wide: float
    high: float
    ratio: float
    depth: float
    breast: float
    grain: int

    @staticmethod
    def of(seed: int, plan: ChestPlan) -> Build:
        rng = np.random.default_rng([seed, plan.patient_number, 601])
        female = plan.sex == "F"
        return Build(
            wide=float(np.clip(rng.normal(0.93 if female else 1.0, 0.05), 0.8, 1.12)),
            high=float(np.clip(rng.normal(0.94 if female else 1.0, 0.05), 0.8, 1.12)),
            ratio=float(np.clip(rng.normal(0.44, 0.025), 0.38, 0.49)),
            depth=float(np.clip(rng.normal(205, 22), 160, 265)),
            breast=float(np.clip(rng.normal(1.0, 0.4), 0.2, 2.0)) if female else 0.0,
            grain=int(rng.integers(1 << 30)),
        )


@dataclass(frozen=True)
class Pose:
    """How the patient stands or lies before the detector, and what findings do to the shape of the chest.

    lift: mm by which the diaphragm of each side stands higher. flat: 0 a dome, 1 a straight line. ratio: diameter of
    the heart over that of the thorax. turn: degrees. spin: mm by which what lies in front moves to the side.
    """

    lift: dict[int, float]
    flat: float
    ratio: float
    turn: float
    spin: float
    magnification: float
    centre: tuple[float, float]


@dataclass
class Chest:
    """What stands in the beam, each a map [h, w] on the canvas in mm: ``body`` water, ``air`` of the lungs that takes
    its place, ``vessel`` blood in it, ``soft`` further water, ``bone``, ``metal``. ``lungs`` are covers 0..1 by
    side."""

    canvas: Canvas
    build: Build
    pose: Pose
    x: Map
    y: Map
    body: Map
    lungs: dict[int, Map]
    heart: Map
    air: Map
    vessel: Map
    soft: Map
    bone: Map
    metal: Map

    @property
    def lung(self) -> Map:
        """Cover of both lungs."""
        return np.maximum(self.lungs[-1], self.lungs[1])

    def place(self, points: ArrayLike) -> Points:
        """Film mm of points in the patient's frame."""
        build, pose = self.build, self.pose
        scaled = np.asarray(points, float) * (build.wide, build.high) * pose.magnification
        return np.asarray(scaled @ rotation(pose.turn).T + pose.centre)

    def cover(self, points: ArrayLike) -> Map:
        """Cover of a closed polygon of the patient's frame, on the whole canvas."""
        mask = np.zeros(self.x.shape, np.uint8)
        cv2.fillPoly(mask, [fixed(self.canvas.pixels(self.place(points)))], 255, cv2.LINE_AA, 4)
        return mask.astype(np.float32) * np.float32(1 / 255)

    def line(self, target: Map, points: ArrayLike, width: float, weight: float, soft: float = 0.0) -> None:
        """Add a smooth line of the patient's frame."""
        self.canvas.stroke(target, self.place(curve(points)), width, weight, soft=soft)

    def blob(self, x: float, y: float, across: float, down: float) -> Map:
        """An ellipse's relative depth: 1 in the middle, 0 at the edge and beyond."""
        return np.sqrt(np.maximum(1 - ((self.x - x) / across) ** 2 - ((self.y - y) / down) ** 2, 0))

    def grain(self, exponent: float, mm: float, key: int) -> Map:
        """Noise of this patient with mean 0 and variance 1; a pixel of the tile is ``mm`` wide."""
        ox, oy = np.random.default_rng([self.build.grain, key]).integers(0, 1024, 2)
        return sample(noise_tile(exponent), self.x / mm + np.float32(ox), self.y / mm + np.float32(oy))

    def smooth(self, image: Map, mm: float) -> Map:
        """Gaussian blur with a sigma in mm."""
        return blur(image, mm / self.canvas.step)


def base(side: int, pose: Pose) -> Points:
    """The diaphragm from the costophrenic angle to the midline, patient's frame for side 1."""
    low = 124.0 - pose.lift[side] + (6 if side > 0 else 0)
    dome = (38 - 26 * pose.flat) * np.array([0.0, 0.45, 0.78, 0.95, 1.0, 0.86, 0.62])
    return np.stack([np.array([134, 124, 108, 88, 64, 38, 20.0]), low + 8 * pose.flat - dome], -1)


def outline(side: int, pose: Pose) -> Points:
    """A lung's outline in the patient's frame."""
    wall = [(135, min(96.0, 108 - pose.lift[side])), *WALL[1:]]
    points = np.concatenate([wall, MIDDLE, base(side, pose)[::-1]])
    return np.asarray(np.concatenate([curve(points[: len(wall) + len(MIDDLE)]), curve(base(side, pose)[::-1])])) * (
        side,
        1,
    )


def draw(canvas: Canvas, build: Build, pose: Pose) -> Chest:
    """A chest without bones."""
    box = (0, canvas.height, 0, canvas.width)
    fx, fy = canvas.grid(box)
    back = rotation(-pose.turn)
    dx, dy = fx - np.float32(pose.centre[0]), fy - np.float32(pose.centre[1])
    x = ((dx * back[0, 0] + dy * back[0, 1]) / (build.wide * pose.magnification)).astype(np.float32)
    y = ((dx * back[1, 0] + dy * back[1, 1]) / (build.high * pose.magnification)).astype(np.float32)
    empty = canvas.zeros()
    chest = Chest(
        canvas, build, pose, x, y, _body(x, y, build), {}, empty, empty, canvas.zeros(), canvas.zeros(), canvas.zeros(),
        canvas.zeros(),
    )  # fmt: skip
    depth = canvas.zeros()
    for side in SIDES:
        chest.lungs[side] = chest.cover(outline(side, pose))
        depth += chest.lungs[side] * _rounded(chest, chest.lungs[side], 46.0, 140.0 + 20 * pose.flat)
    heart = chest.cover(_silhouette(pose))
    thick = _rounded(chest, heart, 30.0, 1.0) * heart
    chest.heart = heart
    chest.air = np.maximum(depth - 112 * thick, 0.10 * depth * (1 - 0.5 * heart)) * (
        1 + 0.03 * chest.grain(2.2, 0.9, 1)
    )
    for side in SIDES:
        chest.vessel += _vessels(chest, side)
    chest.vessel *= 1 - 0.75 * heart
    _airways(chest)
    _breasts(chest)
    _stomach(chest)
    return chest


def moved(pose: Pose, **changes: object) -> Pose:
    """The pose with some of it changed."""
    return replace(pose, **changes)  # type: ignore[arg-type]


def _rounded(chest: Chest, cover: Map, radius: float, depth: float) -> Map:
    """Depth along the beam of a body with that outline: rounded over ``radius`` mm from its edge."""
    mask = np.pad((cover > 0.5).astype(np.uint8), 1, mode="edge")
    near = np.clip(depth_inside(mask, chest.canvas.step)[1:-1, 1:-1] / radius, 0, 1)
    return np.asarray(depth * np.sqrt(near * (2 - near)), np.float32)


def _body(x: Map, y: Map, build: Build) -> Map:
    """Water along the beam: trunk, shoulders that slope down from the neck, neck."""
    half = 168 + 0.10 * np.clip(y, -60, 160) + 14 * (build.depth / 205 - 1) * 10
    depth = build.depth * (0.62 + 0.38 / (1 + np.exp(-np.clip((y + 92) / 16, -20, 20))))
    trunk = depth * np.maximum(1 - (np.abs(x) / half) ** 3.4, 0) ** 0.5
    slope = 1 / (1 + np.exp(-np.clip((y + 172 - 0.30 * np.maximum(np.abs(x) - 45, 0)) / 3.5, -20, 20)))
    neck = 118 * np.sqrt(np.maximum(1 - (x / 62) ** 2, 0))
    return np.asarray(np.maximum(trunk * slope, neck * (y < 0)), np.float32)


def _silhouette(pose: Pose) -> Points:
    """Border of heart and mediastinum, clockwise from the right upper corner."""
    across = pose.ratio * 270
    right, left = 0.34 * across, 0.66 * across
    down = max(pose.lift.values())
    large = across / 119 - 1  # 0 at a ratio of 0.44
    drop = 0.75 * down
    points = [
        (-19, -128), (-22, -90), (-25, -58), (-27, -30), (-0.78 * right, -2 - drop), (-right, 34 - drop),
        (-0.97 * right, 62 - drop), (-0.74 * right, 90 - drop), (-24, 132 - drop), (0.45 * left, 132 - drop),
        (0.86 * left, 104 - drop), (left, 84 - drop), (0.95 * left, 58 - drop), (0.80 * left, 30 - drop - 12 * large),
        (0.58 * left, 4 - drop - 12 * large), (38, -18 - 0.5 * drop), (33, -34), (30, -46), (38, -58), (37, -72),
        (28, -84), (20, -96), (18, -128),
    ]  # fmt: skip
    shifted = np.array(points, float)
    shifted[:, 0] += pose.spin * np.clip((shifted[:, 1] + 128) / 200, 0.2, 1)
    return curve(shifted, closed=True)


def _vessels(chest: Chest, side: int) -> Map:
    """Pulmonary vessels: trees that fan out from the hilum and thin out towards the chest wall."""
    found = chest.canvas.zeros()
    rng = np.random.default_rng([chest.build.grain, 31 + side])
    lines: dict[int, list[NDArray[np.int32]]] = {}
    for points, width in _tree(rng, np.array([30.0, -8.0 if side < 0 else -14.0])):
        placed = fixed(chest.canvas.pixels(chest.place(points * (side, 1))))
        for level in np.unique(levels := np.clip(np.round(2 * np.log2(width / 0.6)), 0, 7).astype(int)):
            lines.setdefault(int(level), []).extend(placed[levels == level])
    for level in sorted(lines):
        width_mm = 0.6 * 2 ** (level / 2)
        mask = np.zeros(found.shape, np.uint8)
        pixels = max(1, round(width_mm / chest.canvas.step))
        cv2.polylines(mask, lines[level], False, 255, pixels, cv2.LINE_AA, 4)
        thin = min(1.0, width_mm / (pixels * chest.canvas.step))
        found = np.maximum(found, mask.astype(np.float32) * np.float32(3.2 * width_mm**0.85 * thin / 255))
    found = blur(found, max(0.3, 0.4 / chest.canvas.step))
    knot = np.exp(-(((chest.x * side - 33) / 12) ** 2) - ((chest.y + (4 if side < 0 else 12)) / 19) ** 2)
    return np.asarray((found + 14 * knot * (1 + 0.35 * chest.grain(1.6, 0.8, 33))) * chest.lungs[side], np.float32)


def _tree(rng: np.random.Generator, hilum: Points) -> Iterator[tuple[Points, Points]]:
    """Branches of one lung, a generation at a time: points [n, 5, 2] in mm of side 1, widths [n] in mm."""
    angle = np.array([-1.45, -1.05, -0.55, -0.05, 0.35, 0.75, 1.10, 1.42])
    width = np.where(angle > 0.5, 5.2, 4.2)
    length = np.where(angle > 0.5, 38.0, 33.0)
    angle = angle + rng.normal(0, 0.12, len(angle))
    start = hilum + rng.normal(0, 4, (len(angle), 2))
    while len(start):
        turns = angle[:, None] + np.cumsum(rng.normal(0, 0.10, (len(angle), 4)), 1)
        steps = np.stack([np.cos(turns), np.sin(turns)], -1) * length[:, None, None] / 4
        points = np.concatenate([start[:, None], start[:, None] + np.cumsum(steps, 1)], 1)
        yield points, width
        on, side = width > 0.8, (width > 0.8) & (rng.random(len(width)) < 0.5)
        starts, angles, widths, lengths = [], [], [], []
        for way in (-1, 1):
            starts.append(points[on, -1])
            angles.append(turns[on, -1] + way * rng.uniform(0.18, 0.62, on.sum()))
            widths.append(width[on] * rng.uniform(0.64, 0.80, on.sum()))
            lengths.append(length[on] * rng.uniform(0.70, 0.90, on.sum()))
        starts.append(points[side, 2])
        angles.append(turns[side, 2] + rng.choice([-1, 1], side.sum()) * rng.uniform(0.5, 1.0, side.sum()))
        widths.append(width[side] * 0.5)
        lengths.append(length[side] * 0.6)
        start, angle = np.concatenate(starts), np.concatenate(angles)
        width, length = np.concatenate(widths), np.concatenate(lengths)


def _airways(chest: Chest) -> None:
    """Trachea and main bronchi are dark."""
    tube = chest.canvas.zeros()
    shift = 0.4 * chest.pose.spin
    chest.line(tube, [(shift, -185), (shift + 1, -130), (shift, -80), (1, -42)], 17, 15.0, 1.4)
    chest.line(tube, [(0, -44), (-12, -30), (-28, -16)], 11, 9.0, 1.6)
    chest.line(tube, [(1, -44), (16, -34), (36, -22)], 10, 9.0, 1.6)
    chest.soft -= tube


def _breasts(chest: Chest) -> None:
    """Breast tissue thickens below and ends in a curved lower fold."""
    if not chest.build.breast:
        return
    for side in SIDES:
        mound = chest.blob(84 * side, 62, 62, 58)
        chest.soft += np.where(chest.y > 62, 1.25, 0.8 + 0.45 * np.clip((chest.y - 10) / 52, 0, 1)) * (
            22 * chest.build.breast * mound
        )


def _stomach(chest: Chest) -> None:
    """Gas below the left diaphragm."""
    rng = np.random.default_rng([chest.build.grain, 37])
    if rng.random() < 0.7:
        top = base(1, chest.pose)[4, 1]
        middle, down = top + 24, rng.uniform(10, 18)
        bubble = chest.blob(rng.uniform(48, 70), middle, rng.uniform(18, 34), down)
        upper = (chest.y > top + 8) & (chest.y < middle + rng.uniform(0.0, 0.6) * down)  # fluid below
        chest.soft -= 55 * bubble * upper * (1 - chest.lungs[1])

"""Ribs, clavicles, shoulder blades and spine of a chest film, as dense bone in mm."""

from __future__ import annotations

import numpy as np

from domainseg.phantom.canvas import Points, curve
from domainseg.phantom.chest.thorax import SIDES, Chest
from domainseg.phantom.pelvis import plate


def draw(chest: Chest, *, portable: bool) -> None:
    """Add the bones to ``chest.bone``."""
    rng = np.random.default_rng([chest.build.grain, 41])
    density = float(rng.uniform(0.8, 1.15))
    for side in SIDES:
        for number in range(1, 11):
            _rib(chest, side, number, density)
        _clavicle(chest, side, density, portable)
        _blade(chest, side, density, portable)
    _spine(chest, density)


def _band(chest: Chest, middle: Points, width: float, fill: float, edge: float) -> None:
    """A flat bone seen from its face: a fill, and its two edges as lines."""
    middle = curve(middle, each=6)
    step = np.gradient(middle, axis=0)
    normal = np.stack([-step[:, 1], step[:, 0]], -1) / np.linalg.norm(step, axis=1, keepdims=True)
    chest.canvas.stroke(chest.bone, chest.place(middle), width, fill, soft=0.6)
    for way in (-0.5, 0.5):
        chest.canvas.stroke(chest.bone, chest.place(middle + way * width * normal), 1.1, edge, soft=0.4)


def _rib(chest: Chest, side: int, number: int, density: float) -> None:
    """A rib from the spine backwards and down to the chest wall, and forwards and down to its cartilage."""
    top = -124 + 21.5 * (number - 1)
    reach = float(np.interp(number, [1, 2, 3, 5, 7, 10], [58, 84, 102, 123, 134, 140]))
    fall = float(np.interp(number, [1, 4, 10], [10, 34, 50]))
    back = [(16, top + 2), (0.42 * reach, top - 5), (0.76 * reach, top + 0.30 * fall), (reach, top + fall)]
    _band(chest, np.array(back) * (side, 1), 8.5, 1.7 * density, 1.9 * density)
    if number <= 7:
        inner = float(np.interp(number, [1, 3, 7], [30, 46, 72]))
        drop = float(np.interp(number, [1, 7], [26, 62]))
        front = [
            (reach, top + fall),
            (reach * 0.98, top + fall + 0.35 * drop),
            (0.78 * reach, top + fall + 0.8 * drop),
            (inner, top + fall + drop),
        ]
        _band(chest, np.array(front) * (side, 1), 9.0, 0.7 * density, 0.55 * density)


def _clavicle(chest: Chest, side: int, density: float, portable: bool) -> None:
    rise = 14.0 if portable else 0.0
    spin = chest.pose.spin
    course = [(12, -98), (40, -106 - rise * 0.3), (80, -112 - rise), (118, -122 - rise), (150, -124 - rise)]
    _band(chest, np.array(course) * (side, 1) + (spin, 0), 11.0, 2.6 * density, 1.8 * density)


def _blade(chest: Chest, side: int, density: float, portable: bool) -> None:
    """The shoulder blade: beside the lung when the arms are turned forwards, over it on portable films."""
    shift = -26.0 if portable else 0.0
    outline = np.array(
        [(122, -116), (118, -60), (128, -6), (138, 14), (146, -10), (152, -64), (168, -104), (150, -120)], float
    )
    outline[:, 0] += shift
    shape = chest.place(curve(outline * (side, 1), closed=True))
    plate(chest.canvas, chest.bone, shape, 1.6 * density, 4.0, 2.0 * density)
    chest.line(chest.bone, np.array([(130 + shift, -96), (158 + shift, -112), (182, -122)]) * (side, 1), 9, 2.6, 1.0)


def _spine(chest: Chest, density: float) -> None:
    """Thoracic and upper lumbar vertebrae, shining through the mediastinum."""
    column = chest.canvas.zeros()
    chest.line(column, [(0, -210), (1, -60), (-1, 60), (0, 240)], 27, 3.0 * density, 3.0)
    for number in range(20):
        top = -205 + 22.5 * number
        half = 11.5 + 0.32 * number
        for end in (top, top + 18):
            chest.line(column, [(-half, end), (0, end + 0.8), (half, end)], 1.6, 1.5 * density, 0.6)
        for side in SIDES:
            wall = [(side * half, top + 1), (side * (half - 1.6), top + 9), (side * half, top + 17)]
            chest.line(column, wall, 1.6, 1.3 * density, 0.6)
            chest.line(column, [(side * half * 0.6, top + 5), (side * (half + 11), top + 2)], 7.0, 1.0 * density, 1)
            turn = np.linspace(0, 2 * np.pi, 9)
            ring = np.stack([side * 0.62 * half + 2.6 * np.cos(turn), top + 6 + 3.6 * np.sin(turn)], -1)
            chest.line(column, ring, 1.1, 1.2 * density, 0.4)
        chest.line(column, [(0, top + 9), (0.6, top + 18)], 4.5, 1.8 * density, 0.9)
    chest.bone += column

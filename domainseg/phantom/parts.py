"""Other parts of the body, simple ones: chest, knee, hand, shoulder, lumbar spine, skull."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike

from domainseg.phantom.canvas import Canvas, Map, Points, blur, curve, noise_tile, rotation
from domainseg.phantom.pelvis import plate, spine
from domainseg.phantom.scene import MU_BONE, MU_SOFT, Scene
from domainseg.phantom.tissue import _coarse, _smooth, _up


class _Body:
    def __init__(self, canvas: Canvas, rng: np.random.Generator, zoom: float) -> None:
        self.canvas, self.rng = canvas, rng
        width, height = canvas.size
        self.centre = np.array([width * rng.normal(0.5, 0.03), height * rng.normal(0.5, 0.03)])
        self.turn = rotation(float(rng.normal(0, 3)))
        self.zoom = zoom * float(rng.normal(1, 0.05))
        self.bone = canvas.zeros()
        x, y = _coarse(canvas, 4)
        inverse = self.turn.T / self.zoom
        dx, dy = x - np.float32(self.centre[0]), y - np.float32(self.centre[1])
        self.x, self.y = dx * inverse[0, 0] + dy * inverse[0, 1], dx * inverse[1, 0] + dy * inverse[1, 1]

    def place(self, points: ArrayLike) -> Points:
        return np.asarray(np.asarray(points, float) * self.zoom @ self.turn.T + self.centre)

    def flat(self, points: ArrayLike, thickness: float, edge: float, rim: float) -> None:
        plate(self.canvas, self.bone, self.place(curve(np.asarray(points, float), closed=True)), thickness, edge, rim)

    def line(self, points: ArrayLike, width: float, weight: float, soft: float = 0.4) -> None:
        self.canvas.stroke(self.bone, self.place(curve(np.asarray(points, float))), width, weight, soft=soft)

    def long(self, start: ArrayLike, end: ArrayLike, ends: tuple[float, float], waist: float, wall: float) -> None:
        """A long bone: flared ends, a waist, thin ends and thick walls between."""
        a, b = np.asarray(start, float), np.asarray(end, float)
        along = b - a
        side = np.array([-along[1], along[0]]) / np.linalg.norm(along)
        stations = (
            (0.0, ends[0] * 0.8),
            (0.06, ends[0]),
            (0.22, waist * 1.15),
            (0.5, waist),
            (0.78, waist * 1.15),
            (0.94, ends[1]),
            (1.0, ends[1] * 0.8),
        )
        outline = [a + along * t + side * w for t, w in stations] + [
            a + along * t - side * w for t, w in stations[::-1]
        ]
        self.flat(outline, waist * 0.5, waist * 0.8, wall)

    def scene(self, soft: Map) -> Scene:
        texture = cv2.resize(noise_tile(1.8)[:512, :512], soft.shape[::-1], interpolation=cv2.INTER_LINEAR)
        rough = 1 + 0.08 * np.tile(noise_tile(1.4), (3, 3))[: self.canvas.height, : self.canvas.width]
        whole = _up(self.canvas, np.maximum(soft * (1 + 0.02 * texture), 0))
        return Scene(self.canvas, np.asarray(MU_SOFT * whole + MU_BONE * self.bone * rough, np.float32))


def other(canvas: Canvas, part: str, rng: np.random.Generator) -> Scene:
    """A film of another part of the body, upright."""
    return {"chest": _chest, "knee": _knee, "hand": _hand, "shoulder": _shoulder, "spine": _lumbar, "skull": _skull}[
        part
    ](canvas, rng)


def _chest(canvas: Canvas, rng: np.random.Generator) -> Scene:
    b = _Body(canvas, rng, 1.0)
    x, y = b.x, b.y
    body = 190 * np.maximum(1 - (np.abs(x) / (160 + 20 * _smooth(y, 60))) ** 4, 0) ** 0.5
    body *= _smooth(y + 165 - 0.002 * x**2, 12)
    lungs = np.zeros_like(body)
    for side in (-1, 1):
        dome = 92 - (8 if side < 0 else -4) + 0.006 * (x - 75 * side) ** 2
        inside = 1 - ((x - 76 * side) / 58) ** 2 - (np.minimum(y + 20, 0) / 128) ** 2
        lungs += 165 * np.sqrt(np.maximum(inside, 0)) * _smooth(dome - y, 1.5)
    hx, hy = 0.82 * (x - 24) + 0.57 * (y - 46), 0.82 * (y - 46) - 0.57 * (x - 24)
    heart = 100 * np.sqrt(np.maximum(1 - (hx / 68) ** 2 - (hy / 48) ** 2, 0))
    heart += 60 * np.sqrt(np.maximum(1 - ((x - 6) / 26) ** 2 - ((y + 40) / 78) ** 2, 0))
    hilum = 26 * np.exp(-(((np.abs(x) - 34) / 18) ** 2) - ((y / 30) ** 2))
    grain = cv2.resize(noise_tile(1.9)[:512, :512], x.shape[::-1] if x.shape == y.shape else body.shape[::-1])
    soft = body - lungs * (0.80 - 0.05 * grain) + heart + hilum
    for side in (-1, 1):
        for rib in range(9):
            top = -128 + rib * 25
            wide = 52 + 62 * np.sin(min(1.0, (rib + 1.2) / 6) * np.pi / 2)
            b.line(
                [
                    (side * 14, top),
                    (side * wide * 0.6, top - 8),
                    (side * wide, top + 18),
                    (side * wide * 1.04, top + 44),
                ],
                9,
                3.4,
                0.7,
            )
            b.line([(side * wide * 1.04, top + 44), (side * wide * 0.8, top + 66), (side * 42, top + 74)], 8, 1.6, 0.9)
        b.line([(side * 10, -120), (side * 60, -138), (side * 125, -132)], 11, 5.5, 0.8)
        b.flat([(side * 110, -128), (side * 138, -110), (side * 128, -40), (side * 100, -50)], 5.0, 6.0, 2.0)
    spine(
        canvas,
        b.bone,
        lambda p: b.place(np.asarray(p, float) * (0.65, 0.8) + (0, 60)),
        1.0,
        tuple(np.arange(-230, 60, 29.0)),
        0.6,
        3,
    )
    return b.scene(soft)


def _knee(canvas: Canvas, rng: np.random.Generator) -> Scene:
    b = _Body(canvas, rng, 1.1)
    soft = 120 * np.sqrt(np.maximum(1 - (b.x / (62 + 0.10 * np.abs(b.y - 10))) ** 2, 0))
    b.long((0, -190), (0, -34), (16, 24), 15, 9)
    b.flat(
        [
            (-42, -30),
            (-38, -52),
            (-20, -66),
            (20, -66),
            (38, -52),
            (43, -30),
            (36, -6),
            (16, -3),
            (0, -16),
            (-16, -3),
            (-36, -5),
        ],
        15,
        12,
        3,
    )
    b.flat([(-43, 4), (-10, 2), (0, -6), (10, 2), (43, 4), (40, 22), (24, 48), (-22, 48), (-40, 22)], 14, 12, 4)
    b.long((-2, 20), (-6, 190), (26, 14), 13, 9)
    b.long((40, 24), (34, 190), (9, 6), 6, 5)
    b.flat([(-20, -52), (0, -62), (20, -52), (22, -30), (0, -18), (-22, -30)], 7, 8, 2.5)
    return b.scene(np.asarray(soft, np.float32))


def _hand(canvas: Canvas, rng: np.random.Generator) -> Scene:
    b = _Body(canvas, rng, 1.05)
    soft = 26 * np.sqrt(np.maximum(1 - (b.x / 44) ** 2 - ((b.y - 18) / 62) ** 2, 0))
    soft = np.maximum(soft, 32 * np.sqrt(np.maximum(1 - (b.x / 31) ** 2, 0)) * _smooth(b.y - 70, 4))
    spread = rng.uniform(7, 14)
    for finger, (base, length) in enumerate(((-30, 52), (-14, 72), (1, 80), (16, 74), (31, 56))):
        lean = np.deg2rad((finger - 2) * spread + (-26 if finger == 0 else 0))
        step = np.array([np.sin(lean), -np.cos(lean)])
        start = np.array([base * 0.62, 36.0 if finger else 44.0])
        lengths = (0.85 * length, 0.58 * length, 0.34 * length, 0.24 * length)[: 3 if finger == 0 else 4]
        for bone, part in enumerate(lengths):
            end = start + step * part
            b.long(start, end, (6.5 - bone, 6.2 - bone), 4.3 - 0.6 * bone, 3.4)
            start = end + step * 2.0
        px, py = b.x - base * 0.62, b.y - 36
        t = np.clip(px * step[0] + py * step[1], 0, float(sum(lengths)) + 14)
        off = np.hypot(px - t * step[0], py - t * step[1])
        soft = np.maximum(soft, 17 * np.sqrt(np.maximum(1 - (off / 9.5) ** 2, 0)))
    for cx, cy, r in (
        (-18, 46, 8),
        (-6, 44, 7.5),
        (6, 44, 9),
        (17, 46, 8),
        (-15, 60, 9),
        (0, 60, 9),
        (14, 59, 8),
        (22, 57, 5),
    ):
        turn = np.linspace(0, 2 * np.pi, 9)[:-1]
        b.flat(np.stack([cx + r * np.cos(turn) * rng.uniform(0.85, 1.1, 8), cy + r * np.sin(turn)], -1), 4.5, 5, 2.4)
    b.long((-9, 70), (-8, 200), (15, 10), 8, 5)
    b.long((17, 73), (14, 200), (8, 8), 6, 5)
    return b.scene(np.asarray(soft, np.float32))


def _shoulder(canvas: Canvas, rng: np.random.Generator) -> Scene:
    b = _Body(canvas, rng, 1.1)
    side = float(rng.choice([-1, 1]))
    x, y = b.x * side, b.y
    soft = 130 * _smooth(y + 72 - 0.45 * (x + 30), 6) * _smooth(92 - x + 0.05 * y, 5) * (0.75 + 0.0016 * (40 - x))
    soft -= 95 * np.sqrt(np.maximum(1 - ((x + 105) / 68) ** 2 - ((y - 60) / 120) ** 2, 0))

    def m(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(px * side, py) for px, py in points]

    turn = np.linspace(0, 2 * np.pi, 40)[:-1]
    b.flat(np.stack([(38 + 24 * np.cos(turn)) * side, -12 + 24 * np.sin(turn)], -1), 12, 9, 2.4)
    b.flat(m([(52, -30), (66, -20), (66, 4), (56, 22), (44, 20)]), 8, 6, 2.5)
    b.long(np.array((52 * side, 0)), np.array((62 * side, 190)), (20, 15), 12, 8)
    b.flat(
        m(
            [
                (14, -30),
                (10, -10),
                (12, 16),
                (2, 24),
                (-16, 92),
                (-28, 96),
                (-66, -2),
                (-70, -44),
                (-40, -40),
                (-8, -36),
            ]
        ),
        5,
        7,
        3,
    )
    b.line(m([(-72, -46), (-30, -44), (20, -54), (58, -48)]), 9, 5.0, 0.9)
    b.line(m([(-110, -58), (-60, -78), (-10, -72), (34, -58)]), 12, 5.5, 0.8)
    for rib in range(6):
        top = -46 + 26 * rib
        b.line(m([(-120, top - 20), (-80, top - 14), (-48, top + 12), (-42 + rib, top + 40)]), 8, 2.6, 0.8)
    return b.scene(np.asarray(np.maximum(soft, 0), np.float32))


def _lumbar(canvas: Canvas, rng: np.random.Generator) -> Scene:
    b = _Body(canvas, rng, 1.1)
    soft = 200 * np.maximum(1 - (np.abs(b.x) / 170) ** 3, 0.3) + 0 * b.y
    grain = cv2.resize(noise_tile(2.2)[:256, :256], soft.shape[::-1], interpolation=cv2.INTER_LINEAR)
    soft = soft - 9 * blur(np.maximum(grain, 0), 2.0)
    spine(
        canvas,
        b.bone,
        lambda p: b.place(np.asarray(p, float) * (1.0, 1.06)),
        1.0,
        tuple(np.arange(-125, 130, 37.0)),
        0.9,
        5,
    )
    for side in (-1, 1):
        b.line([(side * 22, -120), (side * 75, -132), (side * 120, -108)], 9, 3.0, 0.9)
        b.flat([(side * 30, 120), (side * 60, 98), (side * 130, 90), (side * 140, 150), (side * 50, 170)], 7, 9, 3)
    b.flat([(-30, 120), (30, 120), (48, 130), (40, 175), (-40, 175), (-48, 130)], 7, 10, 2)
    return b.scene(np.asarray(soft, np.float32))


def _skull(canvas: Canvas, rng: np.random.Generator) -> Scene:
    b = _Body(canvas, rng, 1.05)
    x, y = b.x, b.y
    soft = 150 * np.sqrt(np.maximum(1 - (x / 74) ** 2 - ((y + 22) / 98) ** 2, 0))
    soft = np.maximum(soft, 110 * np.sqrt(np.maximum(1 - (x / 56) ** 2, 0)) * _smooth(y - 40, 6) * _smooth(150 - y, 20))
    turn = np.linspace(0, 2 * np.pi, 80)
    b.flat(np.stack([71 * np.cos(turn), -24 + 92 * np.sin(turn)], -1)[:-1:4], 7.0, 9, 6)
    for side in (-1, 1):
        orbit = np.stack([side * 32 + 19 * np.cos(turn), 12 + 17 * np.sin(turn)], -1)
        soft -= 22 * np.sqrt(np.maximum(1 - ((x - side * 32) / 19) ** 2 - ((y - 12) / 17) ** 2, 0))
        soft -= 30 * np.sqrt(np.maximum(1 - ((x - side * 26) / 15) ** 2 - ((y - 48) / 16) ** 2, 0))
        b.line(orbit[::4], 2.0, 4.5, 0.5)
        b.line([(side * 58, 30), (side * 62, 60), (side * 46, 92), (side * 14, 104), (0, 105)], 9, 6.0, 1.0)
        b.line([(side * 66, 20), (side * 50, 36), (side * 28, 42)], 5, 4.0, 0.8)
    soft -= 34 * np.sqrt(np.maximum(1 - (x / 11) ** 2 - ((y - 36) / 20) ** 2, 0))
    b.line([(0, 18), (1, 54)], 1.6, 4.0, 0.5)
    for tooth in range(-5, 6):
        for height in (66, 80):
            b.line([(tooth * 6.2, height - 5), (tooth * 6.2, height + 6)], 4.4, 6.0, 0.5)
    b.bone = blur(b.bone, 0.4 / canvas.step)
    return b.scene(np.asarray(soft, np.float32))

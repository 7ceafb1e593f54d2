"""Soft tissue: the body's thickness, muscle and fat, skin folds, gas, vessels, and lines that look like fractures."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike

from domainseg.phantom.canvas import Canvas, Map, Points, blur, curve, noise_tile, rotation
from domainseg.phantom.femur import Femur
from domainseg.phantom.pelvis import Pelvis


def _coarse(canvas: Canvas, factor: int) -> tuple[Map, Map]:
    height, width = -(-canvas.height // factor), -(-canvas.width // factor)
    x = ((np.arange(width, dtype=np.float32) + 0.5) * factor * canvas.step)[None, :]
    y = ((np.arange(height, dtype=np.float32) + 0.5) * factor * canvas.step)[:, None]
    return x, y


def _up(canvas: Canvas, small: Map) -> Map:
    return np.asarray(
        cv2.resize(small.astype(np.float32), (canvas.width, canvas.height), interpolation=cv2.INTER_LINEAR), np.float32
    )


def _smooth(x: Map, width: float) -> Map:
    return np.asarray(1 / (1 + np.exp(-np.clip(x / width, -30, 30))), np.float32)


def trunk(canvas: Canvas, ring: Pelvis, girth: float, rng: np.random.Generator, *, frog: bool) -> Map:
    """Water-equivalent thickness in mm of pelvis, buttocks and thighs with gas and feces."""
    x, y = _coarse(canvas, 4)
    k = ring.scale
    dx, dy = (x - ring.centre[0]) / k, (y - ring.centre[1]) / k
    half = 182 + 80 * (girth - 0.9) + (14 * np.exp(-(((dy - 20) / 70) ** 2)) - 14 * _smooth(-dy - 120, 30))
    depth = girth * 215 * (1 - 0.10 * _smooth(-dy - 90, 40))
    body = depth * np.maximum(1 - (np.abs(dx) / half) ** 2.6, 0) ** 0.42
    spread = 1.0 if not frog else 1.5
    legs = np.zeros_like(body)
    for side in (-1, 1):
        middle = 88 * spread + 0.05 * np.maximum(dy, 0)
        radius = 90 + 50 * (girth - 0.95) - 0.08 * np.maximum(dy, 0)
        leg = girth * 178 * np.sqrt(np.maximum(1 - ((dx * side - middle) / radius) ** 2, 0))
        legs = np.maximum(legs, leg)
    share = _smooth(dy - 80 - 0.10 * np.abs(dx), 17)
    soft = body * (1 - share) + legs * share
    # Scrotum or labia, and the buttocks' lower fold.
    soft += (6 if ring.female else 30) * np.maximum(1 - (dx / 27) ** 2 - ((dy - 84) / 33) ** 2, 0)
    fold = dy - 92 - 10 * np.cos(dx / 55) - 6 * rng.normal()
    soft *= 1 - 0.03 * _smooth(fold, 1.5)
    texture = cv2.resize(noise_tile(2.6)[:256, :256], soft.shape[::-1], interpolation=cv2.INTER_LINEAR)
    soft *= 1 + 0.020 * texture
    bowel = np.zeros_like(soft)
    for _ in range(int(rng.integers(3, 11))):
        bx, by = rng.normal(0, 55), rng.normal(-85, 42)
        rx, ry = rng.uniform(6, 26), rng.uniform(5, 16)
        turn = rotation(float(rng.uniform(0, 180)))
        ex = ((dx - bx) * turn[0, 0] + (dy - by) * turn[0, 1]) / rx
        ey = ((dx - bx) * turn[1, 0] + (dy - by) * turn[1, 1]) / ry
        wobble = 0.25 * texture
        bowel += rng.uniform(0.5, 1.0) * min(rx, ry) * 1.6 * np.sqrt(np.maximum(1 + wobble - ex**2 - ey**2, 0))
    feces = np.exp(-(((dx - rng.normal(0, 25)) / 40) ** 2) - (((dy + rng.uniform(10, 80)) / 40) ** 2))
    grain = cv2.resize(noise_tile(1.6)[256:512, :256], soft.shape[::-1], interpolation=cv2.INTER_LINEAR)
    bowel += rng.uniform(0, 14) * feces * np.maximum(grain, 0)
    soft -= np.minimum(bowel, 0.45 * soft)
    return _up(canvas, soft)


def wedge(canvas: Canvas, side: int, rng: np.random.Generator) -> Map:
    """Thickness across a cross-table lateral: buttock below, thigh to the side, the abdomen's bulk at the pelvis."""
    x, y = _coarse(canvas, 4)
    width, height = canvas.size
    across = (x / width - 0.5) * side
    top = 0.16 - 0.18 * across
    inside = _smooth(np.asarray(y - top * height, np.float32), 3.0)
    low = 1 - _smooth(np.asarray(y - (0.86 - 0.10 * across) * height, np.float32), 4.0)
    soft = (150 - 150 * across + 70 * (y / height)) * inside * (0.12 + 0.88 * low)
    texture = cv2.resize(noise_tile(2.4)[:256, :256], soft.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return _up(canvas, np.maximum(soft * (1 + 0.03 * texture) + rng.normal(0, 2), 0))


def mimics(
    canvas: Canvas, soft: Map, bone: Map, ring: Pelvis, vessels: float, rate: float, rng: np.random.Generator
) -> None:
    """Add what is taken for a fracture: skin folds (Mach lines), fat planes, cloth, calcified vessels.

    They come upon broken and unbroken hips alike; ``rate`` is the chance of each on each hip.
    """
    k = ring.scale
    for side in (-1, 1):
        hip = ring.hip(side)

        def at(points: list[tuple[float, float]], side: int = side, hip: Points = hip) -> Points:
            return np.asarray(curve(np.array(points) * (side, 1) * k + hip))

        # Fat planes beside the gluteal and iliopsoas muscles.
        tilt = float(rng.normal(0, 4))
        canvas.stroke(soft, at([(6, -46 + tilt), (22, -28), (36, -14 + tilt), (46, -2)]), 2.6, -2.6, soft=0.9)
        canvas.stroke(soft, at([(-18, -6), (-10, 14 + tilt), (0, 36), (4, 60)]), 2.6, -2.4, soft=1.0)
        if rng.random() < rate:  # skin fold: a step in thickness with a sharp border right across neck or trochanter
            start, slope = rng.uniform(-14, 52), rng.uniform(-0.5, 0.9)
            bend = rng.normal(0, 5, 5)
            xs = np.array([-60, -25, 10, 45, 95.0])
            edge = [(float(a), float(start + slope * (a - 20) * 0.6 + b)) for a, b in zip(xs, bend, strict=True)]
            shape = np.concatenate([at(edge), at([(95, edge[-1][1] + 26), (20, start + 34), (-60, edge[0][1] + 26)])])
            box = canvas.box(shape, 4)
            y0, y1, x0, x1 = box
            if y1 > y0 and x1 > x0:
                cover = canvas.filled(shape, box)
                rise = np.maximum(cover - blur(cover, 6 / canvas.step), 0) * cover
                soft[y0:y1, x0:x1] += rng.uniform(3, 9) * blur(rise, 0.25 / canvas.step)
        for _ in range(int(rng.poisson(1.2 * rate))):  # a crease in cloth, a hair, a drip line: thin, crosses borders
            angle, middle = rng.uniform(0, np.pi), rng.normal((25, 22), (22, 26))
            reach = rng.uniform(15, 60)
            step = np.array([np.cos(angle), np.sin(angle)]) * reach
            course = [tuple(middle + step * t + rng.normal(0, 1.6, 2)) for t in (-1, -0.4, 0.2, 1)]
            sign = rng.choice([-1.0, 1.0])
            canvas.stroke(soft, at(course), rng.uniform(0.4, 0.9), sign * rng.uniform(2.0, 5.5), soft=0.15)
        if rng.random() < vessels:
            wave, heavy = np.cumsum(rng.normal(0, 2.5, 5)), rng.uniform(0.3, 1.0)
            for gap in (-2.4, 2.4):
                line = [(float(-22 + gap + wave[i] + 4 * i), float(-40 + 44 * i)) for i in range(5)]
                whole = at(line)
                for begin in range(0, len(whole) - 4, 4):
                    if rng.random() < 0.4:
                        canvas.stroke(bone, whole[begin : begin + 5], 0.8, heavy * rng.uniform(0.5, 3.0), soft=0.35)
        for _ in range(int(rng.poisson(0.8))):  # phleboliths
            spot = at([(-62 + rng.normal(0, 8), rng.normal(0, 14)), (-61, rng.normal(0, 14))])[:1]
            canvas.stroke(bone, np.concatenate([spot, spot + 0.6]), 3.0, 2.5, soft=0.7)


def ridges(
    target: Map, step: float, origin: tuple[float, float], femur: Femur, rate: float, rng: np.random.Generator
) -> None:
    """Add to a femur's map (``step`` mm a pixel, ``origin`` mm left and above) what crosses it in health: the
    intertrochanteric crest, the old growth plate, a collar of osteophytes, nutrient vessels. Broken or not."""
    ju, jv = femur.junction
    k, r = femur.scale, femur.head * femur.scale
    axis = np.array([ju, jv]) / np.hypot(ju, jv)
    across = np.array([-axis[1], axis[0]])
    canvas = Canvas(target.shape[0], target.shape[1], step / 2)

    def stroke(points: ArrayLike, width: float, weight: float, soft: float) -> None:
        canvas.stroke(target, curve(np.asarray(points, float)) + np.array(origin) + step / 4, width, weight, soft=soft)

    def collar(along: float, bulge: float) -> list[Points]:
        reach = 0.78 * r
        return [axis * (along + bulge * (1 - t * t)) + across * reach * t for t in (-1.0, -0.5, 0.0, 0.5, 1.0)]

    if rng.random() < rate:  # the crest runs from the greater to the lesser trochanter, in front of or behind the neck
        drop = rng.normal(0, 2.5, 2) * k
        crest = [
            (ju + 9 * k, jv - 14 * k),
            (ju + 4 * k, jv + drop[0]),
            (ju - 5 * k, jv + 11 * k + drop[1]),
            (ju - 14 * k, jv + 22 * k),
        ]
        stroke(crest, rng.uniform(0.8, 2.0), rng.uniform(0.6, 2.2), 0.5)
    if rng.random() < rate:  # the growth plate's scar
        stroke(
            collar(rng.uniform(0.05, 0.35) * r, rng.uniform(-5, 2)), rng.uniform(0.5, 1.0), rng.uniform(0.4, 1.4), 0.35
        )
    if rng.random() < rate * (0.3 + femur.osteophytes):  # osteophytes around the head's border: a dense, wavy band
        ring = [point + rng.normal(0, 0.9, 2) for point in collar(rng.uniform(0.72, 0.95) * r, rng.uniform(-4, 4))]
        stroke(ring, rng.uniform(0.8, 1.8), rng.uniform(0.8, 2.4), 0.4)
    for _ in range(int(rng.poisson(1.1 * rate))):  # a vessel's channel: dark, short, ends within the bone
        start = np.array([ju, jv]) * rng.uniform(0.5, 1.0) + rng.normal(0, 9, 2) * k
        lead = np.cumsum(rng.normal(0, 0.5, (4, 2)), 0) + rng.normal(0, 1, 2) * 6
        stroke([start, *(start + np.cumsum(lead, 0))][:4], rng.uniform(0.5, 0.9), -rng.uniform(0.6, 2.2), 0.25)
    if rng.random() < rate * 0.6:  # the nutrient artery of the shaft
        low = jv + rng.uniform(45, 80) * k
        stroke([(ju - 14 * k, low), (ju - 8 * k, low + 9), (ju - 4 * k, low + 20)], 0.8, -rng.uniform(1.2, 3.0), 0.25)

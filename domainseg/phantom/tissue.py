"""Soft tissue: the body's thickness, muscle and fat, skin folds, gas, vessels, and lines that look like fractures."""

from __future__ import annotations

import cv2
import numpy as np

from domainseg.phantom.canvas import Canvas, Map, blur, curve, noise_tile, rotation
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
    half = girth * (168 + 14 * np.exp(-(((dy - 20) / 70) ** 2)) - 14 * _smooth(-dy - 120, 30))
    depth = girth * 215 * (1 - 0.10 * _smooth(-dy - 90, 40))
    body = depth * np.maximum(1 - (np.abs(dx) / half) ** 2.6, 0) ** 0.42
    spread = 1.0 if not frog else 1.5
    legs = np.zeros_like(body)
    for side in (-1, 1):
        middle = 88 * spread + 0.05 * np.maximum(dy, 0)
        radius = 86 * girth - 0.08 * np.maximum(dy, 0)
        leg = girth * 178 * np.sqrt(np.maximum(1 - ((dx * side - middle) / radius) ** 2, 0))
        legs = np.maximum(legs, leg)
    share = _smooth(dy - 78 - 0.10 * np.abs(dx), 9)
    soft = body * (1 - share) + legs * share
    # Scrotum or labia, and the buttocks' lower fold.
    soft += 26 * np.sqrt(np.maximum(1 - (dx / 24) ** 2 - ((dy - 84) / 30) ** 2, 0)) * (0.4 if ring.female else 1.0)
    fold = dy - 92 - 10 * np.cos(dx / 55) - 6 * rng.normal()
    soft *= 1 - 0.10 * _smooth(fold, 1.5)
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
    inside = _smooth((y / height - top) * height, 3.0)
    low = 1 - _smooth((y / height - 0.86 + 0.10 * across) * height, 4.0)
    soft = (150 - 150 * across + 70 * (y / height)) * inside * (0.12 + 0.88 * low)
    texture = cv2.resize(noise_tile(2.4)[:256, :256], soft.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return _up(canvas, np.maximum(soft * (1 + 0.03 * texture) + rng.normal(0, 2), 0))


def mimics(
    canvas: Canvas, soft: Map, bone: Map, ring: Pelvis, vessels: float, rate: float, rng: np.random.Generator
) -> None:
    """Add what is taken for a fracture: skin folds (Mach lines), fat planes, cloth, calcified vessels, ridges.

    They come upon broken and unbroken hips alike; ``rate`` is the chance of each on each hip.
    """
    k = ring.scale
    for side in (-1, 1):
        hip = ring.hip(side)

        def at(points: list[tuple[float, float]], side: int = side, hip: np.ndarray = hip) -> np.ndarray:  # type: ignore[type-arg]
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
        if rng.random() < rate * 0.7:  # ring of osteophytes, or the old growth plate, across the head or its border
            along = rng.uniform(-4, 22)
            lean = rng.normal(0, 5)
            ridge = [(along * 0.8 + 16, along * 0.6 - 15 + lean), (along * 0.8 + 2, along * 0.6 - 2), (along * 0.8 - 12, along * 0.6 + 17)]
            canvas.stroke(bone, at(ridge), rng.uniform(0.7, 1.6), rng.uniform(0.8, 2.4), soft=0.4)
        if rng.random() < rate:  # the intertrochanteric crest
            drop = rng.normal(0, 3)
            crest = [(56 + drop, 16), (49 + drop, 30), (39, 44 + drop), (29, 56 + drop)]
            canvas.stroke(bone, at(crest), rng.uniform(1.0, 2.2), rng.uniform(1.0, 3.0), soft=0.5)
        if rng.random() < rate * 0.5:  # a nutrient vessel in the shaft's cortex
            low = rng.uniform(75, 110)
            canvas.stroke(bone, at([(32, low), (36, low + 9), (39, low + 20)]), 0.8, -rng.uniform(1.5, 3.5), soft=0.25)
        if rng.random() < vessels:
            for gap in (-2.4, 2.4):
                wave = rng.normal(0, 2, 5)
                line = [(-24 + gap + wave[i], -30 + 40 * i) for i in range(5)]
                line = [(a + 5 * i, b) for i, (a, b) in enumerate(line)]
                whole = at(line)
                for begin in range(0, len(whole) - 4, 4):
                    if rng.random() < 0.55:
                        canvas.stroke(bone, whole[begin : begin + 5], 0.8, rng.uniform(1, 4.0), soft=0.3)
        for _ in range(int(rng.poisson(0.8))):  # phleboliths
            spot = at([(-62 + rng.normal(0, 8), rng.normal(0, 14)), (-61, rng.normal(0, 14))])[:1]
            canvas.stroke(bone, np.concatenate([spot, spot + 0.6]), 3.0, 2.5, soft=0.7)

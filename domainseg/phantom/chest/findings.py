"""Findings of a chest film, each painted into the maps of a healthy chest. A severity runs from 0 to 1.

Each painter returns where its finding is seen, a map [h, w] on the canvas whose bounding box is the truth.
Cardiomegaly and emphysema, and how other findings lift a diaphragm, change the shape of the chest: ``shape``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np

from domainseg.imaging.chest import FINDINGS
from domainseg.phantom.canvas import Map, depth_inside, ridge_tile, sample
from domainseg.phantom.chest.thorax import SIDES, Chest, Pose, base, moved, outline

Random = np.random.Generator


def sides_of(found: Mapping[str, float], rng: Random) -> dict[str, int]:
    """The side of each finding that has one; those of both sides have 0."""
    drawn = rng.choice([-1, 1], len(FINDINGS))
    both = ("cardiomegaly", "edema", "emphysema", "fibrosis", "hernia")
    return {name: 0 if name in both else int(side) for name, side in zip(FINDINGS, drawn, strict=True) if name in found}


def shape(pose: Pose, found: Mapping[str, float], sides: Mapping[str, int]) -> Pose:
    """What findings do to heart and diaphragm."""
    lift, ratio, flat = dict(pose.lift), pose.ratio, pose.flat
    if (severity := found.get("cardiomegaly")) is not None:
        ratio += 0.085 + 0.14 * severity
    if (severity := found.get("emphysema")) is not None:
        flat = 0.55 + 0.45 * severity
        ratio -= 0.03 + 0.04 * severity
        lift = {side: value - 12 - 12 * severity for side, value in lift.items()}
    if (severity := found.get("atelectasis")) is not None:
        lift[sides["atelectasis"]] += 10 + 20 * severity
    if (severity := found.get("fibrosis")) is not None:
        lift = {side: value + 6 + 12 * severity for side, value in lift.items()}
    return moved(pose, lift=lift, ratio=ratio, flat=flat)


def paint(chest: Chest, found: Mapping[str, float], sides: Mapping[str, int], rng: Random) -> dict[str, Map]:
    """Paint all findings, those of the whole lung first; where each is seen."""
    seeds = dict(zip(FINDINGS, rng.integers(1 << 30, size=len(FINDINGS)).tolist(), strict=True))
    return {
        name: painter(chest, sides[name], found[name], np.random.default_rng(seeds[name]))
        for name, painter in PAINTERS.items()
        if name in found
    }


def _fill(chest: Chest, cover: Map, share: float) -> None:
    """Water takes the place of a share of the air, and hides the vessels there."""
    gone = np.clip(cover, 0, 1) * np.float32(share)
    chest.air *= 1 - gone
    chest.vessel *= 1 - 0.9 * gone


def _patch(chest: Chest, side: int, x: float, y: float, across: float, down: float, rough: float, key: int) -> Map:
    """An ill-defined patch 0..1 with a rough border, within the lung."""
    distance = np.sqrt(((chest.x - side * x) / across) ** 2 + ((chest.y - y) / down) ** 2)
    edge = distance + rough * (0.7 * chest.grain(3.2, 0.30, key) + 0.10 * chest.grain(1.8, 0.25, key + 1))
    cloud = np.clip(1 + 0.22 * chest.grain(2.8, 0.25, key + 2), 0.3, 1.3)
    return np.asarray(np.clip((1.25 - edge) * 1.1, 0, 1) * cloud * chest.lungs[side], np.float32)


def _cardiomegaly(chest: Chest, side: int, severity: float, rng: Random) -> Map:
    low = base(1, chest.pose)[4, 1] + 14  # below, the heart's shadow is that of the liver
    return np.where((chest.y > -24) & (chest.y < low), chest.heart, 0)


def _emphysema(chest: Chest, side: int, severity: float, rng: Random) -> Map:
    """More air, fewer vessels, bullae with hair-thin walls."""
    fade = np.float32(0.25 + 0.5 * severity)
    upper = 1 / (1 + np.exp(np.clip((chest.y - 10) / 30, -20, 20)))
    chest.vessel *= 1 - fade * (0.55 + 0.45 * upper)
    chest.air *= 1 + np.float32(0.10 + 0.14 * severity) * (0.7 + 0.5 * upper)
    for way in SIDES:
        for _ in range(int(rng.poisson(1 + 3 * severity))):
            x, y, r = rng.uniform(45, 98), rng.uniform(-92, 0), rng.uniform(9, 24)
            ball = chest.blob(way * x, y, r, 1.1 * r) * chest.lungs[way]
            chest.vessel *= 1 - 0.9 * np.minimum(2 * ball, 1)
            chest.air += 0.35 * r * ball
            turn = np.linspace(0, 2 * np.pi, 16)
            chest.line(
                chest.soft, np.stack([way * (x + r * np.cos(turn)), y + 1.1 * r * np.sin(turn)], -1), 0.9, 2.2, 0.3
            )
    return chest.lung


def _fibrosis(chest: Chest, side: int, severity: float, rng: Random) -> Map:
    """A mesh of fine lines, densest below and outside."""
    total = chest.canvas.zeros()
    ox, oy = rng.integers(0, 1024, 2)
    mesh = sample(ridge_tile(2.6), chest.x / 0.34 + np.float32(ox), chest.y / 0.34 + np.float32(oy))
    fine = sample(ridge_tile(2.2), chest.x / 0.22 + np.float32(oy), chest.y / 0.22 + np.float32(ox))
    for way in SIDES:
        low = 1 / (1 + np.exp(-np.clip((chest.y - 28 + 40 * severity) / 20, -20, 20)))
        rim = np.clip((np.abs(chest.x) - 30) / 70, 0.25, 1)
        total += low * rim * chest.lungs[way]
    _fill(chest, total, 0.12 + 0.10 * severity)
    chest.vessel += total * (9 + 9 * severity) * np.maximum(0.6 * mesh + 0.5 * fine, -0.4)  # fluid hides it like these
    return np.where(total > 0.25, total, 0)


def _edema(chest: Chest, side: int, severity: float, rng: Random) -> Map:
    """Haze around both hila, blurred and broad vessels, short lines at the chest wall."""
    total = chest.canvas.zeros()
    for way in SIDES:
        wing = np.exp(
            -(((np.abs(chest.x) - 44) / (26 + 14 * severity)) ** 2) - ((chest.y - 6) / (44 + 18 * severity)) ** 2
        )
        total += wing * chest.lungs[way]
        for number in range(int(4 + 8 * severity)):
            y = 62 + 5.5 * number - chest.pose.lift[way] + rng.normal(0, 1.5)
            reach = 131 - rng.uniform(0, 4)
            chest.line(chest.soft, [(way * reach, y), (way * (reach - rng.uniform(9, 17)), y - 1)], 1.0, 3.2, 0.25)
    cotton = np.clip(1 + 0.30 * chest.grain(2.5, 0.4, 71), 0.4, 1.6)
    chest.vessel += (0.6 + 1.0 * severity) * chest.smooth(chest.vessel, 2.2)
    _fill(chest, total * cotton, 0.34 + 0.34 * severity)
    return np.where(total > 0.3, total, 0)


def _infiltration(chest: Chest, side: int, severity: float, rng: Random) -> Map:
    """Streaks and faint spots that follow the vessels of a lower or middle field."""
    x, y = rng.uniform(52, 84), rng.uniform(-10, 52) - 0.5 * chest.pose.lift[side]
    zone = _patch(chest, side, x, y, rng.uniform(32, 46), rng.uniform(34, 52), 0.35, int(rng.integers(900)))
    ox, oy = rng.integers(0, 1024, 2)
    streak = sample(ridge_tile(2.6, 2.0), chest.x / 0.6 + np.float32(ox), chest.y / 0.6 + np.float32(oy))
    _fill(
        chest, zone * np.clip(0.8 + 0.5 * chest.grain(1.8, 0.6, int(rng.integers(900))), 0, 1.5), 0.16 + 0.14 * severity
    )
    chest.vessel += zone * (6 + 7 * severity) * np.maximum(streak, 0)
    return np.where(zone > 0.2, zone, 0)


def _pneumonia(chest: Chest, side: int, severity: float, rng: Random) -> Map:
    """Several merging spots within one lobe."""
    zone = chest.canvas.zeros()
    x, y = rng.uniform(50, 88), rng.uniform(-62, 62) - 0.5 * chest.pose.lift[side]
    for _ in range(int(4 + 4 * severity)):
        size = rng.uniform(12, 20) * (0.8 + 0.5 * severity)
        spot = _patch(
            chest, side, x + rng.normal(0, 16), y + rng.normal(0, 16), size, size, 0.45, int(rng.integers(900))
        )
        zone = zone + (1 - zone) * spot
    zone = chest.smooth(zone, 3.0) * chest.lungs[side]
    _fill(chest, zone, 0.45 + 0.25 * severity)
    return np.where(zone > 0.25, zone, 0)


def _consolidation(chest: Chest, side: int, severity: float, rng: Random) -> Map:
    """A dense part of a lobe, straight where a fissure ends it, with open bronchi."""
    upper = rng.random() < 0.45
    x, y = (rng.uniform(60, 84), rng.uniform(-72, -52)) if upper else (rng.uniform(56, 84), rng.uniform(30, 56))
    y -= 0.0 if upper else 0.7 * chest.pose.lift[side]
    size = (34 + 16 * severity, 32 + 16 * severity)
    zone = _patch(chest, side, x, y, *size, 0.25, int(rng.integers(900)))
    fissure = (-18 if upper else 6) + 0.10 * (np.abs(chest.x) - 60)
    beyond = fissure - chest.y if upper else chest.y - fissure
    zone *= np.clip(0.5 + beyond / 1.5, 0, 1)
    _fill(chest, zone, 0.72 + 0.2 * severity)
    tree = chest.canvas.zeros()
    for _ in range(5):
        angle = rng.uniform(-0.9, 0.9) + (-0.5 if upper else 0.5)
        start = np.array([x - 20, y + (14 if upper else -14)]) + rng.normal(0, 4, 2)
        step = np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(28, 48)
        chest.line(
            tree, (start + step * np.array([[0], [0.5], [1]]) + rng.normal(0, 1.5, (3, 2))) * (side, 1), 2.6, 6.5, 0.4
        )
    chest.soft -= np.minimum(tree, 7) * zone
    return np.where(zone > 0.3, zone, 0)


def _ball(chest: Chest, side: int, diameter: float, rough: float, rng: Random) -> Map:
    """A round opacity somewhere in the lung, away from its edge and from the heart."""
    radius = diameter / 2
    room = cv2.erode(
        ((chest.lungs[side] > 0.9) & (chest.heart < 0.1)).astype(np.uint8),
        cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * max(1, round(0.8 * radius / chest.canvas.step)) + 1,) * 2),
    )
    rows, columns = np.nonzero(room)
    if len(rows):
        at = int(rng.integers(len(rows)))
        x, y = float(chest.x[rows[at], columns[at]]), float(chest.y[rows[at], columns[at]])
    else:
        x, y = side * 78.0, 0.0
    angle = np.arctan2(chest.y - y, chest.x - x)
    phase = rng.uniform(0, 2 * np.pi, 4)
    lobes = sum(rough / (k + 1) * np.cos((k + 2) * angle + phase[k]) for k in range(4))
    distance = np.hypot(chest.x - x, chest.y - y) / (radius * (1 + lobes))
    thick = np.sqrt(np.maximum(1 - distance**2, 0))
    chest.soft += np.float32(0.78 * diameter) * thick
    return np.where(thick > 0, 1, 0)


def _nodule(chest: Chest, side: int, severity: float, rng: Random) -> Map:
    return _ball(chest, side, 12 + 16 * severity, 0.05, rng)


def _mass(chest: Chest, side: int, severity: float, rng: Random) -> Map:
    return _ball(chest, side, 34 + 32 * severity, 0.12, rng)


def _atelectasis(chest: Chest, side: int, severity: float, rng: Random) -> Map:
    """Plates above a raised diaphragm, and crowded vessels."""
    seen = chest.canvas.zeros()
    dome = base(side, chest.pose)
    fall, reach = rng.normal(0, 6), rng.uniform(46, 64)
    for number in range(1 + int(2.5 * severity)):
        y = dome[4, 1] - rng.uniform(7, 12) - 12 * number
        start, bend = rng.uniform(36, 52), rng.normal(0, 2)
        course = [(start, y + fall), (start + reach / 2, y + bend), (start + reach, y - fall)]
        for part, width in ((course, 2.2 + 1.6 * severity), (course[1:], 1.6 + 1.2 * severity)):
            chest.line(seen, np.array(part) * (side, 1), width, 0.6, 0.9)
    seen *= chest.lungs[side]
    chest.soft += (14 + 12 * severity) * seen
    near = np.exp(-(((chest.y - dome[4, 1]) / 26) ** 2)) * chest.lungs[side]
    _fill(chest, near, 0.18 + 0.25 * severity)
    return np.where(seen > 0.15, 1, 0)


def _effusion(chest: Chest, side: int, severity: float, rng: Random) -> Map:
    """Fluid that fills the angle and rises along the chest wall in a curve."""
    across = np.clip(chest.x * side / 132, 0, 1)
    height = 16 + 95 * severity**1.5
    level = base(side, chest.pose)[0, 1] - 10 - height * (0.42 + 0.58 * across**3.2)
    cover = np.clip(0.5 + (chest.y - level) / (3 + 8 * (1 - across)), 0, 1) * chest.lungs[side]
    _fill(chest, cover, 1.0)
    chest.soft += 4 * cover
    return np.where(cover > 0.5, 1, 0)


def _pleural(chest: Chest, side: int, severity: float, rng: Random) -> Map:
    """A rind along the chest wall, low or over the apex."""
    open_below = moved(chest.pose, lift=dict.fromkeys(SIDES, -90.0))  # the diaphragm has none
    mask = (chest.cover(outline(side, open_below)) > 0.5).astype(np.uint8)
    depth = depth_inside(np.pad(mask, 1), chest.canvas.step)[1:-1, 1:-1]
    upper = rng.random() < 0.4
    top, bottom = (-140.0, -40.0) if upper else (float(rng.uniform(-60, -10)), 118.0)
    outer = (chest.x * side > 62) | (chest.y < -88)
    thick = (5 + 8 * severity) * (1 + 0.22 * chest.grain(3.4, 0.5, int(rng.integers(900))))
    fade = np.clip((chest.y - top) / 22, 0, 1) * np.clip((bottom - chest.y) / 22, 0, 1)
    rind = np.clip((thick * fade - depth) / 1.6, 0, 1) * (fade > 0) * outer * chest.lungs[side]
    chest.soft += (20 + 14 * severity) * rind
    chest.vessel *= 1 - rind
    return np.where(rind > 0.3, 1, 0)


def _pneumothorax(chest: Chest, side: int, severity: float, rng: Random) -> Map:
    """The lung falls away from apex and wall: a fine line, and no vessels beyond it."""
    gap = 9 + 48 * severity
    edge = outline(side, chest.pose) * (side, 1)
    away = np.clip((60 - edge[:, 1]) / 130, 0, 1)  # falls away more the higher
    inward = np.stack([-(0.25 + 0.75 * away) * gap, 0.85 * gap * np.clip((-edge[:, 1] - 60) / 60, 0, 1)], -1)
    share = np.clip((edge[:, 0] - 26) / 30, 0, 1)[:, None] * (edge[:, 1] < 112)[:, None]
    rim = edge + inward * share
    rim = np.array(cv2.GaussianBlur(rim, (1, 0), sigmaX=0.1, sigmaY=4.0, borderType=cv2.BORDER_REPLICATE), float)
    rim[:, 0] = np.maximum(rim[:, 0], np.minimum(edge[:, 0], 24))
    lung = chest.cover(rim * (side, 1))
    free = np.clip(chest.lungs[side] - lung, 0, 1)
    chest.vessel *= 1 - free
    chest.air *= 1 + 0.20 * free
    _fill(chest, lung * chest.lungs[side], 0.06 + 0.22 * severity)
    chest.vessel *= 1 + 0.2 * lung * chest.lungs[side]
    line = chest.canvas.zeros()
    chest.canvas.stroke(line, chest.place(rim[(edge[:, 0] > 30) & (edge[:, 1] < 100)] * (side, 1)), 1.3, 9.0, soft=0.3)
    chest.soft += line * chest.lungs[side] * (1 - chest.heart)
    return np.where(free > 0.4, 1, 0)


def _hernia(chest: Chest, side: int, severity: float, rng: Random) -> Map:
    """A round shadow behind the heart with a level of fluid and gas above it."""
    x, y = rng.normal(8, 8), 78 - 0.7 * max(chest.pose.lift.values()) + rng.normal(0, 4)
    across, down = 24 + 22 * severity, 21 + 18 * severity
    ball = chest.blob(x, y, across, down)
    level = y - rng.uniform(-0.1, 0.25) * down
    chest.soft += (12 + 10 * severity) * np.minimum(2.0 * ball, 1) * (chest.y > level)
    chest.soft -= 42 * ball * (chest.y <= level)
    turn = np.linspace(0, 2 * np.pi, 24)
    chest.line(chest.soft, np.stack([x + across * np.cos(turn), y + down * np.sin(turn)], -1), 2.2, 6.5, 0.5)
    return np.where(ball > 0, 1, 0)


PAINTERS: dict[str, Callable[[Chest, int, float, Random], Map]] = {
    "cardiomegaly": _cardiomegaly,
    "emphysema": _emphysema,
    "fibrosis": _fibrosis,
    "edema": _edema,
    "infiltration": _infiltration,
    "pneumonia": _pneumonia,
    "consolidation": _consolidation,
    "nodule": _nodule,
    "mass": _mass,
    "atelectasis": _atelectasis,
    "hernia": _hernia,
    "pneumothorax": _pneumothorax,
    "effusion": _effusion,
    "pleural_thickening": _pleural,
}

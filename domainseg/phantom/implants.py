"""Metal: hip replacements, hip screws, nails and cannulated screws as thickness maps of steel in the femur's frame."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike

from domainseg.phantom.canvas import Map, fixed
from domainseg.phantom.femur import MEDIAL, PROXIMAL, Femur, Patch

IMPLANTS = ("total_hip", "hemi_hip", "sliding_screw", "nail", "screws")
#: Those that replace the head, and with it the native femoral neck.
REPLACEMENTS = IMPLANTS[:2]


class _Steel:
    def __init__(self, patch: Patch) -> None:
        self.patch = patch
        self.map = np.zeros(patch.shape, np.float32)

    def shape(self, points: ArrayLike, thickness: float) -> None:
        """A solid outline (u, v in mm), ``thickness`` mm of metal in the beam."""
        mask = np.zeros(self.patch.shape, np.uint8)
        pixels = np.add(points, (MEDIAL, PROXIMAL)) / self.patch.step
        cv2.fillPoly(mask, [fixed(pixels)], 255, cv2.LINE_AA, 4)
        np.maximum(self.map, mask * np.float32(thickness / 255), out=self.map)

    def rod(self, start: ArrayLike, end: ArrayLike, width: float, thickness: float, bore: float = 0.0) -> None:
        """A bar from start to end; with a bore along its middle."""
        a, b = np.asarray(start, float), np.asarray(end, float)
        side = np.array([a[1] - b[1], b[0] - a[0]]) / np.linalg.norm(b - a) * width / 2
        self.shape([a + side, b + side, b - side, a - side], thickness)
        if bore:
            inner = side * bore / width
            mask = np.zeros(self.patch.shape, np.uint8)
            pixels = np.add([a + inner, b + inner, b - inner, a - inner], (MEDIAL, PROXIMAL)) / self.patch.step
            cv2.fillPoly(mask, [fixed(pixels)], 255, cv2.LINE_AA, 4)
            self.map *= 1 - mask * np.float32(0.4 / 255)

    def thread(self, tip: ArrayLike, back: ArrayLike, length: float, width: float, thickness: float) -> None:
        """Screw thread of ``length`` mm from the tip backwards: teeth every 2.75 mm."""
        a, b = np.asarray(tip, float), np.asarray(back, float)
        along = (b - a) / np.linalg.norm(b - a)
        side = np.array([-along[1], along[0]]) * width / 2
        for place in np.arange(0.5, length, 2.75):
            c = a + along * place
            self.shape([c + side, c + along * 1.3 + side, c + along * 1.8 - side, c + along * 0.5 - side], thickness)


def draw(patch: Patch, femur: Femur, kind: str, rng: np.random.Generator) -> Map:
    """Thickness of metal in mm on the patch for one of ``IMPLANTS``."""
    steel = _Steel(patch)
    ju, jv = femur.junction
    k, r = femur.scale, femur.head * femur.scale
    reach = float(np.hypot(ju, jv))
    axis = np.array([ju, jv]) / reach
    across = np.array([axis[1], -axis[0]])
    turn = np.linspace(0, 2 * np.pi, 120)
    circle = np.stack([np.cos(turn), np.sin(turn)], -1)
    if kind in REPLACEMENTS:
        ball = circle * (0.62 * r if kind == "total_hip" else 0.99 * r)
        steel.shape(ball, 22.0)
        if kind == "total_hip":
            half = np.linspace(-0.16 * np.pi, 1.02 * np.pi, 60) + np.deg2rad(rng.uniform(-6, 10))
            outer = np.stack([-np.cos(half), -np.sin(half)], -1) * 1.10 * r
            shell = np.concatenate([outer, outer[::-1] * 0.86])
            steel.shape(shell, 7.0)
            if rng.random() < 0.4:
                steel.rod((-4, -0.95 * r), (-12 * k, -1.75 * r), 5.5 * k, 6.0)
        base = np.array([ju - 2 * k, jv - 2 * k])
        steel.rod(axis * 0.45 * r, base, 13 * k, 12.0)
        length = float(rng.uniform(95, 140)) * k
        body = [(ju + 12 * k, jv - 10 * k), (ju + 13 * k, jv + 6 * k), (ju + 6.5 * k, jv + 0.45 * length),
                (ju + 4.5 * k, jv + 0.95 * length), (ju + 1, jv + length), (ju - 4 * k, jv + 0.95 * length),
                (ju - 6 * k, jv + 0.45 * length), (ju - 15 * k, jv + 14 * k), (ju - 20 * k, jv + 1 * k)]  # fmt: skip
        steel.shape(body, 11.0)
    elif kind == "sliding_screw":
        tip = -axis * r * 0.62 + across * rng.uniform(-3, 3)
        exit_point = np.array([ju + 17 * k, jv + 17 * k])
        steel.rod(tip, exit_point, 8.5 * k, 8.0, bore=2.5 * k)
        steel.thread(tip, exit_point, 22 * k, 12.5 * k, 6.0)
        steel.rod(exit_point + (tip - exit_point) * 0.4, exit_point, 12.5 * k, 9.0)
        bottom = jv + 95 * k
        steel.shape(
            [(ju + 16 * k, jv + 8 * k), (ju + 22 * k, jv + 12 * k), (ju + 21.5 * k, bottom), (ju + 15.8 * k, bottom)],
            12.0,
        )
        for v in np.arange(jv + 36 * k, bottom - 4, 15 * k):
            steel.rod((ju + 22 * k, v), (ju - 17 * k, v), 4.3 * k, 4.0)
            steel.rod((ju + 23 * k, v), (ju + 19 * k, v), 8 * k, 7.0)
    elif kind == "nail":
        lean = 4 * k
        end = patch.v[-1, 0] + 5 if rng.random() < 0.3 else jv + 120 * k
        body = [(ju + lean + 8 * k, jv - 27 * k), (ju + lean - 7 * k, jv - 30 * k), (ju - 7.5 * k, jv + 30 * k),
                (ju - 5.5 * k, end), (ju + 5.5 * k, end), (ju + 7.5 * k, jv + 30 * k)]  # fmt: skip
        steel.shape(body, 11.0)
        tip = -axis * r * 0.6 + across * rng.uniform(-4, 2)
        back = np.array([ju + 24 * k, jv + 20 * k])
        steel.rod(tip, back, 10.5 * k, 9.0)
        steel.thread(tip, back, 20 * k, 13 * k, 5.0)
        v = jv + 100 * k
        steel.rod((ju + 21 * k, v), (ju - 18 * k, v), 5 * k, 5.0)
    else:
        for offset in rng.permutation([-9.0, 0.5, 9.0])[: int(rng.integers(2, 4))]:
            tip = -axis * r * rng.uniform(0.45, 0.7) + across * offset * k
            back = axis * (reach + 24 * k) + across * offset * k * 1.05
            steel.rod(tip, back, 6.0 * k, 5.5, bore=2.2 * k)
            steel.thread(tip, back, 16 * k, 8.5 * k, 5.0)
            steel.rod(back, back + axis * 5, 8 * k, 7.0)
    return np.asarray(cv2.GaussianBlur(steel.map, (0, 0), 0.5), np.float32)

"""Toy exams for the hemorrhage tasks: bright ellipses in grey noise."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainseg.imaging.hemorrhage import TYPES
from domainseg.tasks.hemorrhage_items import HU_ZERO, Exam

WINDOWS = [{"low": 0, "high": 80}, {"low": -20, "high": 200}]
STILL = {"rotate": 0, "shift": 0, "scale": 0, "flip": 0, "hu_shift": 0, "hu_scale": 0, "noise": 0, "blur": 0}
PLAIN: dict[str, float] = {**STILL, "rendering": 0, "drop": 0}


def volume(seed: int, blood: bool, size: int = 64, depth: int = 6) -> NDArray[np.uint16]:
    """uint16 [2, Z, H, W]: brain at 35 HU with noise; a blood ellipse of type 1 or 2 on three slices."""
    rng = np.random.default_rng(seed)
    voxels = rng.normal(35, 6, (depth, size, size))
    codes = np.zeros((depth, size, size), np.uint8)
    if blood:
        code = 1 + seed % 2
        first = int(rng.integers(depth - 2))
        middle = [int(value) for value in rng.integers(size // 4, 3 * size // 4, 2)]
        axes = (size // 8, size // 8) if code == 1 else (size // 5, size // 20)
        for plane in codes[first : first + 3]:
            cv2.ellipse(plane, middle, axes, 0, 0, 360, code, -1)
        voxels[codes > 0] += 30
    return np.stack([np.clip(voxels + HU_ZERO, 0, 4095), codes]).astype(np.uint16)


def exam(seed: int, blood: bool, **changes: Any) -> Exam:
    """An exam of ``volume``; ``changes`` are fields of Exam."""
    planes = volume(seed, blood)
    unknown = np.full((planes.shape[1], 6), np.nan)
    truth = {"hemorrhage": float(blood), **dict.fromkeys(TYPES, np.nan if blood else 0.0)}
    settings: dict[str, Any] = {"planes": lambda: planes, "truth": truth, "has_mask": True, "slices": unknown}
    return Exam(image=f"exam {seed}", part="head", **{**settings, **changes})


def exams(count: int = 12) -> list[Exam]:
    """Half of them with blood."""
    return [exam(seed, seed % 4 < 2) for seed in range(count)]

"""Random changes of training pictures that leave the answer as it is: the one place that imports albumentations.

Never a left-right flip: it would swap the sides. (A task that mirrors swaps its sides itself.)
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or it asks the network for a newer version on import
import albumentations as A


@dataclass(frozen=True)
class Augmented:
    """image: float32 [H, W] or [H, W, C] in 0..1. masks: bool [H, W] each. points: float64 [N, 2] as (x, y), or NaN."""

    image: NDArray[np.float32]
    masks: list[NDArray[np.bool_]]
    points: NDArray[np.float64]


class Augmenter:
    """Turn, shift, scale, expose, blur and add noise; what happens depends on (seed, epoch, index) only.

    rotate: degrees either way. shift: share of the side either way. scale: 0.1 = from 0.9 to 1.1 times.
    gamma: 0.2 = exponent from 0.8 to 1.2. brightness: added, either way, in units of the picture (0..1).
    contrast: 0.2 = from 0.8 to 1.2 times, about 0. blur: largest sigma in pixels.
    noise: largest standard deviation of the Gaussian noise, in units of the picture. fill: value beyond its edges.
    0 leaves an operation out. Turn, shift and scale come together, always; the others with probability 0.5 each.
    """

    def __init__(
        self,
        *,
        seed: int,
        rotate: float = 10.0,
        shift: float = 0.05,
        scale: float = 0.1,
        gamma: float = 0.2,
        brightness: float = 0.1,
        contrast: float = 0.2,
        blur: float = 1.0,
        noise: float = 0.02,
        fill: float = 0.0,
    ) -> None:
        self.seed = seed
        steps: list[A.BasicTransform] = []
        if moves := bool(rotate or shift or scale):
            moved = A.Affine(
                rotate=(-rotate, rotate),
                translate_percent=(-shift, shift),
                scale=(1 - scale, 1 + scale),
                keep_ratio=True,
                interpolation=cv2.INTER_LINEAR,
                mask_interpolation=cv2.INTER_LINEAR,
                fill=fill,
                p=1.0,
            )
            steps.append(moved)
        if gamma:
            steps.append(A.RandomGamma((100 * (1 - gamma), 100 * (1 + gamma)), p=0.5))
        if brightness or contrast:
            steps.append(
                A.RandomBrightnessContrast(
                    (-brightness, brightness), (-contrast, contrast), brightness_by_max=True, p=0.5
                )
            )
        if blur:
            steps.append(A.GaussianBlur(blur_limit=0, sigma_limit=(0.0, blur), p=0.5))
        if noise:
            steps.append(A.GaussNoise(std_range=(0.0, noise), p=0.5))
        points = A.KeypointParams("xy", remove_invisible=False) if moves else None
        self._compose = A.Compose(steps, keypoint_params=points)
        self._moves = moves

    def __call__(
        self,
        image: NDArray[np.float32],
        masks: Sequence[NDArray[np.bool_]] = (),
        points: ArrayLike = (),
        *,
        epoch: int,
        index: int,
    ) -> Augmented:
        """Change ``image`` and move masks (bool [H, W]) and points ([N, 2], pixels) with it.

        image: float32 [H, W] or [H, W, C] in 0..1.
        epoch, index: non-negative numbers that say which draw this is: same numbers, same result, whatever was drawn
        before and in whichever worker. Points may leave the picture; NaN stays NaN.
        """
        points = np.array(points, dtype=np.float64).reshape(-1, 2)
        known = np.isfinite(points).all(axis=1)
        # albumentations gives all its transforms one seed, which ties their draws together: each gets its own here
        for number, step in enumerate(self._compose.transforms):
            stream = np.random.default_rng((self.seed, epoch, index, number))
            step.set_random_state(stream, random.Random(int(stream.integers(2**63))))
        given: dict[str, Any] = {"image": np.ascontiguousarray(image, dtype=np.float32)}
        if self._moves:
            given["keypoints"] = points[known]
        if self._moves and len(masks):
            given["masks"] = np.stack(masks).astype(np.uint8) * np.uint8(255)
        result = self._compose(**given)
        changed = np.clip(result["image"], 0.0, 1.0).astype(np.float32, copy=False)
        if not self._moves:
            return Augmented(changed, [np.array(mask, dtype=bool) for mask in masks], points)
        points[known] = result["keypoints"]
        return Augmented(changed, [mask >= 128 for mask in result.get("masks", ())], points)

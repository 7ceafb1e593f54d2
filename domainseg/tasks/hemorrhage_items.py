"""Training samples for hemorrhage: slabs of exams, drawn, changed in HU and windowed, with what they show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from domainseg.cascade.volumes import neighbours, window
from domainseg.imaging.geometry import Affine
from domainseg.imaging.hemorrhage import TYPES, UNKNOWN
from domainseg.tasks.items import StepDataset

HU_ZERO = 1024  # of the stored planes
AIR = -1000.0
SHOWN = (-20.0, 100.0)  # HU that an exported brain-window picture keeps
GREYS = 255  # steps in which it keeps them
MOST = 24  # lesions of a slice that a detector learns from
Windows = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Exam:
    """One training exam of the hemorrhage stage, on the grid of its slabs.

    planes: gives uint16 [2, Z, H, W]: HU + 1024 in 0..4095, and codes (0 none, 1..5 = TYPES, 6 unknown type; all 0
        where has_mask is False).
    truth: hemorrhage and each type: 1, 0 or NaN. slices: float [Z, 6] (any, then the types): 1, 0 or NaN.
    rendering: the voxels are those of an exported picture, clipped to SHOWN.
    """

    image: str
    part: str
    planes: Callable[[], NDArray[np.uint16]]
    truth: Mapping[str, float]
    has_mask: bool
    slices: NDArray[np.float64]
    rendering: bool = False


class SlabDataset(StepDataset):
    """Slabs of ``slices`` slices: index runs over those slices of the exams of which it is known what they show.

    picture: float32 [windows * slices, H, W], as `cascade.volumes.windowed` orders it.
    codes: int64 [H, W] of the middle slice. outlined: 1.0 where the exam has masks, so that codes say something.
    presence: float32 [6], any hemorrhage and each type in the middle slice, NaN where unknown.

    augment: see `SlabAugmenter`. blood: whether each index shows hemorrhage.
    """

    def __init__(
        self, exams: Sequence[Exam], *, slices: int, windows: Windows, augment: Mapping[str, float], seed: int
    ) -> None:
        self.exams, self.slices, self.seed = exams, slices, seed
        self.augmenter = SlabAugmenter(windows, **augment)
        shown = [presence_of(exam) for exam in exams]
        self.places = [(number, z) for number, of in enumerate(shown) for z in np.flatnonzero(~np.isnan(of[:, 0]))]
        self.shown = shown
        self.blood = np.array([shown[number][z, 0] == 1 for number, z in self.places], dtype=bool)
        super().__init__([exams[number].image for number, _ in self.places])

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        draw, index = key
        number, z = self.places[index]
        exam = self.exams[number]
        planes = exam.planes()
        around = neighbours(planes.shape[1], self.slices)[z]
        rng = np.random.default_rng((self.seed, draw, index))
        picture, codes = self.augmenter(planes[0][around], planes[1][z], exam.rendering, rng)
        presence = slice_presence(codes) if exam.has_mask else self.shown[number][z]
        return {
            "picture": torch.from_numpy(picture),
            "codes": torch.from_numpy(codes.astype(np.int64)),
            "outlined": np.float32(exam.has_mask),
            "presence": torch.from_numpy(presence.astype(np.float32)),
        }

    def weights(self, positives: float) -> list[float]:
        """Sampling weights: ``positives`` of the draws show hemorrhage, the rest is drawn evenly.

        Of those, each type has the same share, each exam that shows it the same of that: so an epidural bleed is met as
        often as a bleed in the brain, and a small one as often as one that fills twenty slices (our choice). Slices of
        no known type go as one more type.
        """
        exam = np.array([number for number, _ in self.places])
        if not self.blood.any() or self.blood.all():
            return [1.0] * len(exam)
        types = np.array([self.shown[number][z, 1:] == 1 for number, z in self.places])
        each = np.zeros(len(exam))
        for own in (*types.T, self.blood & ~types.any(axis=1)):
            counts = np.bincount(exam[own], minlength=len(self.exams))
            each[own] += 1 / counts[exam[own]] / max((counts > 0).sum(), 1)
        rest = ~self.blood / (~self.blood).sum()
        return list(positives * each / each.sum() + (1 - positives) * rest)


class ExamDataset(StepDataset):
    """Whole exams of which is known whether they show hemorrhage, as ``count`` slabs spread over each.

    pictures: float32 [count, windows * slices, H, W]; each is changed by itself.
    truth: float32 [6], any hemorrhage and each type somewhere in the exam, NaN where unknown.
    """

    def __init__(
        self,
        exams: Sequence[Exam],
        *,
        count: int,
        slices: int,
        windows: Windows,
        augment: Mapping[str, float],
        seed: int,
    ) -> None:
        self.exams = [exam for exam in exams if not np.isnan(exam.truth["hemorrhage"])]
        self.count, self.slices, self.seed = count, slices, seed
        self.augmenter = SlabAugmenter(windows, **augment)
        super().__init__([exam.image for exam in self.exams])

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        draw, index = key
        exam = self.exams[index]
        planes = exam.planes()
        depth = planes.shape[1]
        around = neighbours(depth, self.slices)
        rng = np.random.default_rng((self.seed, draw, index, 1))
        where = ((np.arange(self.count) + rng.random(self.count)) * depth / self.count).astype(int)
        slabs = [self.augmenter(planes[0][around[z]], planes[1][z], exam.rendering, rng)[0] for z in where]
        truth = np.array([exam.truth[name] for name in ("hemorrhage", *TYPES)], np.float32)
        return {"pictures": torch.from_numpy(np.stack(slabs)), "truth": torch.from_numpy(truth)}


class LesionDataset(SlabDataset):
    """Slabs with the lesions of the middle slice beside: connected pixels of one type, of at least min_area pixels.

    boxes: float32 [MOST, 4] from edge to edge in pixels. types: int64 [MOST], 1..5, 0 where unknown, -1 where there is
    no further lesion. instances: int64 [H, W], 0 or 1 + the lesion's number.
    """

    def __init__(self, exams: Sequence[Exam], *, min_area: int, **settings: Any) -> None:
        super().__init__(exams, **settings)
        self.min_area = min_area

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        sample = super().__getitem__(key)
        boxes, types, instances = lesions_of(sample["codes"].numpy(), self.min_area)
        return {
            **sample,
            "boxes": torch.from_numpy(boxes),
            "types": torch.from_numpy(types),
            "instances": torch.from_numpy(instances),
        }


def lesions_of(
    codes: NDArray[np.int64], min_area: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Boxes, types and instances of codes [H, W] as `LesionDataset` gives them; the largest where there are more."""
    found = []
    for code in range(1, UNKNOWN + 1):
        count, parts, stats, _ = cv2.connectedComponentsWithStats((codes == code).astype(np.uint8), connectivity=8)
        for part in range(1, count):
            x, y, width, height, area = (int(value) for value in stats[part])
            if area >= min_area:
                found.append((area, [x, y, x + width, y + height], code % UNKNOWN, parts == part))
    found = sorted(found, key=lambda lesion: -lesion[0])[:MOST]
    boxes, types = np.zeros((MOST, 4), np.float32), np.full(MOST, -1, np.int64)
    instances = np.zeros(codes.shape, np.int64)
    for number, (_, box, code, pixels) in enumerate(found):
        boxes[number], types[number] = box, code
        instances[pixels] = 1 + number
    return boxes, types, instances


class SlabAugmenter:
    """Random changes of a slab: the same move for all its slices and codes, then exposure, noise, blur and windows.

    rotate: degrees either way. shift: share of the side either way. scale: 0.1 = from 0.9 to 1.1 times. flip: how
    likely a left-right flip is (no label here knows sides). hu_shift: HU added, either way. hu_scale: 0.1 = from 0.9 to
    1.1 times about 0 HU. noise: largest standard deviation in HU. blur: largest sigma in pixels.
    rendering: probability that the slab is shown as an exported 8-bit picture has it: clipped to SHOWN, in 255 steps.
    drop: probability that one window, any of them, is blank.
    Moves come together, always; noise and blur with probability 0.5 each.
    """

    def __init__(
        self,
        windows: Windows,
        *,
        rotate: float = 15.0,
        shift: float = 0.06,
        scale: float = 0.12,
        flip: float = 0.5,
        hu_shift: float = 3.0,
        hu_scale: float = 0.04,
        noise: float = 3.0,
        blur: float = 0.8,
        rendering: float = 0.2,
        drop: float = 0.1,
    ) -> None:
        self.windows = windows
        self.rotate, self.shift, self.scale, self.flip = rotate, shift, scale, flip
        self.hu_shift, self.hu_scale, self.noise, self.blur = hu_shift, hu_scale, noise, blur
        self.rendering, self.drop = rendering, drop

    def __call__(
        self, stored: NDArray[np.uint16], codes: NDArray[np.uint16], rendering: bool, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Stored slices [S, H, W], codes [H, W] of the middle one -> picture [windows * S, H, W] and codes, changed."""
        move = self._move(stored.shape[1:], rng)
        outside = SHOWN[0] if rendering else AIR
        slab = np.stack([_moved(plane, move, cv2.INTER_LINEAR, outside + HU_ZERO) for plane in stored])
        slab = slab.astype(np.float32) - np.float32(HU_ZERO)
        moved = _moved(codes.astype(np.uint8), move, cv2.INTER_NEAREST, 0)
        black, white = slab <= SHOWN[0], slab >= SHOWN[1]
        slab *= np.float32(1 + rng.uniform(-self.hu_scale, self.hu_scale))
        slab += np.float32(rng.uniform(-self.hu_shift, self.hu_shift))
        sigma = rng.uniform(0, self.blur) * (rng.random() < 0.5)
        if sigma > 0.1:
            slab = np.stack([cv2.GaussianBlur(plane, (0, 0), sigma) for plane in slab])
        noise = rng.uniform(0, self.noise) * (rng.random() < 0.5)
        if noise > 0.1:
            slab += np.float32(noise) * rng.standard_normal(slab.shape, np.float32)
        if rendering:  # beyond its window it does not know the voxels: there it stays black and white
            slab[black], slab[white] = SHOWN
        if rng.random() < self.rendering or rendering:
            slab = rendered(slab)
        blank = int(rng.integers(len(self.windows))) if rng.random() < self.drop else -1
        shown = [window(slab, low=float(w["low"]), high=float(w["high"])) for w in self.windows]
        return np.concatenate([part * (k != blank) for k, part in enumerate(shown)]).astype(np.float32), moved

    def _move(self, shape: Sequence[int], rng: np.random.Generator) -> Affine:
        """2x3 from the changed picture to the stored one, about its middle."""
        height, width = shape
        angle = np.deg2rad(rng.uniform(-self.rotate, self.rotate))
        size = 1 / (1 + rng.uniform(-self.scale, self.scale))
        turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        if rng.random() < self.flip:
            turn[:, 0] *= -1
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        shift = rng.uniform(-self.shift, self.shift, 2) * [width, height]
        return np.column_stack([turn, middle + shift - turn @ middle])


def rendered(voxels: NDArray[np.float32]) -> NDArray[np.float32]:
    """HU as an 8-bit brain-window picture keeps them."""
    low, high = SHOWN
    grey = np.round((np.clip(voxels, low, high) - low) * np.float32(GREYS / (high - low)))
    return np.asarray(grey * np.float32((high - low) / GREYS) + np.float32(low), np.float32)


def presence_of(exam: Exam) -> NDArray[np.float64]:
    """[Z, 6] what each slice shows (any, the types), NaN where unknown: from masks, from slices, or a negative exam."""
    if exam.has_mask:
        return np.stack([slice_presence(plane) for plane in exam.planes()[1]])
    known = np.array(exam.slices, dtype=float, copy=True)
    for column, name in enumerate(("hemorrhage", *TYPES)):
        if exam.truth.get(name, np.nan) == 0:
            known[:, column] = 0.0
    return known


def slice_presence(codes: NDArray[Any]) -> NDArray[np.float64]:
    """[6] what codes [H, W] show (any, the types); where some are of unknown type, a type not seen may be there too."""
    counts = np.bincount(codes.reshape(-1), minlength=UNKNOWN + 1)
    absent = np.nan if counts[UNKNOWN] else 0.0
    return np.array([float(counts[1:].any()), *np.where(counts[1 : len(TYPES) + 1] > 0, 1.0, absent)])


def _moved(plane: NDArray[Any], move: Affine, how: int, fill: float) -> NDArray[Any]:
    height, width = plane.shape
    return cv2.warpAffine(
        np.ascontiguousarray(plane),
        move,
        (width, height),
        flags=how | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )

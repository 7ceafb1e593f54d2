"""Bleeds painted into a real head CT without any: by type on its own anatomy, with its own noise, with exact masks.

Works on Hounsfield units and on brain-window pictures, in the HU that the window's ends stand for. What a bleed covers
is known to the voxel; how it looks is our choice, plainer than life.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from domainseg.imaging.hemorrhage import CODES
from domainseg.phantom.canvas import sample
from domainseg.phantom.heads.brain import Brain, smoothed
from domainseg.phantom.heads.shapes import tile

Field = NDArray[Any]  # float32
FLUID = 17.0  # HU, smoothed: below it lies fluid
DEEP, NEAR = 24.0, 26.0  # mm from the skull: ventricles lie deeper, sulci less deep
SMALLEST_ML = 0.1
RIM = 2.2  # mm from the skull that hold a share of bone, or the dura: they stay where they are
TRIES = 12  # places that are tried for a type before another is taken


@dataclass(frozen=True)
class Painted:
    """voxels: float32 [z, y, x] in HU. labels: uint8, CODES of TYPES. types: as painted."""

    voxels: Field
    labels: NDArray[np.uint8]
    types: tuple[str, ...]


def paint(
    rng: np.random.Generator, voxels: NDArray[np.int16], brain: Brain, kinds: tuple[str, ...], density: str
) -> Painted:
    """Paint bleeds of these types, in this order. One that finds no room (no fluid for a subarachnoid or
    intraventricular one) becomes intraparenchymal."""
    whole, drawn = voxels.astype(np.float32), np.zeros(voxels.shape, np.uint8)
    box, brain = brain.cut_out()
    values, labels = whole[box], drawn[box]
    done: list[str] = []
    for wanted in kinds:
        blood = float(rng.uniform(38, 49) if density == "subacute" else rng.uniform(57, 78))
        for attempt in range(TRIES):
            kind = wanted if attempt < TRIES - 4 else "intraparenchymal"
            cover, push = _cover(rng, brain, kind)
            own = (cover >= (0.35 if kind == "subarachnoid" else 0.5)) & (labels == 0)
            if own.sum() * brain.ml < SMALLEST_ML:
                continue
            before = values
            if push is not None:
                values, labels = _pushed(values, labels, brain, *push)
                own &= labels == 0
            grain = np.float32(0.9) * (values - smoothed(values, brain.mask, 0.9 / brain.spacing[0]))
            target = np.float32(blood) + np.float32(2.5) * _rough(rng, brain, 12.0) + np.clip(grain, -10, 10)
            values = values + (target - values) * cover * (labels == 0)
            if push is not None:
                rim = brain.mask & (brain.depth < RIM)
                values[rim] = np.maximum(values[rim], before[rim])
            labels[own] = CODES[kind]
            done.append(kind)
            break
    whole[box], drawn[box] = values, labels
    return Painted(whole, drawn, tuple(done))


def _cover(
    rng: np.random.Generator, brain: Brain, kind: str
) -> tuple[Field, tuple[NDArray[np.float32], float, float] | None]:
    """Coverage 0..1 by a bleed of a type at a place by chance; and its push: centre (x, y, z) mm, mm, reach in mm."""
    x, y, z = brain.grid()
    inside = brain.mask.astype(np.float32)
    ml = float(np.exp(rng.uniform(np.log(0.5), np.log(50))))
    if kind == "intraparenchymal":
        radius = float((3 * ml * 1000 / 4 / np.pi) ** (1 / 3))
        centre = _at(rng, brain, brain.mask & (brain.depth > min(6 + radius, 30)) & (brain.smooth > 22))
        stretch = np.exp(rng.normal(0, 0.18, 3))
        axes = radius * stretch / np.cbrt(np.prod(stretch))
        uneven = np.float32(min(0.16 * radius, 3)) * _rough(rng, brain, max(12, 1.6 * radius))
        flat = ((x - centre[0]) / axes[0]) ** 2 + ((y - centre[1]) / axes[1]) ** 2
        cover = np.zeros_like(inside)
        for share in (-1 / 3, 0, 1 / 3):  # a slice shows the mean of its thickness: small bleeds are pale
            r = np.sqrt(flat + ((z + np.float32(share * brain.spacing[2]) - centre[2]) / axes[2]) ** 2)
            cover += _edge((1 - r) * np.float32(radius) + uneven, 2.5) / 3
        return (cover * inside * (brain.smooth > 14)).astype(np.float32), None
    if kind in ("subdural", "epidural"):
        lens = kind == "epidural"
        centre = _at(rng, brain, brain.mask & (brain.depth < 2 * brain.spacing[0]) & (np.abs(x) > 25))
        r = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
        peak = float((6.2 if lens else 3.2) * ml ** (1 / 3) * rng.uniform(0.8, 1.15))
        # Of a lens and of a layer on a flat wall: ml = pi span^2 peak / 2, and about 0.6 for the layer.
        span = float(np.sqrt(ml * 1000 / np.pi / peak / (0.5 if lens else 0.6)))
        profile = np.clip(1 - (r / span) ** 2, 0, 1)
        thick = np.float32(peak) * (profile if lens else profile**0.6)
        same = np.broadcast_to(x * np.sign(centre[0]) > 2, brain.mask.shape)
        cover = _edge(thick - brain.depth, 1.5) * inside * same * (thick > 0.6)
        return cover.astype(np.float32), (centre, 0.6 * min(peak, 12.0), 0.5 * span)
    fluid = np.clip((np.float32(FLUID + 9) - brain.smooth) * np.float32(1 / 14), 0, 1) * inside
    if kind == "subarachnoid":
        fluid *= (brain.depth < NEAR) & (brain.depth > 0.8)
        centre = _at(rng, brain, fluid > 0.6)
        r = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
        reach = np.float32(rng.uniform(9, 30)) + 4 * _rough(rng, brain, 25.0)
        return (fluid * np.clip((reach - r) / 6 + 0.5, 0, 1)).astype(np.float32), None
    pieces, count = ndimage.label((brain.smooth < FLUID) & (brain.depth > DEEP))
    if not count:
        return np.zeros_like(inside), None
    sizes = np.bincount(pieces.ravel())[1:] * brain.ml
    chambers = np.isin(pieces, 1 + np.flatnonzero(sizes > 1.0))
    if not chambers.any():
        return np.zeros_like(inside), None
    if rng.random() < 0.65:  # it settles at the back
        low, high = np.percentile(np.nonzero(chambers)[1], [2, 98]) * brain.spacing[1]
        part = _edge(y - np.float32(high - rng.uniform(0.12, 0.4) * (high - low)))
    else:
        part = _edge(x * np.float32(rng.choice([-1, 1])) + 1)
    return (fluid * ndimage.binary_dilation(chambers, iterations=1) * part).astype(np.float32), None


def _edge(distance: Field, width: float = 1.0) -> Field:
    """Coverage 0..1 at a distance in mm inside an edge that is blurred over ``width`` mm."""
    return np.clip(distance / np.float32(width) + np.float32(0.5), 0, 1)


def _at(rng: np.random.Generator, brain: Brain, where: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The place (x from the midline, y, z in mm) of a voxel by chance, of those that are allowed or of the brain."""
    candidates = np.flatnonzero(where if where.any() else brain.mask)
    k, j, i = np.unravel_index(int(rng.choice(candidates)), brain.mask.shape)
    return np.array([i - brain.middle[k], j, k], np.float32) * np.array(brain.spacing, np.float32)


def _rough(rng: np.random.Generator, brain: Brain, length: float) -> Field:
    """Noise in space, mean 0, variance about 1, of waves of about ``length`` mm."""
    x, y, z = brain.grid()
    k = np.float32(40 / length)
    start = rng.uniform(0, 256, 4).astype(np.float32)
    found = []
    for n in range(len(z)):
        u, v = np.meshgrid(x[n, 0], y[0, :, 0])
        w = z[n, 0, 0] * k
        one = sample(tile(), u * k + np.float32(0.7) * w + start[0], v * k - np.float32(0.7) * w + start[1])
        two = sample(tile(), (v + np.float32(0.6) * u) * k + start[2], np.full_like(u, w + start[3]))
        found.append((one + two) * np.float32(0.7))
    return np.stack(found)


def _pushed(
    values: Field, labels: NDArray[np.uint8], brain: Brain, centre: NDArray[np.float32], push: float, reach: float
) -> tuple[Field, NDArray[np.uint8]]:
    """The volume with the brain pushed away from a place at the skull, in plane, most at that place.

    Bleeds that are there already move with the brain, and so do their labels. The rim along the skull stays; what comes
    from there is brain from RIM further in.
    """
    x, y, z = brain.grid()
    out, drawn = values.copy(), labels.copy()
    h, w = values.shape[1:]
    columns, rows = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    for k in range(len(values)):
        if not brain.mask[k].any():
            continue
        dy, dx = (np.mean(np.nonzero(brain.mask[k])[axis]) for axis in (0, 1))
        outward = np.array([centre[0] / brain.spacing[0] + brain.middle[k] - dx, centre[1] / brain.spacing[1] - dy])
        outward = outward / max(float(np.linalg.norm(outward)), 1e-6)
        inner = [np.float32(-2 * RIM / brain.spacing[0] * part) for part in outward]
        deeper = columns + inner[0], rows + inner[1]
        rim = brain.depth[k] < RIM
        source = np.where(rim, cv2.remap(values[k], *deeper, cv2.INTER_LINEAR), values[k])
        outward *= push / brain.spacing[0]
        r2 = (x[k] - centre[0]) ** 2 + (y[0] - centre[1]) ** 2 + (z[k] - centre[2]) ** 2
        # Nothing moves at the skull itself: bone stays where it is.
        fall = np.exp(-r2 / np.float32(2 * reach**2)) * brain.mask[k]
        there = columns + np.float32(outward[0]) * fall, rows + np.float32(outward[1]) * fall
        moved = cv2.remap(source, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        # What would come from the skull is brain of the mean density.
        moved = np.where(brain.mask[k] & (moved > 90), np.float32(32), moved)
        far = fall * np.float32(push / brain.spacing[0]) > 0.5  # pixels
        out[k] = np.where(brain.mask[k] & far, moved, values[k])
        if labels[k].any():
            labelled = np.where(rim, cv2.remap(labels[k], *deeper, cv2.INTER_NEAREST), labels[k])
            labelled = cv2.remap(labelled, *there, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
            drawn[k] = np.where(brain.mask[k] & far, labelled, labels[k])
    return out, drawn

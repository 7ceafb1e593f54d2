"""What may be a bleed: voxels that hang together, out of a dense map or out of boxes found slice by slice.

Slices are joined as two-dimensional pieces over neighbouring slices: of a dense map exactly as 26-connected components
(any common corner), of boxes where their masks overlap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
Mask = NDArray[np.bool_]

MOST = 64  # candidates of an exam, the strongest ones (our choice): a network that knows nothing gives thousands
STRONGEST = 16  # voxels whose mean logit is the strength of a candidate of a dense map (our choice): one may be noise
_EDGE = 1e-6  # probabilities of boxes nearer to 0 or 1 are moved here before a logit is taken


@dataclass(frozen=True)
class Candidate:
    """Voxels of the grid that may be one bleed.

    z, y, x: intp [n]. logit: raw, of its strongest part. types: float32 [n, 5], each voxel's share of the types.
    """

    z: NDArray[np.intp]
    y: NDArray[np.intp]
    x: NDArray[np.intp]
    logit: float
    types: Logits


def logit(probability: float) -> float:
    """Log-odds."""
    clipped = min(max(probability, _EDGE), 1 - _EDGE)
    return float(np.log(clipped / (1 - clipped)))


def softmax(logits: Logits) -> Logits:
    """Shares along the last axis."""
    share = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(share / share.sum(axis=-1, keepdims=True), np.float32)


def connected(mask: Mask) -> tuple[NDArray[np.int32], int]:
    """26-connected components of [Z, Y, X]: numbers from 1 on (0 outside), and how many there are."""
    labels = np.zeros(mask.shape, np.int32)
    total = 0
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        count, found = cv2.connectedComponents(mask[z].view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
        labels[z] = np.where(found > 0, found + total, 0)
        total += count - 1
    pairs = _touching(labels, total)
    joined = _joined(total + 1, pairs)
    return joined[labels].astype(np.int32, copy=False), int(joined.max(initial=0))


def _touching(labels: NDArray[np.int32], total: int) -> NDArray[np.int64]:
    """Pairs [m, 2] of pieces of neighbouring slices that share at least a corner."""
    found: list[NDArray[np.int64]] = []
    for below, above in pairwise(labels):
        if not (below.any() and above.any()):
            continue
        padded = np.pad(above, 1)
        rows, columns = np.nonzero(below)
        own = below[rows, columns].astype(np.int64)
        for dy in range(3):
            for dx in range(3):
                other = padded[rows + dy, columns + dx]
                met = other > 0
                found.append(np.unique(own[met] * (total + 1) + other[met]))
    pairs = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
    return np.stack([pairs // (total + 1), pairs % (total + 1)], axis=1)


def _joined(count: int, pairs: NDArray[np.int64]) -> NDArray[np.intp]:
    """Numbers [count] of groups from 1 on, in the order of their first member; 0 stays 0."""
    root = np.arange(count)

    def find(member: int) -> int:
        while root[member] != member:
            root[member] = root[root[member]]
            member = int(root[member])
        return member

    for one, other in pairs:
        low, high = sorted((find(int(one)), find(int(other))))
        root[high] = low
    roots = np.array([find(member) for member in range(count)], np.intp)
    return np.unique(roots, return_inverse=True)[1].astype(np.intp)


def dense_candidates(mask: Logits, level: float, outline: float, smallest: float) -> list[Candidate]:
    """Candidates of a dense map [Z, 6, H, W] (logits: any bleed, the types): see HemorrhageDetector for the numbers."""
    logits = mask[:, 0]
    labels, count = connected(logits >= logit(level))
    where = np.flatnonzero(labels)
    order = where[np.argsort(labels.ravel()[where], kind="stable")]
    sizes = np.bincount(labels.ravel()[where], minlength=count + 1)[1:]
    ends = np.cumsum(sizes)
    found = [order[ends[k] - sizes[k] : ends[k]] for k in np.flatnonzero(sizes >= smallest)]
    seeds = [(own, top(logits.ravel()[own])) for own in found]
    return _grown(mask, sorted(seeds, key=lambda seed: -seed[1])[:MOST], outline)


def peak(mask: Logits, z: int, outline: float) -> Candidate:
    """Where slice ``z`` of a dense map shows a bleed, if anywhere: of its STRONGEST voxels those about the highest."""
    plane = mask[z, 0].ravel()
    highest = np.argsort(-plane, kind="stable")[:STRONGEST]
    pieces, _ = connected(np.isin(np.arange(plane.size), highest).reshape(1, *mask.shape[2:]))
    own = z * plane.size + np.flatnonzero(pieces == pieces.ravel()[highest[0]])
    return _grown(mask, [(own, top(plane))], outline)[0]


def _grown(mask: Logits, seeds: list[tuple[NDArray[np.intp], float]], outline: float) -> list[Candidate]:
    """Candidates of seeds (places in the flat [Z, H, W], strength), strongest first, with all that they grow into."""
    logits = mask[:, 0].ravel()
    reach = mask[:, 0] >= logit(outline)
    for own, _ in seeds:
        reach.ravel()[own] = True
    regions, _ = connected(reach)
    where = np.flatnonzero(regions)
    numbers = regions.ravel()[where]
    found: dict[int, Candidate] = {}
    for own, strength in seeds:
        number = int(regions.ravel()[own[0]])
        if number not in found:  # of seeds that grow together the strongest one speaks
            region = where[numbers == number]
            inside = region[logits[region] >= logit(outline)]
            z, y, x = np.unravel_index(inside if len(inside) else region, regions.shape)
            found[number] = Candidate(z, y, x, strength, softmax(mask[z, 1:, y, x]))
    return list(found.values())


def top(logits: Logits) -> float:
    """The mean of the STRONGEST logits."""
    values = logits.ravel()
    if values.size > STRONGEST:
        values = np.partition(values, values.size - STRONGEST)[-STRONGEST:]
    return float(values.mean(dtype=np.float64))


@dataclass(frozen=True)
class _Part:
    """One box of one slice: its mask (bool [h, w] from row ``top`` and column ``left`` on), logit and types [5]."""

    z: int
    top: int
    left: int
    mask: Mask
    logit: float
    types: Logits


def box_candidates(
    outputs: Mapping[str, Logits], shape: tuple[int, int], level: float, outline: float, overlap: float
) -> list[Candidate]:
    """Candidates of boxes (see HemorrhageDetector), on pictures of ``shape``; dense outlines where there is a mask."""
    dense = outputs.get("mask")
    level = min(level, float(outputs["scores"].max(initial=0.0)))
    parts = [part for z in range(len(outputs["boxes"])) for part in _parts(outputs, z, shape, level, outline, overlap)]
    if not parts:
        return []
    groups = _joined(len(parts) + 1, np.array(_linked(parts), np.int64).reshape(-1, 2) + 1)[1:]
    found = []
    for group in np.unique(groups):
        members = [part for part, number in zip(parts, groups, strict=True) if number == group]
        found.append(_outlined(members, dense, shape, outline))
    return sorted(found, key=lambda one: -one.logit)[:MOST]


def _parts(
    outputs: Mapping[str, Logits], z: int, shape: tuple[int, int], level: float, outline: float, overlap: float
) -> list[_Part]:
    """The boxes of a slice from ``level`` on, strongest first, after non-maximum suppression at IoU ``overlap``."""
    scores, boxes = outputs["scores"][z], outputs["boxes"][z].astype(np.float64)
    kept: list[int] = []
    for k in np.argsort(-scores, kind="stable"):
        x0, y0, x1, y1 = boxes[k]
        if scores[k] < max(level, _EDGE) or x1 - x0 < 1 or y1 - y0 < 1:
            continue
        if all(_iou(boxes[k], boxes[other]) <= overlap for other in kept):
            kept.append(int(k))
    parts = []
    for k in kept:
        x0, y0, x1, y1 = boxes[k]
        left, first = max(0, int(np.floor(x0))), max(0, int(np.floor(y0)))
        right, last = min(shape[1], int(np.ceil(x1))), min(shape[0], int(np.ceil(y1)))
        if right <= left or last <= first:
            continue
        small = outputs["masks"][z, k]
        # From pixels of the picture to those of the box's mask: both cover the box from edge to edge.
        sx, sy = small.shape[1] / (x1 - x0), small.shape[0] / (y1 - y0)
        affine = np.array([[sx, 0, (left + 0.5 - x0) * sx - 0.5], [0, sy, (first + 0.5 - y0) * sy - 0.5]])
        pasted = cv2.warpAffine(
            small,
            affine,
            (right - left, last - first),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        inside = pasted >= logit(outline)
        if not inside.any():  # a box that outlines nothing still says where
            inside = pasted >= pasted.max()
        parts.append(_Part(z, first, left, inside, logit(float(scores[k])), softmax(outputs["types"][z, k])))
    return parts


def _iou(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    common = float(np.prod(np.clip(high - low, 0, None)))
    return common / max(float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - common, 1e-9)


def _linked(parts: list[_Part]) -> list[tuple[int, int]]:
    """Pairs of parts of one slice or of neighbouring slices whose masks overlap by a tenth of the smaller one."""
    pairs = []
    for one, a in enumerate(parts):
        for other in range(one + 1, len(parts)):
            b = parts[other]
            if b.z > a.z + 1:
                break
            first, last = max(a.top, b.top), min(a.top + a.mask.shape[0], b.top + b.mask.shape[0])
            left, right = max(a.left, b.left), min(a.left + a.mask.shape[1], b.left + b.mask.shape[1])
            if last <= first or right <= left:
                continue
            common = (
                a.mask[first - a.top : last - a.top, left - a.left : right - a.left]
                & b.mask[first - b.top : last - b.top, left - b.left : right - b.left]
            )
            if int(common.sum()) * 10 >= min(int(a.mask.sum()), int(b.mask.sum())):
                pairs.append((one, other))
    return pairs


def disjoint(candidates: list[Candidate]) -> list[Candidate]:
    """Candidates, strongest first, with each voxel in one only: the strongest that has it.

    One of which stronger ones have most is the same bleed found twice: the rest of it goes to the one that has most.
    """
    if not candidates:
        return []
    owner = np.zeros([1 + max(int(getattr(one, axis).max()) for one in candidates) for axis in "zyx"], np.intp)
    kept: list[Candidate] = []
    for one in candidates:
        holders = owner[one.z, one.y, one.x]
        free = holders == 0
        rest = replace(one, z=one.z[free], y=one.y[free], x=one.x[free], types=one.types[free])
        if 2 * int(free.sum()) >= len(free):
            kept.append(rest)
            number = len(kept)
        else:
            number = int(np.bincount(holders[~free]).argmax())
            kept[number - 1] = _joint(kept[number - 1], rest)
        owner[rest.z, rest.y, rest.x] = number
    return kept


def _joint(one: Candidate, rest: Candidate) -> Candidate:
    """A candidate with the voxels of another."""
    z, y, x, types = (np.concatenate([getattr(one, name), getattr(rest, name)]) for name in ("z", "y", "x", "types"))
    return replace(one, z=z, y=y, x=x, types=types)


def _outlined(members: list[_Part], dense: Logits | None, shape: tuple[int, int], outline: float) -> Candidate:
    """The candidate of linked parts: in each slice the dense map's outline inside the boxes, or the boxes' masks."""
    low = min(part.z for part in members)
    depth = max(part.z for part in members) - low + 1
    inside = np.zeros((depth, *shape), bool)
    boxed = np.zeros((depth, *shape), bool)
    weights, sums = np.zeros((depth, 5)), np.zeros(5)
    for part in members:
        height, width = part.mask.shape
        rows, columns = slice(part.top, part.top + height), slice(part.left, part.left + width)
        inside[part.z - low, rows, columns] |= part.mask
        boxed[part.z - low, rows, columns] = True
        weight = part.types * float(part.mask.sum()) * float(1 / (1 + np.exp(-part.logit)))
        weights[part.z - low] += weight
        sums += weight
    if dense is not None:
        drawn = boxed & (dense[low : low + depth, 0] >= logit(outline))
        has = drawn.any(axis=(1, 2))
        inside[has] = drawn[has]
    z, y, x = np.nonzero(inside)
    if dense is not None:
        types = softmax(dense[z + low, 1:, y, x])
    else:
        known = weights.sum(axis=1, keepdims=True) > 0
        per_slice = np.where(known, weights, sums)
        types = (per_slice / per_slice.sum(axis=1, keepdims=True)).astype(np.float32)[z]
    return Candidate(z + low, y, x, max(part.logit for part in members), types)

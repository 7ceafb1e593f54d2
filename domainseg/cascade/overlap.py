"""How a prediction lies on the truth: Dice, surface distance, and which lesion is which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.cascade.candidates import connected
from domainseg.cascade.head_box import FIELD, SLICE
from domainseg.cascade.lesions import divided, names
from domainseg.imaging.geometry import Affine
from domainseg.imaging.hemorrhage import MIMICS
from domainseg.imaging.volume import Volume

SPECK = 0.1  # ml; a smaller piece is a part of the nearest larger one (our choice): blood in sulci is in many pieces
_SURFACE = 20_000  # voxels of a surface that are measured, drawn once from larger ones
SHARED = 0.1  # of either lesion that must be the other's, too, for them to be the same (our choice)

Mask = NDArray[np.bool_]


def dice(one: Mask, other: Mask) -> float:
    """Twice what both have over what each has; NaN where neither has anything."""
    total = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
    return 2 * int(np.count_nonzero(one & other)) / total if total else np.nan


def surface_mm(one: Mask, other: Mask, affine: Affine | None) -> float:
    """Mean symmetric surface distance in millimetres between [z, y, x]; NaN unless both have voxels and a place.

    Surfaces are the voxels with a neighbour (by a face) outside; each one's distance to the nearest of the other
    surface counts once, both ways together (of larger surfaces a sample). Places are those of the patient, also where
    the gantry was tilted.
    """
    from scipy.spatial import KDTree

    if affine is None or not one.any() or not other.any():
        return np.nan
    a, b = (_surface(mask) @ affine[:3, :3].T for mask in (one, other))
    there, back = (float(np.mean(KDTree(to).query(_sample(of))[0])) for of, to in ((a, b), (b, a)))
    return (there * len(a) + back * len(b)) / (len(a) + len(b))


def _sample(points: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(points) <= _SURFACE:
        return points
    return points[np.random.default_rng(0).choice(len(points), _SURFACE, replace=False)]


def _surface(mask: Mask) -> NDArray[np.float64]:
    """(x, y, z) [n, 3] of the voxels at the surface."""
    z, y, x = _box(mask)
    small = np.pad(mask[z, y, x], 1)
    inner = small[1:-1, 1:-1, 1:-1].copy()
    for axis in range(3):
        for shift in (-1, 1):
            inner &= np.roll(small, shift, axis=axis)[1:-1, 1:-1, 1:-1]
    whole = np.argwhere(small[1:-1, 1:-1, 1:-1] & ~inner) + np.array([z.start, y.start, x.start])
    return np.asarray(whole[:, ::-1], np.float64)


def _box(mask: Mask) -> tuple[slice, slice, slice]:
    """Where anything is, which must be somewhere."""
    z = np.flatnonzero(mask.any(axis=(1, 2)))
    plane: Mask = np.any(mask, axis=0)
    y, x = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    return slice(z[0], z[-1] + 1), slice(y[0], y[-1] + 1), slice(x[0], x[-1] + 1)


@dataclass(frozen=True)
class TrueLesion:
    """A lesion of the truth: its type ("" unknown), and its voxels in the volume as intp [n] each."""

    type: str
    z: NDArray[np.intp]
    y: NDArray[np.intp]
    x: NDArray[np.intp]


def true_lesions(labels: NDArray[np.uint8], volume: Volume | None = None) -> list[TrueLesion]:
    """The lesions of the truth [z, y, x]: 26-connected components, divided into types as predicted ones are.

    volume: whose voxels they are, to tell specks; without one every component is a lesion.
    """
    if not labels.any():
        return []
    box = _box(labels > 0)
    small = labels[box]
    pieces, count = connected(small > 0)
    if volume is not None:
        pieces = _with_specks(pieces, count, volume)
    where = np.flatnonzero(pieces)
    order = where[np.argsort(pieces.ravel()[where], kind="stable")]
    ends = np.cumsum(np.bincount(pieces.ravel()[where], minlength=count + 1))
    found = []
    for number in range(1, count + 1):
        own = order[ends[number - 1] : ends[number]]
        typed = divided(small.ravel()[own]) if len(own) else np.zeros(0, np.uint8)
        for name, code in names(typed):
            z, y, x = np.unravel_index(own[typed == code], small.shape)
            found.append(TrueLesion(name, z + box[0].start, y + box[1].start, x + box[2].start))
    return found


def _with_specks(pieces: NDArray[np.int32], count: int, volume: Volume) -> NDArray[np.int32]:
    """The pieces with each speck given the number of the nearest larger one, or of the largest speck."""
    from scipy.spatial import KDTree

    sx, sy, sz = volume.spacing or (FIELD / max(volume.shape[1:]), FIELD / max(volume.shape[1:]), SLICE)
    sizes = np.bincount(pieces[pieces > 0], minlength=count + 1)
    large = sizes * sx * sy * sz / 1000 >= SPECK
    if not large.any():
        large[int(np.argmax(sizes))] = True
    places = np.argwhere(pieces > 0)
    numbers = pieces[pieces > 0]
    millimetres = places * np.array([sz, sy, sx])
    is_large = large[numbers]
    if is_large.all():
        return pieces
    nearest = KDTree(millimetres[is_large]).query(millimetres[~is_large])
    owners = numbers[is_large][nearest[1]]
    joined = np.arange(count + 1, dtype=np.int32)
    # A speck goes to whom the closest of its voxels is close to.
    for k in np.argsort(-nearest[0], kind="stable"):
        joined[numbers[~is_large][k]] = owners[k]
    return np.asarray(joined[pieces], np.int32)


def matches(predicted: NDArray[Any], lesions: list[TrueLesion]) -> list[list[int]]:
    """For each true lesion the numbers of the predicted lesions [z, y, x] that it is: SHARED of either overlaps."""
    sizes = np.bincount(predicted[predicted > 0])
    found = []
    for lesion in lesions:
        met = np.bincount(predicted[lesion.z, lesion.y, lesion.x])
        numbers = [number for number in np.flatnonzero(met) if number]
        found.append([int(n) for n in numbers if met[n] >= SHARED * min(int(sizes[n]), len(lesion.z))])
    return found


def resembled(predicted: NDArray[Any], mimics: NDArray[np.uint8]) -> dict[int, str]:
    """The kind of look-alike (MIMICS) at each predicted lesion [z, y, x] that lies on one, by the rule of matches."""
    both = (predicted > 0) & (mimics > 0)
    sizes, of_kind = np.bincount(predicted[predicted > 0]), np.bincount(mimics[mimics > 0])
    pairs, counts = np.unique(predicted[both].astype(np.int64) * 256 + mimics[both], return_counts=True)
    found: dict[int, tuple[int, int]] = {}
    for pair, common in zip(pairs.tolist(), counts.tolist(), strict=True):
        number, kind = divmod(pair, 256)
        if common >= SHARED * min(int(sizes[number]), int(of_kind[kind])):
            found[number] = max(found.get(number, (0, 0)), (common, kind))
    return {number: MIMICS[kind - 1] for number, (_, kind) in found.items()}

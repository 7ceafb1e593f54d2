"""A lens or a crescent: how thick a bleed along the skull is for its size tells an epidural from a subdural one.

Our method, beside what the network says: a network that met few epidural bleeds takes the one for the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from domainseg.cascade.candidates import Candidate, connected
from domainseg.imaging.hemorrhage import CODES

SMALL = 50  # voxels, about half a millilitre, of which a piece has a shape (our choice)
_SUBDURAL, _EPIDURAL = CODES["subdural"], CODES["epidural"]

Places = NDArray[np.intp]


def thickness(z: Places, y: Places, x: Places) -> float:
    """Log of the largest distance to the edge within a slice, in pixels, over the cube root of the voxels' number."""
    top, left = y.min() - 1, x.min() - 1
    mask = np.zeros((int(y.max() - top) + 2, int(x.max() - left) + 2), np.uint8)
    deepest = 0.0
    for place in np.unique(z):
        own = z == place
        mask[:] = 0
        mask[y[own] - top, x[own] - left] = 1
        deepest = max(deepest, float(cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).max()))
    return float(np.log(deepest) - np.log(len(z)) / 3)


def fit_lens(grids: Iterable[NDArray[np.unsignedinteger]]) -> tuple[float, float]:
    """Offset and slope over ``thickness`` of the log-odds of epidural against subdural, both taken to be as frequent.

    grids: codes [Z, H, W] of masks. (0, 0), which says nothing, with fewer than three pieces of either type.
    """
    shapes: dict[int, list[float]] = {_SUBDURAL: [], _EPIDURAL: []}
    for codes in grids:
        for code, found in shapes.items():
            pieces, count = connected(codes == code) if (codes == code).any() else (codes, 0)
            for number in range(1, count + 1):
                z, y, x = np.nonzero(pieces == number)
                if len(z) >= SMALL:
                    found.append(thickness(z, y, x))
    if min(len(found) for found in shapes.values()) < 3:
        return 0.0, 0.0
    from sklearn.linear_model import LogisticRegression  # late: slow to import

    values = np.array([*shapes[_SUBDURAL], *shapes[_EPIDURAL]])
    labels = np.repeat([0, 1], [len(shapes[_SUBDURAL]), len(shapes[_EPIDURAL])])
    middle, spread = float(values.mean()), max(float(values.std()), 1e-6)
    model = LogisticRegression(class_weight="balanced").fit((values - middle)[:, None] / spread, labels)
    slope = float(model.coef_[0, 0]) / spread
    return float(model.intercept_[0]) - slope * middle, slope


def with_shape(one: Candidate, offset: float, slope: float) -> Candidate:
    """A candidate whose share of epidural and subdural together is divided by its shape and by the network's mean."""
    along = one.types[:, _SUBDURAL - 1] + one.types[:, _EPIDURAL - 1]
    own = along >= 0.5
    if own.sum() < SMALL:
        return one
    subdural, epidural = (float(one.types[own, code - 1].mean()) for code in (_SUBDURAL, _EPIDURAL))
    odds = np.log(max(epidural, 1e-6) / max(subdural, 1e-6))
    odds += offset + slope * thickness(one.z[own], one.y[own], one.x[own])
    lens = 1 / (1 + np.exp(-odds))
    types = one.types.copy()
    types[:, _EPIDURAL - 1], types[:, _SUBDURAL - 1] = along * lens, along * (1 - lens)
    return replace(one, types=types)

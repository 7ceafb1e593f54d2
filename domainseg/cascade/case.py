"""What travels through a cascade: a case that goes on, or an exclusion that says why it stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.imaging.film import Film
from domainseg.imaging.geometry import Affine, inverse, transform, warp
from domainseg.imaging.volume import Volume


@dataclass(frozen=True)
class Case:
    """One picture on its way through the stages; its key is (image, part).

    film: the film or the volume as read.
    affine: from the frame at hand to the source as read: 3x3 between pixels of films, 4x4 between voxels (x, y, z) of
        volumes. shape: of that frame, height and width, with the depth before them in volumes.
    part: "" until a stage names it: hip_left or hip_right as in the upright picture, head.
    values: columns of the prediction table that the stages have filled so far.
    lesions: rows of the lesion table, without image and part.
    arrays: what overlays and masks are made of, by name; never in a table.
    """

    image: str
    film: Film | Volume
    affine: Affine
    shape: tuple[int, ...]
    part: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    lesions: Sequence[Mapping[str, Any]] = ()
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, image: str, film: Film | Volume) -> Case:
        """The case of a whole film or volume as read."""
        return cls(image=image, film=film, affine=film.geometry, shape=film.shape)

    def with_values(self, **values: Any) -> Case:
        """The same case with more columns filled."""
        return replace(self, values={**self.values, **values})

    def sample(self, affine: Affine, shape: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Film pixels float32 [shape] in 0..1, and where they are valid; ``affine`` maps the frame to the source."""
        assert isinstance(self.film, Film)
        to_array = inverse(self.film.geometry) @ affine
        pixels = warp(self.film.pixels, to_array, shape)
        if self.film.valid is None or self.film.valid.all():
            inside = _inside(to_array, shape, self.film.shape)
        else:
            inside = warp(self.film.valid, to_array, shape)
        return pixels.astype(np.float32, copy=False), inside


@dataclass(frozen=True)
class Exclusion:
    """A case that a stage took out: which stage, why in machine-readable form, and the columns filled until then."""

    image: str
    part: str
    excluded_by: str
    reason: str
    values: Mapping[str, Any] = field(default_factory=dict)


def roi_corners(hip: Case) -> NDArray[np.float64]:
    """The corners of a case's frame, [4, 2] in source pixels, in order around it."""
    height, width = hip.shape
    corners = [[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5], [-0.5, height - 0.5]]
    return transform(hip.affine, corners)


def _inside(affine: Affine, shape: tuple[int, int], limits: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pixels of a frame lie within a picture of ``limits`` (height, width)."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    inside = np.ones(shape, dtype=bool)
    for (along_x, along_y, start), limit in zip(affine[:2], (limits[1], limits[0]), strict=True):
        # Without shear a coordinate depends on x or on y alone: one row or one column of it says all.
        place = start + (along_x * x if along_x else 0) + (along_y * y if along_y else 0)
        inside &= (place >= -0.5) & (place <= limit - 0.5)
    return inside

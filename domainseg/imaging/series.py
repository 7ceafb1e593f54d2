"""A folder of DICOM files to one CT volume: which series, in which order, in Hounsfield units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainseg.imaging.axes import axes_of, stored_view, turned_affine, turned_shape
from domainseg.imaging.choice import choose, is_enhanced
from domainseg.imaging.dicom import Refusal
from domainseg.imaging.frames import Frames, frames_of
from domainseg.imaging.hounsfield import Hounsfield, check_voxels
from domainseg.imaging.radiographs import DATES, METADATA, first_date
from domainseg.imaging.slices import Image, Slice, headers, slice_of
from domainseg.imaging.stack import Stack, stacked
from domainseg.imaging.volume import Volume


def read_series(files: Sequence[Path], max_voxels: int | None) -> Volume:
    """Read the most suitable CT series of some DICOM files; raises Refusal."""
    images, beside = headers(files)
    chosen, notes = choose(images, beside)
    slices = _slices(chosen)
    stack = stacked(slices)
    first = slices[0]
    check_voxels(stack.depth, first.rows, first.columns, max_voxels)
    shape = (stack.depth, first.rows, first.columns)
    axes = axes_of(stack.affine)
    if axes[2][0] != 2 and not stack.even:
        raise Refusal("its slices are not axial and unevenly spaced: export the axial series")
    affine = turned_affine(stack.affine, shape, axes)
    voxels = np.empty(turned_shape(shape, axes), np.int16)
    dropped = _fill(stored_view(voxels, axes), stack)
    if dropped:
        notes.append(f"{dropped} slices that are there twice, alike, are read once")
    source = len(stack.slices)
    places = stack.places if axes[2][0] == 2 else np.arange(shape[2 - axes[2][0]], dtype=np.float64)
    return Volume(
        voxels=voxels,
        affine=affine,
        source_shape=(source, first.rows, first.columns),
        source_axes=axes,
        source_z=places if axes[2][1] > 0 else voxels.shape[0] - 1 - places,
        files=tuple(dict.fromkeys(group[0].file for group in stack.slices)),
        notes=(*notes, *stack.notes),
        metadata=_metadata(chosen, stack),
    )


def _slices(chosen: Sequence[Image]) -> list[Slice]:
    if not is_enhanced(chosen):
        return [slice_of(image) for image in chosen]
    if len(chosen) > 1:
        raise Refusal("its CT series is spread over several multi-frame files: export it as single frames")
    return frames_of(chosen[0])


def _fill(view: NDArray[np.int16], stack: Stack) -> int:
    """Read slice by slice into the view [k, j, i]; returns how many were there twice."""
    frames, counted = Frames(), Hounsfield()
    dropped = 0
    below: NDArray[np.int16] | None = None
    for at, group in enumerate(stack.slices):
        hu = _one(frames, counted, group)
        dropped += len(group) - 1
        place = stack.places[at]
        if below is not None:
            start = stack.places[at - 1]
            for k in range(int(np.floor(start)) + 1, int(np.ceil(place))):
                share = np.float32((k - start) / (place - start))
                view[k] = np.rint(below * (1 - share) + hu * share)
        if place == np.rint(place):
            view[int(place)] = hu
        below = hu
    if stack.depth - 1 > stack.places[-1]:
        view[stack.depth - 1] = hu
    counted.check()
    return dropped


def _one(frames: Frames, counted: Hounsfield, group: Sequence[Slice]) -> NDArray[np.int16]:
    """HU of the slices at one place, which must be the same picture."""
    hu, valid = frames.hounsfield(group[0])
    for other in group[1:]:
        if not np.array_equal(frames.hounsfield(other)[0], hu):
            raise Refusal("holds two different slices at one place: two acquisitions in one series; export one of them")
    return counted.clamped(hu, valid)


def _metadata(chosen: Sequence[Image], stack: Stack) -> dict[str, str]:
    values = chosen[0].values
    found = {name: values.get(keyword, "").split("\\")[0][:64] for name, keyword in METADATA.items()}
    found["modality"] = "CT"
    found["date"] = first_date(values.get(keyword, "") for keyword in DATES)
    found["kernel"] = values.get("ConvolutionKernel", "").split("\\")[0][:64]
    for name, keyword in (("kvp", "KVP"), ("tilt", "GantryDetectorTilt")):
        if (value := chosen[0].number(keyword)) is not None:
            found[name] = f"{value:g}"
    thick = sorted({group[0].thickness for group in stack.slices} - {0.0})
    found["thickness"] = " to ".join(f"{value:g}" for value in dict.fromkeys((*thick[:1], *thick[-1:])))
    return {name: value for name, value in found.items() if value}

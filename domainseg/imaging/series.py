"""A folder of DICOM files to one CT volume: which series, in which order, in Hounsfield units."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainseg.imaging.axes import axes_of, stored_view, turned_affine, turned_shape
from domainseg.imaging.dicom import NotCt, Refusal
from domainseg.imaging.frames import Frames, frames_of
from domainseg.imaging.hounsfield import Hounsfield, check_voxels
from domainseg.imaging.radiographs import DATES, METADATA, first_date
from domainseg.imaging.slices import ENHANCED_CLASS, LEFT_OUT, Image, Slice, headers, left_out, of_head, slice_of
from domainseg.imaging.stack import FEWEST, Stack, stacked
from domainseg.imaging.volume import Volume

_THICKNESS = (2.5, 5.0)  # mm: slices of this thickness are preferred
_THIN = 2.0  # mm: series that are not axial are read when their slices are no thicker
_AXIAL = 0.7  # least cosine between the normal and the patient's long axis


def read_series(files: Sequence[Path], max_voxels: int | None) -> Volume:
    """Read the most suitable CT series of some DICOM files; raises Refusal."""
    images, beside = headers(files)
    chosen, notes = _choose(images, beside)
    slices = _slices(chosen)
    stack = stacked(slices)
    first = slices[0]
    check_voxels(stack.depth, first.rows, first.columns, max_voxels)
    shape = (stack.depth, first.rows, first.columns)
    axes = axes_of(stack.affine)
    if axes[2][0] != 2 and not stack.even:
        raise Refusal("its slices are not axial and unevenly spaced: export the axial series")
    voxels = np.empty(turned_shape(shape, axes), np.int16)
    dropped = _fill(stored_view(voxels, axes), stack)
    if dropped:
        notes.append(f"{dropped} slices that are there twice, alike, are read once")
    source = len(stack.slices)
    places = stack.places if axes[2][0] == 2 else np.arange(shape[2 - axes[2][0]], dtype=np.float64)
    return Volume(
        voxels=voxels,
        affine=turned_affine(stack.affine, shape, axes),
        source_shape=(source, first.rows, first.columns),
        source_axes=axes,
        source_z=places if axes[2][1] > 0 else voxels.shape[0] - 1 - places,
        files=tuple(group[0].file for group in stack.slices),
        notes=(*notes, *stack.notes),
        metadata=_metadata(chosen, stack),
    )


def _choose(images: Sequence[Image], beside: int) -> tuple[list[Image], list[str]]:
    """The images of the chosen series, and what is to be told of the choice."""
    if not images:
        raise Refusal(f"holds no DICOM file ({beside} other files)" if beside else "is empty")
    for keyword, what in (("PatientID", "patients"), ("StudyInstanceUID", "exams")):
        if (count := len({image.values[keyword] for image in images if keyword in image.values})) > 1:
            raise Refusal(f"holds files of {count} {what}: give each a folder of its own")
    reasons: Counter[str] = Counter()
    series: dict[tuple[str, str], list[Image]] = defaultdict(list)
    for image in images:
        if reason := left_out(image):
            reasons[reason] += 1
        else:
            series[image.values.get("SeriesInstanceUID", ""), image.values.get("ConvolutionKernel", "")].append(image)
    told = [f"{LEFT_OUT[reason]} ({reasons[reason]})" for reason in LEFT_OUT if reasons[reason]]
    if not series:
        others = {image.values.get("Modality", "") for image in images if left_out(image) == "modality"}
        kind = NotCt if others and not set(reasons) - {"modality", "no_image", "capture"} else Refusal
        known = sorted(name for name in others if re.fullmatch("[A-Z]{2,16}", name))
        shown = f" (modality {', '.join(known)})" if known else ""
        raise kind(f"holds no CT series to be read{shown}; there are only: {', '.join(told)}")
    notes = [f"left out: {', '.join(told)}"] if told else []
    large = {key: members for key, members in series.items() if len(members) >= FEWEST or _enhanced(members)}
    if not large:
        raise Refusal(f"holds {sum(map(len, series.values()))} CT slices: a volume needs {FEWEST} of a series")
    best = min(large, key=lambda key: _rank(large[key]))
    members = large[best]
    if not _axial(members) and _thickness(members) > _THIN:
        raise Refusal(f"its slices are not axial and thicker than {_THIN:g} mm: export the axial series")
    if unread := [value for key, value in series.items() if key != best]:
        shown = "; ".join(f"{len(value)}{'' if _axial(value) else ', not axial'}" for value in unread)
        notes.insert(0, f"read the CT series of {len(members)} images, not the others (of {shown})")
    return members, notes


def _rank(members: Sequence[Image]) -> tuple[bool, bool, bool, float, int, float, str]:
    """Lowest for the series to read: axial, original, of the head, 2.5 to 5 mm thick, more slices, a lower number."""
    values = members[0].values
    thickness = _thickness(members)
    distance = max(_THICKNESS[0] - thickness, thickness - _THICKNESS[1], 0.0)
    return (
        not _axial(members),
        not values.get("ImageType", "ORIGINAL").upper().startswith("ORIGINAL"),
        not of_head(values),
        distance,
        -len(members),
        members[0].number("SeriesNumber") or 0.0,
        values.get("SeriesInstanceUID", ""),
    )


def _enhanced(members: Sequence[Image]) -> bool:
    return any(image.values.get("SOPClassUID") == ENHANCED_CLASS for image in members)


def _thickness(members: Sequence[Image]) -> float:
    return float(np.median([image.number("SliceThickness") or 0.0 for image in members]))


def _axial(members: Sequence[Image]) -> bool:
    if _enhanced(members):
        return True  # its orientation stands in its frames
    turn = np.array(members[0].numbers("ImageOrientationPatient", 6))
    return bool(abs(np.cross(turn[:3], turn[3:])[2]) >= _AXIAL)


def _slices(chosen: Sequence[Image]) -> list[Slice]:
    if not _enhanced(chosen):
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
    last = int(np.rint(stack.places[-1]))
    if last > stack.places[-1]:
        view[last] = hu
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

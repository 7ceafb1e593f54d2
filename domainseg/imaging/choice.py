"""Which CT series of a folder is read, and what is left out, by the names that headers give."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from domainseg.imaging.dicom import NotCt, Refusal
from domainseg.imaging.slices import ENHANCED_CLASSES, LEFT_OUT, Image, left_out, of_head, slice_of
from domainseg.imaging.stack import FEWEST

_THICKNESS = (2.5, 5.0)  # mm: slices of this thickness are preferred
_BEYOND = 10.0  # mm, our choice: series of one region end within that of each other
_WHOLE = 110.0  # mm, our choice: a series of less is a piece of the head where another one shows more
_AXIAL = 0.7  # least cosine between the normal and the patient's long axis

Series = Mapping[tuple[str, str], Sequence[Image]]


def choose(images: Sequence[Image], beside: int) -> tuple[Sequence[Image], list[str]]:
    """The images of the series to read and notes on the choice; raises Refusal when there is none.

    beside: how many files were no DICOM.
    """
    if not images:
        raise Refusal(f"holds no DICOM file ({beside} other files)")
    for keyword, what in (("PatientID", "patients"), ("StudyInstanceUID", "exams")):
        if (count := len({image.values[keyword] for image in images if keyword in image.values})) > 1:
            raise Refusal(f"holds files of {count} {what}: give each a folder of its own")
    series, left = _sorted_out(images)
    told = ", ".join(f"{words} ({len(left[reason])})" for reason, words in LEFT_OUT.items() if reason in left)
    if not series:
        raise _nothing(left, told)
    large = {key: members for key, members in series.items() if len(members) >= FEWEST or is_enhanced(members)}
    if not large:
        raise Refusal(f"holds {sum(map(len, series.values()))} CT slices: a volume needs {FEWEST} of a series")
    reaches = {key: _length(members) for key, members in large.items()}
    pieces = {key for key, length in reaches.items() if 0 < length < min(_WHOLE, max(reaches.values()) - _BEYOND)}
    best = min(large, key=lambda key: _rank(large[key], key in pieces))
    members = large[best]
    notes = []
    if unread := [value for key, value in series.items() if key != best]:
        shown = "; ".join(f"{len(value)}{'' if _axial(value) else ', not axial'}" for value in unread)
        notes.append(f"read the CT series of {len(members)} images, not the others (of {shown})")
        if beyond := max(_beyond(value, members) for value in unread):
            notes.append(f"another series shows {beyond:.0f} mm more of the head: the exam may be in two parts")
    if told:
        notes.append(f"left out: {told}")
    numbers = [int(number) for image in members if (number := image.number("InstanceNumber")) is not None]
    alone = all(_key(image) == best for image in images if _key(image)[0] == best[0])
    if alone and numbers and min(numbers) > 1:
        notes.append(f"its lowest instance number is {min(numbers)}: slices may be missing at an end")
    return members, notes


def is_enhanced(members: Sequence[Image]) -> bool:
    """Whether a series holds multi-frame files."""
    return any(image.values.get("SOPClassUID") in ENHANCED_CLASSES for image in members)


def _sorted_out(images: Sequence[Image]) -> tuple[Series, Mapping[str, Sequence[Image]]]:
    """The series that may be read, and the images that are left out, by reason.

    Contrast in one image is contrast in all of its series.
    """
    why = [left_out(image) for image in images]
    contrast = {_key(image) for image, reason in zip(images, why, strict=True) if reason == "contrast"}
    series: dict[tuple[str, str], list[Image]] = defaultdict(list)
    left: dict[str, list[Image]] = defaultdict(list)
    for image, reason in zip(images, why, strict=True):
        if reason or _key(image) in contrast:
            left[reason or "contrast"].append(image)
        else:
            series[_key(image)].append(image)
    return series, left


def _key(image: Image) -> tuple[str, str]:
    """What the images of one series share: some scanners keep two reconstructions under one SeriesInstanceUID."""
    return image.values.get("SeriesInstanceUID", ""), image.values.get("ConvolutionKernel", "")


def _nothing(left: Mapping[str, Sequence[Image]], told: str) -> Refusal:
    """Why no series can be read: of another modality when there is nothing of a CT."""
    modalities = {image.values.get("Modality", "") for image in left.get("modality", ())}
    known = sorted(name for name in modalities if re.fullmatch("[A-Z]{2,16}", name))
    shown = f" (modality {', '.join(known)})" if known else ""
    kind = NotCt if modalities and not set(left) - {"modality", "no_image", "capture"} else Refusal
    return kind(f"holds no CT series to be read{shown}; there are only: {told}")


def _rank(members: Sequence[Image], piece: bool) -> tuple[bool, bool, int, bool, float, int, float, str]:
    """Lowest for the series to read: axial, original, of the head, not a piece of it, 2.5 to 5 mm thick.

    Then more slices, a lower number. piece: another series shows more of what may be the head.
    """
    values = members[0].values
    thickness = _thickness(members)
    distance = max(_THICKNESS[0] - thickness, thickness - _THICKNESS[1], 0.0)
    return (
        not _axial(members),
        not values.get("ImageType", "ORIGINAL").upper().startswith("ORIGINAL"),
        of_head(values),
        piece,
        distance,
        -len(members),
        members[0].number("SeriesNumber") or 0.0,
        values.get("SeriesInstanceUID", ""),
    )


def _thickness(members: Sequence[Image]) -> float:
    return float(np.median([image.number("SliceThickness") or 0.0 for image in members]))


def _beyond(others: Sequence[Image], members: Sequence[Image]) -> float:
    """How many millimetres an axial series, if it may be one of the head, reaches beyond another; 0 up to _BEYOND."""
    if not _axial(others) or of_head(others[0].values) > 1:
        return 0.0
    try:
        (low, high), (first, last) = _reach(others), _reach(members)
    except Refusal:  # nothing tells where they lie
        return 0.0
    beyond = max(first - low, high - last)
    return beyond if beyond > _BEYOND else 0.0


def _length(members: Sequence[Image]) -> float:
    """How much of the head an axial series that may be one of it shows, in mm; 0 where nothing tells."""
    if not _axial(members) or of_head(members[0].values) > 1 or is_enhanced(members):
        return 0.0
    try:
        low, high = _reach(members)
    except Refusal:
        return 0.0
    return high - low


def _reach(members: Sequence[Image]) -> tuple[float, float]:
    """Lowest and highest middle of the slices, in mm along the patient; raises Refusal."""
    heights = []
    for one in map(slice_of, members):
        across, down = one.along * one.spacing[1] * one.columns, one.down * one.spacing[0] * one.rows
        heights.append(float((one.position + across / 2 + down / 2)[2]))
    return min(heights), max(heights)


def _axial(members: Sequence[Image]) -> bool:
    try:
        turn = members[0].numbers("ImageOrientationPatient", 6)
    except Refusal:
        return is_enhanced(members)  # its frames may be turned one by one, which reading them says
    return bool(abs(np.cross(turn[:3], turn[3:])[2]) >= _AXIAL)

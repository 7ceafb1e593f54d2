"""The row of one head CT with its lesions: scores, volumes or the reason for its exclusion, and the truth beside them.

Without pandas: a bundle that reads one exam has no time to import it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.lesions import Grid, labels_on_volume, measured, numbers_on_volume
from domainseg.imaging.film import ImageReadError
from domainseg.imaging.hemorrhage import CODES, TYPES, UNKNOWN
from domainseg.imaging.volume import Volume

if TYPE_CHECKING:
    from domainseg.cascade.head_truth import HeadTruth

log = logging.getLogger(__name__)

# Types that Chang et al. 2018 give as one: outside the brain, under the skull.
JOINED = {"extra_axial": ("subdural", "epidural")}


def volume_rows(
    image: str,
    volume: Volume | ImageReadError,
    results: Sequence[Case | Exclusion],
    truth: HeadTruth | None,
) -> list[dict[str, Any]]:
    """The row of one exam; its key ``lesions`` holds the rows of the lesion table (plain values only).

    outlined: 1 where masks tell where the bleeds are, or there are none; 0 where only labels are known. typed: 1 where
    they tell all types, too.
    notes: what ``Volume.notes`` and the head filter say, or why the exam was not read.
    Predicted lesions come first, then, where a mask is known, the true ones. An exam that was not read (on the grid of
    its mask) or taken for no head still has its true volumes and lesions, so that what was lost can be counted.
    """
    row: dict[str, Any] = {"image": image, "part": ""}
    lesions: list[dict[str, Any]] = []
    if isinstance(volume, ImageReadError):
        row |= {"excluded_by": "read", "exclusion_reason": volume.kind, "notes": volume.reason}
    else:
        row |= _described(volume)
    case: Case | None = None
    for result in results:  # one: a volume has one head, or none
        row |= {"part": result.part, **result.values}
        if isinstance(result, Exclusion):
            row |= {"excluded_by": result.excluded_by, "exclusion_reason": result.reason}
        else:
            case = result
            lesions = [dict(lesion) for lesion in result.lesions]
    if truth is not None:
        from domainseg.cascade.head_truth import doubt  # late: pandas

        known = truth.exam(image, volume if isinstance(volume, Volume) else None)
        row |= _truth(image, truth, known)
        if truth.has(image):
            row["part"] = "head"
        row["outlined"] = int(bool(truth.files(image)) or row["label_hemorrhage"] == 0)
        place = volume if isinstance(volume, Volume) else truth.grid(image)
        if place is None:  # neither the exam nor a mask was read
            row["outlined"] = 0
        else:
            try:
                labels = truth.labels(image, place)
            except ImageReadError as error:  # its scores and labels still count, its outlines are unknown
                log.warning("%s: judged without its mask: %s", image, error.reason)
                why = f"mask not read: {error.kind}"
            else:
                why = "" if labels is None else doubt(labels, known)
            if why:
                row |= {"outlined": 0, "notes": "; ".join(note for note in (row["notes"], why) if note)}
                labels = None
            if labels is not None:
                row |= {name: ml for name, ml in _true_volumes(labels, place).items() if not np.isnan(ml)}
                row["typed"] = int(not (labels == UNKNOWN).any())
                mimics = _mimics(image, truth, volume) if isinstance(volume, Volume) else None
                lesions, measures = _compared(place, labels, mimics, case, lesions)
                row |= measures
    for column in ("matched", "mimic"):
        for lesion in lesions:
            lesion.setdefault(column, np.nan if column == "matched" else "")
    row["lesions"] = [{"image": image, **lesion} for lesion in lesions]
    return [row]


def _mimics(image: str, truth: HeadTruth, volume: Volume) -> NDArray[np.uint8] | None:
    try:
        return truth.mimics(image, volume)
    except ImageReadError as error:
        log.warning("%s: judged without its look-alikes: %s", image, error.reason)
        return None


def _described(volume: Volume) -> dict[str, Any]:
    depth, height, width = volume.shape
    row: dict[str, Any] = {"width": width, "height": height, "slices": depth}
    row["rendering"] = int(volume.rendering is not None)
    row["notes"] = "; ".join(volume.notes)
    if volume.spacing is not None:
        x, y, z = volume.spacing
        row |= {"spacing": float(np.sqrt(x * y)), "slice_mm": z}
    return row


def _truth(image: str, truth: HeadTruth, known: Mapping[str, float]) -> dict[str, Any]:
    from domainseg.cascade.head_truth import TRUTH_COLUMNS

    row: dict[str, Any] = {f"label_{name}": value for name, value in known.items()}
    row |= {column: text for column in TRUTH_COLUMNS if (text := truth.text(image, column))}
    if not np.isnan(ml := truth.number(image, "true_ml")):
        row["true_volume_ml"] = ml  # what the mask says, where it can be read, takes its place
    return row


def _kinds(labels: NDArray[np.uint8]) -> dict[str, tuple[int, ...]]:
    """The codes of each name that a row has columns for; without the types where some of the truth has none."""
    kinds: dict[str, tuple[int, ...]] = {"hemorrhage": tuple(range(1, UNKNOWN + 1))}
    if not (labels == UNKNOWN).any():
        kinds |= {name: (CODES[name],) for name in TYPES}
        kinds |= {name: tuple(CODES[one] for one in members) for name, members in JOINED.items()}
    return kinds


def _true_volumes(labels: NDArray[np.uint8], volume: Volume) -> dict[str, float]:
    counts = np.bincount(labels[labels > 0], minlength=UNKNOWN + 1)
    return {
        "true_volume_ml" + ("" if name == "hemorrhage" else f"_{name}"): float(counts[list(codes)].sum())
        * volume.voxel_ml
        for name, codes in _kinds(labels).items()
    }


def _around(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> tuple[slice, ...]:
    """The part of two volumes in which either has anything; something small where neither has."""
    both = (one > 0) | (other > 0)
    places = [np.flatnonzero(both.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return tuple(slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 1) for at in places)


def _compared(
    volume: Volume,
    labels: NDArray[np.uint8],
    mimics: NDArray[np.uint8] | None,
    case: Case | None,
    predicted: list[dict[str, Any]],
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Lesions of both sides, matched; and overlap and distance of each type."""
    from domainseg.cascade.overlap import dice, matches, resembled, surface_mm, true_lesions

    scored = case is not None and "lesions" in case.arrays
    true = true_lesions(labels, volume)
    row: dict[str, Any] = {}
    found: list[list[int]] = [[] for _ in true]
    if case is not None and scored:
        drawn = labels_on_volume(case)
        here = _around(labels, drawn)
        for name, codes in _kinds(labels).items():
            chosen = np.isin(np.arange(256), codes)
            found_there, true_there = chosen[drawn[here]], chosen[labels[here]]
            row[f"dice_{name}"] = dice(found_there, true_there)
            row[f"surface_mm_{name}"] = surface_mm(found_there, true_there, volume.affine)
        numbers = numbers_on_volume(case)
        found = matches(numbers, true)
        met = {number for numbers in found for number in numbers}
        predicted = [{**lesion, "matched": int(lesion["lesion"] in met)} for lesion in predicted]
        if mimics is not None:
            named = resembled(numbers, mimics)
            for one in predicted:
                if not one["matched"]:
                    one["mimic"] = named.get(one["lesion"], "")
        row["false_lesions"] = float(sum(lesion["called"] and not lesion["matched"] for lesion in predicted))
    scores = {lesion["lesion"]: lesion for lesion in predicted}
    whole = Grid.of_voxels(volume)
    rows = []
    for lesion, same in zip(true, found, strict=True):
        best = max((scores[number] for number in same), key=lambda one: float(one["score"]), default=None)
        rows.append(
            {
                "lesion": 0,
                "source": "truth",
                "type": lesion.type,
                "score": np.nan if best is None else best["score"],
                "called": np.nan if best is None else best["called"],
                "matched": int(bool(same)) if scored else np.nan,
                "ml": len(lesion.z) * volume.voxel_ml,
                **measured(whole, lesion.z, lesion.y, lesion.x),
            }
        )
    rows.sort(key=lambda one: -np.nan_to_num(one["score"], nan=-1.0))
    return [*predicted, *({**one, "lesion": number} for number, one in enumerate(rows, 1))], row

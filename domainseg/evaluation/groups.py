"""Groups to report beside the whole: by site, by department, and by what kind of fracture or bleed it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.evaluation.intervals import Array
from domainseg.evaluation.tables import Rows, numbers, texts
from domainseg.imaging.hemorrhage import TYPES

GROUPS = ("site", "department", "view", "portable", "sex", "image_side")
FEW = 10  # patients of a class; a group with fewer has no say in which is the worst (our choice)
MOST = 30  # a column with more values than this names things, it doesn't group them; sites aside: one may be bad

# Columns that only one class can have a value in: column -> (target, class). Each of their groups keeps all rows of
# the other class, or there would be nothing to tell the group from.
ONE_CLASS = {
    "fracture_class": ("fracture", 1),
    "fracture_width": ("fracture", 1),
    "label_location": ("fracture", 1),
    "implant": ("implant_filter", 1),
    "label_view": ("view_filter", 0),
    "size_class": ("hemorrhage", 1),
    "density": ("hemorrhage", 1),
}
# Head CTs are also grouped by age, and by what is in them that looks like a bleed: an exam may be in several of these.
HEAD_TARGETS = ("hemorrhage", *TYPES)
AGES = (2.0, 18.0, 65.0)  # years; bands are our choice: sutures are open, a skull grows, a brain shrinks
AGE_NAMES = ("under 2 years", "2 to 17 years", "18 to 64 years", "65 years and over")
SIZES = (3.0, 10.0, 30.0)  # ml
SIZE_NAMES = ("under 3 ml", "3 to 10 ml", "10 to 30 ml", "30 ml and over")
WIDTHS = (1.0, 2.0, 4.0)  # mm; under 1 mm a fracture is gone at 224 pixels
WIDTH_NAMES = ("under 1 mm", "1 to 2 mm", "2 to 4 mm", "4 mm and over")
_NAMED = (*WIDTH_NAMES, "hairline", "undisplaced", "displaced", *SIZE_NAMES, *AGE_NAMES, "fresh", "subacute")
_ORDER = {name: place for place, name in enumerate(_NAMED)}


def widths(rows: Rows) -> NDArray[np.object_]:
    """fracture_width_mm of each row in words, None where unknown."""
    return in_words(numbers(rows.table, "fracture_width_mm"), WIDTHS, WIDTH_NAMES)


def in_words(values: Array, limits: Sequence[float], words: Sequence[str]) -> NDArray[np.object_]:
    """Each number [n] as the word of its band, None where it is NaN; a limit belongs to the band above it."""
    out = np.full(len(values), None, dtype=object)
    for index in np.flatnonzero(~np.isnan(values)):
        out[index] = words[int(np.searchsorted(limits, values[index], side="right"))]
    return out


def groups_of(rows: Rows, target: str, columns: Sequence[str] = GROUPS) -> Iterator[tuple[str, str, Rows]]:
    """(column, value, rows) for each group; a column with one value is still shown, one that is absent is not."""
    for column in columns:
        if column in ONE_CLASS:
            continue
        values = texts(rows.table, column)
        names = _names(values)
        if column == "site" or len(names) <= MOST:
            for name in names:
                yield column, name, rows.take(values == name)
    if target in HEAD_TARGETS:
        ages = in_words(numbers(rows.table, "age"), AGES, AGE_NAMES)
        for name in _names(ages):
            yield "age", name, rows.take(ages == name)
    if target == "hemorrhage":
        held = [set((kinds or "").split("+")) - {""} for kinds in texts(rows.table, "mimic")]
        for name in sorted(set().union(*held)):
            yield "mimic", name, rows.take(np.array([name in kinds for kinds in held], dtype=bool))
    for column, (of_target, side) in ONE_CLASS.items():
        if of_target != target:
            continue
        values = widths(rows) if column == "fracture_width" else texts(rows.table, column)
        members = rows.label == side
        for name in _names(values[members]):
            yield column, name, rows.take((members & (values == name)) | (rows.label == 1 - side))


def worst(by: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """column -> the group with the lowest AUC beside the mean over groups (as WILDS does); ``by`` as in metrics.json.

    {group, auc, mean, groups, too_few}: its name and metric, the plain mean of the groups' AUCs, how many they are, and
    the names of those with fewer than FEW patients of a class. Columns with fewer than two groups to compare have
    group None. The lowest of several is also the unluckiest: its interval does not tell of having been chosen.
    """
    out: dict[str, dict[str, Any]] = {}
    for column, groups in by.items():
        enough, few = {}, []
        for name, metrics in groups.items():
            if "auc" not in metrics:
                continue
            counts = [metrics[side]["n_clusters"] for side in ("sensitivity", "specificity") if side in metrics]
            if min(counts, default=0) < FEW or np.isnan(metrics["auc"]["value"]):
                few.append(name)
            else:
                enough[name] = metrics["auc"]
        if not enough and not few:
            continue
        least = min(enough, key=lambda name: float(enough[name]["value"])) if len(enough) > 1 else None
        mean = float(np.mean([metric["value"] for metric in enough.values()])) if enough else np.nan
        auc = enough[least] if least is not None else None
        out[column] = {"group": least, "auc": auc, "mean": mean, "groups": len(enough), "too_few": few}
    return out


def _names(values: NDArray[np.object_]) -> list[str]:
    """Distinct values: mild before severe where we know which is which, else by alphabet."""
    return sorted({name for name in values if name is not None}, key=lambda name: (_ORDER.get(name, -1), name))

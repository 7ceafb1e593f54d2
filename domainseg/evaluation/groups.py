"""Groups to report beside the whole: by site, by department, and by what kind of fracture it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from domainseg.evaluation.tables import Rows, numbers, texts

GROUPS = ("site", "department", "view", "portable", "sex", "image_side")
MOST = 30  # a column with more values than this names things, it doesn't group them

# Columns that only one class can have a value in: column -> (target, class). Each of their groups keeps all rows of
# the other class, or there would be nothing to tell the group from.
ONE_CLASS = {
    "fracture_class": ("fracture", 1),
    "fracture_width": ("fracture", 1),
    "label_location": ("fracture", 1),
    "implant": ("implant_filter", 1),
    "label_view": ("view_filter", 0),
}
WIDTHS = (1.0, 2.0, 4.0)  # mm; under 1 mm a fracture is gone at 224 pixels
WIDTH_NAMES = ("under 1 mm", "1 to 2 mm", "2 to 4 mm", "4 mm and over")
_ORDER = {name: place for place, name in enumerate((*WIDTH_NAMES, "hairline", "undisplaced", "displaced"))}


def widths(rows: Rows) -> NDArray[np.object_]:
    """fracture_width_mm of each row in words, None where unknown."""
    values = numbers(rows.table, "fracture_width_mm")
    out = np.full(len(rows), None, dtype=object)
    for index in np.flatnonzero(~np.isnan(values)):
        out[index] = WIDTH_NAMES[int(np.searchsorted(WIDTHS, values[index], side="right"))]
    return out


def groups_of(rows: Rows, target: str, columns: Sequence[str] = GROUPS) -> Iterator[tuple[str, str, Rows]]:
    """(column, value, rows) for each group; a column with one value is still shown, one that is absent is not."""
    for column in columns:
        if column in ONE_CLASS:
            continue
        values = texts(rows.table, column)
        names = _names(values)
        if 0 < len(names) <= MOST:
            for name in names:
                yield column, name, rows.take(values == name)
    for column, (of_target, side) in ONE_CLASS.items():
        if of_target != target:
            continue
        values = widths(rows) if column == "fracture_width" else texts(rows.table, column)
        members = rows.label == side
        for name in _names(values[members]):
            yield column, name, rows.take((members & (values == name)) | (rows.label == 1 - side))


def _names(values: NDArray[np.object_]) -> list[str]:
    """Distinct values: mild before severe where we know which is which, else by alphabet."""
    return sorted({name for name in values if name is not None}, key=lambda name: (_ORDER.get(name, -1), name))

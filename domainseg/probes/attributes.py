"""Attributes of cases: which columns of a table say how, where and of whom a film was made, as groups of cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.evaluation.groups import in_words
from domainseg.evaluation.intervals import Array
from domainseg.evaluation.tables import one_spelling, texts
from domainseg.probes.effects import Codes, patients_in

USUAL = ("site", "department", "scanner", "view", "portable", "sex", "age")  # asked for in every audit
MOST = 12  # a column with more values than this names things, it groups none; one that is named shows its largest
AGES = (18.0, 40.0, 60.0, 75.0)  # years, our choice
AGE_NAMES = ("under 18", "18 to 39", "40 to 59", "60 to 74", "75 and over")
_BANDS, _IN_BAND = 10, 50  # of severity: ten leave little of a smooth relation inside a band (our choice)

# What a table holds beside attributes: names, what a cascade measured or decided, and what it is judged by.
_NAMES = (
    *("image", "part", "path", "patient", "group", "study", "series", "accession", "date", "report", "split", "fold"),
    *("excluded_by", "exclusion_reason", "outside", "not_drawn", "notes", "bundle_sha256", "location", "image_side"),
    "side_source",
    *("spacing", "x", "y", "diameter", "hips_found", "pointing_hit", "lesions", "outlined", "typed", "false_lesions"),
)
_STARTS = (
    *("label_", "score_", "threshold_", "eligible_", "roi", "head_", "true_", "volume_", "dice_", "surface_"),
    *("fracture_", "called_", "mimic", "implant", "size_class", "density"),
)


@dataclass(frozen=True)
class Attribute:
    """A column as groups. group [n]: number of each case's group, -1 where it has none. names: of the groups.

    notes: what was done to the column. skipped: why nothing can be asked of it; None otherwise.
    """

    name: str
    group: Codes
    names: list[str]
    notes: list[str] = field(default_factory=list)
    skipped: str | None = None


def attributes_of(table: pd.DataFrame, wanted: Sequence[str] | None, patient: Codes, least: int) -> list[Attribute]:
    """The attributes that are asked for, or the usual ones and each further column with 2 to MOST values.

    patient [n]: numbers of the patients. Groups of fewer than ``least`` patients are left out, and said. A column that
    is asked for and not there is an attribute that was skipped.
    """
    if wanted is not None:
        return [attribute(table, name, patient, least) for name in wanted]
    others = [str(name) for name in table if name not in USUAL and _is_attribute(table, str(name))]
    found = [attribute(table, name, patient, least) for name in (*USUAL, *others)]
    return [one for one in found if one.skipped is None or one.name in USUAL]


def _is_attribute(table: pd.DataFrame, name: str) -> bool:
    if name in _NAMES or name.startswith(_STARTS):
        return False
    return 2 <= len({value for value in texts(table, name) if value is not None}) <= MOST


def attribute(table: pd.DataFrame, name: str, patient: Codes, least: int) -> Attribute:
    """One column as groups: bands of age, quarters of another column of many numbers, else its values."""
    nobody = np.full(len(table), -1, dtype=np.intp)
    if name not in table:
        return Attribute(name, nobody, [], skipped="no such column in the table")
    cells, notes = texts(table, name), []
    values = _numbers(cells)
    if name == "age":
        if values is None:
            return Attribute(name, nobody, [], skipped="not a column of years")
        cells, order = in_words(values, AGES, AGE_NAMES), list(AGE_NAMES)
    elif values is not None and len(np.unique(values[~np.isnan(values)])) > MOST:
        cuts = np.unique(np.nanquantile(values, [0.25, 0.5, 0.75]))
        order = _ranges(values, cuts)
        cells = in_words(values, cuts.tolist(), order)
        notes.append("numbers, as bands cut at the quartiles: " + ", ".join(f"{cut:g}" for cut in cuts))
    else:
        cells, repairs = one_spelling(cells)
        notes += repairs
        order = sorted({cell for cell in cells if cell is not None})
    known = np.array([cell is not None for cell in cells], dtype=bool)
    if not known.any():
        return Attribute(name, nobody, [], notes, "the column is empty")
    if not known.all():
        notes.append(f"{int((~known).sum())} of {len(table)} cases have no value and are left out")
    place = {value: index for index, value in enumerate(order)}
    raw = np.array([place[cell] if cell is not None else -1 for cell in cells], dtype=np.intp)
    return _kept(name, raw, order, notes, patient, least)


def _ranges(values: Array, cuts: Array) -> list[str]:
    """Of each band between cuts the smallest and the largest value in it; "none" where it is empty."""
    band = np.searchsorted(cuts, values, side="right")
    held = [values[(band == k) & ~np.isnan(values)] for k in range(len(cuts) + 1)]
    return [f"{one.min():g} to {one.max():g}" if len(one) else "none" for one in held]


def _kept(name: str, raw: Codes, order: list[str], notes: list[str], patient: Codes, least: int) -> Attribute:
    """The groups that are large enough, numbered anew."""
    known = raw >= 0
    count = patients_in(raw[known], patient[known])
    large = sorted((g for g in count if count[g] >= least), key=lambda g: -count[g])[:MOST]
    large.sort()
    if len(large) < len(count):
        small = [order[g] for g in count if g not in large]
        listed = ", ".join(small[:8]) + (f" and {len(small) - 8} more" if len(small) > 8 else "")
        notes = [*notes, f"left out, fewer than {least} patients or beyond the {MOST} largest groups: {listed}"]
    number = np.full(len(order) + 1, -1, dtype=np.intp)  # the last one is for -1, no value
    number[large] = np.arange(len(large))
    group = number[raw]
    skipped = None
    if len(count) < 2:
        skipped = f"all cases are {order[next(iter(count))]}"
    elif len(large) < 2:
        skipped = f"too few: fewer than two groups with {least} patients"
    return Attribute(name, group, [order[g] for g in large], notes, skipped)


def severity_bands(table: pd.DataFrame, columns: Sequence[str], label: Array) -> NDArray[np.intp]:
    """A band number for each case [n], cut for each label (1 or 0) by itself.

    Of a column of many numbers as many quantiles as leave _IN_BAND cases of the label in each, at most _BANDS; of
    others the values; several columns are crossed. An unknown value is a band of its own.
    """
    stratum = np.zeros(len(table), dtype=np.intp)
    for name in columns:
        cells = texts(table, name)
        values, band = _numbers(cells), np.zeros(len(table), dtype=np.intp)
        if values is None or len(np.unique(values[~np.isnan(values)])) <= MOST:
            band = np.unique(["" if cell is None else cell for cell in cells], return_inverse=True)[1]
        else:
            for side in np.unique(label):
                mine = (label == side) & ~np.isnan(values)
                count = int(np.clip(mine.sum() // _IN_BAND, 2, _BANDS))
                cuts = np.unique(np.quantile(values[mine], np.arange(1, count) / count)) if mine.any() else np.zeros(0)
                band[mine] = 1 + np.searchsorted(cuts, values[mine], side="right")
        stratum = np.unique(np.stack([stratum, band]), axis=1, return_inverse=True)[1].astype(np.intp)
    return stratum


def _numbers(cells: NDArray[np.object_]) -> Array | None:
    """The cells as float64, NaN where empty; None when a cell is no number or none is."""
    values = np.full(len(cells), np.nan)
    for index, cell in enumerate(cells):
        if cell is None:
            continue
        try:
            values[index] = float(cell)
        except ValueError:
            return None
    return values if np.isfinite(values).any() else None

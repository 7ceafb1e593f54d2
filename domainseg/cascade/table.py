"""The prediction table: the rows of all films with their metadata, thresholds and eligibility."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from domainseg.cascade.stages import Stage
from domainseg.files import atomic_path

FIRST = [
    "image", "part", "patient", "group", "site", "department", "scanner", "view", "portable", "date", "age", "sex",
    "split", "fold", "excluded_by", "exclusion_reason",
]  # fmt: skip
METADATA = ("patient", "group", "site", "department", "scanner", "view", "portable", "date", "age", "sex", "split")


def prediction_table(
    rows: Sequence[Mapping[str, Any]],
    stages: Sequence[Stage],
    images: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The table, sorted by image and part, with metadata of the films, thresholds and eligibility.

    eligible_<target>: the label is known and no known truth of an earlier stage says that the case should have been
    excluded; metrics on intention are on these rows. A decision that answers for more than its target (types of
    hemorrhage) gives each of these its threshold and eligibility too. ``lesions`` of the rows: see ``lesion_table``.
    """
    table = pd.DataFrame(list(rows)).drop(columns="lesions", errors="ignore")
    if images is not None:
        # Named columns only: whatever else a user's table holds (names, accession numbers) stays there.
        columns = ["image", *(name for name in METADATA if name in images)]
        table = table.merge(images[columns], on="image", how="left")
    for column in ("excluded_by", "exclusion_reason"):
        if column not in table:
            table[column] = ""
        table[column] = table[column].fillna("")
    should_stop = pd.Series(False, index=table.index)
    for stage in stages:
        target = stage.decision.target
        for name, threshold in stage.thresholds.items():
            table[f"threshold_{name}"] = threshold
            if f"score_{name}" not in table:
                table[f"score_{name}"] = np.nan
            if f"label_{name}" in table:
                table[f"eligible_{name}"] = table[f"label_{name}"].notna() & ~should_stop
        label = f"label_{target}"
        if label not in table:
            continue
        if target == "localizer":
            # A hip outside the film has a row only when it was found all the same: no fair sample of the absent ones.
            table[f"eligible_{target}"] &= table[label] == 1
        stops = 1 if target == "implant_filter" else 0
        if target != stages[-1].decision.target:
            should_stop |= table[label] == stops
    first = [name for name in FIRST if name in table]
    table = table[first + [name for name in table.columns if name not in first]]
    return table.sort_values(["image", "part"], kind="stable").reset_index(drop=True)


# Columns of the lesion table, in order.
LESION_COLUMNS = (
    "image", "lesion", "source", "type", "score", "called", "matched", "ml", "diameter_mm", "first_slice",
    "last_slice", "x_mm", "y_mm", "z_mm", "box_low_x_mm", "box_low_y_mm", "box_low_z_mm", "box_high_x_mm",
    "box_high_y_mm", "box_high_z_mm", "mimic",
)  # fmt: skip


def lesion_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The lesions of all rows, sorted by image, predicted before true ones, numbered by score.

    One row a lesion (LESION_COLUMNS): source predicted or truth; type, "" where unknown; called and matched 1 or 0, NaN
    where there is nothing to match with; slices are zero-based ones of the source, millimetres the patient's (LPS).
    """
    lesions = [lesion for row in rows for lesion in row.get("lesions", ())]
    table = pd.DataFrame(lesions, columns=list(LESION_COLUMNS))
    numeric = [name for name in LESION_COLUMNS if name not in ("image", "source", "type", "mimic")]
    table = table.astype(dict.fromkeys(numeric, np.float64))
    table = table.astype(dict.fromkeys(("lesion", "first_slice", "last_slice"), np.int64))
    return table.sort_values(["image", "source", "lesion"], kind="stable").reset_index(drop=True)


def write_table(table: pd.DataFrame, folder: Path, name: str = "predictions") -> None:
    """Write a table as Parquet and CSV, atomically."""
    with atomic_path(folder / f"{name}.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    with atomic_path(folder / f"{name}.csv") as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")

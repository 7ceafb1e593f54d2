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
    excluded; metrics on intention are on these rows.
    """
    table = pd.DataFrame(list(rows))
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
        table[f"threshold_{target}"] = stage.frozen.threshold
        if f"score_{target}" not in table:
            table[f"score_{target}"] = np.nan
        label = f"label_{target}"
        if label not in table:
            continue
        table[f"eligible_{target}"] = table[label].notna() & ~should_stop
        if target == "localizer":
            # A hip outside the film has a row only when it was found all the same: no fair sample of the absent ones.
            table[f"eligible_{target}"] &= table[label] == 1
        stops = 1 if target == "implant_filter" else 0
        if target != stages[-1].decision.target:
            should_stop |= table[label] == stops
    first = [name for name in FIRST if name in table]
    table = table[first + [name for name in table.columns if name not in first]]
    return table.sort_values(["image", "part"], kind="stable").reset_index(drop=True)


def write_table(table: pd.DataFrame, folder: Path, name: str = "predictions") -> None:
    """Write a table as Parquet and CSV, atomically."""
    with atomic_path(folder / f"{name}.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    with atomic_path(folder / f"{name}.csv") as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")

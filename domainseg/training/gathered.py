"""What the processes of a run found in their shares of the films, put together in the films' order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from domainseg.bundle.predict import hashed_images, predict_rows
from domainseg.cascade.stages import Stage
from domainseg.cascade.table import lesion_table, prediction_table
from domainseg.data.manifest import Manifest
from domainseg.tasks import ranks

T = TypeVar("T")


def in_order(mine: Iterable[T], images: Sequence[str], image_of: Callable[[T], str]) -> list[T]:
    """What all processes hold, in the order of ``images``; what belongs to one image stays in its own order."""
    place = {image: number for number, image in enumerate(images)}
    found = [thing for part in ranks.gather(list(mine)) for thing in part]
    return sorted(found, key=lambda thing: place[image_of(thing)])


def predict_together(
    stages: Sequence[Stage], manifest: Manifest, truth: Any, key: bytes | None, *, what: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions and lesions of a manifest, as ``predict_manifest`` gives them, the films shared among the processes.

    truth: of the cascade's reading (``Reading.truth``), or None. Rows travel as they are, none is padded or met twice,
    and every process gets the same tables: thresholds that are chosen from them are the same everywhere.
    """
    images = list(manifest.images["image"])
    mine = set(ranks.share(images))
    share = manifest.where(pd.Series(np.array([image in mine for image in images], dtype=bool)))
    rows = in_order(predict_rows(stages, share, truth, what=what), images, lambda row: str(row["image"]))
    return prediction_table(rows, stages, hashed_images(manifest, key)), lesion_table(rows)

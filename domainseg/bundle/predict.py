"""Run the stages of a cascade over a manifest: rows and the prediction table, within this process."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.progress import track

from domainseg.cascade.cascade import Cascade, read_ahead
from domainseg.cascade.case import Case
from domainseg.cascade.reads import reading_of
from domainseg.cascade.stages import Stage
from domainseg.cascade.table import prediction_table
from domainseg.data.manifest import Manifest
from domainseg.data.privacy import hash_patient, hash_patients
from domainseg.imaging import ImageReadError

log = logging.getLogger(__name__)


def predict_rows(
    stages: Sequence[Stage],
    manifest: Manifest,
    truth: Any,
    *,
    what: str = "predicting",
) -> list[dict[str, Any]]:
    """The rows of all films or volumes of a manifest, in its order; ``prediction_table`` makes the table of them.

    truth: what the cascade's reading makes of the manifest, or None.
    """
    cascade, reading = Cascade(stages), reading_of(stages)
    files = [(image, manifest.path(image)) for image in manifest.images["image"]]
    rows: list[dict[str, Any]] = []
    for image, film in read_ahead(track(files, description=what), reading=reading):
        results = [] if isinstance(film, ImageReadError) else cascade.run(Case.of(image, film))
        if isinstance(film, ImageReadError):
            log.warning("%s: not read: %s", image, film.reason)
        rows += reading.rows(image, film, results, truth)
        del film, results  # before the next one is read: one volume is in memory at a time
    return rows


def predict_manifest(
    stages: Sequence[Stage],
    manifest: Manifest,
    truth: Any,
    key: bytes | None,
    *,
    what: str = "predicting",
) -> pd.DataFrame:
    """The prediction table of all films or volumes of a manifest.

    Patients and groups are hashed with ``key``; a table made without one is for use within a run and is never written.
    """
    rows = predict_rows(stages, manifest, truth, what=what)
    return prediction_table(rows, stages, hashed_images(manifest, key))


def hashed_images(manifest: Manifest, key: bytes | None) -> pd.DataFrame:
    """The images table with patients and groups as keyed hashes; as it is without a key."""
    images = manifest.images
    if key is None:
        return images
    groups = [hash_patient("group", group, key) for group in images["group"]]
    return images.assign(patient=hash_patients(images, key), group=groups)

"""Predict films with trained stages: the table, overlays, and an exit code that says whether all was read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from domainseg.bundle.inputs import read_input
from domainseg.bundle.predict import predict_manifest
from domainseg.cascade.table import write_table
from domainseg.cascade.truth import Truth
from domainseg.data.privacy import patient_key
from domainseg.training.stages import RunError, load_cascade

log = logging.getLogger(__name__)


def predict(cfg: dict[str, Any], output: Path) -> int:
    """The command: returns 0 when all films were read, 3 when some were not, 1 when nothing was done."""
    stages = load_cascade(Path(cfg["run"]), str(cfg["trainer"]["accelerator"]))
    manifest = read_input(Path(cfg["input"]))
    if len(manifest) == 0:
        raise RunError(f"input={cfg['input']}: no film there")
    key = patient_key(cfg["key"], output)
    truth = Truth(manifest) if len(manifest.targets) else None
    overlays = output / "overlays" if cfg["overlays"] else None
    table = predict_manifest(stages, manifest, truth, key, overlays=overlays)
    write_table(table, output)
    unread = int((table.drop_duplicates("image")["excluded_by"] == "read").sum())
    log.info(
        "%d films, %d cases scored, %d films unreadable", len(manifest), int((table["excluded_by"] == "").sum()), unread
    )
    return 1 if unread == len(manifest) else 3 if unread else 0

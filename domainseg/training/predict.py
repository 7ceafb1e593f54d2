"""Predict films with trained stages: the table, overlays, and an exit code that says whether all was read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.progress import track

from domainseg.cascade.cascade import Cascade, read_ahead
from domainseg.cascade.case import Case
from domainseg.cascade.stages import Stage
from domainseg.cascade.table import film_rows, prediction_table, write_table
from domainseg.cascade.truth import Truth
from domainseg.data.manifest import Manifest, build_manifest, load_manifest
from domainseg.data.privacy import hash_patient, hash_patients, patient_key
from domainseg.imaging import ImageReadError
from domainseg.reporting.overlays import draw_overlay
from domainseg.training.stages import RunError, load_cascade

log = logging.getLogger(__name__)

FILMS = {".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff"}


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


def read_input(path: Path) -> Manifest:
    """A manifest from a film, a folder of films or an images table. Raises RunError or ManifestError."""
    if path.suffix.lower() in (".csv", ".parquet"):
        return load_manifest(path, check_files=False)
    if path.is_dir():
        there = sorted(file for file in path.rglob("*") if file.is_file())
        files, root = [file for file in there if is_film(file)], path
        if passed := len(there) - len(files):
            log.warning("%d of %d files in the folder are no films by name or content: passed over", passed, len(there))
    elif path.is_file():
        files, root = [path], path.parent
    else:
        raise RunError(f"input={path}: does not exist")
    names = [str(file.relative_to(root)) for file in files]
    images = pd.DataFrame({"image": names, "path": names}, dtype=object)
    return build_manifest(images, pd.DataFrame({"image": [], "part": []}, dtype=object), root, path.name)


def is_film(file: Path) -> bool:
    """Whether a file of a folder is to be read: by its ending, or as DICOM (archives name files 1.2.840.113619.2.55).

    A file without an ending counts, unless it is hidden or a DICOMDIR; one that cannot be opened counts too, so that
    the table says so.
    """
    if file.name.startswith(".") or file.name.upper() == "DICOMDIR":
        return False
    if file.suffix.lower() in {*FILMS, ""}:
        return True
    try:
        with open(file, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return True


def predict_manifest(
    stages: Sequence[Stage],
    manifest: Manifest,
    truth: Truth | None,
    key: bytes | None,
    *,
    what: str = "predicting",
    overlays: Path | None = None,
) -> pd.DataFrame:
    """The prediction table of all films of a manifest.

    Patients and groups are hashed with ``key``; a table made without one is for use within a run and is never written.
    """
    cascade = Cascade(stages)
    files = [(image, manifest.path(image)) for image in manifest.images["image"]]
    rows: list[dict[str, Any]] = []
    for image, film in track(read_ahead(files), description=what, total=len(files)):
        results = [] if isinstance(film, ImageReadError) else cascade.run(Case.of(image, film))
        if isinstance(film, ImageReadError):
            log.warning("%s: not read: %s", image, film.reason)
        elif overlays is not None:
            draw_overlay(film, results, overlays / f"{image.replace('/', '_')}.png")
        rows += film_rows(image, film, results, truth)
    images = manifest.images
    if key is not None:
        groups = [hash_patient("group", group, key) for group in images["group"]]
        images = images.assign(patient=hash_patients(images, key), group=groups)
    return prediction_table(rows, stages, images)

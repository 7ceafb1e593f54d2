"""The predict command: films or exams through worker processes into a journal, and from there into the tables."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from rich.progress import Progress

from domainseg.bundle.drawn import Drawn
from domainseg.bundle.inputs import film_name, read_input
from domainseg.bundle.journal import Journal
from domainseg.bundle.kinds import MADE_OF
from domainseg.bundle.model import Model, threads_a_worker
from domainseg.bundle.predict import hashed_images
from domainseg.bundle.schema import BundleError
from domainseg.bundle.workers import Recipe, Worker, predict_films
from domainseg.cascade.reads import VOLUMES, Reading, reading_of
from domainseg.cascade.table import lesion_table, prediction_table, write_table
from domainseg.data.manifest import Manifest, ManifestError
from domainseg.data.privacy import hash_patient, patient_key
from domainseg.files import read_json, remove_partial, sha256_file, write_json

log = logging.getLogger(__name__)

JOURNAL = "journal.jsonl"
TABLE = "table"  # in it: SHA-256 of the table
WISHES = {"overlays": "overlays", "masks": "masks", "seg": "masks"}  # what may be drawn beside -> its folder


def predict_command(model: Model, cfg: Mapping[str, Any], output: Path, first: Worker | None = None) -> int:
    """Predict ``cfg["input"]`` into ``output``; 0: all done, 3: not all read or drawn, 1: nothing read.

    first: a worker that was started already. The table is the same whatever the number of workers and however often it
    was interrupted. Raises DomainsegError for what a person has to mend.
    """
    reading = reading_of(model.stages)
    check_wishes(cfg, reading)
    labels = None if cfg["labels"] is None else Path(cfg["labels"])
    manifest = read_input(Path(cfg["input"]), output, labels, reading)
    if len(manifest) == 0:
        raise ManifestError(f"input={cfg['input']}: no {reading.plural} there")
    key = patient_key(cfg["key"], output)
    table = predict_table(model, manifest, key, output, cfg, first)
    unread = int((table.drop_duplicates("image")["excluded_by"] == "read").sum())
    scored = int((table["excluded_by"] == "").sum())
    read = len(manifest) - unread
    log.info("%s read: %d of %d; cases with a score: %d", reading.plural, read, len(manifest), scored)
    undrawn = table.loc[table["not_drawn"].notna(), "image"].nunique() if "not_drawn" in table else 0
    if undrawn:
        log.warning("%s without something that was asked for: %d (column not_drawn)", reading.plural, undrawn)
    return 1 if unread == len(manifest) else 3 if unread or undrawn else 0


def check_wishes(cfg: Mapping[str, Any], reading: Reading) -> None:
    """Raise BundleError for masks of films, and for DICOM SEG without the package that writes it."""
    for name in ("masks", "seg"):
        if cfg[name] and reading is not VOLUMES:
            raise BundleError(f"{name}=true: this cascade reads {reading.plural}; masks are written of exams only")
    if cfg["seg"] and find_spec("highdicom") is None:
        raise BundleError("seg=true needs highdicom: pip install 'domainseg[seg]'")


def predict_table(
    model: Model,
    manifest: Manifest,
    key: bytes,
    output: Path,
    cfg: Mapping[str, Any],
    first: Worker | None = None,
) -> pd.DataFrame:
    """Predict all of a manifest, going on where a journal in ``output`` stops, and write the table.

    cfg: workers, threads, memory_gb, overlays, masks, seg. Of volumes the table of lesions is written beside it. A
    finished table of the same is taken up. Raises BundleError when ``output`` holds another one.
    """
    reading = reading_of(model.stages)
    workers = int(cfg["workers"])
    if workers < 1:
        raise BundleError(f"workers={workers}: at least 1")
    recipe = Recipe(
        load=model.load,
        known=manifest if len(manifest.targets) else None,
        envelope=model.envelope,
        drawn=Drawn(**{name: output / folder if cfg[name] else None for name, folder in WISHES.items()}),
        threads=threads_a_worker(cfg),
        reading=reading,
    )
    header = {
        **model.identity,
        "inputs": fingerprint(manifest),
        "films": len(manifest),
        **{name: bool(cfg[name]) for name in WISHES},
        "memory_gb": cfg["memory_gb"],
        "key": hash_patient("key", "which one it is", key),
    }
    if (output / MADE_OF).is_file():
        made_of, made = read_json(output / MADE_OF), output / "predictions.parquet"
        if (own := made_of.pop(TABLE, None)) is not None and not (made.is_file() and sha256_file(made) == own):
            raise BundleError(f"{made}: is not the table that was predicted here; name another folder")
        if made_of != header:
            differs = ", ".join(sorted(name for name in header if made_of.get(name) != header[name]))
            raise BundleError(f"output={output}: holds a prediction table with other {differs}; name another folder")
        log.info("predicted before: %s", output / "predictions.parquet")
        return pd.read_parquet(output / "predictions.parquet")
    if (output / "predictions.parquet").is_file() and not (output / JOURNAL).is_file():
        raise BundleError(
            f"output={output}: holds the prediction table of another command, as of train; name another folder"
        )
    left = sorted({folder for name, folder in WISHES.items() if cfg[name] and any((output / folder).glob("[!.]*"))})
    if left and not (output / JOURNAL).is_file():
        raise BundleError(
            f"output={output}: holds {' and '.join(left)} of something else, which would mix with those of this "
            "prediction; name another folder"
        )
    images = list(manifest.images["image"])
    with Journal(output / JOURNAL, header) as journal, Progress() as progress:
        remove_partial(output)
        rest = [(image, manifest.path(image)) for image in images if image not in journal.done]
        if len(rest) < len(images):
            done_before = len(images) - len(rest)
            log.info("%d of %d %s were done before: going on", done_before, len(images), reading.plural)
        task = progress.add_task("predicting", total=len(images), completed=len(images) - len(rest))
        for done in predict_films(recipe, rest, workers, cfg["memory_gb"], first):
            if done.problem:
                log.warning("%s: not read: %s", done.image, done.reason)
            if done.note:
                log.warning("%s: %s", done.image, done.note)
            journal.add(done.image, done.rows)
            progress.advance(task)
        found = dict(journal.rows())
        rows = [row for image in images for row in found[image]]
        table = prediction_table(rows, model.stages, hashed_images(manifest, key))
        if model.envelope is not None and "outside" not in table:  # nothing was read
            table["outside"] = None
        table = table.assign(**model.columns)
        if reading is VOLUMES:
            write_table(lesion_table(rows), output, "lesions")
        write_table(table, output)
        write_json(output / MADE_OF, {**header, TABLE: sha256_file(output / "predictions.parquet")})
        journal.remove()
    return table


def fingerprint(manifest: Manifest) -> str:
    """SHA-256 of what is predicted: the manifest's cells, and the size and time of each film's file and each mask.

    Of an exam in a folder those of all files below it, with their names.
    """
    digest = hashlib.sha256(manifest.hash().encode())
    for image in manifest.images["image"]:
        path = manifest.path(image)
        digest.update(f"{image}\0{'' if path.is_dir() else _state(path)}\n".encode())
        if path.is_dir():
            for file in sorted(os.path.join(place, name) for place, _, names in os.walk(path) for name in names):
                digest.update(f"{film_name(Path(file).relative_to(path))}\0{_state(file)}\n".encode())
    for column in ("mask", "mimics"):
        for cell in sorted(set(manifest.targets.get(column, [])) - {""}):
            digest.update(f"{cell}\0{_state(manifest.file(cell))}\n".encode())
    return digest.hexdigest()


def _state(file: Path | str) -> str:
    try:
        state = os.stat(file)
    except OSError:
        return "-"
    return f"{state.st_size}\0{state.st_mtime_ns}"

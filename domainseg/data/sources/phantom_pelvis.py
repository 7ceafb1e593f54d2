"""Simulated pelvis films with known truth: data=phantom_pelvis, the default."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from domainseg import phantom
from domainseg.data.manifest import Manifest, load_manifest
from domainseg.data.tables import ManifestError
from domainseg.files import hash_json, read_json, write_json

log = logging.getLogger(__name__)

RECORD = "complete.json"  # written last: without it the simulation was interrupted and goes on where it stopped


def load(n: int, seed: int, root: Path | str | None = None, workers: int | None = None, **settings: Any) -> Manifest:
    """The films of a simulation: made now, or reused when they have been made with the same settings.

    n: films. seed: of the simulation. root: the folder for the films; by default
    outputs/data/phantom_pelvis-<8 digits of the hash of all settings and of the phantom's version>.
    workers: processes that simulate, by default as many as cores; the films do not depend on it.
    settings: further settings of the simulation (conf/phantom/pelvis.yaml lists them).
    Raises ManifestError when ``root`` holds something else, and what the simulation raises at wrong settings.
    """
    wanted = {"n": n, "seed": seed, **settings}
    digest = hash_json({"settings": wanted, "version": phantom.VERSION})
    folder = Path(root) if root is not None else Path("outputs/data") / f"phantom_pelvis-{digest[:8]}"
    record = folder / RECORD
    if record.is_file():
        if read_json(record)["digest"] != digest:
            raise ManifestError(
                f"data.root={folder}: holds films of other settings; name an empty folder, or leave data.root out"
            )
        log.info("simulated films found in %s", folder)
    else:
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "phantom.json").is_file():
            raise ManifestError(f"data.root={folder}: is neither empty nor a folder of simulated films")
        log.info("simulating %d films into %s", n, folder)
        folder.mkdir(parents=True, exist_ok=True)
        phantom.simulate({**wanted, "workers": workers}, folder)
        write_json(record, {"digest": digest, "version": phantom.VERSION, "settings": wanted})
    manifest = load_manifest(folder / "images.parquet", folder / "targets.parquet")
    return replace(manifest, name="phantom_pelvis")

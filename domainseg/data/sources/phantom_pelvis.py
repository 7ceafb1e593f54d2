"""Simulated pelvis films with known truth: data=phantom_pelvis, the default."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from domainseg import phantom
from domainseg.data.manifest import Manifest, load_manifest
from domainseg.data.tables import ManifestError
from domainseg.files import hash_json, read_json, write_json

log = logging.getLogger(__name__)

RECORD = "simulated.json"


def load(n: int, seed: int, root: Path | str | None = None, **settings: Any) -> Manifest:
    """The films of a simulation: made now, or reused when they have been made with the same settings.

    n: films. seed: of the simulation. root: the folder for the films; by default
    outputs/data/phantom_pelvis-<8 digits of the hash of all settings and of the phantom's version>.
    settings: further settings of the simulation (``domainseg.phantom``; conf/phantom/pelvis.yaml lists them).
    The films appear in the folder all at once, so an interrupted simulation leaves none.
    Raises ManifestError when ``root`` holds something else.
    """
    wanted = {"n": n, "seed": seed, **settings}
    digest = hash_json({"settings": wanted, "version": phantom.VERSION})
    folder = Path(root) if root is not None else Path("outputs/data") / f"phantom_pelvis-{digest[:8]}"
    if not folder.exists() or not any(folder.iterdir()):
        _simulate(wanted, digest, folder)
    record = folder / RECORD
    if not record.is_file() or read_json(record)["digest"] != digest:
        raise ManifestError(
            f"data.root={folder}: holds something other than the films of these settings; "
            "name an empty folder, or leave data.root out"
        )
    manifest = load_manifest(folder / "images.parquet", folder / "targets.parquet")
    return Manifest(manifest.images, manifest.targets, folder, "phantom_pelvis")


def _simulate(settings: dict[str, Any], digest: str, folder: Path) -> None:
    log.info("simulating %d films into %s", settings["n"], folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        unfinished.chmod(0o755)
        phantom.simulate(settings, unfinished)
        write_json(unfinished / RECORD, {"digest": digest, "version": phantom.VERSION, "settings": settings})
        try:
            unfinished.rename(folder)
        except OSError:  # another process was faster; whether its films are the same is checked by the caller
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)

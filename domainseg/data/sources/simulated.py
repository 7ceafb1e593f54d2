"""Simulated data as a source: made once, reused, finished when half done."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from domainseg import phantom
from domainseg.data.manifest import Manifest, load_manifest
from domainseg.data.tables import ManifestError
from domainseg.files import hash_json, read_json, write_json

log = logging.getLogger(__name__)

RECORD = "complete.json"  # written last: without it the simulation was interrupted and goes on where it stopped


def load(
    kind: str, version: str, wanted: Mapping[str, Any], root: Path | str | None, workers: int | None, what: str
) -> Manifest:
    """The films or exams (``what``) of a simulation of that kind, as its sources describe it."""
    digest = hash_json({"settings": dict(wanted), "version": version})
    folder = Path(root) if root is not None else Path("outputs/data") / f"phantom_{kind}-{digest[:8]}"
    record = folder / RECORD
    if record.is_file():
        if read_json(record)["digest"] != digest:
            raise ManifestError(
                f"data.root={folder}: holds {what} of other settings; name an empty folder, or leave data.root out"
            )
        log.info("simulated %s found in %s", what, folder)
    else:
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "phantom.json").is_file():
            raise ManifestError(f"data.root={folder}: is neither empty nor a folder of simulated {what}")
        log.info("simulating %d %s into %s", wanted["n"], what, folder)
        folder.mkdir(parents=True, exist_ok=True)
        phantom.simulate({**wanted, "kind": kind, "workers": workers}, folder)
        write_json(record, {"digest": digest, "version": version, "settings": dict(wanted)})
    manifest = load_manifest(folder / "images.parquet", folder / "targets.parquet")
    return replace(manifest, name=f"phantom_{kind}")

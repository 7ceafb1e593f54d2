"""What to predict: a film, a folder of films or an images table, as a manifest."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from domainseg.data.manifest import Manifest, ManifestError, build_manifest, load_manifest

log = logging.getLogger(__name__)

FILMS = {".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff"}


def read_input(path: Path) -> Manifest:
    """A manifest from a film, a folder of films or an images table. Raises ManifestError."""
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
        raise ManifestError(f"input={path}: does not exist")
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

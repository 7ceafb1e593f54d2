"""What to predict, as a manifest: a film, an exam, a folder of either, or an images table."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import pandas as pd

from domainseg.cascade.reads import FILMS, VOLUMES, Reading
from domainseg.data.manifest import Manifest, ManifestError, build_manifest, load_manifest
from domainseg.imaging.exams import below, exams, is_film

log = logging.getLogger(__name__)


def read_input(
    path: Path, output: Path | None = None, labels: Path | None = None, reading: Reading = FILMS
) -> Manifest:
    """A manifest from a film or an exam, a folder of them, or an images table. Raises ManifestError.

    reading: what the cascade reads. An exam is a NIfTI file, or the folder of a study's slices: DICOM files, the
    multi-frame ones of Enhanced CT too, or pictures. output: where results go; a folder of films or exams may hold it,
    and its pictures are no films; that of one exam must not. labels: the targets table that goes with an images table.
    """
    manifest = _manifest(path, output, labels, reading)
    if output is not None and reading is VOLUMES:
        above = {output.resolve(), *output.resolve().parents}
        if held := next((image for image in manifest.images["image"] if manifest.path(image).resolve() in above), None):
            raise ManifestError(f"output={output}: lies in the folder of the exam {held}; name another place")
    return manifest


def _manifest(path: Path, output: Path | None, labels: Path | None, reading: Reading) -> Manifest:
    if path.suffix.lower() in (".csv", ".parquet"):
        return load_manifest(path, labels, check_files=False)
    if labels is not None:
        raise ManifestError(f"labels={labels}: go with an images table (CSV or Parquet), and input={path} is none")
    if path.is_dir():
        if output is not None and path.resolve() == output.resolve():
            raise ManifestError(f"output={output}: is the folder of the {reading.plural} themselves; name another")
        there, linked = below(path, leaving=output)
        if reading is VOLUMES:
            found, passed = exams(there)
            log.info("%d exams in the folder: each NIfTI file is one, and each study's folder", len(found))
        else:
            found = [file for file in there if is_film(file)]
            passed = len(there) - len(found)
        if passed:
            of = "slices and no NIfTI" if reading is VOLUMES else "films"
            log.warning(
                "%d of %d files in the folder are no %s by name or content: passed over", passed, len(there), of
            )
        if linked:
            log.warning("%d linked folders are not entered: name them as input to predict what lies there", linked)
        # A folder that is an exam itself is called by its own name, as a file would be.
        above = Path(path.resolve().name) if path in found else Path()
        names = [above / file.relative_to(path) for file in found]
    elif path.is_file():
        found, names = [path], [Path(path.name)]
    else:
        raise ManifestError(f"input={path}: does not exist")
    files: dict[str, str] = {}
    for name, file in zip(names, found, strict=True):
        if files.setdefault(film_name(name), str(file.absolute())) != str(file.absolute()):
            raise ManifestError(f"input={path}: two files would be called {film_name(name)} in the table: rename one")
    images = pd.DataFrame({"image": list(files)}, dtype=object)
    manifest = build_manifest(images, pd.DataFrame({"image": [], "part": []}, dtype=object), path.parent, path.name)
    # Paths go beside the table: its cells are text without blanks at their ends, which a path need not be.
    return replace(manifest, films=files)


def film_name(path: Path) -> str:
    """What a table calls a film: its path as text, with bytes that are no UTF-8 and blanks at its ends as \\xNN."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    start = len(text) - len(text.lstrip())
    end = max(start, len(text.rstrip()))
    before, after = ("".join(f"\\x{byte:02x}" for byte in part.encode()) for part in (text[:start], text[end:]))
    return before + text[start:end] + after

"""What to predict: a film, a folder of films or an images table, as a manifest."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import pandas as pd

from domainseg.data.manifest import Manifest, ManifestError, build_manifest, load_manifest

log = logging.getLogger(__name__)

FILMS = {".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff"}


def read_input(path: Path, output: Path | None = None, labels: Path | None = None) -> Manifest:
    """A manifest from a film, a folder of films or an images table. Raises ManifestError.

    output: where results go; a folder of films may hold it, and its pictures are no films. labels: the targets table
    that goes with an images table.
    """
    if path.suffix.lower() in (".csv", ".parquet"):
        return load_manifest(path, labels, check_files=False)
    if labels is not None:
        raise ManifestError(f"labels={labels}: go with an images table (CSV or Parquet), and input={path} is none")
    if path.is_dir():
        if output is not None and path.resolve() == output.resolve():
            raise ManifestError(f"output={output}: is the folder of the films themselves; name another")
        there, linked = _below(path, output)
        films, root = [file for file in there if is_film(file)], path
        if passed := len(there) - len(films):
            log.warning("%d of %d files in the folder are no films by name or content: passed over", passed, len(there))
        if linked:
            log.warning("%d linked folders are not entered: name them as input to predict what lies there", linked)
    elif path.is_file():
        films, root = [path], path.parent
    else:
        raise ManifestError(f"input={path}: does not exist")
    files = {film_name(file.relative_to(root)): str(file.absolute()) for file in films}
    images = pd.DataFrame({"image": list(files)}, dtype=object)
    found = build_manifest(images, pd.DataFrame({"image": [], "part": []}, dtype=object), root, path.name)
    # Paths go beside the table: its cells are text without blanks at their ends, which a path need not be.
    return replace(found, films=files)


def film_name(path: Path) -> str:
    """What a table calls a film: its path as text, with bytes that are no UTF-8 and blanks at its ends as \\xNN."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    start = len(text) - len(text.lstrip())
    end = max(start, len(text.rstrip()))
    before, after = ("".join(f"\\x{byte:02x}" for byte in part.encode()) for part in (text[:start], text[end:]))
    return before + text[start:end] + after


def _below(folder: Path, output: Path | None) -> tuple[list[Path], int]:
    """All files below a folder but those of ``output``, and the number of linked folders.

    Links that lead nowhere count as files: films that cannot be read. Raises the OSError of a folder that cannot be
    looked into: what lies there must not go missing in silence.
    """
    files, linked = [], 0
    for place, folders, names in os.walk(folder, onerror=_raise):
        if output is not None:
            folders[:] = [name for name in folders if Path(place, name).resolve() != output.resolve()]
        linked += sum(os.path.islink(os.path.join(place, name)) for name in folders)
        found = (Path(place, name) for name in names)
        files += [file for file in found if file.is_file() or file.is_symlink()]
    return sorted(files), linked


def _raise(error: OSError) -> None:
    raise error


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

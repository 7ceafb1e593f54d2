"""Find out what kind of annotation file it is, and read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from domainseg.data.annotations.coco import read_coco
from domainseg.data.annotations.cvat import read_cvat
from domainseg.data.annotations.shapes import AnnotationProblem, Shape
from domainseg.data.annotations.slicer import read_markups, read_segments
from domainseg.data.tables import ManifestError

_ENDINGS = (".mrk.json", ".seg.nrrd", "-label.nrrd", ".json", ".xml")  # a .nrrd without may be the film itself


def find_annotations(path: Path) -> tuple[list[Path], int]:
    """The annotation files below a folder in the order of names (or the one file), and how many others lie there."""
    if not path.is_dir():
        return [path], 0
    every = sorted(file for file in path.rglob("*") if file.is_file())
    files = [file for file in every if file.name.lower().endswith(_ENDINGS)]
    return files, len(every) - len(files)


def read_annotations(path: Path) -> Iterator[Shape]:
    """The shapes of a file, or of every annotation file below a folder, in the order of names.

    A file of 3D Slicer is about the film that is called like the file, or else like the folder in which it lies.
    Raises ManifestError for a file that cannot be read; it is told by its number, because its name may be a patient's.
    """
    if not path.exists():
        raise ManifestError(f"annotations={path}: no such file or folder")
    files, _ = find_annotations(path)
    if not files or not files[0].is_file():
        raise ManifestError(f"annotations={path}: no file with one of the endings {', '.join(_ENDINGS)}")
    for number, file in enumerate(files, start=1):
        below = file.relative_to(path) if path.is_dir() else Path(file.name)
        try:
            yield from _read(file, below)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError) as error:
            known = (
                str(error)
                if isinstance(error, AnnotationProblem)
                else f"not what its ending says ({type(error).__name__})"
            )
            told = "" if path.is_file() else f", file {number} of {len(files)} in the order of names"
            raise ManifestError(f"annotations={path}{told}: {known}") from None


def _read(file: Path, below: Path) -> Iterator[Shape]:
    ending = next((ending for ending in _ENDINGS if file.name.lower().endswith(ending)), "")
    stem = below.as_posix()[: -len(ending)] if ending else below.as_posix()
    films = (stem, below.parent.as_posix()) if below.parent.name else (stem,)
    if ending == ".xml":
        yield from read_cvat(file)
    elif ending in (".seg.nrrd", "-label.nrrd"):
        yield from read_segments(file, films)
    elif ending:
        with open(file, encoding="utf-8-sig") as stream:
            try:
                content = json.load(stream)
            except (json.JSONDecodeError, UnicodeDecodeError):
                raise AnnotationProblem("not readable JSON") from None
        yield from read_markups(content, films) if "markups" in content else read_coco(content)
    else:
        raise AnnotationProblem(f"its ending is none of {', '.join(_ENDINGS)}")

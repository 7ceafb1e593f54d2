"""Which film an annotation is about: by SOPInstanceUID, by path, or by a file name that only one film has."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from domainseg.data.pacs.films import Films
from domainseg.data.pacs.scan import Scan

_ENDINGS = (".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".nrrd", ".nii", ".gz")
LEVELS = ("uid", "path", "file_name")  # surest first

NOT_FOUND, AMBIGUOUS, FILM_LEFT_OUT = "film_not_found", "film_ambiguous", "film_left_out"


@dataclass(frozen=True)
class FilmInfo:
    """What annotations need to know of their film.

    spacing: (x, y) in mm as 3D Slicer takes it, 1 without any. orientation: PatientOrientation or None. view: as in
    the images table.
    """

    image: str
    width: int
    height: int
    spacing: tuple[float, float]
    orientation: tuple[str, str] | None
    view: str
    level: str


def match(names: Iterable[str], scan: Scan, films: Films, spacing_tags: Iterable[str]) -> dict[str, FilmInfo | str]:
    """name as the annotations have it -> the film, or why there is none.

    Of the levels uid, path (the end of the film's path below the DICOM folder, endings of file names aside) and
    file_name, the first at which any file answers counts; it must be one file only, left-out ones included: a name
    that stands in every study (IM0001) says nothing. A duplicate stands for the film that was kept, unless its pixels
    are others.
    """
    by_base: dict[str, list[str]] = {}
    for name in names:
        by_base.setdefault(_bare(name).rpartition("/")[2], []).append(name)
    kept = dict(zip(films.paths["path"], films.paths["image"], strict=True))
    hits: dict[str, dict[str, set[str]]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for row in scan.rows():
        path = _bare(row["path"])
        base = path.rpartition("/")[2]
        uid = row["values"].get("SOPInstanceUID", "")
        for name in {*by_base.get(base, ()), *by_base.get(uid, ())}:
            bare = _bare(name)
            level = _level(bare, path, uid)
            stands_for = films.replaced.get(row["path"], row["path"])
            hits.setdefault(name, {}).setdefault(level, set()).add(stands_for)
            rows[row["path"]] = row
    wanted = {path for levels in hits.values() for paths in levels.values() for path in paths}
    if wanted - set(rows):  # films that another file stands for
        rows |= {row["path"]: row for row in scan.rows() if row["path"] in wanted}
    found: dict[str, FilmInfo | str] = {}
    views = dict(zip(films.images["image"], films.images["view"], strict=True))
    by_path = {path for levels in hits.values() for path in levels.get("path", ())}
    for name in (name for group in by_base.values() for name in group):
        level = next((level for level in LEVELS if level in hits.get(name, {})), "")
        paths = hits.get(name, {}).get(level, set())
        if len(paths) != 1:
            found[name] = AMBIGUOUS if paths else NOT_FOUND
            continue
        (path,) = paths
        if level == "file_name" and "/" in _bare(name) and path in by_path:
            found[name] = NOT_FOUND  # that film has this name's twin in its own folder: folders tell films apart here
        elif path not in kept:
            found[name] = FILM_LEFT_OUT
        else:
            info = _info(kept[path], rows.get(path), views[kept[path]], level, spacing_tags)
            found[name] = info or NOT_FOUND
    return found


def _level(name: str, path: str, uid: str) -> str:
    """How a name (bare, its last part equal to the file's or the UID) points at a file."""
    if uid and name.rpartition("/")[2] == uid:
        return "uid"
    same_end = ("/" in name and path.endswith(f"/{name}")) or ("/" in path and name.endswith(f"/{path}"))
    return "path" if same_end or (path == name and "/" in name) else "file_name"


def _info(
    image: str, row: Mapping[str, Any] | None, view: str, level: str, spacing_tags: Iterable[str]
) -> FilmInfo | None:
    if row is None:
        return None
    values = row["values"]
    orientation = tuple(item.strip().upper() for item in values.get("PatientOrientation", "").split("\\"))
    spacing = next((pair for tag in spacing_tags if (pair := _pair(values.get(tag, "")))), (1.0, 1.0))
    try:
        width, height = int(values["Columns"]), int(values["Rows"])
    except ValueError:
        return None
    return FilmInfo(
        image=image,
        width=width,
        height=height,
        spacing=spacing,
        orientation=(orientation[0], orientation[1]) if len(orientation) == 2 and all(orientation) else None,
        view=view.upper(),
        level=level,
    )


def _pair(text: str) -> tuple[float, float] | None:
    """(x, y) from DICOM's row\\column distance."""
    try:
        down, along = (float(number) for number in text.split("\\"))
    except ValueError:
        return None
    return (along, down) if along > 0 and down > 0 else None


def _bare(name: str) -> str:
    """A path with / and without endings of image files, in one Unicode form; a UID keeps its last number."""
    text = unicodedata.normalize("NFC", name).replace("\\", "/").removeprefix("./").lstrip("/")
    while ending := next((ending for ending in _ENDINGS if text.lower().endswith(ending)), ""):
        text = text[: -len(ending)]
    return text

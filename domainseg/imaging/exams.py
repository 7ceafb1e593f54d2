"""What in a folder is an exam or a film, by names and headers."""

from __future__ import annotations

import os
from pathlib import Path

from domainseg.imaging.header import looks_like_dicom, read_values

ENDINGS = {".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff"}  # of films, and of the slices of an exam
NIFTI = (".nii", ".nii.gz")


def exams(files: list[Path]) -> tuple[list[Path], int]:
    """The exams that files make, sorted, and the number of files that belong to none.

    Each NIfTI file is one. All slices that lie in one folder are one, named by the folder, and so are those of several
    folders of one study (a folder a series, say), named by the folder that holds them and nothing else: which series is
    read, ``read_volume`` decides and tells. Else one study would count several times.
    """
    volumes = [file for file in files if is_nifti(file)]
    slices: dict[Path, list[Path]] = {}
    for file in files:
        if not is_nifti(file) and is_film(file):
            slices.setdefault(file.parent, []).append(file)
    study = {folder: _study(own) for folder, own in slices.items()}
    below: dict[Path, set[str]] = {}
    for folder, own in study.items():
        for above in (folder, *folder.parents):
            below.setdefault(above, set()).add(own)
    together: dict[Path, list[Path]] = {}
    for folder, own in study.items():
        alone = [above for above in (folder, *folder.parents) if own and below[above] == {own}]
        together.setdefault(alone[-1] if alone else folder, []).append(folder)
    found = [*volumes, *(Path(os.path.commonpath(folders)) for folders in together.values())]
    return sorted(found), len(files) - len(volumes) - sum(map(len, slices.values()))


def _study(files: list[Path]) -> str:
    """StudyInstanceUID of the first file that has one; "" where none is DICOM. In memory only."""
    for file in files:
        try:
            if found := read_values(file, ("StudyInstanceUID",)).get("StudyInstanceUID", ""):
                return found
        except Exception:  # no DICOM, or damaged: reading the exam says so
            continue
    return ""


def is_nifti(file: Path) -> bool:
    """Whether a file is a NIfTI volume by its name, hidden ones aside."""
    return file.name.lower().endswith(NIFTI) and not file.name.startswith(".")


def is_film(file: Path) -> bool:
    """Whether a file of a folder is to be read: by its ending, or as DICOM (archives name files 1.2.840.113619.2.55).

    A file without an ending counts, unless it is hidden or a DICOMDIR; one that cannot be opened counts too, so that
    the table says so.
    """
    if file.name.startswith(".") or file.name.upper() == "DICOMDIR":
        return False
    if file.suffix.lower() in {*ENDINGS, ""}:
        return True
    try:
        with open(file, "rb") as stream:
            return looks_like_dicom(stream.read(132))
    except OSError:
        return True

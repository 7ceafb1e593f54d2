"""What in a folder is an exam or a film, by names and headers."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from domainseg.imaging.header import looks_like_dicom, read_values
from domainseg.imaging.slices import lies_beside

log = logging.getLogger(__name__)

ENDINGS = {".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff"}  # of films, and of the slices of an exam
NIFTI = (".nii", ".nii.gz")
_STUDY = ("StudyInstanceUID", "PatientID", "IssuerOfPatientID")


def exams(files: list[Path]) -> tuple[list[Path], int]:
    """The exams that files make, sorted, and the number of files that belong to none.

    Each NIfTI file is one. All slices that lie in one folder are one, named by the folder, and so are those of several
    folders of one patient and study (a folder a series, say), named by the folder that holds these and nothing else:
    which series is read, ``read_volume`` decides and tells. Else one study would count several times.
    """
    volumes = [file for file in files if is_nifti(file)]
    slices: dict[Path, list[Path]] = {}
    for file in files:
        if not is_nifti(file) and is_film(file):
            slices.setdefault(file.parent, []).append(file)
    of_none = set(files).difference(volumes, *slices.values())
    study = {folder: _study(own) for folder, own in slices.items()}
    held: dict[Path, set[str]] = {}  # by each folder and all below it; "": what is read with no other folder
    strangers = ((file.parent, "") for file in (*volumes, *of_none) if not (lies_beside(file) or _is_index(file)))
    for folder, own in (*study.items(), *strangers):
        for above in (folder, *folder.parents):
            held.setdefault(above, set()).add(own)
    together: dict[Path, list[Path]] = {}
    for folder, own in study.items():
        alone = [above for above in (folder, *folder.parents) if own and held[above] == {own}]
        together.setdefault(alone[-1] if alone else folder, []).append(folder)
    if len(together) < len(study):
        log.info("%d folders with slices are %d exams: those of one study are read as one", len(study), len(together))
    found = [*volumes, *(Path(os.path.commonpath(folders)) for folders in together.values())]
    return sorted(found), len(of_none)


def below(folder: Path, *, leaving: Path | None = None, follow: bool = False) -> tuple[list[Path], int]:
    """All files below a folder but those of ``leaving``, sorted, and the number of linked folders.

    follow: whether linked folders are entered. Links that lead nowhere count as files: they cannot be read. Raises the
    OSError of a folder that cannot be looked into: what lies there must not go missing in silence.
    """
    files, linked = [], 0
    for place, folders, names in os.walk(folder, onerror=_raise, followlinks=follow):
        if leaving is not None:
            folders[:] = [name for name in folders if Path(place, name).resolve() != leaving.resolve()]
        linked += sum(os.path.islink(os.path.join(place, name)) for name in folders)
        found = (Path(place, name) for name in names)
        files += [file for file in found if file.is_file() or file.is_symlink()]
    return sorted(files), linked


def _raise(error: OSError) -> None:
    raise error


def _study(files: list[Path]) -> str:
    """Patient and study of the first file that names a study; "" where none is DICOM. In memory only."""
    for file in files:
        try:
            values = read_values(file, _STUDY)  # and the kind of object, which differs within a study
        except Exception:  # no DICOM, or damaged: reading the exam says so
            continue
        if "StudyInstanceUID" in values:
            return "\0".join(values.get(name, "") for name in _STUDY)
    return ""


def _is_index(file: Path) -> bool:
    return file.name.upper() == "DICOMDIR"


def is_nifti(file: Path) -> bool:
    """Whether a file is a NIfTI volume by its name, hidden ones aside."""
    return file.name.lower().endswith(NIFTI) and not file.name.startswith(".")


def is_film(file: Path) -> bool:
    """Whether a file of a folder is to be read: by its ending, or as DICOM (archives name files 1.2.840.113619.2.55).

    A file without an ending counts, unless it is hidden or a DICOMDIR; one that cannot be opened counts too, so that
    the table says so.
    """
    if file.name.startswith(".") or _is_index(file):
        return False
    if file.suffix.lower() in {*ENDINGS, ""}:
        return True
    try:
        with open(file, "rb") as stream:
            return looks_like_dicom(stream.read(132))
    except OSError:
        return True

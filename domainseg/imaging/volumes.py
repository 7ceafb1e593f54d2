"""Read one volume from a folder or a file; everything that goes wrong is an ImageReadError."""

from __future__ import annotations

import os
from pathlib import Path

from domainseg.imaging.reading import is_picture, one_error
from domainseg.imaging.volume import Volume, VolumeTooLargeError

MAX_FILES = 10_000  # in one folder: more than any exam


def read_volume(path: Path | str, *, max_voxels: int | None = None) -> Volume:
    """Read a CT: a DICOM series (a folder), a NIfTI file, an Enhanced CT file, or a folder of brain-window pictures.

    DICOM: of several series of one exam the axial, original one of the head with slices of 2.5 to 5 mm is preferred,
    but not a piece of the head that another one shows whole; scouts, captures, reports, projections, bone kernels and
    series with contrast are left out, and the notes say so.
    Slices are sorted along their normal and rescaled to HU, padding becomes AIR. Gantry tilt is kept as a shear of the
    affine; uneven slice distances are resampled along z (linearly) and noted. NIfTI needs a sform or qform that is no
    identity. Linked folders are refused.
    Pictures (8-bit, in the order of the numbers in their names, from below): black and white are taken for -20 and
    100 HU, and there is no spacing; ``rendering`` and a note say so.

    Nothing below AIR (-1024 HU) is left, and values must look like a CT: air near -1000 HU and soft tissue.

    Raises ImageReadError, and nothing else, for what is unreadable, incomplete, ambiguous or implausible, before a
    wrong volume is made of it: two exams in a folder, missing slices, two pictures at one place, slices turned against
    each other, no rescale slope. Its kind is "not_ct" for other modalities and "not_hounsfield" for values that no CT
    has. It is a VolumeTooLargeError for a volume of more than ``max_voxels``, found before memory is taken for it.
    """
    from domainseg.imaging.dicom import quiet

    path = Path(path)
    with one_error(path, VolumeTooLargeError), quiet():
        return _volume(path, max_voxels)


def _volume(path: Path, max_voxels: int | None) -> Volume:
    from domainseg.imaging.dicom import Refusal
    from domainseg.imaging.nifti import SUFFIXES, read_nifti
    from domainseg.imaging.picture_stack import read_pictures
    from domainseg.imaging.series import read_series
    from domainseg.imaging.slices import lies_beside

    if path.name.lower().endswith(SUFFIXES):
        return read_nifti(path, max_voxels)
    files = _files(path)
    pictures = [file for file in files if _begins_as_picture(file)]
    if any(file.name.lower().endswith(SUFFIXES) for file in files):
        raise Refusal(
            "is a folder with NIfTI files: give each by its own name, and slices beside them a folder of their own"
        )
    others = [file for file in files if file not in set(pictures) and not lies_beside(file)]
    if not pictures:
        return read_series(files, max_voxels)
    if path.is_file():
        raise Refusal("is one picture: a volume is a folder of them")
    if others:
        raise Refusal(f"holds {len(pictures)} pictures and {len(others)} other files: an exam is of one kind")
    return read_pictures(pictures, max_voxels)


def _files(path: Path) -> list[Path]:
    from domainseg.imaging.dicom import Refusal

    try:
        if path.is_file():
            return [path]
        if not path.is_dir():
            raise Refusal("is neither file nor folder" if path.exists() else "does not exist")
        files: list[Path] = []
        for place, folders, names in os.walk(path, onerror=_raise):
            if any(os.path.islink(os.path.join(place, name)) for name in folders):
                raise Refusal("holds a linked folder, which is not entered: put all slices of the exam into one folder")
            # A link that leads nowhere counts: opening it says so, while leaving it out would drop a slice in silence.
            files += [file for name in names if (file := Path(place, name)).is_file() or file.is_symlink()]
            if len(files) > MAX_FILES:
                raise Refusal(f"holds more than {MAX_FILES} files: no exam has so many")
    except OSError as error:
        raise Refusal(f"cannot be opened: {error.strerror}") from None
    if not files:
        raise Refusal("is an empty folder")
    return sorted(files)


def _raise(error: OSError) -> None:
    raise error


def _begins_as_picture(file: Path) -> bool:
    from domainseg.imaging.dicom import Refusal

    try:
        with open(file, "rb") as stream:
            return is_picture(stream.read(132))
    except OSError as error:
        raise Refusal(f"one of its files cannot be opened: {error.strerror}") from None

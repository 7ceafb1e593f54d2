"""Exams made from a user's own: ``base=FOLDER`` of exams without bleeds, painted, written with masks and rows."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainseg.files import DomainsegError, write_bytes
from domainseg.imaging import exams as imaging_exams
from domainseg.imaging.header import read_values
from domainseg.imaging.hemorrhage import CODES, TYPES
from domainseg.imaging.volumes import read_volume
from domainseg.phantom.heads import brain, cohort
from domainseg.phantom.heads.nifti import size_class, write_nifti
from domainseg.phantom.heads.paint import paint
from domainseg.phantom.heads.settings import HeadSettings


@lru_cache(maxsize=2)
def exams(base: str) -> tuple[str, ...]:
    """The exams below a folder, as relative paths, by the rule of ``domainseg.imaging.exams``.

    A folder with another exam below it is none: its own files (a README, a preview) lie beside that.
    """
    root = Path(base)
    if not root.is_dir():
        raise DomainsegError(f"base={base}: is no folder of exams")
    files, _ = imaging_exams.below(root, follow=True)
    found, _ = imaging_exams.exams(files)
    above = {folder for exam in found for folder in exam.parents}
    found = [exam for exam in found if exam not in above]
    if not found:
        raise DomainsegError(f"base={base}: holds no exam, neither a folder of slices nor a NIfTI file")
    return tuple(sorted(str(path.relative_to(root)) for path in found))


@lru_cache(maxsize=2)
def patients(base: str) -> dict[str, str]:
    """For each of ``exams`` the first one of the same patient by DICOM's PatientID, or else of the same study.

    Itself where a header tells neither, as of NIfTI and pictures.
    """
    first: dict[str, str] = {}
    return {name: first.setdefault(_patient(Path(base) / name) or f"exam {name}", name) for name in exams(base)}


def _patient(exam: Path) -> str:
    """Issuer and number of an exam's patient, or its study; "" for NIfTI and pictures. In memory only."""
    for file in imaging_exams.below(exam, follow=True)[0] if exam.is_dir() else ():
        try:
            values = read_values(file, ("PatientID", "IssuerOfPatientID", "StudyInstanceUID"))
        except Exception:  # no DICOM, or damaged: reading the exam says so
            continue
        if number := values.get("PatientID", ""):
            return f"patient {values.get('IssuerOfPatientID', '')} {number}"
        if study := values.get("StudyInstanceUID", ""):  # de-identified
            return f"study {study}"
    return ""


def write(settings: HeadSettings, index: int, output: Path) -> dict[str, Any]:
    """Write one painted exam below ``output``; its rows of both tables and the names of its files.

    Exams are taken in turn. A share of 1 - ``bleed`` stays as it is and counts as without a bleed.
    """
    assert settings.base is not None
    names = exams(settings.base)
    name = names[index % len(names)]
    made = into(Path(settings.base) / name, settings, index, output, cohort.plan(settings, index).image)
    if made is None:
        raise DomainsegError(f"base={settings.base}: no brain inside a closed skull found in {name}")
    # The patient's name in the tables is made up, of the path of one exam; all exams of a patient stay together.
    token = sha256(f"base/{patients(settings.base)[name]}".encode()).hexdigest()[:8].upper()
    made["image"] |= {"patient": f"BASE{token}", "group": f"BASE{token}", "site": "base"}
    return made


def into(path: Path, settings: HeadSettings, index: int, output: Path, image: str) -> dict[str, Any] | None:
    """Paint what is planned for (settings, index) into the exam at ``path``; write it as ``image`` below ``output``.

    Returns its rows of both tables, without a patient, and the names of its files; None where no brain is found in it.
    Raises ImageReadError.
    """
    planned = cohort.plan(settings, index)
    volume = read_volume(path)
    rng = np.random.default_rng([settings.seed, index, 403])
    voxels, labels = volume.voxels, np.zeros(volume.shape, np.uint8)
    types: tuple[str, ...] = ()
    if planned.bleeds:
        found = brain.find(volume)
        if found is None:
            return None
        done = paint(rng, voxels, found, planned.bleeds, planned.density)
        low, high = volume.rendering or (-1024, 3071)
        voxels = np.clip(np.rint(done.voxels), low, high).astype(np.int16)
        labels, types = done.labels, done.types
    affine = volume.affine
    if volume.rendering is not None:
        file = f"images/{image}"
        files = _pictures(output / file, file, voxels, volume.rendering)
    else:
        assert affine is not None
        file = f"images/{image}.nii.gz"
        write_nifti(output / file, voxels, affine, rows_up=False)
        files = [file]
    ml = 0.0 if affine is None else float(abs(np.linalg.det(affine[:3, :3]))) / 1000
    row: dict[str, Any] = {"image": image, "part": "head", "label_hemorrhage": int(bool(types))}
    row |= {f"label_{kind}": int(kind in types) for kind in TYPES}
    if affine is not None:
        row |= {f"true_{kind}_ml": round(float((labels == CODES[kind]).sum()) * ml, 4) for kind in TYPES}
        row["true_ml"] = round(float((labels > 0).sum()) * ml, 4)
    if types:
        row |= {"density": planned.density, "mask": f"masks/{image}.nii.gz"}
        if affine is not None:
            row["size_class"] = size_class(row["true_ml"])
        write_nifti(output / row["mask"], labels, np.eye(4) if affine is None else affine, rows_up=False)
        files.append(row["mask"])
    whole = {"image": image, "part": "whole", "label_head_filter": 1}
    return {"image": {"image": image, "path": file}, "targets": [whole, row], "files": files}


def _pictures(folder: Path, name: str, voxels: NDArray[np.int16], window: tuple[float, float]) -> list[str]:
    low, high = window
    files = []
    for k, picture in enumerate(voxels, start=1):
        grey = np.rint((picture.astype(np.float32) - low) * (255 / (high - low)))
        file = f"{k:03d}.png"
        write_bytes(folder / file, cv2.imencode(".png", np.clip(grey, 0, 255).astype(np.uint8))[1].tobytes())
        files.append(f"{name}/{file}")
    return files

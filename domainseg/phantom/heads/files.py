"""A simulated exam written out: DICOM series or NIfTI, label volumes as NIfTI, its rows of the manifest's tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from domainseg.imaging.hemorrhage import TYPES
from domainseg.phantom.heads import painted, scanner
from domainseg.phantom.heads.exam import SimulatedExam, exam
from domainseg.phantom.heads.nifti import size_class, write_nifti
from domainseg.phantom.heads.settings import HeadSettings


def write(settings: HeadSettings, index: int, output: Path) -> dict[str, Any]:
    """Write one exam below ``output``; its rows of both tables and the names of its files."""
    if settings.base is not None:
        return painted.write(settings, index, output)
    made = exam(settings, index)
    plan, site = made.plan, scanner.SITES[made.plan.site]
    nifti = plan.site == "C"
    path = f"images/{plan.image}{'.nii.gz' if nifti else ''}"
    if nifti:
        write_nifti(output / path, made.voxels, made.scan.affine)
        files = [path]
    else:
        files = [f"{path}/{name}" for name in write_series(made, output / path)]
    image = {
        "image": plan.image,
        "path": path,
        "patient": plan.patient,
        "group": plan.patient,
        "study": plan.study,
        "series": plan.series,
        "site": plan.site,
        "department": plan.department,
        "scanner": station(made),
        "kernel": site.kernel,
        "slice_mm": round(plan.distance, 4),
        "tilt_deg": plan.tilt,
        "date": plan.date,
        "age": plan.age,
        "sex": plan.sex,
    }
    whole = {"image": plan.image, "part": "whole", "label_head_filter": int(not plan.other)}
    if plan.other:
        return {"image": image, "targets": [whole], "files": files}
    row: dict[str, Any] = {"image": plan.image, "part": "head", "label_hemorrhage": int(bool(made.types))}
    row |= {f"label_{name}": int(name in made.types) for name in TYPES}
    row |= {f"true_{name}_ml": round(made.ml(name), 4) for name in TYPES}
    row |= {"true_ml": round(made.ml(), 4), "mimic": "+".join(made.kinds)}
    if made.types:
        row |= {"size_class": size_class(made.ml()), "density": plan.density, "mask": f"masks/{plan.image}.nii.gz"}
        write_labels(output / row["mask"], made, made.labels)
        files.append(row["mask"])
    row["mimics"] = f"masks/{plan.image}_mimics.nii.gz"
    write_labels(output / row["mimics"], made, made.mimics)
    files.append(row["mimics"])
    return {"image": image, "targets": [whole, row], "files": files}


def write_labels(path: Path, made: SimulatedExam, labels: NDArray[np.uint8]) -> None:
    """Codes of an exam on the grid of its file: of a series as (columns, rows, slices from the feet to the head)."""
    if made.plan.site == "C":
        write_nifti(path, labels, made.scan.affine)
    else:
        write_nifti(path, labels, made.scan.affine, rows_up=False)


def write_series(made: SimulatedExam, folder: Path) -> Sequence[str]:
    """Write a CT series, a file a slice; returns the names. Site B numbers its slices from the head down."""
    plan, scan, site = made.plan, made.scan, scanner.SITES[made.plan.site]
    count = len(made.voxels)
    uid = {level: _uid(plan.patient, name) for level, name in (("study", plan.study), ("series", plan.series))}
    frame = _uid(plan.patient, f"{plan.study}.frame")
    direction = [*(scan.affine[:3, 0] / scan.pixel), *(scan.affine[:3, 1] / scan.pixel)]
    described = {"": "Head", "trunk": "Chest abdomen", "legs": "Thighs", "neck": "Neck"}[plan.other]
    names = []
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        number = count - k if plan.site == "B" else k + 1
        name = f"IM{number:04d}.dcm"
        one = _uid(plan.patient, f"{plan.series}.{number}")
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = one
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.ImplementationClassUID = UID("2.25.331442890185034208617")
        data.SpecificCharacterSet = "ISO_IR 100"
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, one
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = uid["study"], uid["series"], frame
        data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = plan.date.replace("-", "")
        data.StudyTime = data.ContentTime = "120000"
        data.AccessionNumber, data.StudyID = plan.series, plan.study[:16]
        data.Modality = "CT"
        data.Manufacturer, data.ManufacturerModelName = site.manufacturer, site.model
        data.InstitutionName, data.InstitutionalDepartmentName = site.institution, plan.department.capitalize()
        data.StationName = station(made)
        data.StudyDescription, data.SeriesDescription = (
            f"CT {described}",
            f"{described} {plan.distance:g} {site.kernel}",
        )
        data.PatientName, data.PatientID = f"PHANTOM^{plan.patient}", plan.patient
        data.PatientSex, data.PatientAge = plan.sex, f"{plan.age:03d}Y"
        data.BodyPartExamined = {"": "HEAD", "trunk": "CHEST", "legs": "LEG", "neck": "NECK"}[plan.other]
        data.PatientPosition = "HFS"
        data.SliceThickness, data.KVP = round(plan.distance, 4), 120
        data.GantryDetectorTilt = plan.tilt
        data.ConvolutionKernel = site.kernel
        data.SeriesNumber, data.InstanceNumber, data.AcquisitionNumber = 2, number, 1
        data.ImagePositionPatient = [_ds(value) for value in (scan.affine @ [0, 0, k, 1])[:3]]
        data.ImageOrientationPatient = [_ds(value) for value in direction]
        data.PositionReferenceIndicator = "OM"
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Rows, data.Columns = made.voxels.shape[1:]
        data.PixelSpacing = [_ds(scan.pixel)] * 2
        data.BitsAllocated = 16
        if site.padding is None:  # 12 bits without a sign
            data.BitsStored, data.HighBit, data.PixelRepresentation, intercept = 12, 11, 0, -1024
        else:
            data.BitsStored, data.HighBit, data.PixelRepresentation, intercept = 16, 15, 1, 0
            data.PixelPaddingValue = site.padding
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType = intercept, 1, "HU"
        data.WindowCenter, data.WindowWidth = 40, 80
        stored = made.voxels[k].astype(np.int32) - intercept
        data.PixelData = stored.astype("<u2" if site.padding is None else "<i2").tobytes()
        data.save_as(folder / name, enforce_file_format=True)
        names.append(name)
    for name in names:  # on disk before the exam counts as complete; after the first this costs nothing
        with open(folder / name, "rb") as stream:
            os.fsync(stream.fileno())
    return names


def station(made: SimulatedExam) -> str:
    """Station name: one scanner a site, and one of the emergency department."""
    return f"{made.plan.site}-CT{'ER' if made.plan.department == 'emergency' else '1'}"


def _ds(value: float) -> str:
    """A decimal string of at most 16 characters."""
    return f"{value:.9f}"[:16]


def _uid(patient: str, name: str) -> UID:
    return UID(f"2.25.{int(sha256(f'{patient}/{name}'.encode()).hexdigest()[:30], 16)}")

"""A simulated film as a DICOM DX file: explicit little endian, no names, made-up numbers."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from domainseg.files import atomic_path
from domainseg.phantom.detector import Site
from domainseg.phantom.film import SimulatedFilm

_BODY = {"chest": "CHEST", "knee": "KNEE", "hand": "HAND", "shoulder": "SHOULDER", "spine": "LSPINE", "skull": "SKULL"}
_VIEW = {"pelvis_ap": "AP", "hip_ap": "AP", "hip_lateral": "LL", "frog_leg": "AP"}


@dataclass(frozen=True)
class Header:
    """What the header of a film says beside what the site's detector does. orientation: PatientOrientation or empty."""

    patient: str
    study: str
    series: str
    image: str
    date: str
    age: int
    sex: str
    department: str
    station: str
    body_part: str
    view: str
    described: str
    laterality: str
    orientation: list[str]
    distance: int = 1150
    kvp: int = 75


def write_film(film: SimulatedFilm, path: Path) -> None:
    """Write the film atomically; same film, same bytes."""
    plan = film.plan
    name = {
        "pelvis_ap": "Pelvis AP",
        "hip_ap": "Hip AP",
        "hip_lateral": "Hip cross-table lateral",
        "frog_leg": "Frog-leg",
    }
    described = name.get(plan.view, plan.part.capitalize())
    header = Header(
        patient=plan.patient,
        study=plan.study,
        series=plan.series,
        image=plan.image,
        date=plan.date,
        age=plan.age,
        sex=plan.sex,
        department=plan.department,
        station=station(film),
        body_part=_BODY.get(plan.part, "PELVIS" if plan.view in ("pelvis_ap", "frog_leg") else "HIP"),
        view=_VIEW.get(plan.view, "PA" if plan.part in ("chest", "hand") else "AP"),
        described=f"{described} portable" if plan.portable else described,
        laterality="B" if plan.view in ("pelvis_ap", "frog_leg") else "U" if plan.view == "other" else plan.side,
        orientation=orientation(film),
    )
    write_dx(film.pixels, film.site, film.spacing, header, path)


def write_dx(pixels: NDArray[np.uint16], site: Site, spacing: float, header: Header, path: Path) -> None:
    """Write stored values [H, W] with pixels of ``spacing`` mm atomically; same input, same bytes."""
    names = {"study": header.study, "series": header.series, "image": f"{header.series}.{header.image}"}
    uid = {level: _uid(header.patient, name) for level, name in names.items()}
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    data.file_meta.MediaStorageSOPInstanceUID = uid["image"]
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.ImplementationClassUID = UID("2.25.331442890185034208617")
    data.SpecificCharacterSet = "ISO_IR 100"
    data.SOPClassUID = DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID = uid["image"]
    data.StudyInstanceUID, data.SeriesInstanceUID = uid["study"], uid["series"]
    data.ImageType = ["ORIGINAL", "PRIMARY", ""]
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = header.date.replace("-", "")
    data.StudyTime = data.ContentTime = "120000"
    data.Modality = "DX"
    data.PresentationIntentType = "FOR PRESENTATION"
    data.Manufacturer, data.ManufacturerModelName = site.manufacturer, site.model
    data.InstitutionName, data.InstitutionalDepartmentName = site.institution, header.department.capitalize()
    data.StationName = header.station
    data.PatientName, data.PatientID = f"PHANTOM^{header.patient}", header.patient
    data.PatientSex, data.PatientAge = header.sex, f"{header.age:03d}Y"
    data.StudyID, data.AccessionNumber = header.study[:16], header.series
    data.SeriesNumber, data.InstanceNumber = 1, 1
    data.BodyPartExamined, data.ViewPosition = header.body_part, header.view
    data.SeriesDescription = header.described
    data.ImageLaterality = header.laterality
    data.PatientOrientation = header.orientation
    data.ImagerPixelSpacing = [round(spacing, 4)] * 2
    data.DistanceSourceToDetector = header.distance
    data.KVP = header.kvp
    data.PixelIntensityRelationship, data.PixelIntensityRelationshipSign = "LOG", -1
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, site.photometric
    data.PresentationLUTShape = "INVERSE" if site.photometric == "MONOCHROME1" else "IDENTITY"
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, site.bits, site.bits - 1, 0
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = 0, 1, "US"
    data.WindowCenter, data.WindowWidth = 2 ** (site.bits - 1), 2**site.bits
    data.LossyImageCompression, data.BurnedInAnnotation = "00", "NO"
    data.PixelData = pixels.astype("<u2").tobytes()
    with atomic_path(path) as temporary:
        data.save_as(temporary, enforce_file_format=True)


def station(film: SimulatedFilm) -> str:
    """Station name: one room a department and site, a mobile unit for portable films."""
    plan = film.plan
    return f"{plan.site}-{'MOBILE' if plan.portable else plan.department[:4].upper()}1"


def orientation(film: SimulatedFilm) -> list[str]:
    """PatientOrientation of the stored film (patient direction of rows, of columns); empty for lateral and one in five
    turned films, whose console did not write it."""
    plan = film.plan
    if plan.view == "hip_lateral" or (plan.turns and plan.index % 5 == 0):
        return []
    opposite = {"L": "R", "R": "L", "F": "H", "H": "F"}
    right, down = (
        ("R", "F") if plan.view == "other" and plan.part in ("chest", "hand") and plan.index % 2 else ("L", "F")
    )
    for _ in range(plan.turns):  # the stored film is the upright one turned clockwise
        right, down = opposite[down], right
    return [right, down]


def _uid(patient: str, name: str) -> UID:
    return UID(f"2.25.{int(sha256(f'{patient}/{name}'.encode()).hexdigest()[:30], 16)}")

"""A simulated film as a DICOM DX file: explicit little endian, no names, made-up numbers."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from domainseg.files import atomic_path
from domainseg.phantom.film import SimulatedFilm

_BODY = {"chest": "CHEST", "knee": "KNEE", "hand": "HAND", "shoulder": "SHOULDER", "spine": "LSPINE", "skull": "SKULL"}
_VIEW = {"pelvis_ap": "AP", "hip_ap": "AP", "hip_lateral": "LL", "frog_leg": "AP"}


def write_film(film: SimulatedFilm, path: Path) -> None:
    """Write the film atomically; same film, same bytes."""
    plan, site = film.plan, film.site
    uid = {name: _uid(film, name) for name in ("study", "series", "image")}
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
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = plan.date.replace("-", "")
    data.StudyTime = data.ContentTime = "120000"
    data.Modality = "DX"
    data.PresentationIntentType = "FOR PRESENTATION"
    data.Manufacturer, data.ManufacturerModelName = site.manufacturer, site.model
    data.InstitutionName, data.InstitutionalDepartmentName = site.institution, plan.department.capitalize()
    data.StationName = station(film)
    data.PatientName, data.PatientID = f"PHANTOM^{plan.patient}", plan.patient
    data.PatientSex, data.PatientAge = plan.sex, f"{plan.age:03d}Y"
    data.StudyID, data.AccessionNumber = plan.study[:16], plan.series
    data.SeriesNumber, data.InstanceNumber = 1, 1
    data.BodyPartExamined = _BODY.get(plan.part, "PELVIS" if plan.view in ("pelvis_ap", "frog_leg") else "HIP")
    data.ViewPosition = _VIEW.get(plan.view, "PA" if plan.part in ("chest", "hand") else "AP")
    name = {
        "pelvis_ap": "Pelvis AP",
        "hip_ap": "Hip AP",
        "hip_lateral": "Hip cross-table lateral",
        "frog_leg": "Frog-leg",
    }
    described = name.get(plan.view, plan.part.capitalize())
    data.SeriesDescription = f"{described} portable" if plan.portable else described
    data.ImageLaterality = "B" if plan.view in ("pelvis_ap", "frog_leg") else "U" if plan.view == "other" else plan.side
    data.PatientOrientation = orientation(film)
    data.ImagerPixelSpacing = [round(film.spacing, 4)] * 2
    data.DistanceSourceToDetector = 1150
    data.KVP = 75
    data.PixelIntensityRelationship, data.PixelIntensityRelationshipSign = "LOG", -1
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, site.photometric
    data.PresentationLUTShape = "INVERSE" if site.photometric == "MONOCHROME1" else "IDENTITY"
    data.Rows, data.Columns = film.pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, site.bits, site.bits - 1, 0
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = 0, 1, "US"
    data.WindowCenter, data.WindowWidth = 2 ** (site.bits - 1), 2**site.bits
    data.LossyImageCompression, data.BurnedInAnnotation = "00", "NO"
    data.PixelData = film.pixels.astype("<u2").tobytes()
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


def _uid(film: SimulatedFilm, level: str) -> UID:
    plan = film.plan
    name = {"study": plan.study, "series": plan.series, "image": f"{plan.series}.{plan.image}"}[level]
    return UID(f"2.25.{int(sha256(f'{plan.patient}/{name}'.encode()).hexdigest()[:30], 16)}")

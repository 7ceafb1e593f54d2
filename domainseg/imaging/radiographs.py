"""A DICOM dataset to a Film: what is a film and what is not, its grey values, spacing, orientation and metadata."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from domainseg.imaging.dicom import MAX_PIXELS, Refusal, decode, number, numbers, read_header, text
from domainseg.imaging.film import Film
from domainseg.imaging.shutters import valid_pixels
from domainseg.imaging.windows import Lut, Presentation, Rescale, Window

FILM_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1": "CR",  # Computed Radiography
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",  # Digital X-Ray, for presentation
    "1.2.840.10008.5.1.4.1.1.1.2": "MG",  # Digital Mammography, for presentation
    "1.2.840.10008.5.1.4.1.1.7": "OT",  # Secondary Capture
    "1.2.840.10008.5.1.4.1.1.7.2": "OT",  # Multi-frame greyscale byte secondary capture, with one frame
    "1.2.840.10008.5.1.4.1.1.7.3": "OT",  # Multi-frame greyscale word secondary capture, with one frame
}
FILM_MODALITIES = frozenset(("CR", "DX", "MG", "RG", "OT", "SC", "HC"))

_PORTABLE = re.compile(r"\b(portable|mobile|bedside)\b", re.IGNORECASE)
_NOT_PORTABLE = re.compile(r"\b(non|not|no)[\s-]+(portable|mobile|bedside)\b", re.IGNORECASE)
DATES = ("AcquisitionDate", "ContentDate", "SeriesDate", "StudyDate")
METADATA = {
    "station": "StationName",
    "institution": "InstitutionName",
    "department": "InstitutionalDepartmentName",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "body_part": "BodyPartExamined",
}


def dicom_film(dataset: Dataset, max_pixels: int = MAX_PIXELS) -> Film:
    """Read a film from a parsed file; raises Refusal."""
    _check_kind(dataset)
    header = read_header(dataset, max_pixels)
    if header.frames > 1:
        raise Refusal(f"holds {header.frames} frames: films have one")
    if header.samples > 1 or not header.photometric.startswith("MONOCHROME"):
        raise Refusal(f"is a colour image ({header.photometric}): films are grey")
    if header.bits_allocated not in (8, 16):
        raise Refusal(f"has {header.bits_allocated} bits allocated a pixel: films have 8 or 16")
    presentation = Presentation(_modality(dataset), _voi(dataset), _inverted(dataset, header.photometric))
    spacing, kind = _spacing(dataset)
    pixels = decode(dataset, header)
    valid = valid_pixels(dataset, pixels)
    try:
        shown = presentation.apply(pixels, valid)
    except ValueError as error:
        raise Refusal(str(error)) from None
    return Film(
        pixels=shown,
        valid=valid,
        spacing=spacing,
        spacing_kind=kind,
        orientation=_orientation(dataset),
        laterality=_laterality(dataset),
        metadata=_metadata(dataset),
    )


def first_date(dates: Iterable[str]) -> str:
    """The first DICOM date among texts, as year-month-day; "" without one."""
    for date in dates:
        if day := re.fullmatch(r"(\d{4})\.?(\d{2})\.?(\d{2})", date):
            return "-".join(day.groups())
    return ""


def _check_kind(dataset: Dataset) -> None:
    """Refuse by name what is no presentation-ready radiograph."""
    sop_class = text(dataset, "SOPClassUID") or str(
        getattr(dataset, "file_meta", {}).get("MediaStorageSOPClassUID", "") or ""
    )
    modality = text(dataset, "Modality")
    name = UID(sop_class).name if sop_class else ""
    known = name if name != sop_class else "an object of an unknown class"
    if "For Processing" in name or text(dataset, "PresentationIntentType").upper() == "FOR PROCESSING":
        raise Refusal("is FOR PROCESSING (raw detector data): export the FOR PRESENTATION image instead")
    if sop_class and sop_class not in FILM_CLASSES:
        raise Refusal(f"is {known}, not a radiograph (CR, DX, MG or secondary capture)")
    if modality and modality not in FILM_MODALITIES:
        shown = modality if re.fullmatch("[A-Z]{2,16}", modality) else "unknown"
        raise Refusal(f"has modality {shown}, which is not a radiograph (CR, DX, MG, or a secondary capture of one)")
    if not sop_class and not modality:
        raise Refusal("says neither its class nor its modality: cannot tell whether it is a radiograph")


def _modality(dataset: Dataset) -> Lut | Rescale:
    table = _lut(dataset, "ModalityLUTSequence")
    if table is not None:
        return table
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    if (slope is None) != (intercept is None):
        raise Refusal("has only one of RescaleSlope and RescaleIntercept: damaged")
    if slope is None or intercept is None:
        return Rescale()
    if slope == 0 or abs(slope) > 1e9 or abs(intercept) > 1e12:
        raise Refusal(f"RescaleSlope {slope} or RescaleIntercept {intercept} is implausible")
    return Rescale(slope, intercept)


def _voi(dataset: Dataset) -> Lut | Window | None:
    table = _lut(dataset, "VOILUTSequence")
    if table is not None:
        return table
    centers, widths = numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth")
    if not centers and not widths:
        return None
    if not centers or not widths:
        raise Refusal("has only one of WindowCenter and WindowWidth: damaged")
    function = text(dataset, "VOILUTFunction").upper() or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise Refusal("VOILUTFunction (0028,1056) is none of LINEAR, LINEAR_EXACT, SIGMOID")
    if widths[0] < 1 if function == "LINEAR" else widths[0] <= 0:
        raise Refusal(f"WindowWidth {widths[0]} is too small for {function}")
    return Window(centers[0], widths[0], function)


def _inverted(dataset: Dataset, photometric: str) -> bool:
    shape = text(dataset, "PresentationLUTShape").upper()
    if shape not in ("", "IDENTITY", "INVERSE"):
        raise Refusal("PresentationLUTShape (2050,0020) is neither IDENTITY nor INVERSE")
    return photometric == "MONOCHROME1" or shape == "INVERSE"


def _lut(dataset: Dataset, keyword: str) -> Lut | None:
    """The first table of a LUT sequence."""
    items = dataset.get(keyword)
    if not isinstance(items, Sequence) or not items:
        return None
    descriptor = numbers(items[0], "LUTDescriptor")
    data = items[0].get("LUTData")
    if len(descriptor) != 3 or data is None:
        raise Refusal(f"its {keyword} has no descriptor or no data")
    count, first, bits = (int(value) for value in descriptor)
    count = count or 65536
    if not 1 <= bits <= 16 or count < 1:
        raise Refusal(f"its {keyword} has {bits} bits an entry")
    if isinstance(data, bytes):
        wide = len(data) >= 2 * count
        order = "<" if dataset.original_encoding[1] is not False else ">"
        entries = np.frombuffer(data, dtype=f"{order}u2" if wide else "u1")[:count].astype(np.int64)
    else:
        entries = np.atleast_1d(np.asarray(data, dtype=np.int64))
    if len(entries) != count or entries.min() < 0 or entries.max() >= 1 << bits:
        raise Refusal(f"its {keyword} does not hold what its descriptor says")
    return Lut(first, bits, entries)


def _spacing(dataset: Dataset) -> tuple[tuple[float, float] | None, str]:
    """(row, column) millimetres and their kind; the rule is in ``read_film``."""
    pixel, imager = _pair(dataset, "PixelSpacing"), _pair(dataset, "ImagerPixelSpacing")
    scanned = _pair(dataset, "NominalScannedPixelSpacing")
    magnification = number(dataset, "EstimatedRadiographicMagnificationFactor")
    if magnification is not None and not 0.9 <= magnification <= 20:
        raise Refusal(f"EstimatedRadiographicMagnificationFactor {magnification} is implausible")
    corrected = pixel and imager and not np.allclose(pixel, imager, rtol=1e-3)
    if pixel and (corrected or text(dataset, "PixelSpacingCalibrationType")):
        return pixel, "calibrated"
    if imager and magnification:
        return (imager[0] / magnification, imager[1] / magnification), "calibrated"
    if imager:
        return imager, "detector"
    if pixel:
        return pixel, "unknown"
    return scanned, "detector" if scanned else "unknown"


def _pair(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    values = numbers(dataset, keyword)
    if not values:
        return None
    if len(values) != 2 or not all(1e-3 <= value <= 10 for value in values):
        raise Refusal(f"{keyword} is not two plausible distances in millimetres")
    return values[0], values[1]


def _orientation(dataset: Dataset) -> tuple[str, str] | None:
    """PatientOrientation when it is two directions of a biped along different axes or not, as written."""
    value = dataset.get("PatientOrientation")
    if value is None or isinstance(value, (str, bytes)) or len(value) != 2:
        return None
    row, column = (str(item).strip().upper() for item in value)
    animal = text(dataset, "AnatomicalOrientationType").upper() == "QUADRUPED"
    if animal or not all(re.fullmatch("[LRAPHF]{1,3}", item) for item in (row, column)):
        return None
    return row, column


def _laterality(dataset: Dataset) -> str | None:
    for keyword in ("ImageLaterality", "FrameLaterality", "Laterality"):
        if value := text(dataset, keyword).upper():
            return value if value in ("L", "R") else None
    return None


def _metadata(dataset: Dataset) -> dict[str, str]:
    found = {name: text(dataset, keyword)[:64] for name, keyword in METADATA.items()}
    found["modality"] = text(dataset, "Modality") or FILM_CLASSES.get(text(dataset, "SOPClassUID"), "")
    found["view"] = _view(dataset)
    found["date"] = first_date(text(dataset, keyword) for keyword in DATES)
    descriptions = " | ".join(
        text(dataset, keyword)
        for keyword in (
            "PatientLocation", "CurrentPatientLocation", "StationName", "StudyDescription", "SeriesDescription",
            "ProtocolName", "RequestedProcedureDescription", "PerformedProcedureStepDescription",
        )
    )  # fmt: skip
    if _PORTABLE.search(_NOT_PORTABLE.sub("", descriptions)):
        found["portable"] = "1"
    return {name: value for name, value in found.items() if value}


def _view(dataset: Dataset) -> str:
    if view := text(dataset, "ViewPosition").upper():
        return view[:64]
    items = dataset.get("ViewCodeSequence")
    return text(items[0], "CodeMeaning").upper()[:64] if isinstance(items, Sequence) and items else ""

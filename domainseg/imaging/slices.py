"""Headers of the files of one folder, before any pixel: what each is, and the facts that a CT slice is placed by."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.multival import MultiValue

from domainseg.imaging.dicom import Refusal
from domainseg.imaging.header import read_elements, read_values
from domainseg.imaging.radiographs import DATES, METADATA

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CLASSES = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")  # the second is converted from CT
_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"

TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Modality", "ImageType",
    "SeriesDescription", "BodyPartExamined", "ConvolutionKernel", "ContrastBolusAgent", "ContrastBolusAgentSequence",
    "ContrastBolusIngredient", "ContrastBolusRoute", "ContrastBolusStartTime", "ContrastBolusVolume",
    "ContrastBolusTotalDose", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "Rows", "Columns", "SamplesPerPixel", "InstanceNumber", "SeriesNumber", "GantryDetectorTilt", "KVP",
    "RescaleSlope", "RescaleIntercept", *DATES, *METADATA.values(),
)  # fmt: skip

# Of multi-frame files these stand in sequences of the functional groups.
_GROUPED = {
    "ConvolutionKernel": "CTReconstructionSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
}

# Ends of names of files that lie beside exams; anything else that is no DICOM may be a damaged slice.
_BESIDE = frozenset(
    (".txt", ".csv", ".tsv", ".json", ".xml", ".html", ".htm", ".pdf", ".md", ".log", ".db", ".ini", ".inf", ".exe")
)

#: Why files are left out, in words for people; the order is that in which they are asked.
LEFT_OUT = {
    "no_image": "reports and other objects without a picture",
    "capture": "secondary captures, dose reports and colour pictures",
    "modality": "images of another modality",
    "localizer": "scouts and localizers",
    "derived": "projections, maps and renderings",
    "bone": "bone or lung kernel",
    "contrast": "contrast, CTA or perfusion",
}
_LOCALIZER = re.compile(r"scout|locali[sz]er|topogra|surview|scano|\bpilot\b", re.I)
_CAPTURE = re.compile(r"dose (report|info|record)|patient protocol|screen ?save|\bsummary\b", re.I)
_DERIVED = re.compile(
    r"\b(min|m)ip\b|rendering|\bvrt?\b|(?<!aidr )\b3d\b|\bcb[fv]\b|\bmtt\b|\bt ?max\b|projection|"
    r"iodine|\bvnc\b|virtual non",
    re.I,
)
_BONE = re.compile(r"bone|knochen|osseous|\blungs?\b|sharp", re.I)
_CONTRAST = re.compile(
    r"\bct[av]\b|angio|venogra|perfusion|[ck]ontrast|\bc\+|(\+|\bpost|\bw/) ?(c|gd)\b(?![ -]*sp)|\b(ce|cect|km|mdc)\b|"
    r"\binj(ect\w*)?\b|\b(with|avec|post) iv\b|arterial|venous|delayed",
    re.I,
)
_NATIVE = re.compile(
    r"\b(without|w/?o|non?|pre|sine|sans|sin|senza|ohne|keine?)[ -]*(iv[ -]*)?"
    r"([ck]ontrast\w*|ce|km|mdc|inj(ect\w*)?)\b|unenhanced",
    re.I,
)
_AGENT = ("ContrastBolusAgent", "ContrastBolusAgentSequence")
_GIVEN = (
    "ContrastBolusIngredient", "ContrastBolusRoute", "ContrastBolusStartTime", "ContrastBolusVolume",
    "ContrastBolusTotalDose",
)  # fmt: skip
_NO_AGENT = re.compile(r"no|none|non|n|n/?a|nil|null|without|w/?o|ohne|keine?s?|sans|sin|senza|-+|0*\.?0* ?(ml)?", re.I)
_HEAD = re.compile(r"head|brain|skull|crani|cereb|neuro|sch[aä]?edel|kopf|t[eê]te", re.I)
_OTHER_PART = re.compile(r"neck|spine|sinus|orbit|\bfac(e|ial)|temporal|petrous|\biac\b|chest|thorax|abdom|pelvi", re.I)
_SHARP_KERNEL = re.compile(r"bone|edge|lung|sharp|detail|^(?:[cdel]|y[a-e])$|^fc(3|5|8)\d", re.I)  # GE, Philips, Canon
_SIEMENS_KERNEL = re.compile(r"^(?!fc)[a-z]{1,2}(\d{2})[a-z]?\b", re.I)
_SHARPEST_SOFT = 54  # of Siemens' numbers, our choice: H31 and J40 are soft, H60 and J70 show bone


@dataclass(frozen=True)
class Slice:
    """One image of a CT series: where its pixels are and where they lie.

    position: LPS millimetres of the centre of the first pixel; along, down: unit vectors along a row and down a column;
    spacing: (between rows, between columns) in mm. frame: its number in a multi-frame file, else 0.
    """

    file: Path
    place: str
    frame: int
    rows: int
    columns: int
    position: NDArray[np.float64]
    along: NDArray[np.float64]
    down: NDArray[np.float64]
    spacing: tuple[float, float]
    thickness: float
    number: int | None
    slope: float | None
    intercept: float | None

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector along which slices follow each other."""
        return np.asarray(np.cross(self.along, self.down))


@dataclass(frozen=True)
class Image:
    """One file of the folder with the header values that were asked for; ``place`` names it without its name."""

    file: Path
    place: str
    values: Mapping[str, str]

    def numbers(self, keyword: str, count: int) -> list[float]:
        """Exactly ``count`` finite numbers; raises Refusal."""
        try:
            found = [float(value) for value in self.values.get(keyword, "").split("\\") if value.strip()]
        except ValueError:
            found = []
        if len(found) != count or not np.isfinite(found).all():
            raise Refusal(f"{self.place} has no {keyword} of {count} numbers: incomplete or damaged; export it again")
        return found

    def number(self, keyword: str) -> float | None:
        """One finite number, None when absent or no number."""
        try:
            found = float(self.values.get(keyword, ""))
        except ValueError:
            return None
        return found if np.isfinite(found) else None


def headers(files: Sequence[Path]) -> tuple[list[Image], int]:
    """The header of every DICOM file, and how many files are none but lie beside exams; raises Refusal."""
    found, beside = [], 0
    for number, file in enumerate(files, start=1):
        if lies_beside(file):
            beside += 1
            continue
        place = f"file {number} of {len(files)} in order of names"
        try:
            values = read_values(file, TAGS)
            if values.get("SOPClassUID") in ENHANCED_CLASSES:
                values = _of_frames(file) | values
        except OSError as error:
            raise Refusal(f"{place} cannot be opened: {error.strerror}") from None
        except Exception:
            raise Refusal(f"{place} is no readable DICOM file: damaged, or it does not belong here") from None
        found.append(Image(file, place, values))
    return found, beside


def _of_frames(file: Path) -> dict[str, str]:
    """What a series is chosen by, of a multi-frame file: as its functional groups say for all frames, or the first."""
    sequences = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
    dataset = read_elements(file, sequences)
    groups = [group for name in sequences for group in list(dataset.get(name) or [])[:1]]
    found: dict[str, str] = {}
    for keyword, name in _GROUPED.items():
        for items in [group.get(name) for group in groups]:
            value = items[0].get(keyword) if items else None
            if value is not None and keyword not in found:
                found[keyword] = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
    return found


def lies_beside(file: Path) -> bool:
    """Whether a file is hidden, or of a kind that lies beside exams and holds no image."""
    return file.name.startswith(".") or file.suffix.lower() in _BESIDE


def left_out(image: Image) -> str:
    """Why an image is not considered, as a key of ``LEFT_OUT``; "" when it may be a slice of a plain head CT."""
    values = image.values
    # An underscore is a letter to \b: CTA_HEAD would not be a CTA.
    kind, description = values.get("ImageType", ""), values.get("SeriesDescription", "").replace("_", " ")
    words = f"{kind} {description}".replace("_", " ").replace("\\", " ")
    if not values.get("Rows") or not values.get("Columns"):
        return "no_image"
    capture = values.get("SOPClassUID", "").startswith(_CAPTURES) or values.get("SamplesPerPixel", "1") != "1"
    if capture or _CAPTURE.search(words):
        return "capture"
    if values.get("Modality", "") != "CT" or values.get("SOPClassUID", CT_CLASS) not in (CT_CLASS, *ENHANCED_CLASSES):
        return "modality"
    if _LOCALIZER.search(words):
        return "localizer"
    if _DERIVED.search(words):
        return "derived"
    if sharp(values.get("ConvolutionKernel", "")) or _BONE.search(description):
        return "bone"
    if _contrast_given(values) or _CONTRAST.search(_NATIVE.sub("", description)):
        return "contrast"
    return ""


def _contrast_given(values: Mapping[str, str]) -> bool:
    """Whether the header says that contrast was given: an agent, or, where de-identification emptied that, the rest."""
    agents = [text for tag in _AGENT if (text := values.get(tag, "").strip(" .").lower())]
    said = agents or [text for tag in _GIVEN if (text := values.get(tag, "").strip(" .").lower())]
    return any(not (_NO_AGENT.fullmatch(text) or _NATIVE.fullmatch(text)) for text in said)


def sharp(kernel: str) -> bool:
    """Whether a reconstruction kernel is one for bone or lung, by the makers' names."""
    name = kernel.split("\\")[0].strip()
    if _SHARP_KERNEL.search(name):
        return True
    number = _SIEMENS_KERNEL.match(name)
    return number is not None and int(number[1]) > _SHARPEST_SOFT


def of_head(values: Mapping[str, str]) -> int:
    """0 where the series names the head, 1 where it says nothing, 2 where it names another part."""
    series = values.get("SeriesDescription", "")
    if _OTHER_PART.search(series):
        return 2
    return 0 if _HEAD.search(series) or _HEAD.search(values.get("BodyPartExamined", "")) else 1


def slice_of(image: Image) -> Slice:
    """The place of a single-frame image; raises Refusal when its header does not say it."""
    turn = image.numbers("ImageOrientationPatient", 6)
    position = image.numbers("ImagePositionPatient", 3)
    rows, columns = (int(value) for keyword in ("Rows", "Columns") for value in image.numbers(keyword, 1))
    spacing = image.numbers("PixelSpacing", 2)
    number = image.number("InstanceNumber")
    return placed(
        image, 0, (rows, columns), position, turn, spacing, image.number("SliceThickness"),
        None if number is None else int(number), image.number("RescaleSlope"), image.number("RescaleIntercept"),
    )  # fmt: skip


def placed(
    image: Image, frame: int, size: tuple[int, int], position: Sequence[float], turn: Sequence[float],
    spacing: Sequence[float], thickness: float | None, number: int | None, slope: float | None, intercept: float | None,
) -> Slice:  # fmt: skip
    """A slice of checked numbers; raises Refusal when they are implausible."""
    along, down = np.array(turn[:3]), np.array(turn[3:])
    lengths = np.linalg.norm(along), np.linalg.norm(down)
    if not np.allclose(lengths, 1, atol=0.01) or abs(along @ down) > 0.01:
        raise Refusal(f"{image.place} has an ImageOrientationPatient that is no right angle: damaged")
    if not all(0.05 <= value <= 10 for value in spacing):
        raise Refusal(f"{image.place} has an implausible PixelSpacing: damaged")
    if max(map(abs, position)) > 1e5:
        raise Refusal(f"{image.place} has an implausible ImagePositionPatient: damaged")
    return Slice(
        image.file, image.place, frame, *size, np.array(position), along / lengths[0], down / lengths[1],
        (spacing[0], spacing[1]), thickness or 0.0, number, slope, intercept,
    )  # fmt: skip

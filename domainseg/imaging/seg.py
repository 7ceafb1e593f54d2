"""Label volumes as DICOM Segmentation objects that point to their source series (optional: highdicom)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from domainseg.files import DomainsegError, atomic_path
from domainseg.imaging.dicom import quiet
from domainseg.imaging.hemorrhage import CODES, UNKNOWN
from domainseg.imaging.reading import one_error
from domainseg.imaging.volume import Volume, VolumeTooLargeError

# SNOMED CT concepts (code, meaning) of the types, and for one a part of the body beside it.
_INTRACRANIAL = ("1386000", "Intracranial hemorrhage")
_CONCEPTS = {
    "intraparenchymal": ("274100004", "Cerebral hemorrhage"),
    "subdural": ("35486000", "Subdural intracranial hemorrhage"),
    "epidural": ("82999001", "Epidural intracranial hemorrhage"),
    "subarachnoid": ("21454007", "Subarachnoid intracranial hemorrhage"),
    "intraventricular": _INTRACRANIAL,
    "unknown": _INTRACRANIAL,
}
_REGIONS = {"intraventricular": ("35764002", "Brain ventricle")}
_CATEGORY = ("49755003", "Morphologically Abnormal Structure")
# What the standard wants of every object and de-identified series lack: empty values are allowed.
_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_SEXES = ("M", "F", "O", "", None)


def write_seg(volume: Volume, labels: NDArray[Any], path: Path | str) -> Path | None:
    """Write labels [z, y, x] on the voxels of ``volume`` as DICOM SEG: one segment for each type that is there.

    Its frames lie on the slices of the source series and name their SOPInstanceUIDs; a source slice has the labels
    that ``Volume.to_source`` gives it. As every DICOM object it carries the patient of its source: handle it as the
    images. Returns the path; None, and writes nothing, when no voxel is labelled. Raises DomainsegError when highdicom
    is missing or the source is no DICOM series of single-frame images, ImageReadError when its files are gone.
    """
    try:
        import highdicom
    except ModuleNotFoundError:
        raise DomainsegError('DICOM SEG needs highdicom: pip install "domainseg[seg]"') from None
    path = Path(path)
    if not is_series(volume):
        raise DomainsegError(
            f"{path}: not written, a DICOM SEG points to a DICOM series of single-frame images and the source is none: "
            "ask for NIfTI masks (masks=true)"
        )
    stored = volume.to_source(np.asarray(labels).astype(np.uint8))
    present = {name: code for name, code in {**CODES, "unknown": UNKNOWN}.items() if (stored == code).any()}
    if not present:
        return None
    numbers = np.zeros(256, np.uint8)  # segments are numbered without gaps
    numbers[list(present.values())] = np.arange(1, len(present) + 1)
    sources = [_header(file) for file in volume.files]
    with quiet():
        written = highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=numbers[stored],
            segmentation_type="BINARY",
            segment_descriptions=_segments(list(present)),
            series_instance_uid=highdicom.UID(),
            series_number=int(sources[0].get("SeriesNumber") or 0) + 1000,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="domainseg",
            manufacturer_model_name="domainseg",
            software_versions=_version(),
            device_serial_number="none",
            content_label="HEMORRHAGE",
            series_description="Hemorrhage, drawn by software",
            specific_character_set="ISO_IR 192",  # of the source not all are taken; its names are written anew in this
        )
        with atomic_path(path) as partial:
            written.save_as(partial, enforce_file_format=True)
    return path


def is_series(volume: Volume) -> bool:
    """Whether a DICOM SEG can point to the source: a DICOM series of single-frame images."""
    whole = len(volume.files) == volume.source_shape[0] and volume.affine is not None
    return whole and volume.metadata.get("modality") == "CT"


def _segments(names: Sequence[str]) -> list[Any]:
    import highdicom

    def code(concept: tuple[str, str]) -> Any:
        return highdicom.sr.CodedConcept(concept[0], "SCT", concept[1])

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="domainseg",
        version=_version(),
        family=highdicom.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
    )
    return [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label="hemorrhage, type unknown" if name == "unknown" else f"{name} hemorrhage",
            segmented_property_category=code(_CATEGORY),
            segmented_property_type=code(_CONCEPTS[name]),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            anatomic_regions=[code(_REGIONS[name])] if name in _REGIONS else None,
        )
        for number, name in enumerate(names, start=1)
    ]


def _header(file: Path) -> pydicom.Dataset:
    with one_error(file, VolumeTooLargeError), quiet():
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
    for keyword in _EMPTY:
        if keyword not in header:
            setattr(header, keyword, None)
    if header.PatientSex not in _SEXES:  # highdicom writes no other
        header.PatientSex = None
    header.decode()  # also what lies in sequences: raw text would be written as it is, under another character set
    return header


def _version() -> str:
    from importlib.metadata import version

    return version("domainseg")

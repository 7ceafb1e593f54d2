"""The header of a DICOM file as text values, without its pixels, and whether the file can hold a film at all."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from domainseg.imaging.dicom import MAX_BYTES, Refusal
from domainseg.imaging.radiographs import FILM_CLASSES, FILM_MODALITIES

#: What ``film_problem`` asks for; ``read_values`` must have been asked for these.
KIND_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "Modality", "PresentationIntentType", "ImageType", "NumberOfFrames",
    "SamplesPerPixel", "Rows", "Columns", "BurnedInAnnotation",
)  # fmt: skip

#: Why a file is no film, in words; ``film_problem`` and ``read_values`` (as the text of a Refusal) give the keys.
PROBLEMS = {
    "unreadable": "cannot be opened, or its header is damaged",
    "not_dicom": "not a DICOM file",
    "no_pixels": "a DICOM object without a picture: report, presentation state, directory, ...",
    "for_processing": "raw detector data (FOR PROCESSING); export the FOR PRESENTATION image",
    "wrong_kind": "a picture, but no radiograph (CR, DX, MG or secondary capture)",
    "multi_frame": "several frames; films have one",
    "colour": "a colour picture; films are grey",
    "no_instance_uid": "no SOPInstanceUID, so it has no identity",
}

_PIXELS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
_HEX = re.compile(r"\(?([0-9A-Fa-f]{4}),\s*([0-9A-Fa-f]{4})\)?")
_INFLATED = 1 << 26  # bytes of a deflated file that are looked at: no header is longer


@cache
def tag_of(name: str) -> BaseTag:
    """A tag by its DICOM keyword (``StationName``) or its number (``0019,10AB``). Raises ValueError."""
    if match := _HEX.fullmatch(name.strip()):
        return Tag(int(match[1], 16), int(match[2], 16))
    number = pydicom.datadict.tag_for_keyword(name)
    if number is None:
        raise ValueError(f"{name!r} is neither a DICOM keyword nor a tag such as 0019,10AB")
    return Tag(number)


def read_values(path: Path | str, tags: Sequence[str]) -> dict[str, str]:
    """The non-empty values of ``tags`` (keywords or numbers) as text; reading stops before the pixels.

    Several values of one element are joined by a backslash, as DICOM writes them; of a sequence it is the CodeMeaning
    (or CodeValue) of its first item. Raises Refusal with one of the keys of ``PROBLEMS``; other exceptions mean
    a damaged header.
    """
    dataset = read_elements(path, tags, defer_size=1 << 16)
    values = {name: _text(dataset[tag_of(name)].value) for name in tags if tag_of(name) in dataset}
    if not values.get("SOPClassUID"):
        values["SOPClassUID"] = str(getattr(dataset, "file_meta", {}).get("MediaStorageSOPClassUID", "") or "")
    return {name: value for name, value in values.items() if value}


def read_elements(path: Path | str, tags: Sequence[str], defer_size: int | None = None) -> Dataset:
    """The elements ``tags`` of the header, of bounded size where the file is deflated; raises as ``read_values``."""
    with open(path, "rb") as stream:
        return _parse(stream, [tag_of(name) for name in tags], defer_size)


def looks_like_dicom(start: bytes) -> bool:
    """Whether a file that begins so (132 bytes) is DICOM, with the usual preamble or, as from old archives, without."""
    return start[128:132] == b"DICM" or start[:2] in (b"\x02\x00", b"\x08\x00")


def film_problem(values: dict[str, str]) -> str:
    """Why a file with these header values is no film, as a key of ``PROBLEMS``; "" when it may be one."""
    name = UID(values.get("SOPClassUID", "")).name
    modality = values.get("Modality", "")
    if not values.get("SOPClassUID") and not modality:
        return "not_dicom"
    if "For Processing" in name or values.get("PresentationIntentType", "").upper() == "FOR PROCESSING":
        return "for_processing"
    if not values.get("Rows") or not values.get("Columns"):
        return "no_pixels"
    if values.get("SOPClassUID", "") not in (*FILM_CLASSES, "") or modality not in (*FILM_MODALITIES, ""):
        return "wrong_kind"
    if values.get("NumberOfFrames", "1") not in ("", "0", "1"):
        return "multi_frame"
    if values.get("SamplesPerPixel", "1") != "1":
        return "colour"
    return "" if values.get("SOPInstanceUID") else "no_instance_uid"


def pixel_offset(path: Path | str) -> int:
    """Where the pixel data element begins in the file, in bytes; the length of the file when there is none."""
    with open(path, "rb") as stream:
        _parse(stream, [Tag(0x00080018)], 1 << 16)
        return stream.tell()


def _parse(stream: BinaryIO, tags: list[BaseTag | int], defer_size: int | None) -> Dataset:
    start = stream.read(140)
    size = stream.seek(0, 2)
    stream.seek(0)
    if size > MAX_BYTES:
        raise Refusal("unreadable")
    if not looks_like_dicom(start):
        raise Refusal("not_dicom")
    if start[128:132] == b"DICM":
        stream.seek(132)
        meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
        if meta.get("TransferSyntaxUID") == pydicom.uid.DeflatedExplicitVRLittleEndian:
            inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream.read(), _INFLATED)
            return read_dataset(BytesIO(inflated), False, True, stop_when=_at_pixels, specific_tags=tags)
        stream.seek(0)
    return pydicom.filereader.read_partial(
        stream, stop_when=_at_pixels, defer_size=defer_size, force=True, specific_tags=tags
    )


def _at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag in _PIXELS


def _text(value: Any) -> str:
    if isinstance(value, pydicom.sequence.Sequence):
        value = (value[0].get("CodeMeaning") or value[0].get("CodeValue")) if value else None
    if isinstance(value, bytes):
        value = value.decode("latin-1").strip("\0")
    if isinstance(value, (list, tuple, pydicom.multival.MultiValue)):
        value = "\\".join(str(item) for item in value)
    if value is None or isinstance(value, Dataset):
        return ""
    text = str(value)
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(text.split())

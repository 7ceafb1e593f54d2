"""Headers without pixels, against what pydicom reads of the whole file."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from domainseg.imaging.dicom import Refusal
from domainseg.imaging.header import film_problem, pixel_offset, read_values

CR = "1.2.840.10008.5.1.4.1.1.1"
TAGS = ("SOPClassUID", "SOPInstanceUID", "Modality", "Rows", "Columns", "StationName", "ViewCodeSequence")


def dataset(syntax: str = ExplicitVRLittleEndian, **tags: object) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    code = Dataset()
    code.CodeMeaning = "antero-posterior"
    values = {"SOPClassUID": CR, "SOPInstanceUID": "1.2.3", "Modality": "CR", "Rows": 4, "Columns": 5}
    more = {"StationName": "DX-3", "BitsAllocated": 8, "ViewCodeSequence": [code], "PixelData": b"\1" * 20}
    for name, value in {**values, **more, **tags}.items():
        if value is not None:
            setattr(data, name, value)
    return data


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_values_are_read_as_text(tmp_path: Path, syntax: str) -> None:
    data = dataset(syntax)
    data.add_new(0x00190010, "LO", "MAKER")
    data.add_new(0x001910AB, "LO", "bed 4")
    data.save_as(tmp_path / "film", enforce_file_format=True)
    values = read_values(tmp_path / "film", (*TAGS, "0019,10AB", "PatientName"))
    assert values["StationName"] == "DX-3"
    assert values["Rows"] == "4"
    assert values["ViewCodeSequence"] == "antero-posterior"
    assert values["0019,10AB"] == "bed 4"
    assert "PatientName" not in values
    assert film_problem(values) == ""


def test_pixels_are_not_read(tmp_path: Path) -> None:
    dataset().save_as(tmp_path / "film", enforce_file_format=True)
    content = (tmp_path / "film").read_bytes()
    border = pixel_offset(tmp_path / "film")
    assert content[border : border + 4] == b"\xe0\x7f\x10\x00"
    (tmp_path / "film").write_bytes(content[: border + 12])
    assert read_values(tmp_path / "film", TAGS)["Columns"] == "5"


@pytest.mark.parametrize(
    ("tags", "problem"),
    [
        ({"SOPClassUID": f"{CR}.1.1"}, "for_processing"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "for_processing"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT"}, "wrong_kind"),
        ({"Modality": "US"}, "wrong_kind"),
        ({"Rows": None, "PixelData": None}, "no_pixels"),
        ({"NumberOfFrames": 3}, "multi_frame"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"SOPInstanceUID": None}, "no_instance_uid"),
    ],
)
def test_what_is_no_film_has_a_reason(tmp_path: Path, tags: dict[str, object], problem: str) -> None:
    data = dataset(**tags)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.save_as(tmp_path / "film", enforce_file_format=True)
    asked = (*TAGS, "NumberOfFrames", "SamplesPerPixel", "PresentationIntentType")
    assert film_problem(read_values(tmp_path / "film", asked)) == problem


@pytest.mark.parametrize("content", [b"", b"not a DICOM file", b"\x89PNG\r\n\x1a\n" + b"\0" * 200])
def test_other_files_are_named_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "film").write_bytes(content)
    with pytest.raises(Refusal, match="not_dicom"):
        read_values(tmp_path / "film", TAGS)

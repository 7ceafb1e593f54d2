"""DICOM SEG: read back, its frames lie on the right slices of the source and say what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from domainseg.files import DomainsegError
from domainseg.imaging import read_volume
from domainseg.imaging.hemorrhage import CODES, UNKNOWN
from domainseg.imaging.seg import write_seg
from domainseg.imaging.volume import Volume


def test_frames_point_to_their_source(make_series: Callable[..., Path], tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    uneven = [(43.75, -46.5, z) for z in (0, 4, 8, 12, 19, 26, 33)]
    folder = make_series(uneven, turn=(-1, 0, 0, 0, 1, 0), SliceThickness=7, StudyDate="20240102")
    volume = read_volume(folder)
    marked = np.zeros(volume.source_shape, np.uint8)
    marked[1:3, 5, 7] = CODES["subdural"]
    marked[5, 9, 11:14] = CODES["intraventricular"]
    marked[6, 0, 0] = UNKNOWN
    path = write_seg(volume, volume.from_source(marked), tmp_path / "out" / "seg.dcm")
    assert path is not None
    seg = highdicom.seg.segread(path)
    meanings = {
        item.SegmentNumber: (item.SegmentLabel, item.SegmentedPropertyTypeCodeSequence[0].CodeValue)
        for item in seg.SegmentSequence
    }
    assert meanings == {
        1: ("subdural hemorrhage", "35486000"),
        2: ("intraventricular hemorrhage", "1386000"),
        3: ("hemorrhage, type unknown", "1386000"),
    }
    # Independent of highdicom: each frame's source image, segment and pixels.
    names = {pydicom.dcmread(file).SOPInstanceUID: file for file in folder.iterdir()}
    plain = pydicom.dcmread(path)
    seen = []
    for frame, pixels in zip(plain.PerFrameFunctionalGroupsSequence, plain.pixel_array, strict=True):
        uid = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        source = pydicom.dcmread(names[uid])
        at = uneven.index(tuple(float(v) for v in source.ImagePositionPatient))
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        code = [CODES["subdural"], CODES["intraventricular"], UNKNOWN][number - 1]
        np.testing.assert_array_equal(pixels > 0, marked[at] == code)
        assert list(frame.PlanePositionSequence[0].ImagePositionPatient) == list(source.ImagePositionPatient)
        seen.append((number, at))
    assert sorted(seen) == [(1, 1), (1, 2), (2, 5), (3, 6)]
    assert plain.PatientID == "4711"
    assert plain.FrameOfReferenceUID == "1.2.826.0.1.3680043.8.498.10"


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=\u6d2a^\u5409\u6d1e=\ud64d^\uae38\ub3d9"),
        ("ISO_IR 100", "M\u00fcller^Bj\u00f8rn"),
        ("ISO_IR 6", "Doe^Jane"),
    ],
)
def test_patients_of_any_writing_and_sex_get_a_seg(
    charset: Any, name: str, make_series: Callable[..., Path], tmp_path: Path
) -> None:
    """highdicom takes few character sets and three sexes from a source, and whole sites were left without."""
    pytest.importorskip("highdicom")
    folder = make_series()
    for file in folder.iterdir():
        header = pydicom.dcmread(file)
        header.SpecificCharacterSet = charset
        header.PatientName, header.PatientSex = name, "U"
        procedure = pydicom.Dataset()
        procedure.CodeValue, procedure.CodingSchemeDesignator, procedure.CodeMeaning = "1", "99LOCAL", name[:20]
        header.ProcedureCodeSequence = [procedure]
        header.save_as(file)
    volume = read_volume(folder)
    path = write_seg(volume, np.full(volume.shape, UNKNOWN, np.uint8), tmp_path / "seg.dcm")
    assert path is not None
    seg = pydicom.dcmread(path)
    assert str(seg.PatientName) == name
    assert not seg.PatientSex
    assert "ProcedureCodeSequence" not in seg or seg.ProcedureCodeSequence[0].CodeMeaning == name[:20]


def test_nothing_to_write_and_sources_without_a_series(make_series: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    volume = read_volume(make_series())
    assert write_seg(volume, np.zeros(volume.shape, np.uint8), tmp_path / "seg.dcm") is None
    other = Volume(voxels=volume.voxels, affine=volume.affine, source_shape=volume.source_shape, files=(tmp_path,))
    with pytest.raises(DomainsegError, match="ask for NIfTI masks"):
        write_seg(other, np.ones(volume.shape, np.uint8), tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    volume = Volume(voxels=np.zeros((2, 3, 4), np.int16), affine=np.eye(4))
    with pytest.raises(DomainsegError, match=r"domainseg\[seg\]"):
        write_seg(volume, volume.voxels, tmp_path / "seg.dcm")

"""Real series, templates and picture folders: read as they are, or refused for the right reason."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from domainseg.imaging import ImageReadError, read_volume
from domainseg.imaging.nifti import write_labels
from domainseg.imaging.volume import AIR

pytestmark = pytest.mark.real_data


def test_head_series_with_tilt_and_uneven_distance(shared_data: Path) -> None:
    folder = shared_data / "head_ct_dicom" / "ge_human"
    volume = read_volume(folder)
    assert volume.affine is not None
    assert volume.source_z is not None
    assert volume.notes == (
        "uneven slice distance, 1.08 to 7.00 mm: resampled along z to 4.00 mm",
        "gantry tilt of 18.5 degrees kept as a shear of the affine",
    )
    assert volume.metadata["thickness"] == "4 to 7"
    assert len(volume.files) == volume.source_shape[0] == 28
    # The truth from the headers alone (PS3.3 C.7.6.2.1.1): corners of every slice, in patient millimetres.
    for k, file in enumerate(volume.files):
        header = pydicom.dcmread(file)
        position = np.array(header.ImagePositionPatient, float)
        along, down = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        row, column = (float(value) for value in header.PixelSpacing)
        for i, j in ((0, 0), (511, 0), (0, 511), (511, 511)):
            truth = position + i * column * along + j * row * down
            np.testing.assert_allclose((volume.affine @ (i, j, volume.source_z[k], 1))[:3], truth, atol=0.05)
        if volume.source_z[k] == round(volume.source_z[k]):  # not resampled: its own values
            hu = header.pixel_array.astype(int)
            hu = np.where(hu == header.PixelPaddingValue, AIR, np.maximum(hu, AIR))
            np.testing.assert_array_equal(volume.voxels[round(volume.source_z[k])], hu)
    assert (volume.source_z[:14] == np.arange(14)).all()
    # Between two slices: the mean of both by distance.
    below, above = volume.source_z[20], volume.source_z[21]
    z = int(np.ceil(below))
    hu = [np.maximum(pydicom.dcmread(volume.files[k]).pixel_array.astype(float), AIR) for k in (20, 21)]
    np.testing.assert_allclose(
        volume.voxels[z], (hu[0] * (above - z) + hu[1] * (z - below)) / (above - below), atol=0.6
    )  # fmt: skip


def test_pelvis_ct_is_a_ct(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "nifti" / "abdomen_pelvis_ct.nii.gz"
    volume = read_volume(path)
    assert volume.affine is not None
    image = nibabel.load(path)
    values = np.maximum(np.rint(np.asarray(image.dataobj)), AIR)
    np.testing.assert_array_equal(volume.to_source(volume.voxels).transpose(2, 1, 0), values)
    # Bones of the left side lie at larger x (LPS): hips of the label volume, 77 left and 78 right.
    bones = volume.from_source(np.asarray(nibabel.load(path.with_name("abdomen_pelvis_seg.nii.gz")).dataobj).T)
    left, right = ((volume.affine @ (*np.argwhere(bones == code).mean(axis=0)[::-1], 1))[0] for code in (77, 78))
    assert left > right + 100
    mask = nibabel.load(write_labels(volume, (bones == 77).astype(np.uint8), tmp_path / "mask.nii.gz"))
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-3)


@pytest.mark.parametrize("name", ["scct", "scct_stripped", "CT_pitch", "stroke_T1_mr", "abdomen_pelvis_seg"])
def test_what_is_not_in_hounsfield_units_is_refused(name: str, shared_data: Path) -> None:
    with pytest.raises(ImageReadError, match="no air near -1000") as caught:
        read_volume(shared_data / "nifti" / f"{name}.nii.gz")
    assert ("grey values of a window" in caught.value.reason) == (name not in ("scct", "scct_stripped"))


def test_rotated_affine(shared_data: Path, tmp_path: Path) -> None:
    image = nibabel.load(shared_data / "nifti" / "CT_pitch.nii.gz")
    grey = np.asarray(image.dataobj).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(grey * 8 - 1000, image.affine), tmp_path / "hu.nii.gz")  # for its geometry only
    volume = read_volume(tmp_path / "hu.nii.gz")
    assert volume.affine is not None
    chance = np.random.default_rng(1)
    for stored in chance.integers(0, grey.shape, (50, 3)):
        ras = nibabel.affines.apply_affine(image.affine, stored)
        x, y, z = np.rint(nibabel.affines.apply_affine(np.linalg.inv(volume.affine), ras * (-1, -1, 1))).astype(int)
        assert volume.voxels[z, y, x] == grey[tuple(stored)] * 8 - 1000
    assert volume.spacing == pytest.approx(np.linalg.norm(image.affine[:3, :3], axis=0), abs=1e-3)


def test_brain_window_pictures(shared_data: Path) -> None:
    folder = shared_data / "ct_ich" / "brain"
    patient = sorted(folder.iterdir())[0]
    volume = read_volume(patient)
    assert volume.shape == (len(list(patient.iterdir())), 650, 650)
    assert [int(file.stem) for file in volume.files] == sorted(int(file.stem) for file in patient.iterdir())
    assert volume.spacing is None
    # The skull base (below) has more bone than the vertex (above).
    bone = (volume.voxels == 100).mean(axis=(1, 2))
    assert bone[: len(bone) // 3].mean() > bone[-len(bone) // 6 :].mean()
    with pytest.raises(ImageReadError, match="several folders"):
        read_volume(folder)


def test_one_folder_of_many_exams(shared_data: Path, make_series: Callable[..., Path]) -> None:
    with pytest.raises(ImageReadError, match="patients: give each a folder of its own"):
        read_volume(shared_data / "dicom_zoo")


@pytest.mark.parametrize("name", ["scct", "scct_stripped"])
def test_templates_in_cormack_units_can_be_brought_back(name: str, shared_data: Path, tmp_path: Path) -> None:
    tool = runpy.run_path(str(Path(__file__).resolve().parents[2] / "tools" / "cormack"))
    tool["main"](str(shared_data / "nifti" / f"{name}.nii.gz"), str(tmp_path / "hu.nii.gz"))
    volume = read_volume(tmp_path / "hu.nii.gz")
    soft = volume.voxels[(volume.voxels > -50) & (volume.voxels < 90)]
    assert 24 <= np.bincount(soft + 50).argmax() - 50 <= 32  # brain, by common knowledge
    assert abs(volume.voxels[45, 41, 48]) <= 8  # a lateral ventricle: water
    assert volume.spacing == pytest.approx((2, 2, 2))

"""NIfTI: read and written so that nibabel and this reader put every voxel at the same millimetres."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from domainseg.imaging import ImageReadError, Volume, VolumeTooLargeError, read_volume
from domainseg.imaging.nifti import write_labels
from domainseg.imaging.volume import AIR

SHAPE = (20, 24, 28)  # of the stored array, (i, j, k)
TURNS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


def stored_affine(order: tuple[int, ...] = (0, 1, 2), signs: tuple[int, ...] = (1, 1, 1)) -> Any:
    """RAS affine of 2.0, 2.5 and 3.0 mm whose axes are permuted and flipped, then turned a little and sheared."""
    affine = np.zeros((4, 4))
    for stored, (axis, sign, length) in enumerate(zip(order, signs, (2.0, 2.5, 3.0), strict=True)):
        affine[axis, stored] = sign * length
    angle = 0.2
    turn = [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    affine[:3, :3] = np.array(turn) @ [[1, 0, 0.05], [0, 1, 0], [0, 0, 1]] @ affine[:3, :3]
    affine[:3, 3] = -affine[:3, :3] @ (np.array(SHAPE) - 1) / 2 + (3, -4, 5)
    affine[3, 3] = 1
    return affine


def written(path: Path, affine: Any, dtype: Any = np.int16, code: int = 1, **header: Any) -> Any:
    """A NIfTI file of a linear field in RAS millimetres, from air to soft tissue; returns the values."""
    i, j, k = np.indices(SHAPE)
    points = np.stack([i, j, k], axis=-1) @ affine[:3, :3].T + affine[:3, 3]
    values = np.rint(np.clip(-420 + points @ (8.0, 6.0, -7.0), -1024, 1500)).astype(dtype)
    image = nibabel.Nifti1Image(values, affine)
    image.set_sform(affine, code)
    image.set_qform(None, 0)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return values


def refused(path: Path) -> str:
    with pytest.raises(ImageReadError) as caught:
        read_volume(path)
    return caught.value.reason


def ras(volume: Volume, index: tuple[int, ...]) -> Any:
    """RAS millimetres of a voxel (z, y, x)."""
    assert volume.affine is not None
    return (volume.affine @ (*index[::-1], 1))[:3] * (-1, -1, 1)


@pytest.mark.parametrize(("order", "signs"), TURNS)
def test_every_orientation(order: tuple[int, ...], signs: tuple[int, ...], tmp_path: Path) -> None:
    affine = stored_affine(order, signs)
    values = written(tmp_path / "a.nii", affine)
    volume = read_volume(tmp_path / "a.nii")
    assert volume.affine is not None
    direction = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    assert (np.diag(direction) > 0.9).all()
    # The same value at the same millimetres, for all voxels.
    i, j, k = np.indices(SHAPE)
    points = (np.stack([i, j, k], axis=-1) @ affine[:3, :3].T + affine[:3, 3]) * (-1, -1, 1)
    back = np.linalg.inv(volume.affine)
    x, y, z = np.moveaxis(np.rint(points @ back[:3, :3].T + back[:3, 3]).astype(int), -1, 0)
    np.testing.assert_array_equal(volume.voxels[z, y, x], values)
    # Labels: to the source, to a file that nibabel reads, and back.
    labels = np.zeros(volume.shape, np.uint8)
    labels[3, 5, 7] = 4
    source = volume.to_source(labels)
    assert source.shape == volume.source_shape == SHAPE[::-1]
    np.testing.assert_array_equal(volume.from_source(source), labels)
    image = nibabel.load(write_labels(volume, labels, tmp_path / "mask.nii"))
    np.testing.assert_allclose(image.affine, affine, atol=1e-4)
    mask = np.asarray(image.dataobj)
    assert mask.shape == SHAPE
    (at,) = np.argwhere(mask == 4)
    np.testing.assert_allclose((image.affine @ (*at, 1))[:3], ras(volume, (3, 5, 7)), atol=1e-4)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_kinds_of_numbers(dtype: Any, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    values = written(path, stored_affine(), dtype)
    volume = read_volume(path, max_voxels=values.size)
    np.testing.assert_array_equal(volume.to_source(volume.voxels).transpose(2, 1, 0), values)
    assert volume.notes == ()


def test_slope_intercept_and_holes(tmp_path: Path) -> None:
    values = written(tmp_path / "a.nii", stored_affine())
    image = nibabel.Nifti1Image(((values + 1024) * 2).astype(np.uint16), stored_affine())
    image.header.set_slope_inter(0.5, -1024)
    nibabel.save(image, tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "b.nii.gz").voxels, read_volume(tmp_path / "a.nii").voxels)
    holes = values.astype(np.float32)
    holes[0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(holes, stored_affine()), tmp_path / "c.nii")
    volume = read_volume(tmp_path / "c.nii")
    assert (volume.to_source(volume.voxels)[:, 0, 0] == AIR).all()
    assert volume.notes == ("28 voxels without a number (NaN or infinite) are taken for air",)


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_no_scaling_changes_no_value(slope: float, tmp_path: Path) -> None:
    """A slope of 0 says that there is none; a unit was added to each voxel then."""
    values = written(tmp_path / "a.nii", stored_affine())
    stored = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<f", stored, 112, slope)
    (tmp_path / "a.nii").write_bytes(stored)
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "a.nii").dataobj), values)
    volume = read_volume(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume.to_source(volume.voxels), values.T)


def test_nifti_2(tmp_path: Path) -> None:
    values = written(tmp_path / "a.nii", stored_affine())
    nibabel.save(nibabel.Nifti2Image(values, stored_affine()), tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "b.nii.gz").voxels, read_volume(tmp_path / "a.nii").voxels)


@pytest.mark.parametrize("form", [np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])])
def test_an_identity_says_nothing_of_millimetres(form: Any, tmp_path: Path) -> None:
    """nibabel and SimpleITK write it, with a code that says otherwise, where nobody told them the place."""
    values = written(tmp_path / "a.nii", stored_affine())
    image = nibabel.Nifti1Image(values, form)
    image.header["pixdim"][1:4] = (0.45, 0.45, 5)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "b.nii")
    assert "only an identity" in refused(tmp_path / "b.nii")
    image.set_qform(np.diag([2.0, 2.5, 3.0, 1.0]), 1)
    nibabel.save(image, tmp_path / "c.nii")
    assert read_volume(tmp_path / "c.nii").spacing == pytest.approx((2, 2.5, 3)), "then the other form tells"


def test_voxels_of_two_sizes_are_told(tmp_path: Path) -> None:
    written(tmp_path / "a.nii", stored_affine(), pixdim=[1, 2, 2.5, 5, 1, 1, 1, 1])
    assert "its pixdim says other voxels than its sform, whose 2 x 2.5 x 3" in "; ".join(
        read_volume(tmp_path / "a.nii").notes
    )


def test_qform_and_big_endian(tmp_path: Path) -> None:
    values = written(tmp_path / "a.nii", stored_affine())
    rigid = np.diag([2.0, 2.5, 3.0, 1.0])
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    image = nibabel.Nifti1Image(values, rigid, header)
    image.set_qform(rigid, 1)
    image.set_sform(None, 0)
    nibabel.save(image, tmp_path / "b.nii")
    volume = read_volume(tmp_path / "b.nii")
    np.testing.assert_array_equal(volume.to_source(volume.voxels).transpose(2, 1, 0), values)
    np.testing.assert_allclose(ras(volume, (0, volume.shape[1] - 1, volume.shape[2] - 1)), (0, 0, 0), atol=1e-6)
    moved = rigid.copy()
    moved[1, 2] = 0.1  # less than half a voxel a slice, and over 27 slices more than a voxel
    image.set_sform(moved, 1)
    nibabel.save(image, tmp_path / "c.nii")
    assert read_volume(tmp_path / "c.nii").notes == ("its sform and qform differ: the sform was taken",)
    image.set_sform(np.diag([-2.0, 2.5, 3.0, 1.0]), 1)
    nibabel.save(image, tmp_path / "d.nii")
    with pytest.raises(ImageReadError, match="its sides are unknown"):
        read_volume(tmp_path / "d.nii")


def _changed(change: Callable[[bytearray], object]) -> Callable[[bytes], bytes]:
    def _apply(data: bytes) -> bytes:
        changed = bytearray(data)
        change(changed)
        return bytes(changed)

    return _apply


def _put(at: int, value: Any, kind: str) -> Callable[[bytes], bytes]:
    raw = np.array(value, kind).tobytes()
    return _changed(lambda data: data.__setitem__(slice(at, at + len(raw)), raw))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"", "no NIfTI file"),
        (lambda data: data[:200], "NIfTI header is damaged"),
        (lambda data: data[:-1], "cut off"),
        (lambda data: data + b"\0", "more voxels"),
        (_put(0, 12, "<i4"), "no NIfTI file"),
        (_put(40, [3, 20, 24, 27], "<i2"), "more voxels"),
        (_put(40, [4, 20, 24, 14, 2], "<i2"), "more than one volume"),
        (_put(40, [2, 20, 24], "<i2"), "more than one volume"),
        (_put(40, [3, 20, -24, 28], "<i2"), "empty axis"),
        (_put(40, [3, 30000, 30000, 30000], "<i2"), "no plausible size"),
        (_put(70, [128, 24], "<i2"), "colours"),
        (_put(70, 16, "<i2"), "two sizes of a voxel"),
        (_put(108, 1e9, "<f4"), "no plausible place"),
        (_put(112, [np.inf, 0], "<f4"), "scl_slope is no number"),
        (_put(112, [1, np.inf], "<f4"), "scl_inter is no number"),
        (_put(112, [1e8, 0], "<f4"), "implausibly large"),
        (_put(123, 1, "u1"), "not millimetres"),
        (_put(252, [0, 0], "<i2"), "neither sform nor qform"),
        (_put(280, [0, 0, 0], "<f4"), "mm"),
        (_put(280, [2, 2, 0, 0, 2, 2.001, 0, 0, 0, 0, 3, 0], "<f4"), "singular"),
        (_put(344, b"ni1", "S4"), "two files"),
    ],
)  # fmt: skip
def test_damaged_headers_are_refused(damage: Callable[[bytes], bytes], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    written(path, stored_affine())
    path.write_bytes(damage(path.read_bytes()))
    assert reason in refused(path)


def test_compressed_damage_and_bombs(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    written(path, stored_affine())
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert "cut off" in refused(path)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    path.write_bytes(flipped)
    refused(path)
    # A small header and half a gigabyte of zeros behind it: nothing of it is unpacked beyond the voxels.
    head = gzip.decompress(whole)
    path.write_bytes(gzip.compress(head + bytes(1 << 22)))
    assert "more voxels" in refused(path)
    with pytest.raises(VolumeTooLargeError):
        read_volume(path, max_voxels=1000)


def test_values_that_are_no_hounsfield_units(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    for values, reason in (
        (chance.integers(0, 255, SHAPE).astype(np.uint8), "grey values of a window"),
        (chance.integers(0, 4000, SHAPE).astype(np.int16), "no air near -1000"),
        (chance.integers(0, 7, SHAPE).astype(np.int16), "no air near -1000"),
        (chance.integers(-1024, -900, SHAPE).astype(np.int16), "no soft tissue"),
        (chance.normal(size=SHAPE).astype(np.float32), "no air near -1000"),
    ):
        nibabel.save(nibabel.Nifti1Image(values, np.diag([2, 2, 2, 1])), tmp_path / "a.nii")
        assert reason in refused(tmp_path / "a.nii")


def test_thick_slices_that_are_not_axial(tmp_path: Path) -> None:
    affine = np.array([[2.0, 0, 0, 0], [0, 0, 5, 0], [0, 2, 0, 0], [0, 0, 0, 1]])
    written(tmp_path / "a.nii", affine)
    assert "not axial" in refused(tmp_path / "a.nii")


def test_too_few_slices_and_slices_too_far_apart(tmp_path: Path) -> None:
    values = written(tmp_path / "a.nii", np.diag([2.0, 2, 3, 1]))
    nibabel.save(nibabel.Nifti1Image(values[:, :, :2], np.diag([2, 2, 5, 1])), tmp_path / "few.nii")
    assert "a volume needs 3" in refused(tmp_path / "few.nii")
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2, 2, 13, 1])), tmp_path / "far.nii")
    assert "13.0 mm apart" in refused(tmp_path / "far.nii")


def test_masks_of_series_lie_on_their_slices(make_series: Callable[..., Path], tmp_path: Path) -> None:
    angle = np.radians(20)
    volume = read_volume(make_series(turn=(1, 0, 0, 0, np.cos(angle), -np.sin(angle))))
    labels = np.zeros(volume.shape, np.uint8)
    labels[2, 4, 6] = 5
    image = nibabel.load(write_labels(volume, labels, tmp_path / "mask.nii.gz"))
    ((i, j, k),) = np.argwhere(np.asarray(image.dataobj) == 5)
    assert (i, j, k) == (6, 4, 2)
    truth = (
        np.array((-43.75, -46.5, 10))
        + 6 * 2.5 * np.array((1, 0, 0))
        + 4 * 3 * np.array((0, np.cos(angle), -np.sin(angle)))
    )
    np.testing.assert_allclose((image.affine @ (i, j, k, 1))[:3], truth * (-1, -1, 1), atol=1e-3)
    assert image.get_sform(coded=True)[1] == 1


def test_masks_of_uneven_series_say_that_their_place_is_unknown(
    make_series: Callable[..., Path], tmp_path: Path
) -> None:
    volume = read_volume(make_series([(0.0, 0.0, z) for z in (0, 4, 8, 12, 19, 26, 33)], SliceThickness=7))
    image = nibabel.load(write_labels(volume, np.ones(volume.shape, np.uint8), tmp_path / "mask.nii"))
    assert image.shape == (36, 32, 7)
    assert (image.get_sform(coded=True)[1], image.get_qform(coded=True)[1]) == (0, 0)
    np.testing.assert_allclose(image.header.get_zooms(), (2.5, 3.0, 5.5))

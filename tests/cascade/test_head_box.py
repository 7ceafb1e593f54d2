"""The head's frame: a square around the head, whatever else is in the picture."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from domainseg.cascade.head_box import LENGTH, MARGIN, head_frame
from domainseg.imaging.volume import AIR, Volume
from domainseg.imaging.volumes import read_volume

_spec = spec_from_file_location("heads", Path(__file__).with_name("heads.py"))
assert _spec is not None
assert _spec.loader is not None
heads = module_from_spec(_spec)
_spec.loader.exec_module(heads)
SPACING = heads.SPACING


def square(volume: Volume) -> tuple[float, float, float]:
    """Middle (y, x) of the frame in voxels, and its side in mm."""
    frame = head_frame(volume)
    _, height, width = frame.shape
    assert height == width
    middle = frame.affine @ np.array([(width - 1) / 2, (height - 1) / 2, 0, 1])
    corner = frame.affine @ np.array([width, 0, 0, 0])
    spacing = volume.spacing or (250 / volume.shape[2],) * 3
    return float(middle[1]), float(middle[0]), float(corner[0] * spacing[0])


@pytest.mark.parametrize("clutter", [{}, {"rest": True}, {"shoulders": True}, {"rest": True, "shoulders": True}])
def test_square_around_the_head(clutter: dict[str, bool]) -> None:
    volume = heads.head(centre=(110.0, 10.0, -16.0), **clutter)
    y, x, side = square(volume)
    assert y == pytest.approx(63.5 + 10 / 2, abs=2)
    assert x == pytest.approx(63.5 - 16 / 2, abs=2)
    assert side == pytest.approx(190 * (1 + 2 * MARGIN), abs=10)


def test_an_infants_head_is_not_its_shoulders() -> None:
    infant = heads.head(centre=(140.0, 0.0, 0.0), axes=(55.0, 60.0, 50.0), shoulders=True)
    assert square(infant)[2] == pytest.approx(120 * (1 + 2 * MARGIN), abs=10)


def test_slices_from_the_vertex_down() -> None:
    frame = head_frame(heads.head(centre=(100.0, 0.0, 0.0), axes=(70.0, 95.0, 75.0)))
    first, last = frame.affine[2, 3], frame.affine[2, 3] + frame.shape[0] - 1
    assert first == 0  # less than 200 mm below the vertex
    assert last * SPACING[2] == pytest.approx(170, abs=2 * SPACING[2])
    longer = heads.head()
    thick = Volume(longer.voxels, np.diag([2.0, 2.0, 8.0, 1.0]), source_shape=longer.shape)
    assert head_frame(thick).shape[0] <= LENGTH / 8 + 1


@pytest.mark.parametrize(("missing", "cut"), [(0.0, False), (12.0, False), (45.0, True)])
def test_a_head_whose_vertex_is_missing_is_told(missing: float, cut: bool) -> None:
    # An ellipsoid 75 mm high: 12 mm below its vertex a section has 0.29 of the largest area, 45 mm below it 0.84.
    volume = heads.head(centre=(100.0, 0.0, 0.0), axes=(70.0, 95.0, 75.0))
    kept = round((170 - missing) / SPACING[2]) if missing else len(volume.voxels)
    assert head_frame(replace(volume, voxels=volume.voxels[: kept + 1])).cut is cut


def test_a_head_whose_vertex_is_missing_is_told_beside_shoulders() -> None:
    """Shoulders are wider than a head: what is cut is measured on the head."""
    volume = heads.head(centre=(120.0, 0.0, 0.0), axes=(75.0, 95.0, 70.0), shoulders=True)
    kept = round((195 - 40) / SPACING[2])
    assert head_frame(replace(volume, voxels=volume.voxels[: kept + 1])).cut


@pytest.mark.parametrize("across", [0.0, 75.0])
def test_a_piece_above_the_head_takes_no_frame(across: float) -> None:
    """A hand or a bag of fluid, in the middle or beside it, 10 mm above the vertex."""
    volume = heads.head(centre=(60.0, 0.0, 0.0))
    z, y, x = heads.positions()
    voxels = volume.voxels.copy()
    voxels[(np.hypot(y - across, x - across) < 30) & (z >= 150)] = 40
    frame, alone = head_frame(replace(volume, voxels=voxels)), head_frame(volume)
    np.testing.assert_array_equal(frame.affine, alone.affine)
    assert (frame.shape, frame.cut) == (alone.shape, False)


def test_a_vertex_is_found_where_shoulders_fill_the_field() -> None:
    """Thin slices: the first ones of a head are small beside a body of 400 by 256 mm, and belong to it."""
    z, y, x = np.indices((150, 128, 200), dtype=float) * np.array([1.25, 2, 2])[:, None, None, None]
    voxels = np.full(z.shape, AIR, np.int16)
    voxels[((z - 100) / 75) ** 2 + ((y - 128) / 95) ** 2 + ((x - 200) / 75) ** 2 < 1] = 40
    voxels[(z < 30) & (((y - 128) / 128) ** 2 + ((x - 200) / 199) ** 2 < 1)] = 40
    frame = head_frame(Volume(voxels, np.diag([2, 2, 1.25, 1.0]), source_shape=voxels.shape))
    uppermost = frame.affine[2, 3] + frame.shape[0] - 1
    assert 1.25 * uppermost > 175 - 7, "a section of a tenth of the head's largest lies 4 mm below its vertex"


def test_slices_without_a_picture_are_no_end() -> None:
    volume = heads.head()
    voxels = volume.voxels.copy()
    voxels[22:24] = AIR
    np.testing.assert_array_equal(head_frame(replace(volume, voxels=voxels)).affine, head_frame(volume).affine)


def test_a_head_cut_off_at_the_field_of_view() -> None:
    frame = head_frame(heads.head(centre=(100.0, -70.0, 0.0)))
    top = frame.affine @ np.array([0, 0, 0, 1])
    assert top[1] < 5
    assert np.linalg.det(frame.affine) == pytest.approx(1)


def test_pictures_with_a_white_frame() -> None:
    volume = heads.head(rest=True)
    seen = np.clip(volume.voxels, 0, 80)
    plain = Volume(seen, None, rendering=(0.0, 80.0), source_shape=volume.shape)
    framed = seen.copy()
    for edge in (np.s_[:, :2], np.s_[:, -2:], np.s_[:, :, :2], np.s_[:, :, -2:]):
        framed[edge] = 80
    inner = seen.copy()  # a line at some distance from the edge
    for line in (np.s_[:, 8:9, 8:-8], np.s_[:, -9:-8, 8:-8], np.s_[:, 8:-8, 8:9], np.s_[:, 8:-8, -9:-8]):
        inner[line] = 80
    want = square(plain)
    assert want[:2] == pytest.approx((63.5, 63.5), abs=2)
    assert want[2] / 250 * 128 == pytest.approx(95 * (1 + 2 * MARGIN), abs=6)
    for other in (framed, inner):
        found = replace(plain, voxels=other)
        assert square(found) == pytest.approx(want, abs=4)
        assert head_frame(found).shape[0] == head_frame(plain).shape[0]


def test_nothing_solid_is_all_of_the_volume() -> None:
    air = Volume(np.full((4, 8, 8), AIR, np.int16), np.eye(4), source_shape=(4, 8, 8))
    assert head_frame(air).shape == (4, 8, 8)
    assert (head_frame(air).affine == np.eye(4)).all()


def test_unequal_pixels_become_square() -> None:
    volume = heads.head()
    squeezed = Volume(volume.voxels[:, ::2], np.diag([2.0, 4.0, 5.0, 1.0]), source_shape=(40, 64, 128))
    frame = head_frame(squeezed)
    assert frame.affine[0, 0] == 1
    assert frame.affine[1, 1] == 0.5
    assert frame.shape[1] == frame.shape[2]


@pytest.mark.real_data
def test_real_heads_fill_their_square(shared_data: Path) -> None:
    """Two renderings on head rests (one an infant's) and a tilted series: the skull is inside and fills the square."""
    for folder in ("ct_ich/brain/053", "ct_ich/brain/085", "head_ct_dicom/ge_human"):
        volume = read_volume(shared_data / folder)
        frame = head_frame(volume)
        assert not frame.cut
        upper = volume.voxels[-len(volume.voxels) // 2 :]
        bright = upper > (300 if volume.rendering is None else 90)
        # The skull's outermost lines: where a hundredth of its bright voxels lies beyond.
        for axis, row in ((2, 0), (1, 1)):
            along = np.cumsum(bright.any(axis=0).sum(axis=2 - axis).astype(float))
            low, high = np.searchsorted(along / along[-1], [0.04, 0.96])
            start = frame.affine[row, 3]
            side = frame.shape[1] * frame.affine[row, row]
            assert start - 2 <= low
            assert high <= start + side + 2
            assert high - low > 0.5 * side

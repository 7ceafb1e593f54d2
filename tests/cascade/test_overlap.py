"""Overlap with the truth, against monai's Dice and surface distance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter

from domainseg.cascade.overlap import dice, matches, resembled, surface_mm, true_lesions
from domainseg.imaging.hemorrhage import MIMICS, UNKNOWN
from domainseg.imaging.volume import Volume


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    smooth = gaussian_filter(np.random.default_rng(0).normal(size=(2, 14, 40, 40)), (0, 1, 4, 4))
    return smooth[0] > 0.02, smooth[0] + 0.4 * smooth[1] > 0.02


def test_as_distance_transforms(pair: tuple[np.ndarray, np.ndarray]) -> None:
    spacing = (5.0, 0.5, 0.7)  # of z, y, x
    edges = [mask & ~binary_erosion(mask) for mask in pair]
    away = [distance_transform_edt(~edge, spacing) for edge in edges]
    want = np.concatenate([away[1][edges[0]], away[0][edges[1]]]).mean()
    assert surface_mm(*pair, np.diag([0.7, 0.5, 5.0, 1.0])) == pytest.approx(want)


@pytest.mark.slow  # to import monai
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # monai's own call of its own function
def test_as_monai(pair: tuple[np.ndarray, np.ndarray]) -> None:
    import torch
    from monai.metrics import compute_average_surface_distance, compute_dice

    one, other = (torch.from_numpy(mask[None, None]) for mask in pair)
    assert dice(*pair) == pytest.approx(float(compute_dice(one, other)), abs=1e-6)
    spacing = (5.0, 0.5, 0.7)  # of z, y, x
    there = compute_average_surface_distance(one, other, include_background=True, symmetric=True, spacing=spacing)
    assert surface_mm(*pair, np.diag([0.7, 0.5, 5.0, 1.0])) == pytest.approx(float(there), rel=1e-5)


def test_surface_distance_of_shifted_slabs() -> None:
    one, other = np.zeros((2, 12, 30, 30), bool)
    one[4:6, 5:25, 5:25] = True
    other[4:6, 5:25, 5:25] = True
    assert surface_mm(one, other, np.eye(4)) == 0
    tilted = np.eye(4)
    tilted[1, 2] = 0.5
    assert surface_mm(one, np.roll(other, 1, axis=0), tilted) <= np.hypot(1, 0.5)
    assert np.isnan(surface_mm(one, other & False, np.eye(4)))
    assert np.isnan(surface_mm(one, other, None))
    assert np.isnan(dice(one & False, other & False))
    assert dice(one, other & False) == 0


def labels() -> np.ndarray:
    out = np.zeros((8, 20, 20), np.uint8)
    out[1:3, 2:8, 2:8] = 1
    out[1:3, 8:10, 2:8] = 5  # a quarter of the same lesion
    out[1, 10, 2] = 4  # next to nothing of it
    out[6, 15:18, 15:18] = UNKNOWN
    return out


def test_true_lesions_are_divided_like_predicted_ones() -> None:
    found = true_lesions(labels())
    assert [(one.type, len(one.z)) for one in found] == [
        ("intraparenchymal", 73), ("intraventricular", 24), ("", 9),
    ]  # fmt: skip
    assert found[2].z.tolist() == [6] * 9
    assert true_lesions(np.zeros((2, 3, 4), np.uint8)) == []


def test_matches_share_a_tenth_of_either() -> None:
    predicted = np.zeros((8, 20, 20), np.uint16)
    predicted[1, 2:8, 2:8] = 1
    predicted[1, 8, 2:4] = 2  # all of it in the ventricle
    predicted[6, 10:16, 10:16] = 3  # one voxel of 36, but a ninth of the true one
    predicted[4] = 4
    assert matches(predicted, true_lesions(labels())) == [[1], [2], [3]]


def test_look_alikes_are_named() -> None:
    predicted, mimics = np.zeros((4, 9, 9), np.uint16), np.zeros((4, 9, 9), np.uint8)
    predicted[1, 2:5, 2:5], predicted[2, 6:8, 6:8] = 1, 2
    mimics[1, 4:9, 2:5] = 1 + MIMICS.index("metal")
    assert resembled(predicted, mimics) == {1: "metal"}


def test_specks_belong_to_the_nearest_lesion() -> None:
    drawn = np.zeros((8, 20, 20), np.uint8)
    drawn[1:3, 2:8, 2:8] = 4
    drawn[6, 12:18, 12:18] = 4
    drawn[1, 10, 3] = drawn[4, 15, 15] = 4  # 0.02 ml each
    place = Volume(np.zeros(drawn.shape, np.int16), np.diag([2, 2, 5, 1.0]), source_shape=drawn.shape)
    assert len(true_lesions(drawn)) == 4
    assert sorted(len(one.z) for one in true_lesions(drawn, place)) == [37, 73]
    only = np.where(np.indices(drawn.shape)[0] == 4, drawn, 0).astype(np.uint8)
    only[4, 2, 2:4] = 4
    assert [len(one.z) for one in true_lesions(only, place)] == [3]  # small as it is, it is what there is

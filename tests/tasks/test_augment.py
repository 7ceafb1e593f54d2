"""Augmentation: geometry against drawn blobs, strength against its definition, what randomness depends on."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest

from domainseg.tasks.augment import Augmenter

STILL = dict.fromkeys(("rotate", "shift", "scale", "gamma", "brightness", "contrast", "blur", "noise"), 0.0)
MOVING = STILL | {"rotate": 15.0, "shift": 0.06, "scale": 0.15}


def blob(points, shape=(160, 200), sigma=3.0):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2)) for px, py in points).astype(np.float32)


def centroid(image):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(x * image).sum(), (y * image).sum()]) / image.sum()


@pytest.mark.parametrize("index", range(6))
def test_points_and_masks_follow_the_picture(index):
    point = (120.0, 60.0)
    image = blob([point])
    result = Augmenter(seed=3, **MOVING)(image, [image > 0.3], [point], epoch=0, index=index)
    assert np.abs(centroid(result.image) - result.points[0]).max() < 0.02
    assert np.abs(centroid(result.masks[0].astype(float)) - result.points[0]).max() < 0.5
    assert np.abs(result.points[0] - point).max() > 0.5
    assert result.image.dtype == np.float32
    assert result.masks[0].dtype == np.bool_


def test_moves_are_small_and_never_a_flip():
    corners = np.array([[50.0, 50.0], [150.0, 50.0], [50.0, 110.0]])
    augmenter = Augmenter(seed=0, **MOVING)
    for index in range(60):
        a, b, c = augmenter(np.zeros((160, 200), np.float32), points=corners, epoch=1, index=index).points
        across, down = b - a, c - a
        assert across[0] * down[1] - across[1] * down[0] > 0
        assert abs(np.degrees(np.arctan2(across[1], across[0]))) <= 15.001
        assert 0.85 <= np.linalg.norm(across) / 100 <= 1.15
        assert np.linalg.norm(down) / 60 == pytest.approx(np.linalg.norm(across) / 100, rel=1e-3)


def test_nothing_to_do_changes_nothing():
    image = np.random.default_rng(0).random((33, 47), dtype=np.float32)
    result = Augmenter(seed=0, **STILL)(image, [image > 0.5], [(3, 4)], epoch=0, index=0)
    assert np.array_equal(result.image, image)
    assert np.array_equal(result.masks[0], image > 0.5)
    assert result.points.tolist() == [[3, 4]]


def test_unknown_points_stay_unknown_and_the_input_is_left_alone():
    image = blob([(50, 50)])
    before, points = image.copy(), np.array([[np.nan, np.nan], [50.0, 50.0]])
    result = Augmenter(seed=0)(image, points=points, epoch=0, index=0)
    assert np.isnan(result.points[0]).all()
    assert np.isfinite(result.points[1]).all()
    assert np.array_equal(image, before)
    assert points[1].tolist() == [50, 50]
    assert result.image.min() >= 0
    assert result.image.max() <= 1


def test_noise_is_as_strong_as_stated():
    augmenter = Augmenter(seed=0, **(STILL | {"noise": 0.05}))
    flat = np.full((64, 64), 0.5, np.float32)
    spread = np.array([augmenter(flat, epoch=0, index=index).image.std() for index in range(400)])
    assert 0.4 < np.mean(spread == 0) < 0.6
    drawn = spread[spread > 0]
    assert drawn.max() < 0.053
    assert drawn.mean() == pytest.approx(0.025, abs=0.003)


def test_draws_of_different_operations_are_independent():
    # With one seed for all, gamma and brightness would come and go together.
    augmenter = Augmenter(seed=0, **(STILL | {"noise": 0.05, "gamma": 0.5}))
    flat = np.full((16, 16), 0.25, np.float32)
    results = [augmenter(flat, epoch=0, index=index).image for index in range(300)]
    noisy = np.array([image.std() > 1e-4 for image in results])
    darker = np.array([abs(np.median(image) - 0.25) > 0.02 for image in results])
    assert abs(np.corrcoef(noisy, darker)[0, 1]) < 0.2


def draw(index):
    image = np.random.default_rng(7).random((40, 40), dtype=np.float32)
    result = Augmenter(seed=5)(image, [image > 0.5], [(10, 20)], epoch=2, index=index)
    return result.image.tobytes(), result.masks[0].tobytes(), result.points.tobytes()


def test_same_numbers_same_result_in_any_order_and_any_worker():
    here = [draw(index) for index in range(6)]
    assert [draw(index) for index in reversed(range(6))][::-1] == here
    assert len(set(here)) == 6
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(draw, range(6), chunksize=1) == here


def test_seed_epoch_and_index_all_matter():
    image = blob([(50, 50)])
    seen = {
        Augmenter(seed=seed)(image, epoch=epoch, index=index).image.tobytes()
        for seed, epoch, index in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    }
    assert len(seen) == 4


def test_import_asks_the_network_for_nothing():
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise SystemExit('network')\n"
        "socket.socket.connect = refuse\n"
        "import domainseg.tasks.augment\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], check=False, env=environment, timeout=120)
    assert done.returncode == 0

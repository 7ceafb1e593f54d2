"""Lesions on films: clipping against areas drawn by hand and against rasterised overlap."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from domainseg.data.lesions import draw_polygons, lesion_to_part, meets, polygon_points
from domainseg.imaging import geometry

SQUARE = [(0, 0), (10, 0), (10, 10), (0, 10)]


@pytest.mark.parametrize(
    ("polygon", "expected"),
    [
        ([(2, 2), (4, 2), (3, 4)], True),  # inside
        ([(-5, -5), (20, -5), (20, 20), (-5, 20)], True),  # around
        ([(-5, 4), (15, 4), (15, 5)], True),  # across, no corner inside
        ([(11, 0), (20, 0), (20, 10)], False),
        ([(10, 3), (20, 0), (20, 10)], True),  # touches with a corner
        ([(12, -4), (-4, -4), (-4, 12), (-6, 12), (-6, -6), (12, -6)], False),  # an L around a corner
        ([(9, -9), (19, 1), (19, -9)], False),  # its box meets, it does not
    ],
)
def test_meets_by_hand(polygon, expected):
    for corners in (SQUARE, SQUARE[::-1], SQUARE[2:] + SQUARE[:2]):
        assert meets(corners, polygon) is expected
        assert meets(corners, polygon[::-1]) is expected


def test_meets_agrees_with_rasters_on_turned_and_mirrored_rois():
    rng = np.random.default_rng(0)
    answers = []
    for _ in range(300):
        crop = geometry.square(rng.uniform(60, 140, 2), rng.uniform(30, 70), 64, mirrored=bool(rng.integers(2)))
        angle = rng.uniform(0, 6)
        turn = np.array([[np.cos(angle), -np.sin(angle), 100], [np.sin(angle), np.cos(angle), 100], [0, 0, 1]])
        roi = geometry.transform(turn @ np.array([[1, 0, -100], [0, 1, -100], [0, 0, 1.0]]) @ crop, corners(64))
        polygon = rng.uniform(40, 160, 2) + rng.uniform(-25, 25, (int(rng.integers(3, 8)), 2))
        polygon = polygon[np.argsort(np.arctan2(*(polygon - polygon.mean(0)).T))]
        overlap = (fill(roi) & fill(polygon)).sum()
        if 0 < overlap < 40:
            continue  # too close for pixels to tell
        answers.append(bool(overlap))
        if overlap or not (dilated(fill(roi)) & fill(polygon)).any():
            assert meets(roi, polygon) is bool(overlap)
    assert 60 < sum(answers) < len(answers) - 60


def corners(size):
    return np.array([(0, 0), (size - 1, 0), (size - 1, size - 1), (0, size - 1)], dtype=float)


def fill(points):
    mask = np.zeros((200, 200), np.uint8)
    cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
    return mask


def dilated(mask):
    return cv2.dilate(mask, np.ones((7, 7), np.uint8))


def test_an_roi_without_area_is_refused():
    with pytest.raises(ValueError, match="area"):
        meets([(0, 0), (1, 1), (2, 2), (3, 3)], SQUARE)


@pytest.mark.parametrize(
    ("film", "polygons", "label", "origin"),
    [
        (0.0, [], 0.0, "film without lesion"),
        (1.0, [[(50, 50), (60, 50), (60, 60)], [(2, 2), (4, 2), (3, 4)]], 1.0, "lesion meets roi"),
        (1.0, [[(50, 50), (60, 50), (60, 60)]], np.nan, "lesion elsewhere"),
        (1.0, [], np.nan, "lesion elsewhere"),
        (np.nan, [[(2, 2), (4, 2), (3, 4)]], np.nan, "film unknown"),
    ],
)
def test_lesion_to_part(film, polygons, label, origin):
    found = lesion_to_part(SQUARE, polygons, film)
    assert found == pytest.approx((label, origin), nan_ok=True) if label == label else np.isnan(found[0])
    assert found[1] == origin


def test_polygons_are_parsed_and_drawn():
    points = polygon_points("1 1 4 1 4 3.0 1 3")
    assert points.tolist() == [[1, 1], [4, 1], [4, 3], [1, 3]]
    mask = draw_polygons([points], (5, 6))
    expected = np.zeros((5, 6), bool)
    expected[1:4, 1:5] = True
    assert np.array_equal(mask, expected)
    assert not draw_polygons([], (5, 6)).any()

"""Cases sample the film where their affine says, and know what lies outside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from domainseg.cascade.case import Case
from domainseg.imaging import Film
from domainseg.imaging.geometry import quarter_turns, square, transform


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_sample_shows_the_film_at_the_mapped_points(film: Film, turns: int, mirrored: bool) -> None:
    case = Case.of("a", film)
    upright = case.affine @ quarter_turns(film.shape, turns)
    affine = upright @ square((90, 100), 64, 64, mirrored=mirrored)
    pixels, valid = case.sample(affine, (64, 64))
    ys, xs = np.mgrid[:64, :64]
    points = transform(affine, np.stack([xs, ys], -1))
    expected = (points[..., 0] + 2 * points[..., 1]) / 1000
    assert valid.all()
    np.testing.assert_allclose(pixels, expected, atol=1e-5)


def test_what_lies_outside_the_film_is_not_valid(film: Film) -> None:
    case = Case.of("a", film)
    pixels, valid = case.sample(square((0, 0), 100, 100), (100, 100))
    assert not valid[:49].any()
    assert not valid[:, :49].any()
    assert valid[50:, 50:].all()
    assert (pixels[:49] == 0).all()


def test_masked_pixels_are_not_valid(film: Film) -> None:
    mask = np.ones(film.shape, dtype=bool)
    mask[:, :100] = False
    _, valid = Case.of("a", replace(film, valid=mask)).sample(np.eye(3), film.shape)
    np.testing.assert_array_equal(valid, mask)


def test_values_are_added_not_changed(film: Film) -> None:
    case = Case.of("a", film)
    more = case.with_values(score=1.0)
    assert dict(case.values) == {}
    assert dict(more.values) == {"score": 1.0}

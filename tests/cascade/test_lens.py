"""Lens or crescent: the thickness of bodies known in closed form, what is fitted to masks, what shares become."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from domainseg.cascade.candidates import Candidate
from domainseg.cascade.head import HemorrhageDetector
from domainseg.cascade.lens import SMALL, fit_lens, thickness, with_shape
from domainseg.imaging.hemorrhage import CODES

Codes = NDArray[np.uint8]


def layer(kind: str, thick: int, wide: int, slices: int = 4) -> Codes:
    """Codes [Z, H, W] of a slab of blood."""
    codes = np.zeros((slices + 2, 64, 64), np.uint8)
    codes[1:-1, 10 : 10 + thick, 5 : 5 + wide] = CODES[kind]
    return codes


def test_thickness_is_the_largest_radius_for_the_size_whatever_the_scale() -> None:
    # In a square of odd side the distance from the middle to the nearest pixel outside is (side + 1) / 2.
    assert thickness(*np.nonzero(layer("epidural", 9, 9))) == pytest.approx(np.log(5 / (4 * 81) ** (1 / 3)))
    ball = [np.nonzero(sum((axis - 20) ** 2 for axis in np.indices((41, 41, 41))) <= r * r) for r in (8, 16)]
    expected = np.log((3 / 4 / np.pi) ** (1 / 3))
    assert [thickness(*places) for places in ball] == pytest.approx([expected] * 2, abs=0.15)
    flat = layer("subdural", 3, 40)
    assert thickness(*np.nonzero(flat)) == pytest.approx(np.log(2 / (4 * 120) ** (1 / 3)))
    assert thickness(*np.nonzero(flat.transpose(0, 2, 1))) == thickness(*np.nonzero(flat))  # wherever it lies


def candidate(codes: Codes, subdural: float, epidural: float) -> Candidate:
    z, y, x = np.nonzero(codes)
    rest = (1 - subdural - epidural) / 3
    types = np.tile(np.array([rest, subdural, epidural, rest, rest], np.float32), (len(z), 1))
    return Candidate(z, y, x, 1.0, types)


def test_a_fit_to_masks_tells_thick_from_thin_and_leaves_the_other_types_alone() -> None:
    lenses = [layer("epidural", thick, thick + 3) for thick in (8, 10, 12)]
    crescents = [layer("subdural", 3, wide) for wide in (25, 35, 45, 50, 55)]
    offset, slope = fit_lens([*lenses, *crescents])
    assert slope > 0
    for codes, lens in ((lenses[1], True), (crescents[1], False)):
        one = candidate(codes, subdural=0.45, epidural=0.45)
        shaped = with_shape(one, offset, slope)
        assert (shaped.types[:, 2] > shaped.types[:, 1]).all() == lens
        assert shaped.types[:, 1] + shaped.types[:, 2] == pytest.approx(one.types[:, 1] + one.types[:, 2])
        np.testing.assert_array_equal(shaped.types[:, [0, 3, 4]], one.types[:, [0, 3, 4]])
        assert (shaped.z is one.z, shaped.logit) == (True, one.logit)
        # A network that is sure is believed.
        sure = with_shape(candidate(codes, *((1 - 1e-6, 1e-6) if lens else (1e-6, 1 - 1e-6))), offset, slope)
        assert (sure.types[:, 1] > sure.types[:, 2]).all() == lens
    # The odds of shape alone are even where both are as likely: at offset + slope * thickness = 0.
    even = with_shape(candidate(lenses[0], 0.3, 0.3), -slope * thickness(*np.nonzero(lenses[0])), slope)
    assert even.types[:, 2] == pytest.approx(0.3, abs=1e-6)


def test_a_fit_needs_both_types_and_a_shape_some_voxels() -> None:
    assert fit_lens([layer("epidural", 8, 9)] * 2 + [layer("subdural", 3, 30)] * 5) == (0.0, 0.0)
    assert fit_lens([np.zeros((4, 64, 64), np.uint8)] * 5) == (0.0, 0.0)
    speck = candidate(layer("epidural", 3, 4, slices=1), 0.5, 0.4)
    assert len(speck.z) < SMALL
    assert with_shape(speck, 50.0, 9.0) is speck
    brain = candidate(layer("epidural", 9, 9), 0.2, 0.2)
    assert with_shape(brain, 50.0, 9.0) is brain


def test_the_detector_types_candidates_by_their_shape_where_it_has_learned_to() -> None:
    mask = np.full((6, 6, 64, 64), -6, np.float32)
    mask[1:5, 0, 10:19, 10:19] = 4.0
    mask[:, 2] = mask[:, 3] = 3.0
    (plain,) = HemorrhageDetector().candidates({"mask": mask}, (64, 64))
    (shaped,) = HemorrhageDetector(lens_offset=7.0, lens_slope=8.0).candidates({"mask": mask}, (64, 64))
    assert plain.types[:, 2] == pytest.approx(plain.types[:, 1])
    odds = 7.0 + 8.0 * np.log(5 / (4 * 81) ** (1 / 3))
    assert np.log(shaped.types[:, 2] / shaped.types[:, 1]) == pytest.approx(odds, abs=1e-3)

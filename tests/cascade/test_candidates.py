"""Candidates: components as scipy's, boxes linked over slices as they overlap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from domainseg.cascade.candidates import (
    MOST,
    STRONGEST,
    Candidate,
    box_candidates,
    connected,
    dense_candidates,
    disjoint,
    logit,
    peak,
    top,
)


@pytest.mark.parametrize("density", [0.03, 0.1, 0.2])
def test_components_are_those_of_26_neighbours(density: float) -> None:
    mask = np.random.default_rng(3).random((9, 24, 31)) < density
    labels, count = connected(mask)
    other, want = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    assert count == want
    # The same partition, whatever the numbers.
    pairs = np.unique(np.stack([labels[mask], other[mask]]), axis=1)
    assert pairs.shape[1] == count
    assert (labels > 0).tolist() == mask.tolist()


def test_no_components() -> None:
    labels, count = connected(np.zeros((3, 4, 5), bool))
    assert count == 0
    assert not labels.any()


def test_top_is_the_mean_of_the_strongest() -> None:
    values = np.arange(100, dtype=np.float32)
    np.random.default_rng(0).shuffle(values)
    assert top(values) == np.arange(100 - STRONGEST, 100).mean()
    assert top(np.array([2.0, 4.0], np.float32)) == 3


def dense(*blocks: tuple[tuple[slice, slice, slice], float]) -> np.ndarray:
    mask = np.zeros((6, 6, 32, 32), np.float32)
    mask[:, 0] = -6
    for (z, y, x), value in blocks:
        mask[z, 0, y, x] = value
    return mask


def test_dense_candidates_strongest_first_without_small_ones() -> None:
    mask = dense((np.s_[1:3, 2:6, 2:6], 1.0), (np.s_[4:5, 10:12, 10:12], 3.0), (np.s_[5:6, 20:21, 20:21], 5.0))
    found = dense_candidates(mask, 0.5, 0.5, 4)
    assert [len(one.z) for one in found] == [4, 32]
    assert [one.logit for one in found] == [3.0, 1.0]
    assert len(dense_candidates(mask, 0.5, 0.5, 1)) == 3


def test_outline_keeps_the_likelier_voxels_or_all() -> None:
    mask = dense((np.s_[1:2, 2:8, 2:8], 0.2), (np.s_[1:2, 4:6, 4:6], 4.0), (np.s_[4:5, 20:24, 20:24], 0.2))
    found = dense_candidates(mask, 0.5, 0.8, 1)
    assert [len(one.z) for one in found] == [4, 16]
    assert found[0].logit == pytest.approx((4 * 4.0 + (STRONGEST - 4) * 0.2) / STRONGEST, rel=1e-5)


def test_a_candidate_grows_to_its_outline() -> None:
    # Two cores in one pale rim, a third core apart from it, and pale voxels that hang on no core.
    mask = dense(
        (np.s_[1:4, 2:12, 2:12], -1.0), (np.s_[2:3, 3:5, 3:5], 3.0), (np.s_[2:3, 8:10, 8:10], 2.0),
        (np.s_[4:5, 20:22, 20:22], 1.0), (np.s_[5:6, 28:30, 2:4], -1.0),
    )  # fmt: skip
    found = dense_candidates(mask, 0.5, 0.2, 4)
    assert [len(one.z) for one in found] == [300, 4]
    assert [one.logit for one in found] == [3.0, 1.0]  # of the stronger core alone, whatever it grows into
    grown = ndimage.binary_propagation(mask[:, 0] >= 0, np.ones((3, 3, 3)), mask[:, 0] >= logit(0.2))
    assert sum(len(one.z) for one in found) == grown.sum()


def test_the_peak_is_the_part_of_the_strongest_voxels_about_the_highest() -> None:
    mask = dense((np.s_[3:4, 4:6, 4:8], -2.0), (np.s_[3:4, 20:22, 4:8], -3.0), (np.s_[2:3, 4:6, 4:8], -2.5))
    one = peak(mask, 3, 0.5)
    assert sorted(zip(one.z, one.y, one.x, strict=True)) == [(3, y, x) for y in (4, 5) for x in range(4, 8)]
    assert one.logit == pytest.approx((8 * -2 + 8 * -3) / STRONGEST)
    assert len(peak(mask, 3, 0.07).z) == 16  # the neighbouring slice hangs together with it


def test_at_most_so_many_candidates() -> None:
    mask = np.full((4, 6, 64, 64), -3, np.float32)
    mask[::2, 0, ::3, ::3] = 2
    assert len(dense_candidates(mask, 0.5, 0.5, 1)) == MOST


def boxes(*found: tuple[int, list[float], float]) -> dict[str, np.ndarray]:
    """Outputs of six slices with K = 4: (slice, box, score)."""
    out = {
        "boxes": np.zeros((6, 4, 4), np.float32),
        "scores": np.zeros((6, 4), np.float32),
        "types": np.zeros((6, 4, 5), np.float32),
        "masks": np.full((6, 4, 8, 8), 5, np.float32),
    }
    used = [0] * 6
    for z, box, score in found:
        out["boxes"][z, used[z]], out["scores"][z, used[z]] = box, score
        used[z] += 1
    return out


def test_boxes_are_linked_where_their_masks_overlap() -> None:
    outputs = boxes(
        (1, [4, 4, 12, 12], 0.6), (2, [6, 6, 14, 14], 0.9), (3, [20, 20, 24, 24], 0.3), (5, [6, 6, 14, 14], 0.2)
    )  # fmt: skip
    found = box_candidates(outputs, (32, 32), 0.05, 0.5, 0.5)
    assert [sorted(set(one.z.tolist())) for one in found] == [[1, 2], [3], [5]]
    assert [round(one.logit, 3) for one in found] == [round(logit(p), 3) for p in (0.9, 0.3, 0.2)]
    # A box covers its pixels from edge to edge.
    assert len(found[1].z) == 16
    assert found[1].y.min() == 20
    assert found[1].y.max() == 23


def test_the_weaker_of_two_boxes_on_one_place_goes() -> None:
    outputs = boxes((1, [4, 4, 12, 12], 0.6), (1, [4, 4, 12, 13], 0.8), (1, [16, 4, 24, 12], 0.1))
    found = box_candidates(outputs, (32, 32), 0.05, 0.5, 0.5)
    assert [len(one.z) for one in found] == [72, 64]
    assert len(box_candidates(outputs, (32, 32), 0.2, 0.5, 0.5)) == 1


def test_the_dense_mask_outlines_what_boxes_find() -> None:
    outputs = boxes((1, [4, 4, 12, 12], 0.6), (2, [4, 4, 12, 12], 0.9))
    outputs["mask"] = dense((np.s_[1:2, 6:9, 6:20], 2.0))
    (found,) = box_candidates(outputs, (32, 32), 0.05, 0.5, 0.5)
    assert (found.z == 1).sum() == 3 * 6  # inside the box only
    assert (found.z == 2).sum() == 64  # nothing drawn there: the box's own mask


def test_what_candidates_share_is_the_strongest_ones_and_nothing_is_lost() -> None:
    rng = np.random.default_rng(3)
    found, whole = [], np.zeros((4, 20, 20), bool)
    for strength in range(12, 0, -1):
        low = rng.integers(0, [3, 12, 12])
        z, y, x = (places.ravel() for places in np.indices((2, 8, 8)) + low.reshape(3, 1, 1, 1))
        found.append(Candidate(z, y, x, float(strength), np.full((len(z), 5), strength, np.float32)))
        whole[z, y, x] = True
    kept = disjoint(found)
    assert 1 < len(kept) < len(found)
    assert [one.logit for one in kept] == sorted({one.logit for one in kept}, reverse=True)
    held = np.zeros(whole.shape, int)
    strongest = np.zeros(whole.shape)
    for one in reversed(found):
        strongest[one.z, one.y, one.x] = one.logit
    for one in kept:
        held[one.z, one.y, one.x] += 1
        own = np.isin(strongest[one.z, one.y, one.x], [other.logit for other in found if other.logit <= one.logit])
        assert own.all()  # never from a stronger one
        np.testing.assert_array_equal(one.types[:, 0], strongest[one.z, one.y, one.x])
    np.testing.assert_array_equal(held, whole)

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.proportion import confint_proportions_2indep

from domainseg.evaluation.shift import largest, shift


def test_difference_to_the_reference_has_newcombes_interval() -> None:
    rng = np.random.default_rng(0)
    place = np.array(["here"] * 300 + ["there"] * 200 + [None], dtype=object)
    label = (rng.random(501) < 0.4).astype(float)
    called = rng.random(501) < np.where(label == 1, np.r_[np.full(300, 0.9), np.full(201, 0.7)], 0.2)
    found = shift(label, called, np.arange(501), place, "here")
    assert list(found) == ["here", "there"]
    assert "sensitivity_difference" not in found["here"]
    for metric, side in (("sensitivity", 1), ("specificity", 0)):
        a, b = ((place == name) & (label == side) for name in ("there", "here"))
        hits = [int((called[mask] == (side == 1)).sum()) for mask in (a, b)]
        low, high = confint_proportions_2indep(hits[0], a.sum(), hits[1], b.sum(), method="newcomb", compare="diff")
        gap = found["there"][f"{metric}_difference"]
        assert gap["value"] == pytest.approx(hits[0] / a.sum() - hits[1] / b.sum())
        assert (gap["low"], gap["high"]) == pytest.approx((low, high), abs=1e-9)
        assert gap["n"] == a.sum() + b.sum()
    with pytest.raises(ValueError, match="here, there"):
        shift(label, called, np.arange(501), place, "elsewhere")


def test_largest_place_counts_scored_rows() -> None:
    place = np.array(["a", "a", "a", "b", "b", None], dtype=object)
    assert largest(np.array([np.nan, np.nan, 1, 1, 1, 1]), place) == "b"
    assert largest(np.ones(1), np.array([None], dtype=object)) is None

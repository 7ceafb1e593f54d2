"""Figures over several labels."""

from __future__ import annotations

import numpy as np
import pytest

from domainseg.labeling.measuring import over_labels


def test_a_mean_of_perfect_labels_is_no_certainty() -> None:
    label = np.tile([1.0, 0.0], 10)
    patients = np.array([f"p{k}" for k in range(20)])
    found = over_labels([np.stack([label, label, label])] * 2, patients, seed=0)
    assert found["auc"]["value"] == found["auc"]["high"] == 1.0
    assert found["auc"]["low"] == pytest.approx(0.025 ** (1 / 10))  # Clopper-Pearson of 10 out of 10
    assert found["difference"]["high"] == -found["difference"]["low"] == pytest.approx(1 - 0.025 ** (1 / 10))

from __future__ import annotations

import numpy as np
import pytest

from domainseg.evaluation import choose_threshold


def test_highest_threshold_that_keeps_the_fraction() -> None:
    rng = np.random.default_rng(0)
    label, score = np.r_[np.ones(100), np.zeros(300)], rng.random(400)
    chosen = choose_threshold(label, score, "sensitivity_0.95")
    assert (score[:100] >= chosen.value).mean() == 0.95 == chosen.kept
    next_higher = score[:100][score[:100] > chosen.value].min()
    assert (score[:100] >= next_higher).mean() < 0.95
    assert chosen.specificity == (score[100:] < chosen.value).mean()
    assert chosen.reached
    assert not chosen.provisional


@pytest.mark.parametrize(("n", "missed"), [(99, 0), (100, 1), (200, 2), (20, 0)])
def test_keep_99_of_100(n: int, missed: int) -> None:
    score = np.arange(n, dtype=float)
    assert choose_threshold(np.ones(n), score, "keep_0.99").value == missed


def test_tied_positives_are_all_called() -> None:
    chosen = choose_threshold(np.ones(50), np.full(50, 0.4), "catch_0.99")
    assert (chosen.value, chosen.kept) == (0.4, 1)


def test_fewer_than_40_of_the_kept_class_is_provisional() -> None:
    label = np.r_[np.ones(39), np.zeros(500)]
    assert choose_threshold(label, np.linspace(0, 1, 539), "sensitivity_0.95").provisional
    label[39] = 1
    assert not choose_threshold(label, np.linspace(0, 1, 539), "sensitivity_0.95").provisional


def test_excluded_positives_count_as_missed() -> None:
    score = np.r_[np.full(3, -np.inf), np.linspace(0.1, 0.9, 97), np.full(2, np.inf)]
    label = np.r_[np.ones(100), np.zeros(2)]
    chosen = choose_threshold(label, score, "sensitivity_0.95")
    assert chosen.value == np.sort(score[:100])[5]
    assert chosen.kept == 0.95
    assert chosen.specificity == 0
    score[:10] = -np.inf
    broken = choose_threshold(label, score, "sensitivity_0.95")
    assert not broken.reached
    assert broken.value == score[10:100].min()


def test_nothing_to_choose_from() -> None:
    chosen = choose_threshold(np.array([0.0, np.nan]), np.array([0.2, 0.9]), "keep_0.99")
    assert (chosen.value, chosen.provisional, chosen.reached) == (0.5, True, False)
    with pytest.raises(ValueError, match=r"sensitivity_0\.95"):
        choose_threshold(np.ones(1), np.ones(1), "youden")

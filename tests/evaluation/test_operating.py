from __future__ import annotations

import numpy as np
import pytest

from domainseg.evaluation import RULES, choose_threshold
from domainseg.evaluation.operating import on_test_threshold


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
    for rule in ("keep_0.99", "catch_0.99"):
        chosen = choose_threshold(np.array([]), np.array([]), rule)
        assert (chosen.value, chosen.provisional, chosen.reached) == (0.5, True, False)
    with pytest.raises(ValueError, match=r"sensitivity_0\.95"):
        choose_threshold(np.ones(1), np.ones(1), "youden")


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("scores", [[0.51, 0.6, 0.7], [0.01, 0.2, 0.3], [0.2, 0.9, 1 - 1e-12], [1e-300, 0.5, 0.6]])
def test_without_a_positive_no_case_is_taken_away(rule: str, scores: list[float]) -> None:
    """Neither the negatives nor the case whose label is unknown: the metal rule excludes above, the others below."""
    for label in ([0.0, 0.0, np.nan], [np.nan, 0.0, 0.0], [np.nan] * 3):
        chosen = choose_threshold(np.array(label), np.array(scores), rule)
        called = np.array(scores) >= chosen.value
        assert not called.any() if rule == "catch_0.99" else called.all()
        assert 0 <= chosen.value <= 1
        assert chosen.value >= 0.5 if rule == "catch_0.99" else chosen.value <= 0.5
        assert (chosen.n_positive, chosen.provisional, chosen.reached) == (0, True, False)
        assert np.isnan(chosen.kept)


def test_positives_that_were_all_excluded_before_say_nothing() -> None:
    label, score = np.array([1.0, 1, 0, 0]), np.array([-np.inf, -np.inf, 0.6, 0.7])
    for rule, called in (("catch_0.99", 0), ("sensitivity_0.95", 2)):
        chosen = choose_threshold(label, score, rule)
        assert (score >= chosen.value).sum() == called
        assert (chosen.n_positive, chosen.kept, chosen.reached) == (2, 0, False)


@pytest.mark.parametrize(("positives", "taken"), [([0.3], 0), ([0.3, 0.35], 0), ([0.3, 0.35, 0.36], 10)])
def test_one_or_two_positives_do_not_throw_away_most_of_the_negatives(positives: list[float], taken: int) -> None:
    negatives = np.linspace(0.4, 0.6, 10)
    label, score = np.repeat([1.0, 0.0], [len(positives), 10]), np.r_[positives, negatives]
    chosen = choose_threshold(label, score, "catch_0.99")
    assert (negatives >= chosen.value).sum() == taken
    assert chosen.reached == (taken > 0)
    assert chosen.provisional


def test_one_positive_above_half_of_the_negatives_is_caught() -> None:
    score = np.r_[0.5, np.linspace(0, 1, 11)[:5], 0.55, 0.6, 0.7, 0.8, 0.9]
    chosen = choose_threshold(np.r_[1.0, np.zeros(10)], score, "catch_0.99")
    assert (chosen.value, chosen.kept, chosen.reached) == (0.5, 1, True)


@pytest.mark.parametrize(("positives", "caught"), [(39, 38), (262, 249), (2995, 2846), (1, 1), (20, 19)])
def test_on_the_test_set_as_zech_did(positives: int, caught: int) -> None:
    """38 of 39 is the 0.974 of his table at IU."""
    rng = np.random.default_rng(positives)
    label, score = np.r_[np.ones(positives), np.zeros(500), np.nan], np.r_[rng.random(positives + 500), 2.0]
    threshold = on_test_threshold(label, score)
    assert (score[:positives] >= threshold).sum() == caught == np.ceil(0.95 * positives - 1e-9)
    assert np.isnan(on_test_threshold(np.zeros(3), np.arange(3.0)))

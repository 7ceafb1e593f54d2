"""Thresholds and calibration chosen on tune: rules on examples that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from domainseg.cascade.stages import Frozen
from domainseg.evaluation.operating import Threshold, choose_threshold
from domainseg.training.freeze import doubts, freeze, middle_of_gap


def calls(frozen: Frozen, logits: NDArray[np.float64]) -> NDArray[np.bool_]:
    """What a stage that is frozen so calls."""
    return np.array([frozen.probability(logit) >= frozen.threshold for logit in logits])


def mixed(positives: int, negatives: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positives at logits 1, 2, 3, ...; negatives at 0, -1, -2, ... and one of them, at 3.5, above three positives."""
    positive = np.arange(1.0, positives + 1)
    negative = np.concatenate([[3.5], -np.arange(negatives - 1.0)])
    return np.repeat([1.0, 0.0], [positives, negatives]), np.concatenate([positive, negative])


@pytest.mark.parametrize(
    ("rule", "positives", "lowest"),
    [
        ("sensitivity_0.95", 20, 2),  # one in twenty may be missed
        ("sensitivity_0.95", 19, 1),  # none of nineteen
        ("sensitivity_0.95", 100, 6),
        ("keep_0.99", 99, 1),
        ("keep_0.99", 100, 2),
        ("catch_0.99", 200, 3),
    ],
)
def test_rules_miss_as_many_as_they_may(rule: str, positives: int, lowest: int) -> None:
    labels, logits = mixed(positives, 60)
    frozen, record = freeze(labels, logits, rule)
    np.testing.assert_array_equal(calls(frozen, logits), logits >= lowest)
    assert frozen.rule == record["rule"] == rule
    assert record["value"] == frozen.threshold
    assert record["kept"] == pytest.approx((positives - lowest + 1) / positives)
    assert record["calibration"]["slope"] == frozen.slope


def test_excluded_positives_count_as_missed() -> None:
    """Of 100 fractures five may be missed; three were excluded before, so two that were scored may fall."""
    labels, logits = mixed(97, 60)
    labels, logits = np.append(labels, [1, 1, 1, 0]), np.append(logits, [-np.inf, -np.inf, -np.inf, np.inf])
    frozen, record = freeze(labels, logits, "sensitivity_0.95")
    scored = np.isfinite(logits)
    np.testing.assert_array_equal(calls(frozen, logits[scored]), logits[scored] >= 3)
    assert record["n_positive"] == 100
    assert record["kept"] == pytest.approx(0.95)
    assert record["reached"]


def test_a_rule_that_exclusions_broke_calls_all_that_is_left() -> None:
    labels, logits = mixed(40, 60)
    labels, logits = np.append(labels, [1.0] * 10), np.append(logits, [-np.inf] * 10)
    frozen, record = freeze(labels, logits, "sensitivity_0.95")
    scored = np.isfinite(logits)
    assert calls(frozen, logits[scored & (labels == 1)]).all()
    assert not record["reached"]
    assert record["kept"] == pytest.approx(0.8)


def test_unknown_labels_change_nothing() -> None:
    labels, logits = mixed(60, 60)
    with_unknown = freeze(np.append(labels, [np.nan] * 5), np.append(logits, [50.0, -50, 0, 1, 2]), "catch_0.99")
    assert with_unknown[1]["n_positive"] == 60
    np.testing.assert_allclose(
        [with_unknown[0].slope, with_unknown[0].intercept],
        [freeze(labels, logits, "catch_0.99")[0].slope, freeze(labels, logits, "catch_0.99")[0].intercept],
    )


@pytest.mark.parametrize("positives", [39, 40])
def test_few_positives_make_the_threshold_provisional(positives: int) -> None:
    frozen, record = freeze(*mixed(positives, 100), "sensitivity_0.95")
    assert frozen.provisional == record["provisional"] == (positives < 40)


@pytest.mark.parametrize("seed", range(8))
def test_the_frozen_scale_is_the_one_the_threshold_was_chosen_on(seed: int) -> None:
    """Calls by the frozen stage give the sensitivity and specificity that were written down."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([1.0, 0.0], [50, 150])
    logits = rng.normal(np.where(labels == 1, 2, -3), 3.0) * [0.1, 1.0, 4.0, 0.5][seed % 4]
    frozen, record = freeze(labels, logits, "sensitivity_0.95")
    called = calls(frozen, logits)
    assert called[labels == 1].mean() == pytest.approx(record["kept"])
    assert (~called[labels == 0]).mean() == pytest.approx(record["specificity"])
    assert called[labels == 1].mean() >= 0.95


def test_calibrated_scores_are_as_many_as_there_are_positives() -> None:
    """Logistic regression with an intercept: the mean probability is the share of positives."""
    rng = np.random.default_rng(1)
    labels = (rng.random(400) < 0.3).astype(float)
    logits = rng.normal(2 * labels, 1.5) * 3 + 7
    frozen, _ = freeze(labels, logits, "sensitivity_0.95")
    assert np.mean([frozen.probability(logit) for logit in logits]) == pytest.approx(labels.mean(), abs=1e-4)


def test_no_tune_positive_falls_by_rounding() -> None:
    """Only positives on tune (every hip is in its film): the lowest is kept, though its logit went through a table."""
    for seed in range(300):
        logits = np.sort(np.random.default_rng(seed).normal(-4, 2, 30))
        scores = 1 / (1 + np.exp(-logits))
        frozen, _ = freeze(np.ones(30), np.log(scores) - np.log1p(-scores), "keep_0.99")
        assert calls(frozen, logits[:1]).all()
        assert frozen.threshold <= 0.5


def test_the_middle_of_the_gap_changes_no_call_on_tune() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels = np.append((rng.random(60) < 0.5).astype(float), [1, 0])
        scores = np.round(rng.random(62) ** 2, 2)  # with ties
        chosen = choose_threshold(labels, scores, "sensitivity_0.95")
        moved = middle_of_gap(chosen, scores)
        np.testing.assert_array_equal(scores >= moved.value, scores >= chosen.value)


def test_the_middle_of_the_gap_is_the_middle_in_log_odds() -> None:
    threshold = Threshold(0.9, "keep_0.99", "tune", 50, 50, 1.0, 1.0, True, False)
    assert middle_of_gap(threshold, np.array([0.1, 0.05, 0.9, 0.95])).value == pytest.approx(0.5)
    odds = np.sqrt((0.9 / 0.1) * (0.6 / 0.4))
    assert middle_of_gap(threshold, np.array([0.6, 0.9])).value == pytest.approx(odds / (1 + odds))


def test_without_a_lower_score_the_threshold_is_a_half_at_most() -> None:
    threshold = Threshold(0.9, "keep_0.99", "tune", 50, 50, 1.0, 1.0, True, False)
    assert middle_of_gap(threshold, np.array([0.9, 0.95])).value == 0.5


def test_scores_at_the_end_of_the_scale_keep_their_calls() -> None:
    threshold = Threshold(1 - 1e-12, "keep_0.99", "tune", 50, 50, 1.0, 1.0, True, False)
    scores = np.array([1 - 1e-10, 1 - 1e-12, 1.0])
    moved = middle_of_gap(threshold, scores)
    np.testing.assert_array_equal(scores >= moved.value, [False, True, True])


@pytest.mark.parametrize(("rule", "passes"), [("catch_0.99", False), ("keep_0.99", True), ("sensitivity_0.95", True)])
@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0, 30.0])
def test_without_positives_on_tune_every_case_goes_on(rule: str, passes: bool, shift: float) -> None:
    """Eighteen negatives and two unknown: a stage that excludes metal calls none, one that keeps films calls all."""
    logits = np.linspace(0.1, 0.9, 20) + shift
    labels = np.append(np.zeros(18), [np.nan, np.nan])
    frozen, record = freeze(labels, logits, rule)
    assert (calls(frozen, logits) == passes).all()
    assert (frozen.slope, frozen.intercept, frozen.provisional) == (1, 0, True)
    assert (record["n_positive"], record["n_negative"], record["reached"]) == (0, 18, False)
    (said,) = doubts(frozen, labels, logits)
    assert "0 scored positive and 18 scored negative cases on tune" in said
    assert "provisional" in said


def test_a_filter_that_takes_away_most_of_tune_is_told() -> None:
    """Three hips with metal score below seven of ten without: the rule catches them, and those seven with them."""
    labels = np.repeat([1.0, 0.0], [3, 10])
    logits = np.concatenate([[1.0, 1.1, 1.2], [-3.0, -2, -1], np.linspace(2, 3, 7)])
    frozen, _ = freeze(labels, logits, "catch_0.99")
    (said,) = doubts(frozen, labels, logits)
    assert "takes away 7 of the 10 negatives" in said
    labels, logits = mixed(60, 60)
    assert doubts(freeze(labels, logits, "catch_0.99")[0], labels, logits) == []
    assert doubts(freeze(labels, -logits, "keep_0.99")[0], labels, -logits) == []


def test_a_threshold_from_elsewhere_is_told_by_what_it_does() -> None:
    """Kept from another run: eleven of the eighteen negatives of tune lie above it, and one unknown."""
    labels, logits = np.append(np.zeros(18), np.nan), np.append(np.arange(18.0) - 6.5, 3.0)
    unjudged, taken = doubts(Frozen(threshold=0.5, rule="catch_0.99"), labels, logits)
    assert "takes away 12 of the 19 cases there" in unjudged
    assert "takes away 11 of the 18 negatives" in taken

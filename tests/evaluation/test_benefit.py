from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix
from statsmodels.stats.contingency_tables import Table2x2

from domainseg.evaluation.benefit import decision_curve, post_test, predictive_values
from domainseg.evaluation.operating import decisions, likelihood_ratios


def drawn(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    score = rng.beta(0.6, 2, n)
    return (rng.random(n) < score).astype(float), score, np.arange(n)


def test_net_benefit_is_vickers_and_elkins() -> None:
    label, score, people = drawn()
    curve = decision_curve(label, score, people, thresholds=(0.1, 0.25, 0.6), resamples=200)
    for cut in (0.1, 0.25, 0.6):
        (_, false), (_, true) = confusion_matrix(label, score >= cut)
        expected = true / 600 - false / 600 * cut / (1 - cut)
        treat_all = label.mean() - (1 - label.mean()) * cut / (1 - cut)
        here = curve[f"{cut:g}"]
        assert here["net_benefit"]["value"] == pytest.approx(expected)
        assert here["treat_all"]["value"] == pytest.approx(treat_all)
        assert here["gain"]["value"] == pytest.approx(expected - max(treat_all, 0))
        assert here["net_benefit"]["low"] < expected < here["net_benefit"]["high"]


def test_net_benefits_interval_is_that_of_a_mean() -> None:
    """Net benefit is the mean of 1 for a true positive, minus the odds for a false one."""
    label, score, people = drawn(2000)
    each = (score >= 0.2) * np.where(label == 1, 1.0, -0.25)
    error = each.std() / np.sqrt(2000)
    found = decision_curve(label, score, people, thresholds=(0.2,), resamples=2000)["0.2"]["net_benefit"]
    assert (found["high"] - found["low"]) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_likelihood_ratios_are_risk_ratios_of_the_table() -> None:
    label, score, people = drawn()
    called = score >= 0.3
    (d, c), (b, a) = confusion_matrix(label, called)
    for found, table in zip(
        likelihood_ratios(label, called, people), ([[a, b], [c, d]], [[b, a], [d, c]]), strict=True
    ):
        expected = Table2x2(np.array(table))
        assert found["value"] == pytest.approx(expected.riskratio)
        assert (found["low"], found["high"]) == pytest.approx(expected.riskratio_confint(), rel=1e-6)


def test_likelihood_ratios_of_patients_with_two_rows_are_wider_by_the_root_of_two() -> None:
    label, score, people = drawn(1000)
    called = score >= 0.3
    once = likelihood_ratios(label, called, people)[0]
    twice = likelihood_ratios(*(np.tile(v, 2) for v in (label, called, people)))[0]
    assert twice["value"] == once["value"]
    assert twice["method"] == "patient bootstrap"
    assert np.log(twice["high"] / twice["low"]) == pytest.approx(np.log(once["high"] / once["low"]), rel=0.15)


def test_resamples_without_a_false_call_are_not_left_out() -> None:
    """50 and 100 patients of two rows each, one false call: a third of the resamples have no false call."""
    label = np.repeat([1.0, 0.0], [50, 100])
    called = np.r_[np.repeat([True, False], [40, 10]), True, np.zeros(99, dtype=bool)]
    once = likelihood_ratios(label, called, np.arange(150))[0]
    twice = likelihood_ratios(*(np.tile(v, 2) for v in (label, called, np.arange(150))))[0]
    assert (twice["value"], twice["low"], twice["high"]) == pytest.approx((80, once["low"], once["high"]))
    assert twice["method"] == "log scale at the number of patients"


def test_a_count_of_0_leaves_a_bound() -> None:
    label, called = np.repeat([1.0, 0.0], [20, 50]), np.repeat([True, False], [15, 55])
    positive, negative = likelihood_ratios(label, called, np.arange(70))
    assert (np.isinf(positive["value"]), np.isinf(positive["high"])) == (True, True)
    assert 1 < positive["low"] < 75
    assert negative["value"] == pytest.approx(0.25)
    assert post_test(positive, 0.1)["value"] == 1
    assert 0 < post_test(positive, 0.1)["low"] < 1
    assert likelihood_ratios(np.ones(3), np.ones(3, dtype=bool), np.arange(3))[0]["method"] == "one class only"


def test_a_class_of_which_all_are_called_adds_its_uncertainty() -> None:
    """3 of 3 positives and 20 of 100 negatives: by hand 3.5/4 over 20.5/101, and Simel's variance of these cells."""
    label, called = np.repeat([1.0, 0.0], [3, 100]), np.repeat([True, False], [23, 80])
    found = likelihood_ratios(label, called, np.arange(103))[0]
    reach = 1.959963985 * np.sqrt(1 / 3.5 - 1 / 4 + 1 / 20.5 - 1 / 101)
    assert found["value"] == pytest.approx(5)
    assert (found["low"], found["high"]) == pytest.approx(tuple((3.5 / 4) / (20.5 / 101) * np.exp([-reach, reach])))
    every = likelihood_ratios(label, np.ones(103, bool), np.arange(103))
    assert every[0]["low"] < 1 < every[0]["high"]
    assert (every[1]["method"], np.isnan(every[1]["value"])) == ("no such call", True)
    assert likelihood_ratios(label, np.zeros(103, bool), np.arange(103))[0]["method"] == "no such call"


def test_post_test_probability_is_bayes_rule() -> None:
    """A likelihood ratio of 9 turns odds of 1 to 9 into 1 to 1."""
    ratio = {"value": 9.0, "low": 3.0, "high": 27.0, "n": 1, "n_clusters": 1, "method": "x"}
    found = post_test(ratio, 0.1)  # type: ignore[arg-type]
    assert (found["value"], found["low"], found["high"]) == pytest.approx((0.5, 0.25, 0.75))


def test_predictive_values_at_the_samples_own_prevalence_are_those_of_the_sample() -> None:
    label, score, people = drawn()
    found = decisions(label, score >= 0.4, people, resamples=50)
    values = predictive_values(found["lr_positive"], found["lr_negative"], [label.mean(), 0.01])
    here = values[f"{label.mean():g}"]
    assert here["ppv"]["value"] == pytest.approx(found["ppv"]["value"])
    assert here["npv"]["value"] == pytest.approx(found["npv"]["value"])
    assert values["0.01"]["ppv"]["value"] < here["ppv"]["value"]
    assert values["0.01"]["npv"]["low"] < values["0.01"]["npv"]["value"] < values["0.01"]["npv"]["high"]


def test_a_count_of_0_counts_patients_and_not_their_rows() -> None:
    """Each patient four times tells no more than once."""
    label, called = np.repeat([1.0, 0.0], [20, 50]), np.repeat([True, False], [15, 55])
    once = likelihood_ratios(label, called, np.arange(70))[0]
    often = likelihood_ratios(*(np.tile(v, 4) for v in (label, called, np.arange(70))))[0]
    assert often["low"] == pytest.approx(once["low"])
    assert (often["method"], once["method"]) == ("log scale at the number of patients", "log scale")

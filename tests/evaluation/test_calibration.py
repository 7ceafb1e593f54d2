from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit

from domainseg.evaluation.calibration import bins, calibration, fit_platt, logistic, logit, offset


def drawn(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(scale=3, size=n)
    return (rng.random(n) < expit(0.5 * x - 1)).astype(float), x


def test_platt_is_statsmodels_logistic_regression() -> None:
    label, x = drawn()
    fit = sm.GLM(label, sm.add_constant(x), family=sm.families.Binomial()).fit()
    ours = fit_platt(np.r_[label, np.nan], np.r_[x, 3.0])
    assert (ours.intercept, ours.slope) == pytest.approx(tuple(fit.params), abs=1e-6)
    assert ours(np.array([0.7, np.nan])) == pytest.approx(
        [expit(0.7 * ours.slope + ours.intercept), np.nan], nan_ok=True
    )


def test_weighted_fits_are_statsmodels() -> None:
    label, x = drawn()
    weights = np.random.default_rng(1).integers(0, 3, (3, len(x))).astype(float)
    slopes, intercepts = logistic(label, x, weights)
    for row, slope, intercept in zip(weights, slopes, intercepts, strict=True):
        fit = sm.GLM(label, sm.add_constant(x), family=sm.families.Binomial(), freq_weights=row).fit()
        assert (intercept, slope) == pytest.approx(tuple(fit.params), abs=1e-6)
    at_one = sm.GLM(label, np.ones(len(x)), family=sm.families.Binomial(), offset=x).fit()
    assert offset(label, x, np.ones((1, len(x))))[0] == pytest.approx(at_one.params[0], abs=1e-6)


def test_separated_classes_give_a_finite_slope() -> None:
    label, x = np.array([0.0, 0, 0, 1, 1]), np.array([-40.0, -30, -20, 10, 20])
    platt = fit_platt(label, x)
    assert 0 < platt.slope < 5
    assert "separated" in platt.method
    smoothed = platt(x)
    targets = np.where(label == 1, 3 / 4, 1 / 5)
    assert smoothed.sum() == pytest.approx(targets.sum(), abs=1e-5)  # the score equations of the fit
    assert (smoothed @ x) == pytest.approx(targets @ x, abs=1e-4)


def test_ranking_is_never_turned_round() -> None:
    label, x = drawn()
    platt = fit_platt(label, -x)
    assert platt.slope == 1
    assert platt(-x).mean() == pytest.approx(label.mean(), abs=1e-6)
    assert fit_platt(np.ones(3), np.arange(3.0)).method.startswith("identity")
    assert fit_platt(np.array([0.0, 1, 1]), np.zeros(3)).intercept == pytest.approx(np.log(2))


def test_true_probabilities_are_well_calibrated() -> None:
    label, x = drawn(4000)
    p = expit(0.5 * x - 1)
    metrics = calibration(label, p, np.arange(len(p)), resamples=200)
    for name, right in (("calibration_slope", 1), ("calibration_intercept", 0), ("calibration_in_the_large", 0)):
        assert metrics[name]["low"] < right < metrics[name]["high"]
    assert metrics["ece"]["value"] < 0.03
    too_high = calibration(label, expit(0.5 * x), np.arange(len(p)), resamples=200)
    assert too_high["calibration_in_the_large"]["value"] == pytest.approx(-1, abs=0.15)
    too_extreme = calibration(label, expit(x - 2), np.arange(len(p)), resamples=200)
    assert too_extreme["calibration_slope"]["value"] == pytest.approx(0.5, abs=0.05)


def test_brier_and_ece_by_hand() -> None:
    label, score = np.array([0.0, 0, 1, 1]), np.array([0.1, 0.1, 0.8, 0.8])
    metrics = calibration(label, score, np.arange(4), resamples=50)
    assert metrics["brier"]["value"] == pytest.approx((0.01 + 0.01 + 0.04 + 0.04) / 4)
    assert metrics["ece"]["value"] == pytest.approx((2 * 0.1 + 2 * 0.2) / 4)


def test_bins_have_equal_counts_and_share_ties() -> None:
    assert np.bincount(bins(np.linspace(0, 1, 100))).tolist() == [10] * 10
    assert len(np.unique(bins(np.full(30, 0.2)))) == 1
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all()


def test_one_class_says_so() -> None:
    metrics = calibration(np.ones(5), np.linspace(0.1, 0.9, 5), np.arange(5), resamples=20)
    assert metrics["calibration_slope"]["method"] == "one class only"
    assert np.isfinite(metrics["brier"]["value"])


def test_the_interval_of_an_ece_holds_its_value() -> None:
    """Resampling adds to it: in the seventh of these draws all but a fortieth of the resamples lie above the value."""
    random = np.random.default_rng(7)
    score = random.uniform(0.3, 0.7, 40)
    label = (random.random(40) < score).astype(int)
    ece = calibration(label, score, np.arange(40))["ece"]
    assert ece["low"] == ece["value"] < ece["high"]

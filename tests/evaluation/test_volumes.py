"""Volumes: Pearson's r against scipy and Fisher's z, Bland and Altman against the textbook, Dice on intention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, pearsonr

from domainseg.evaluation import evaluate, get
from domainseg.evaluation.intervals import weighted
from domainseg.evaluation.published import PRINTED
from domainseg.evaluation.volumes import limits, pearson


def test_pearson_is_scipys_and_its_interval_is_fishers() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=600)
    y = 0.8 * x + 0.6 * rng.normal(size=600) + 1e6  # far from zero: sums of squares would lose it
    r = pearsonr(x, y).statistic
    metric = weighted(pearson(x, y), np.arange(600), resamples=2000)
    assert metric["value"] == pytest.approx(r, abs=1e-9)
    reach = norm.ppf(0.975) / np.sqrt(597)
    assert metric["low"] == pytest.approx(np.tanh(np.arctanh(r) - reach), abs=0.006)
    assert metric["high"] == pytest.approx(np.tanh(np.arctanh(r) + reach), abs=0.006)
    counts = rng.integers(0, 4, 600).astype(float)
    repeated = np.repeat(np.arange(600), counts.astype(int))
    assert pearson(x, y)(counts[None])[0] == pytest.approx(pearsonr(x[repeated], y[repeated]).statistic)
    assert np.isnan(pearson(np.ones(3), np.arange(3.0))(np.ones((1, 3)))[0])
    assert np.isnan(pearson(np.zeros(0), np.zeros(0))(np.ones((1, 0)))[0])


def test_limits_of_agreement_are_bland_and_altmans() -> None:
    # Bland and Altman 1986 (Lancet 1:307), table 1: peak flow by two meters, 17 people; they print a mean difference
    # of -2.1 l/min, a standard deviation of 38.8 and, with 2 of these, limits of -79.7 and 75.5.
    wright = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
    mini = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]
    bias, low, high = limits(np.array(wright, float) - np.array(mini, float))(np.ones((1, 17)))[0]
    assert bias == pytest.approx(-2.1, abs=0.05)
    assert (high - bias) / 1.96 == pytest.approx(38.8, abs=0.05)
    assert low == pytest.approx(bias - (high - bias))


def table() -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for number in range(40):
        has = number < 24
        true = 2.0 + number if has else 0.0
        rows.append(
            {
                "image": f"e{number}", "patient": f"p{number}", "split": "test", "excluded_by": "",
                "label_hemorrhage": float(has), "score_hemorrhage": 0.9 if has else 0.1, "threshold_hemorrhage": 0.5,
                "label_subdural": float(has), "score_subdural": 0.9 if has else 0.1, "label_epidural": 0.0,
                "score_epidural": 0.0, "volume_ml": 0.9 * true, "volume_ml_subdural": 0.9 * true,
                "volume_ml_epidural": 0.0, "true_volume_ml": true, "true_volume_ml_subdural": true,
                "true_volume_ml_extra_axial": true, "dice_hemorrhage": 0.8 if has else np.nan,
                "dice_subdural": 0.8 if has else np.nan, "dice_extra_axial": 0.7 if has else np.nan,
                "dice_epidural": np.nan, "surface_mm_subdural": 1.5 if has else np.nan, "eligible_hemorrhage": True,
                "eligible_subdural": True,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def test_overlap_and_volumes_of_exams_that_have_it() -> None:
    metrics = evaluate(table(), resamples=100)
    assert get(metrics, "test.subdural.dice") | {"low": 0, "high": 0} == {
        "value": pytest.approx(0.8), "low": 0, "high": 0, "n": 24, "n_clusters": 24, "method": "patient bootstrap",
    }  # fmt: skip
    assert get(metrics, "test.subdural.surface_mm")["value"] == pytest.approx(1.5)
    assert get(metrics, "test.hemorrhage.volume_r")["value"] == pytest.approx(1)
    assert get(metrics, "test.hemorrhage.volume_r")["n"] == 24
    assert get(metrics, "test.hemorrhage.volume_r_all")["n"] == 40
    assert get(metrics, "test.hemorrhage.volume_bias")["value"] == pytest.approx(-0.1 * (2 + 11.5))
    assert get(metrics, "test.extra_axial.dice")["value"] == pytest.approx(0.7)
    assert get(metrics, "test.extra_axial.volume_r")["n"] == 24
    assert get(metrics, "test.epidural.dice")["n"] == 0
    assert np.isnan(get(metrics, "test.epidural.dice")["value"])


def test_a_correlation_needs_more_than_points_on_a_line() -> None:
    few = table().iloc[[0, 1, 2, 39]]
    assert np.isnan(get(evaluate(few, resamples=20), "test.hemorrhage.volume_r")["value"])
    assert get(evaluate(few, resamples=20), "test.hemorrhage.volume_r")["method"] == "fewer than 4 patients"
    assert np.isfinite(get(evaluate(few, resamples=20), "test.hemorrhage.volume_r_all")["value"])


def test_excluded_exams_have_no_overlap_and_no_volume() -> None:
    lost = table()
    measured = [name for name in lost if name.startswith(("score", "dice", "surface", "volume"))]
    lost.loc[:5, measured] = np.nan
    lost.loc[:5, "excluded_by"] = "head_filter"
    metrics = evaluate(lost, resamples=100)
    assert get(metrics, "test.hemorrhage.dice")["value"] == pytest.approx(0.8)
    assert get(metrics, "test.hemorrhage.intention.dice")["value"] == pytest.approx(0.8 * 18 / 24)
    assert get(metrics, "test.extra_axial.intention.dice")["value"] == pytest.approx(0.7 * 18 / 24)
    true = lost["true_volume_ml"].to_numpy()[:24]
    said = np.where(np.arange(24) < 6, 0, 0.9 * true)
    assert get(metrics, "test.hemorrhage.intention.volume_r")["value"] == pytest.approx(pearsonr(true, said).statistic)
    assert get(metrics, "test.hemorrhage.volume_r")["n"] == 18
    assert get(metrics, "test.subdural.intention.surface_mm")["n"] == 18  # there is nothing to measure on the others


def test_excluded_exams_without_masks_are_not_measured() -> None:
    lost = table()
    measured = [name for name in lost if name.startswith(("score", "dice", "surface", "volume"))]
    lost.loc[:5, measured] = np.nan
    lost["outlined"] = 1
    lost.loc[:3, "outlined"] = 0
    metrics = evaluate(lost, resamples=20)
    assert get(metrics, "test.hemorrhage.intention.dice")["n"] == 20
    assert get(metrics, "test.hemorrhage.intention.dice")["value"] == pytest.approx(0.8 * 18 / 20)
    assert get(metrics, "test.extra_axial.intention.dice")["n"] == 20


def test_of_excluded_exams_whose_masks_tell_no_types_no_type_is_measured() -> None:
    lost = table()
    untyped = [name for name in lost if name.endswith(("_subdural", "_extra_axial")) and name[:4] in ("dice", "true")]
    lost.loc[:9, untyped] = np.nan
    lost["typed"] = (lost.index > 9).astype(int)
    lost.loc[:5, [name for name in lost if name.startswith(("score", "dice", "surface", "volume"))]] = np.nan
    lost["outlined"] = 1
    metrics = evaluate(lost, resamples=20)
    assert get(metrics, "test.hemorrhage.intention.dice")["value"] == pytest.approx(0.8 * 18 / 24)
    for target in ("subdural", "extra_axial"):
        assert get(metrics, f"test.{target}.intention.dice")["n"] == 14
        assert get(metrics, f"test.{target}.intention.dice")["value"] == pytest.approx(
            0.8 - 0.1 * (target != "subdural")
        )


def test_scores_of_types_are_not_judged_as_probabilities() -> None:
    metrics = evaluate(table(), resamples=20)
    assert "brier" in metrics["test"]["hemorrhage"]
    assert not {"brier", "ece", "calibration_slope"} & set(metrics["test"]["subdural"])


def test_printed_figures_name_metrics_that_we_have() -> None:
    exams = table()
    for kind in ("intraparenchymal", "subarachnoid"):
        named = [name for name in exams if str(name).endswith("_subdural")]
        exams = exams.assign(**{str(name).replace("subdural", kind): exams[name] for name in named})
    metrics = evaluate(exams, resamples=20)
    for printed in PRINTED:
        assert get(metrics, f"test.{printed.target}.{printed.metric}")

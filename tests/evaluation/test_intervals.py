from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from domainseg.evaluation import intervals
from domainseg.evaluation.roc import weighted_auc


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (7, 7), (3, 11), (190, 200)])
def test_wilson_and_exact_are_statsmodels(hits: int, n: int) -> None:
    assert intervals.wilson(hits, n) == pytest.approx(proportion_confint(hits, n, method="wilson"), abs=1e-9)
    assert intervals.exact(hits / n, n) == pytest.approx(proportion_confint(hits, n, method="beta"), abs=1e-9)


def test_proportion_of_single_rows_is_wilson() -> None:
    metric = intervals.proportion(np.arange(20) < 15, np.arange(20))
    assert (metric["low"], metric["high"]) == pytest.approx(proportion_confint(15, 20, method="wilson"))
    assert metric["method"] == "wilson"


def test_clustered_proportion_is_the_bootstrap_that_loops() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(60), 2)
    hits = np.repeat(rng.random(60) < 0.7, 2)  # both hips alike: 60 facts, not 120
    metric = intervals.proportion(hits, clusters, resamples=4000)
    assert metric["method"] == "patient bootstrap"
    loop = [hits[::2][rng.integers(60, size=60)].mean() for _ in range(4000)]
    assert (metric["low"], metric["high"]) == pytest.approx(np.quantile(loop, [0.025, 0.975]), abs=0.02)
    single = intervals.proportion(hits, np.arange(120))
    assert metric["high"] - metric["low"] > 1.25 * (single["high"] - single["low"])


def test_all_hits_is_not_certainty() -> None:
    metric = intervals.proportion(np.ones(40, dtype=bool), np.repeat(np.arange(20), 2))
    assert metric["low"] == pytest.approx(proportion_confint(20, 20, method="wilson")[0])
    assert "patients" in metric["method"]


def test_patients_who_are_all_alike_are_not_certainty() -> None:
    metric = intervals.proportion(np.tile([True, False], 10), np.repeat(np.arange(10), 2))
    assert (metric["low"], metric["high"]) == pytest.approx(proportion_confint(5, 10, method="beta"))
    lone = intervals.proportion(np.array([True, False]), np.zeros(2))
    assert lone["low"] < 0.05 < 0.95 < lone["high"]


def test_empty_group_is_nan_not_zero() -> None:
    metric = intervals.proportion(np.zeros(0, dtype=bool), np.zeros(0))
    assert metric["n"] == 0
    assert np.isnan([metric["value"], metric["low"], metric["high"]]).all()


def test_draws_are_multinomial_seeded_and_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(intervals.resampled(10, 500, seed=1)))
    assert (whole.sum(axis=1) == 10).all()
    assert whole.var() == pytest.approx(0.9, rel=0.1)  # n p (1 - p)
    assert (whole == next(intervals.resampled(10, 500, seed=1))).all()
    assert (whole != next(intervals.resampled(10, 500, seed=2))).any()
    monkeypatch.setattr(intervals, "_CHUNK", 100)
    chunks = list(intervals.resampled(10, 500, seed=1))
    assert len(chunks) == 50
    assert (np.concatenate(chunks) == whole).all()


def test_bootstrap_of_an_auc_is_the_loop_over_sklearn() -> None:
    rng = np.random.default_rng(2)
    label = (rng.random(60) < 0.5).astype(float)
    score = label + rng.normal(size=60)
    clusters = np.repeat(np.arange(30), 2)
    metric = intervals.weighted(weighted_auc(label, score), clusters, resamples=300, seed=4)
    loop = []
    for counts in np.concatenate(list(intervals.resampled(30, 300, seed=4))):
        rows = np.repeat(np.arange(60), np.repeat(counts.astype(int), 2))
        loop.append(roc_auc_score(label[rows], score[rows]))
    assert (metric["low"], metric["high"]) == pytest.approx(np.quantile(loop, [0.025, 0.975]), abs=1e-12)
    assert metric["value"] == pytest.approx(roc_auc_score(label, score))


def test_one_patient_has_no_interval() -> None:
    metric = intervals.weighted(lambda weights: weights.mean(axis=1), np.zeros(5))
    assert metric["value"] == 1
    assert np.isnan(metric["low"])


def test_bootstrap_of_any_metric_is_that_of_weights() -> None:
    rng = np.random.default_rng(0)
    label, called = rng.random(300) < 0.4, rng.random(300) < 0.4

    def f1(label: np.ndarray, called: np.ndarray) -> float:
        return 2 * float((label & called).sum()) / float(label.sum() + called.sum())

    found = intervals.patient_bootstrap(f1, label, called, resamples=600)
    assert found["value"] == pytest.approx(f1_score(label, called))
    assert (found["n"], found["n_clusters"], found["method"]) == (300, 300, "patient bootstrap")
    hits, total = label & called, label.astype(float) + called
    same = intervals.weighted(lambda w: 2 * (w @ hits) / (w @ total), np.arange(300), resamples=2000)
    assert found["high"] - found["low"] == pytest.approx(same["high"] - same["low"], rel=0.15)
    patients = np.arange(300)
    twice = intervals.patient_bootstrap(
        f1, np.tile(label, 2), np.tile(called, 2), clusters=np.tile(patients, 2), resamples=600
    )
    assert (twice["low"], twice["high"]) == pytest.approx((found["low"], found["high"]))


def test_bootstrap_of_any_metric_leaves_out_what_is_undefined() -> None:
    def strict(label: np.ndarray) -> float:
        if label.sum() == 0:
            raise ValueError("one class")
        return float(label.mean())

    found = intervals.patient_bootstrap(strict, np.r_[1, np.zeros(9)], resamples=200)
    assert found["low"] == pytest.approx(0.1)  # resamples without the positive, a third of them, don't count
    assert np.isnan(intervals.patient_bootstrap(strict, np.zeros(3), resamples=5)["value"])
    assert intervals.patient_bootstrap(strict, np.zeros(0))["n"] == 0


def test_other_names_of_the_patients_give_the_same_interval() -> None:
    """Their hashes are new in each run; the interval of the same rows is not."""
    random = np.random.default_rng(0)
    values, patient = random.random(60), random.integers(0, 25, 60)
    names = random.permutation(25).astype(str)

    def mean(weights: np.ndarray) -> np.ndarray:
        return np.asarray(weights @ values / weights.sum(axis=1))

    assert intervals.weighted(mean, names[patient]) == intervals.weighted(mean, patient)

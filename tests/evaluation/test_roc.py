from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from MLstatkit import Delong_test
from scipy.stats import norm
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score

from domainseg.evaluation import roc
from domainseg.evaluation.intervals import codes


def drawn(n: int = 80, seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.4).astype(float)
    a = label + rng.normal(size=n)
    b = 0.6 * label + 0.5 * a + rng.normal(size=n)
    return (label, a.round(), b.round()) if ties else (label, a, b)


@pytest.mark.parametrize("ties", [False, True])
def test_value_is_sklearns(ties: bool) -> None:
    label, a, _ = drawn(ties=ties)
    assert roc.auc(label, a)["value"] == pytest.approx(roc_auc_score(label, a), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_plain_interval_and_paired_p_are_mlstatkits(ties: bool) -> None:
    label, a, b = drawn(ties=ties)
    z, p, ci_a, ci_b, auc_a, auc_b, _ = Delong_test(label, a, b)
    for score, value, bounds in ((a, auc_a, ci_a), (b, auc_b, ci_b)):
        ours = roc.auc(label, score, plain=True)
        assert (ours["value"], ours["low"], ours["high"]) == pytest.approx((value, *bounds), abs=1e-9)
        assert ours["method"] == "delong"
    gap, ours_p = roc.difference(label, a, b)
    assert ours_p == pytest.approx(p, abs=1e-9)
    assert np.sign(gap["value"]) == -np.sign(z)
    assert gap["high"] - gap["low"] == pytest.approx(2 * 1.959963985 * abs(gap["value"] / z), rel=1e-6)


def test_the_ct_ratings_of_hanley_and_mcneil() -> None:
    """109 CTs rated 1 to 5 (Radiology 1982;143:29); DeLong's error and interval as Stata's roctab has them."""
    normal, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
    rating = np.r_[np.repeat(range(5), normal), np.repeat(range(5), abnormal)].astype(float)
    label = np.repeat([0, 1], [58, 51])
    found = roc.auc(label, rating, plain=True)
    assert found["value"] == pytest.approx(0.8932, abs=5e-5)
    assert (found["high"] - found["value"]) / 1.96 == pytest.approx(0.0307, abs=5e-5)
    assert (found["low"], found["high"]) == pytest.approx((0.83295, 0.95339), abs=5e-6)


def test_logit_interval_has_the_plain_error_and_stays_inside() -> None:
    label, a, _ = drawn()
    plain, logit = roc.auc(label, a, plain=True), roc.auc(label, a)
    error = (plain["high"] - plain["low"]) / 2 / 1.959963985
    value = plain["value"]
    width = np.log(logit["high"] / (1 - logit["high"])) - np.log(logit["low"] / (1 - logit["low"]))
    reached = width * value * (1 - value) / error / 2
    assert student.ppf(0.975, 80) < reached < student.ppf(0.975, 20)  # 32 positives, 48 negatives
    assert 0 < logit["low"] < value < logit["high"] < 1
    assert logit["method"] == "delong logit"


def test_degrees_of_freedom_are_those_of_a_variance_that_is_estimated() -> None:
    """A variance of k normal parts has k - 1 of them, of parts with heavy tails fewer."""
    rng = np.random.default_rng(0)
    none, has, no = np.zeros(4000), np.ones(4000, dtype=bool), np.array([True, True] + [False] * 3998)
    normal = rng.normal(size=4000)
    assert roc.quantile(normal, none, has, no) == pytest.approx(1.96, abs=2e-3)
    few, mask = np.r_[normal[:30], none[30:]], np.arange(4000) < 30
    assert roc.quantile(few, none, mask, no) >= student.ppf(0.975, 29) - 1e-9
    heavy = rng.standard_t(5, size=4000)  # excess kurtosis 6: var(V) is four times that of normal parts
    assert roc.quantile(heavy, none, has, no) > student.ppf(0.975, 4000)
    two = np.r_[1.0, -1.0, none[2:]]
    assert roc.quantile(two, none, no, no) == pytest.approx(student.ppf(0.975, 1))


def obuchowski(label: np.ndarray, score: np.ndarray, clusters: np.ndarray) -> float:
    """The variance as printed in Obuchowski 1997, section 3, by loops over all pairs."""
    psi = lambda x, y: 1.0 if x > y else 0.5 if x == y else 0.0  # noqa: E731
    names = np.unique(clusters)
    x = {c: score[(clusters == c) & (label == 1)] for c in names}
    y = {c: score[(clusters == c) & (label == 0)] for c in names}
    m, n = sum(map(len, x.values())), sum(map(len, y.values()))
    all_x, all_y = np.concatenate(list(x.values())), np.concatenate(list(y.values()))
    theta = sum(psi(i, j) for i in all_x for j in all_y) / (m * n)
    v10 = {c: sum(sum(psi(i, j) for j in all_y) / n for i in x[c]) for c in names}
    v01 = {c: sum(sum(psi(i, j) for i in all_x) / m for j in y[c]) for c in names}
    i10, i01, i = sum(len(v) > 0 for v in x.values()), sum(len(v) > 0 for v in y.values()), len(names)
    s10 = i10 / ((i10 - 1) * m) * sum((v10[c] - len(x[c]) * theta) ** 2 for c in names)
    s01 = i01 / ((i01 - 1) * n) * sum((v01[c] - len(y[c]) * theta) ** 2 for c in names)
    s11 = i / (i - 1) * sum((v10[c] - len(x[c]) * theta) * (v01[c] - len(y[c]) * theta) for c in names)
    return s10 / m + s01 / n + 2 * s11 / (m * n)


def test_clustered_variance_is_obuchowskis() -> None:
    label, score, _ = drawn(60, ties=True)
    clusters = np.random.default_rng(3).integers(0, 25, len(label))
    metric = roc.auc(label, score, clusters, plain=True)
    error = (metric["high"] - metric["low"]) / 2 / 1.959963985
    assert error**2 == pytest.approx(obuchowski(label, score, clusters), rel=1e-6)
    assert metric["method"] == "obuchowski"
    assert metric["n_clusters"] == len(np.unique(clusters))


def test_writing_every_row_twice_adds_no_information() -> None:
    label, score, other = drawn()
    patients = np.arange(len(label))
    once, twice = roc.auc(label, score, patients), roc.auc(*(np.tile(v, 2) for v in (label, score, patients)))
    assert (twice["low"], twice["high"]) == pytest.approx((once["low"], once["high"]), abs=1e-12)
    gap, p = roc.difference(label, score, other, patients)
    gap2, p2 = roc.difference(*(np.tile(v, 2) for v in (label, score, other, patients)))
    assert (gap2["low"], p2) == pytest.approx((gap["low"], p), abs=1e-12)


@pytest.mark.parametrize(("flip", "value"), [(1, 1.0), (-1, 0.0)])
def test_perfect_separation_gets_the_exact_bound_of_the_smaller_number_of_patients(flip: int, value: float) -> None:
    label = np.array([1] * 10 + [0] * 30)
    score = flip * (label + np.linspace(0, 0.5, 40))
    clusters = np.r_[np.repeat(np.arange(5), 2), np.arange(100, 130)]  # the 10 positives are of 5 patients
    metric = roc.auc(label, score, clusters)
    edge = 0.025 ** (1 / 5)
    assert metric["method"] == "degenerate"
    assert metric["value"] == value
    assert (metric["low"], metric["high"]) == pytest.approx((edge, 1) if flip > 0 else (0, 1 - edge))


def test_infinite_scores_are_the_worst_ranks() -> None:
    label = np.array([1, 1, 1, 0, 0, 0])
    assert roc.auc(label, np.array([-np.inf, 0.9, 0.8, 0.1, 0.2, 0.3]))["value"] == pytest.approx(6 / 9)
    assert roc.auc(label, np.array([-np.inf, 0.9, 0.8, 0.1, 0.2, np.inf]))["value"] == pytest.approx(4 / 9)


def test_folds_compare_only_within() -> None:
    label, score, _ = drawn(90)
    fold = np.repeat([0, 1, 2], 30)
    shifted = score + 10 * fold  # folds whose scores mean different things
    metric = roc.auc(label, shifted, fold=fold)
    pairs = np.array([(label[fold == k] == 1).sum() * (label[fold == k] == 0).sum() for k in range(3)])
    each = [roc_auc_score(label[fold == k], score[fold == k]) for k in range(3)]
    assert metric["value"] == pytest.approx(np.average(each, weights=pairs))
    assert metric["value"] == pytest.approx(roc.auc(label, score, fold=fold)["value"])
    assert "3 folds" in metric["method"]
    one = roc.auc(label, score, fold=np.zeros(90))
    assert one == roc.auc(label, score)


def test_what_cannot_be_said_is_nan_with_a_reason() -> None:
    none: Any = np.zeros(0)
    assert roc.auc(none, none)["n"] == 0
    assert np.isnan(roc.auc(none, none)["value"])
    one_class = roc.auc(np.ones(4), np.arange(4.0))
    assert np.isnan(one_class["value"])
    assert (one_class["n"], one_class["method"]) == (4, "one class only")
    one_patient = roc.auc(np.array([1, 0, 0, 0]), np.array([0.5, 0.1, 0.7, 0.2]))
    assert one_patient["value"] == pytest.approx(2 / 3)
    assert np.isnan(one_patient["low"])
    with pytest.raises(ValueError, match="NaN"):
        roc.auc(np.array([1, 0]), np.array([np.nan, 0.1]))


def test_equal_scores_differ_by_nothing() -> None:
    label, a, _ = drawn()
    gap, p = roc.difference(label, a, 3 * a + 1)
    assert (gap["value"], p, gap["method"]) == (0, 1, "degenerate")
    assert gap["low"] < 0 < gap["high"]


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_auc_is_sklearns_with_weights(ties: bool) -> None:
    label, score, _ = drawn(ties=ties)
    weights = np.random.default_rng(1).integers(0, 4, (5, len(label))).astype(float)
    expected = [roc_auc_score(label, score, sample_weight=row) for row in weights]
    assert roc.weighted_auc(label, score)(weights) == pytest.approx(expected, abs=1e-12)


def test_curve_runs_from_corner_to_corner_with_the_auc_under_it() -> None:
    label, score, _ = drawn()
    score[:2], label[:2] = (-np.inf, np.inf), (1, 0)
    false, true = roc.curve(label, score)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true, false) == pytest.approx(roc.auc(label, score)["value"])


def two_hips(rng: np.random.Generator, shift: float, patients: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two rows a patient whose scores share half of their variance; AUC is Phi(shift / sqrt 2)."""
    clusters = np.repeat(np.arange(patients), 2)
    label = (rng.random(2 * patients) < 0.17).astype(float)
    shared = np.repeat(rng.normal(size=patients), 2)
    return label, shift * label + np.sqrt(0.5) * (shared + rng.normal(size=2 * patients)), clusters


@pytest.mark.parametrize(("auc", "shift"), [(0.95, 2.3262), (0.7, 0.7416)])
def test_coverage_with_two_rows_a_patient(auc: float, shift: float) -> None:
    rng = np.random.default_rng(11)
    runs = 400
    metrics = [roc.auc(*two_hips(rng, shift)) for _ in range(runs)]
    inside = np.mean([m["low"] <= auc <= m["high"] for m in metrics])
    assert 0.915 < inside < 0.985  # 0.95 +- 3 standard errors of 400 runs


@pytest.mark.slow
def test_coverage_of_the_paired_difference() -> None:
    rng = np.random.default_rng(5)
    inside, runs = 0, 1000
    for _ in range(runs):
        label, a, clusters = two_hips(rng, 1.2)
        b = a + rng.normal(size=len(a)) * np.sqrt(0.44)  # AUC of b: Phi(1.2 / sqrt(2 x 1.44))
        truth = 0.80194 - 0.76025
        gap, _ = roc.difference(label, a, b, clusters)
        inside += gap["low"] <= truth <= gap["high"]
    assert 0.925 < inside / runs < 0.97


def test_unpaired_difference_adds_the_variances_of_both() -> None:
    (label_a, a, _), (label_b, _, b) = drawn(70, seed=1), drawn(90, seed=2)
    gap, p = roc.unpaired(label_a, a, label_b, b)
    one, two = roc.auc(label_a, a, plain=True), roc.auc(label_b, b, plain=True)
    errors = [(m["high"] - m["value"]) / 1.959963985 for m in (one, two)]
    z = (one["value"] - two["value"]) / np.hypot(*errors)
    assert gap["value"] == pytest.approx(one["value"] - two["value"])
    assert (gap["high"] - gap["low"]) / 2 == pytest.approx(1.959963985 * np.hypot(*errors), rel=1e-7)
    assert p == pytest.approx(2 * norm.sf(abs(z)), rel=1e-7)
    assert (gap["method"], gap["n"], gap["n_clusters"]) == ("delong unpaired", 160, 160)


def test_patients_on_both_sides_bring_the_unpaired_test_to_the_paired_one() -> None:
    label, a, b = drawn(400)
    patients = np.arange(400)
    paired, p = roc.difference(label, a, b, patients)
    shared, p2 = roc.unpaired(label, a, label, b, patients, patients)
    strangers, p3 = roc.unpaired(label, a, label, b, patients, patients + 400)
    assert (shared["low"], shared["high"], p2) == pytest.approx((paired["low"], paired["high"], p), abs=2e-3)
    assert strangers["high"] - strangers["low"] > 1.2 * (shared["high"] - shared["low"])
    assert p3 > p2


def test_a_perfect_score_beats_a_constant_one() -> None:
    """Their difference has no variance: what speaks is that none of 20 patients a class says otherwise."""
    label = np.repeat([0.0, 1.0], 20)
    gap, p = roc.difference(label, label, np.zeros(40))
    assert (gap["value"], gap["method"], p < 1e-4) == (0.5, "degenerate", True)
    few = np.repeat([0.0, 1.0], 2)
    assert roc.difference(few, few, np.zeros(4))[1] > 0.05


def test_unpaired_where_one_side_cannot_say() -> None:
    label, a, _ = drawn()
    perfect = np.repeat([0.0, 1.0], 20)
    gap, p = roc.unpaired(perfect, perfect, label, a)
    whole, side = roc.auc(label, a), roc.auc(perfect, perfect)
    assert (gap["method"], 0 < p < 0.05) == ("degenerate", gap["low"] > 0)
    assert roc.unpaired(perfect, perfect, perfect, -perfect)[1] < 1e-6
    assert roc.unpaired(perfect, perfect, perfect, perfect)[1] == 1
    assert gap["value"] - gap["low"] == pytest.approx(np.hypot(1 - side["low"], whole["high"] - whole["value"]))
    assert np.isnan(roc.unpaired(np.ones(4), np.arange(4.0), label, a)[0]["value"])
    assert roc.unpaired(label[:0], a[:0], label[:0], a[:0])[0]["method"] == "no cases"


def test_codes_number_clusters_from_zero() -> None:
    rows, k = codes(np.array(["b", "a", "b"]))
    assert (rows.tolist(), k) == ([0, 1, 0], 2)  # by first row: names are hashes that are new in each run

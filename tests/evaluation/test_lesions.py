"""Lesions against a table worked by hand, and what exclusions do to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import poisson

from domainseg.evaluation import evaluate, get
from domainseg.evaluation.intervals import wilson
from domainseg.evaluation.lesions import Lesions, froc, scans
from domainseg.evaluation.tables import rows_of


def lesion(
    image: str, source: str, score: float, matched: float = 1, *, ml: float = 5, kind: str = "subdural"
) -> dict[str, Any]:
    return {
        "image": image, "lesion": 1, "source": source, "type": kind, "score": score, "called": float(score >= 0.5),
        "matched": matched, "ml": ml,
    }  # fmt: skip


def exam(image: str, label: float, score: float, **more: Any) -> dict[str, Any]:
    return {
        "image": image, "part": "head", "patient": image, "split": "test", "excluded_by": "",
        "label_hemorrhage": label, "score_hemorrhage": score, "threshold_hemorrhage": 0.5, "eligible_hemorrhage": True,
        "label_subdural": label, "score_subdural": score, "threshold_subdural": 0.5, "eligible_subdural": True,
        **more,
    }  # fmt: skip


# By hand: four scans, four true lesions found at .9, .6, .4 and not at all, false ones at .8, .5, .3, .2.
EXAMS = pd.DataFrame(
    [
        exam("a", 1, 0.9, false_lesions=1.0, true_volume_ml=3.0, age=1.0),
        exam("b", 1, 0.6, false_lesions=0.0, true_volume_ml=50.0, age=30.0),
        exam("c", 0, 0.5, false_lesions=1.0, true_volume_ml=0.0, age=80.0),
        exam("d", 0, 0.2, false_lesions=0.0, true_volume_ml=0.0, age=80.0),
    ]
)
LESIONS = pd.DataFrame(
    [
        lesion("a", "predicted", 0.9), lesion("a", "predicted", 0.8, 0), lesion("a", "truth", 0.9, ml=1),
        lesion("a", "truth", np.nan, 0, ml=2), lesion("b", "predicted", 0.6), lesion("b", "truth", 0.6, ml=10),
        lesion("b", "truth", 0.4, ml=40, kind=""), lesion("b", "predicted", 0.4), lesion("c", "predicted", 0.5, 0),
        lesion("c", "predicted", 0.3, 0), lesion("d", "predicted", 0.2, 0),
    ]
)  # fmt: skip


def measured(exams: pd.DataFrame = EXAMS, lesions: pd.DataFrame | None = LESIONS) -> dict[str, Any]:
    return evaluate(exams, resamples=50, lesions=lesions)


def test_froc_by_hand() -> None:
    metrics = get(measured(), "test.hemorrhage.froc")
    # One false lesion in four scans: that at .8 is allowed, the next, at .5, is not: found are .9 and .6.
    assert metrics["at_0.25"]["value"] == 0.5
    assert metrics["at_0.25"]["n"] == 4
    assert metrics["at_1"]["value"] == 0.75  # all four are allowed
    assert metrics["at_4"]["value"] == 0.75
    found = Lesions(
        false=np.array([0.5, 0.8, 0.3, 0.2]), false_exam=np.array([2, 0, 2, 3]),
        true=np.array([0.9, -np.inf, 0.6, 0.4]), true_exam=np.array([0, 0, 1, 1]),
        called=np.zeros(4, bool), ml=np.zeros(4), type=np.array([""] * 4, object),
    )  # fmt: skip
    weights = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 2, 1], [0, 0, 1, 1]], float)
    # None allowed; none of two scans' half lesion; the second scan alone; weighted twice; no true lesion.
    assert froc(found, 0.2)(weights)[:4].tolist() == [0.25, 0.25, 0.5, 0.5]
    assert np.isnan(froc(found, 0.2)(weights)[4])


def test_resampled_froc_is_that_of_the_repeated_scans() -> None:
    rng = np.random.default_rng(0)
    found = Lesions(
        false=rng.random(40).round(1), false_exam=rng.integers(0, 12, 40), true=rng.random(30).round(1),
        true_exam=rng.integers(0, 12, 30), called=np.zeros(30, bool), ml=np.zeros(30), type=np.array([""] * 30, object),
    )  # fmt: skip
    weights = rng.multinomial(12, np.full(12, 1 / 12), size=300).astype(float)
    values = froc(found, 1.0)(weights)
    for row, value in zip(weights[:40], values[:40], strict=True):
        false = np.repeat(found.false, row[found.false_exam].astype(int))
        true = np.repeat(found.true, row[found.true_exam].astype(int))
        cuts = [cut for cut in np.r_[np.unique(np.r_[false, true]), np.inf] if (false >= cut).sum() <= 12]
        assert value == pytest.approx(max((true >= cut).mean() for cut in cuts))


def test_at_the_frozen_threshold() -> None:
    metrics = measured()
    assert get(metrics, "test.hemorrhage.false_lesions_per_normal")["value"] == 0.5
    assert get(metrics, "test.hemorrhage.lesion_sensitivity")["value"] == 0.5
    by_size = get(metrics, "test.hemorrhage.lesion_sensitivity_by_size")
    assert {name: (m["value"], m["n"]) for name, m in by_size.items()} == {
        "under 3 ml": (0.5, 2), "10 to 30 ml": (1.0, 1), "30 ml and over": (0.0, 1),
    }  # fmt: skip
    assert get(metrics, "test.subdural.lesion_sensitivity")["value"] == pytest.approx(2 / 3)
    assert set(get(metrics, "test.hemorrhage.by.age")) == {"under 2 years", "18 to 64 years", "65 years and over"}


def test_excluded_exams_find_nothing_on_intention() -> None:
    lost = EXAMS.copy()
    gone = lost["image"].isin(["b", "d"])
    lost.loc[gone, ["score_hemorrhage", "score_subdural", "false_lesions"]] = np.nan
    lost.loc[gone, "excluded_by"] = "head_filter"
    lesions = LESIONS[~(LESIONS["image"].isin(["b", "d"]) & (LESIONS["source"] == "predicted"))].copy()
    lesions.loc[lesions["image"] == "b", ["score", "called"]] = np.nan
    metrics = measured(lost, lesions)
    assert get(metrics, "test.hemorrhage.lesion_sensitivity")["value"] == 0.5  # of the two of exam a
    assert get(metrics, "test.hemorrhage.intention.lesion_sensitivity")["value"] == 0.25
    # The excluded normal exam is the one false lesion that is allowed: only .9 lies above the next, at .8.
    assert get(metrics, "test.hemorrhage.intention.froc.at_0.25")["value"] == 0.25
    assert get(metrics, "test.hemorrhage.intention.froc.at_1")["value"] == 0.25
    assert get(metrics, "test.hemorrhage.false_lesions_per_normal")["value"] == 1
    assert get(metrics, "test.hemorrhage.intention.false_lesions_per_normal")["value"] == 1


def test_scans_are_those_whose_lesions_are_known() -> None:
    """A normal exam that was lost has a false lesion above all; a bleed that was lost and has no mask is no scan."""
    more = [exam("lost", 0, np.nan, excluded_by="read"), exam("labelled", 1, np.nan, excluded_by="read")]
    rows = rows_of(pd.concat([EXAMS, pd.DataFrame(more)], ignore_index=True), "hemorrhage")
    kept, found = scans(rows, LESIONS)
    assert list(kept.table["image"]) == ["a", "b", "c", "d", "lost"]
    assert found.false.max() == np.inf
    assert kept.table["image"].iloc[found.false_exam[np.argmax(found.false)]] == "lost"


def test_no_false_lesion_at_all_has_a_bound() -> None:
    """None in two patients: the mean of a Poisson count that is 0 with a chance of 2.5 %."""
    found = get(measured(EXAMS.assign(false_lesions=0.0)), "test.hemorrhage.false_lesions_per_normal")
    assert (found["value"], found["low"]) == (0, 0)
    assert poisson.cdf(0, found["high"] * found["n_clusters"]) == pytest.approx(0.025)


def test_all_found_has_an_interval() -> None:
    lesions = LESIONS[LESIONS["score"].notna()]
    metric = get(measured(lesions=lesions), "test.hemorrhage.froc.at_1")
    assert metric["value"] == 1
    assert (metric["low"], metric["high"]) == wilson(2, 2)


def test_without_lesions_and_volumes_nothing_is_asked_of_them() -> None:
    columns = ["image", "label_hemorrhage", "score_hemorrhage"]
    plain = measured(EXAMS[columns], None)["test"]["hemorrhage"]
    assert "froc" not in plain
    assert "dice" not in plain
    assert plain["auc"]["value"] == 1
    assert "froc" not in measured(lesions=None)["test"]["hemorrhage"]


def test_balanced_is_as_many_of_either_kind() -> None:
    many = pd.concat([EXAMS, *([EXAMS.iloc[[3]].assign(image=f"n{k}", patient=f"n{k}") for k in range(20)])])
    metrics = measured(many.reset_index(drop=True), None)
    assert get(metrics, "test.hemorrhage.balanced.accuracy")["n"] == 4
    assert get(metrics, "test.hemorrhage.intention.balanced.specificity")["n"] == 2
    assert get(metrics, "test.hemorrhage.accuracy")["n"] == 24


def test_exams_that_are_no_heads_are_not_asked_for_bleeds() -> None:
    table = EXAMS.assign(label_head_filter=[1.0, 1, 1, 0], score_head_filter=0.9, threshold_head_filter=0.5)
    table["eligible_hemorrhage"] = [True, True, True, False]
    metrics = measured(table)
    assert list(metrics["test"])[:3] == ["head_filter", "hemorrhage", "subdural"]
    assert get(metrics, "test.hemorrhage.intention.specificity")["n"] == 1
    assert get(metrics, "test.hemorrhage.missed_exclusion")["n"] == 1


def test_a_called_exam_in_which_nothing_is_shown_is_told() -> None:
    """Three exams are called; without the lesions of c one of them shows nothing."""
    assert get(measured(), "test.hemorrhage.called_without_lesion")["value"] == 0
    lesions = LESIONS[LESIONS["image"] != "c"]
    found = get(measured(lesions=lesions), "test.hemorrhage.called_without_lesion")
    low, high = wilson(1, 3)
    assert (found["value"], found["n"]) == (pytest.approx(1 / 3), 3)
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))

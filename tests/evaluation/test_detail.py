from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score

from domainseg.evaluation import evaluate
from domainseg.evaluation.detail import ON_TEST, Settings, detail
from domainseg.evaluation.groups import worst


@pytest.fixture(scope="module")
def both(hips: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
    return hips, evaluate(hips, ["fracture"], resamples=100)["test"]["fracture"]


def test_operating_points_say_where_they_were_chosen(both: tuple[pd.DataFrame, dict[str, Any]]) -> None:
    table, metrics = both
    found = detail(table, "fracture", "test", metrics, Settings(resamples=100, prevalence=0.013))
    points = found["operating"]
    assert list(points) == [
        "frozen",
        "sensitivity 0.95 on tune",
        "specificity 0.95 on tune",
        "sensitivity 0.95 on test",
    ]
    assert points["frozen"]["sensitivity"]["value"] == metrics["sensitivity"]["value"]
    assert points["sensitivity 0.95 on test"]["chosen_on"] == ON_TEST
    scored = table[table["score_fracture"].notna()]
    tune, test = (scored[scored["split"] == split] for split in ("tune", "test"))
    for name, side in (("sensitivity", 1), ("specificity", 0)):
        point = points[f"{name} 0.95 on tune"]
        called = tune["score_fracture"] >= point["threshold"]
        kept = recall_score(tune["label_fracture"], called, pos_label=side)
        assert 0.95 <= kept < 0.95 + 1.5 / (tune["label_fracture"] == side).sum()
        expected = recall_score(test["label_fracture"], test["score_fracture"] >= point["threshold"], pos_label=side)
        assert point[name]["value"] == pytest.approx(expected)
    assert "0.013" in found["post_test"]
    assert found["calibration_curve"]["1"]["score"] < found["calibration_curve"]["5"]["score"]
    assert found["decision_curve"]["0.2"]["net_benefit"]["n"] == len(test)


def test_shift_is_against_tune_or_a_named_site(both: tuple[pd.DataFrame, dict[str, Any]]) -> None:
    table, metrics = both
    moved = detail(table, "fracture", "test", metrics, Settings(resamples=50))["shift"]
    assert list(moved["by"]) == ["tune", "all", "A", "B", "C"]
    named = detail(table, "fracture", "test", metrics, Settings(resamples=50, reference="B"))["shift"]
    assert list(named["by"]) == ["B", "A", "C"]
    part = table[(table["site"] == "A") & (table["split"] == "test") & table["score_fracture"].notna()]
    expected = recall_score(part["label_fracture"], part["score_fracture"] >= 0.25)
    assert named["by"]["A"]["sensitivity"]["value"] == moved["by"]["A"]["sensitivity"]["value"] == expected


def test_without_splits_and_thresholds_only_what_is_named_as_chosen_on_test(hips: pd.DataFrame) -> None:
    bare = hips[["image", "part", "label_fracture", "score_fracture"]]
    metrics = evaluate(bare, resamples=20)["test"]["fracture"]
    found = detail(bare, "fracture", "test", metrics, Settings(resamples=20))
    assert list(found["operating"]) == ["sensitivity 0.95 on test"]
    assert "shift" not in found
    logits = bare.assign(score_fracture=10 * bare["score_fracture"] - 5)
    metrics = evaluate(logits, resamples=20)["test"]["fracture"]
    assert metrics["brier"]["method"] == metrics["calibration_slope"]["method"] == "scores are no probabilities"
    assert "decision_curve" not in detail(logits, "fracture", "test", metrics, Settings(resamples=20))


def test_the_model_has_no_f1_without_a_threshold_that_was_chosen_elsewhere(hips: pd.DataFrame) -> None:
    scored = hips[hips["score_fracture"].notna() & (hips["split"] == "test")]
    reads = pd.concat(
        scored[["image", "part"]].assign(reader=name, call=scored["label_fracture"] ^ (np.arange(len(scored)) % k == 0))
        for k, name in ((5, "A"), (7, "B"))
    )
    frozen = detail(hips, "fracture", "test", {}, Settings(resamples=20), reads)["readers"]
    assert frozen["model_called_at"] == "frozen"
    assert np.isfinite(frozen["f1"]["model"]["value"])
    bare = scored[["image", "part", "label_fracture", "score_fracture"]]
    found = detail(bare, "fracture", "test", {}, Settings(resamples=20), reads)["readers"]
    assert found["f1"]["model"]["method"] == "no frozen threshold"
    assert found["model_called_at"] is None
    assert found["points"]["model"]["n"] == len(scored)
    blind = detail(hips.assign(label_fracture=np.nan), "fracture", "test", {}, Settings(resamples=20), reads)["readers"]
    assert blind["f1"]["model"]["value"] == frozen["f1"]["model"]["value"]
    assert "points" not in blind


def test_worst_group_has_enough_patients_of_both_classes() -> None:
    def group(value: float, patients: int) -> dict[str, Any]:
        count = {"n_clusters": patients}
        return {"auc": {"value": value}, "sensitivity": count, "specificity": {"n_clusters": 50}}

    found = worst(
        {"site": {"A": group(0.9, 10), "B": group(0.7, 20), "C": group(0.2, 9)}, "sex": {"F": group(0.8, 30)}}
    )
    assert found["site"] == {
        "group": "B", "auc": {"value": 0.7}, "mean": pytest.approx(0.8), "groups": 2, "too_few": ["C"],
    }  # fmt: skip
    assert found["sex"]["group"] is None
    assert found["sex"]["mean"] == 0.8


def test_tune_cases_of_cross_validation_are_test_patients_and_not_used(hips: pd.DataFrame) -> None:
    first = hips.assign(fold="0")
    second = first.assign(fold="1", split=first["split"].map({"tune": "test", "test": "tune"}))
    settings = Settings(resamples=20, prior=("department",))
    alone = detail(first, "fracture", "test", {}, settings)
    assert alone["prior"]["fitted_on"].startswith("tune")
    assert alone["shift"]["reference"] == "tune"
    both = detail(pd.concat([first, second], ignore_index=True), "fracture", "test", {}, settings)
    assert list(both["operating"]) == ["frozen", "sensitivity 0.95 on test"]
    assert "cross-fitted by patient" in both["prior"]["fitted_on"]
    assert "within 10 folds" in both["prior"]["image"]["auc"]["method"]  # 5 of the fit in each of 2 of the table
    assert sorted(both["shift"]["by"]) == ["A", "B", "C"]


def test_a_folds_own_scale_of_scores_changes_nothing(hips: pd.DataFrame) -> None:
    test = hips[(hips["split"] == "test") & hips["score_fracture"].notna()].drop(columns="threshold_fracture")
    test = test.assign(fold=np.where(np.arange(len(test)) % 3, "0", "1"))
    reads = test[["image", "part"]].assign(
        reader="A", call=(np.arange(len(test)) % 4 == 0) | (test["label_fracture"] == 1)
    )
    moved = test.assign(score_fracture=np.where(test["fold"] == "1", 0.2, 1.0) * test["score_fracture"])
    one, other = (detail(t, "fracture", "test", {}, Settings(resamples=20), reads) for t in (test, moved))
    point = one["operating"]["sensitivity 0.95 on test"]
    assert point == other["operating"]["sensitivity 0.95 on test"]
    assert point["threshold"] == "one a fold"
    kept = test[test["label_fracture"] == 1].groupby("fold").size()
    assert point["sensitivity"]["value"] == np.ceil(0.95 * kept - 1e-9).sum() / kept.sum()
    assert one["readers"]["points"] == other["readers"]["points"]


def test_no_shift_and_no_post_test_at_a_threshold_chosen_on_test(hips: pd.DataFrame) -> None:
    test = hips[hips["split"] == "test"]
    found = detail(test.drop(columns="threshold_fracture"), "fracture", "test", {}, Settings(resamples=20))
    assert list(found["operating"]) == ["sensitivity 0.95 on test"]
    assert not {"shift", "post_test"} & set(found)
    frozen = detail(test, "fracture", "test", {}, Settings(resamples=20))
    assert {"shift", "post_test"} <= set(frozen)
    assert frozen["operating"]["frozen"]["chosen_on"].endswith("where it was chosen is not known here")

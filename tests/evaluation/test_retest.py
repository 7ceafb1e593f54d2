from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.special import expit
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from domainseg.evaluation import EvaluationError, roc
from domainseg.evaluation.retest import proportion_of, read_retest

# Accuracy on CIFAR-10.1 v4 (2,021 images), from the predictions stored in modestyachts/CIFAR-10.1.
NEW = {"alexnet": 0.689, "random features": 0.731, "vgg16": 0.853, "densenet": 0.876, "shake-shake cutout": 0.930}


def written(folder: Path, old: dict[str, float], n: bool = True) -> Path:
    table = pd.DataFrame({"model": list(NEW), "old": [old[m] for m in NEW], "new": list(NEW.values())})
    if n:
        table["n_old"], table["n_new"] = 10_000, 2021
    table.to_csv(folder / "retest.csv", index=False)
    return folder / "retest.csv"


def test_accuracies_of_the_new_set_with_their_intervals_and_ranks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    old = {name: 0.4 + 0.6 * value + rng.normal(0, 0.005) for name, value in NEW.items()}  # simulated
    found = read_retest(written(tmp_path, old))
    by = {row["model"]: row for row in found["models"]}
    assert [by[name]["rank_new"] for name in NEW] == [5, 4, 3, 2, 1]
    for name, value in NEW.items():
        low, high = proportion_confint(value * 2021, 2021, method="beta")
        assert (by[name]["new"]["low"], by[name]["new"]["high"]) == pytest.approx((low, high), abs=1e-9)
        assert by[name]["gap"]["value"] == pytest.approx(old[name] - value)
        assert by[name]["gap"]["low"] < old[name] - value < by[name]["gap"]["high"]
    line = sm.OLS(list(NEW.values()), sm.add_constant(list(old.values()))).fit()
    for k, name in enumerate(("intercept", "slope")):
        assert found["fit"][name]["value"] == pytest.approx(line.params[k])
        assert [found["fit"][name][side] for side in ("low", "high")] == pytest.approx(list(line.conf_int()[k]))
    assert [row["rank_old"] for row in found["models"]] == [1, 2, 3, 4, 5]


def test_rank_change_is_positive_for_a_model_that_rises(tmp_path: Path) -> None:
    old = dict(zip(NEW, (0.95, 0.8, 0.8, 0.7, 0.6), strict=True))
    found = read_retest(written(tmp_path, old, n=False))
    by = {row["model"]: row for row in found["models"]}
    assert [by[name]["rank_old"] for name in NEW] == [1, 2, 2, 4, 5]
    assert [by[name]["rank_change"] for name in NEW] == [-4, -2, -1, 2, 4]
    assert np.isnan(by["vgg16"]["new"]["low"])


def test_prediction_tables_give_their_auc(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    tables = {}
    for name, gain in (("old", 2.0), ("new", 1.0)):
        label = (rng.random(300) < 0.3).astype(int)
        tables[name] = pd.DataFrame(
            {"image": range(300), "label_y": label, "score_y": expit(gain * label + rng.normal(size=300))}
        )
        tables[name].to_csv(tmp_path / f"{name}, 1.csv", index=False)
    pd.DataFrame({"model": ["m"], "old": ["old, 1.csv"], "new": ["new, 1.csv"]}).to_csv(tmp_path / "r.csv", index=False)
    row = read_retest(tmp_path / "r.csv")["models"][0]
    one, two = ([t["label_y"].to_numpy(), t["score_y"].to_numpy()] for t in (tables["old"], tables["new"]))
    assert row["old"]["value"] == roc.auc(*one)["value"]
    gap, _ = roc.unpaired(*one, *two)
    assert (row["gap"]["value"], row["gap"]["low"]) == pytest.approx((gap["value"], gap["low"]))
    assert read_retest(tmp_path / "r.csv")["fit"]["slope"]["method"] == "fewer than 3 models"


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    for text, message in (
        ("model,old\na,1\n", "missing columns new"),
        ("model,old,new\n", "has no rows"),
        ("model,old,new\na,0.9,88\n", "new, row 1: 88 is no fraction"),
        ("model,old,new\na,0.9,\n", "new, row 1: is empty"),
        ("model,old,new\na,0.9,there.csv\n", "no such prediction table"),
        ("model,old,new\na,0.9,0.8\na,0.9,0.8\n", "twice"),
    ):
        path.write_text(text)
        with pytest.raises(EvaluationError, match=message):
            read_retest(path)


def test_a_printed_number_without_n_has_no_interval() -> None:
    assert np.isnan(proportion_of(0.9, np.nan)["low"])
    assert proportion_of(1.0, 10)["low"] == pytest.approx(0.025**0.1)


def test_models_of_different_folds_are_not_compared_with_each_other(tmp_path: Path) -> None:
    label = np.tile([0, 1], 20)
    fold = np.repeat([0, 1], 20)
    folded = pd.DataFrame({"image": range(40), "fold": fold, "label_y": label, "score_y": label * 0.1 + fold * 0.5})
    noisy = folded.assign(score_y=folded["score_y"] + np.random.default_rng(0).normal(0, 0.1, 40))
    for name, table in (("old", folded), ("new", noisy)):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "r.csv").write_text("model,old,new\nm,old.csv,new.csv\nagain,new.csv,new.csv\n")
    first, second = read_retest(tmp_path / "r.csv")["models"]
    assert first["old"]["value"] == 1  # 0.75 over both folds
    within = [roc_auc_score(part["label_y"], part["score_y"]) for _, part in noisy.groupby("fold")]
    assert second["new"]["value"] == pytest.approx(np.mean(within))
    assert first["gap"]["value"] == pytest.approx(1 - np.mean(within))
    parts = [roc.auc(p["label_y"].to_numpy(), p["score_y"].to_numpy(), plain=True) for _, p in noisy.groupby("fold")]
    error = np.sqrt(sum(((part["value"] - part["low"]) / 1.96) ** 2 for part in parts)) / 2
    reach = (second["gap"]["high"] - second["gap"]["low"]) / 2
    assert reach == pytest.approx(1.96 * np.sqrt(2) * error, rel=0.05)


def test_a_table_is_judged_on_its_test_rows_only(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"image": range(8), "label_y": [0, 1] * 4, "score_y": [0.1, 0.9, 0.2, 0.8, 0.7, 0.3, 0.6, 0.4]}
    )
    (tmp_path / "r.csv").write_text("model,old,new\nm,0.9,new.csv\n")
    for split in ("test", None):
        table.assign(split=["train"] * 4 + [split] * 4).to_csv(tmp_path / "new.csv", index=False)
        assert read_retest(tmp_path / "r.csv")["models"][0]["new"]["value"] == 0
    table.assign(split="train").to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(EvaluationError, match=r"new, row 1: new\.csv has no rows of the split test"):
        read_retest(tmp_path / "r.csv")

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from domainseg.evaluation import EvaluationError
from domainseg.evaluation.prior import features, folds, prior
from domainseg.evaluation.tables import rows_of


def table(n: int = 1200, seed: int = 0, weight: float = 1.0) -> pd.DataFrame:
    """Label from sex and age (``weight`` of them) and from what the image shows; each fourth patient has two rows."""
    rng = np.random.default_rng(seed)
    sex, age, seen = rng.choice(["F", "M"], n), rng.uniform(20, 90, n), rng.normal(size=n)
    label = rng.random(n) < expit(weight * (1.5 * (sex == "M") + 0.03 * (age - 55)) + 1.2 * seen - 1.5)
    words = np.where(sex == "M", "pain after fall", "follow up")
    return pd.DataFrame(
        {
            "image": np.arange(n), "patient": np.arange(n) * 3 // 4, "sex": sex, "age": age, "department": "x",
            "request": [f"{w} case{k}" for k, w in enumerate(words)],
            "split": np.where(np.arange(n) < n // 2, "tune", "test"),
            "label_y": label.astype(int), "score_y": expit(1.2 * seen - 1.5),
        }
    )  # fmt: skip


def test_a_binary_prior_ranks_as_its_column_does() -> None:
    both = table()
    tune, test = (rows_of(both[both["split"] == split], "y") for split in ("tune", "test"))
    found = prior(test, tune, ["sex"])
    assert found["fitted_on"] == "tune, 600 cases"
    assert found["prior"]["auc"]["value"] == pytest.approx(roc_auc_score(test.label, test.table["sex"] == "M"))
    assert found["image"]["auc"]["value"] == pytest.approx(roc_auc_score(test.label, test.score))
    assert found["prior"]["auc"]["method"].startswith("obuchowski")


def test_combined_is_better_than_either_where_both_tell() -> None:
    both = table()
    tune, test = (rows_of(both[both["split"] == split], "y") for split in ("tune", "test"))
    found = prior(test, tune, ["sex", "age", "department"])
    for name in ("image", "prior"):
        gap = found[f"combined_against_{name}"]
        assert gap["difference"]["low"] > 0
        assert gap["p"] < 0.01
    words = prior(test, tune, ["request"])
    assert words["prior"]["auc"]["value"] == pytest.approx(
        prior(test, tune, ["sex"])["prior"]["auc"]["value"], abs=0.01
    )


def test_cross_fitted_where_there_is_no_tune_and_not_flattered() -> None:
    """What tells nothing stays at chance: fitted and judged on the same cases it would look like something."""
    alone = table(seed=1, weight=0)
    rows = rows_of(alone, "y")
    found = prior(rows, None, ["age", "sex"])
    assert "cross-fitted by patient in 5 folds" in found["fitted_on"]
    assert "5 folds" in found["combined"]["auc"]["method"]
    assert abs(found["prior"]["auc"]["value"] - 0.5) < 0.06
    assert abs(found["combined_against_image"]["difference"]["value"]) < 0.02
    assert found["combined"]["auc"]["n"] == len(alone)


def test_folds_keep_patients_together_and_spread_positives() -> None:
    rows = rows_of(table(), "y")
    fold = folds(rows.label, rows.clusters, 0)
    assert pd.DataFrame({"p": rows.clusters, "f": fold}).groupby("p")["f"].nunique().max() == 1
    counts = [len(set(rows.clusters[(fold == k) & (rows.label == 1)])) for k in range(5)]
    assert max(counts) - min(counts) <= 1


def test_features_mark_what_is_empty_or_new() -> None:
    learnt = features(pd.DataFrame({"age": [20.0, 40, 60], "sex": ["F", "M", "F"]}), ["age", "sex"])
    found = learnt(pd.DataFrame({"age": [40.0, np.nan], "sex": ["X", None]})).toarray()
    assert found.tolist() == [[0, -1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 1]]


def test_what_cannot_be_fitted_is_said() -> None:
    small = table(40)
    assert prior(rows_of(small, "y"), None, ["sex"])["fitted_on"].startswith("too few patients")
    with pytest.raises(EvaluationError, match="no column weight"):
        prior(rows_of(table(), "y"), None, ["weight"])
    with pytest.raises(EvaluationError, match="is empty"):
        prior(rows_of(table().assign(sex=""), "y"), None, ["sex"])

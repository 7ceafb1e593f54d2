"""Hold-out and folds: no patient and no text on two sides, every label shared out; thresholds against closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from domainseg.labeling.decision import decide
from domainseg.labeling.division import DivisionError, divide


def reports(n: int = 400) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(0)
    texts = [f"finding {chr(97 + k % 26)}{chr(97 + k // 26 % 26)} here, {k} mm" for k in range(n)]
    texts[5], texts[200], texts[300] = "Normal chest. 1", "NORMAL chest 22", "normal   chest"
    table = pd.DataFrame({"patient": [f"p{rng.integers(150)}" for _ in range(n)], "text": texts})
    table.loc[10:20, "patient"] = ""
    values = pd.DataFrame({"rare": (np.arange(n) % 20 == 0) * 1.0, "often": (rng.random(n) < 0.5) * 1.0})
    values.loc[350:] = np.nan
    return table, values, pd.Series("", index=range(n))


def test_patients_and_texts_stay_together_and_labels_are_shared_out() -> None:
    table, values, none = reports()
    division = divide(table, values, given=none, share=0.4, folds=5, seed=0)
    assert set(division.side[350:]) == {""}
    assert "same text kept together" in division.how
    alike = table["text"].str.lower().str.replace(r"[\W\d]+", "", regex=True)
    for key in (table["patient"].where(table["patient"] != "", None), alike):
        labelled = division.side != ""
        sides = pd.Series(division.side)[labelled].groupby(key[labelled]).nunique()
        assert (sides == 1).all()
        training = division.side == "train"
        assert (pd.Series(division.fold)[training].groupby(key[training]).nunique() == 1).all()
    for label in values:
        held = values[label][division.side == "test"].sum() / values[label].sum()
        assert held == pytest.approx(0.4, abs=0.08)
        per_fold = values[label].groupby(division.fold).sum().drop(-1)
        assert per_fold.max() - per_fold.min() <= max(3, 0.25 * per_fold.mean())
    again = divide(table.iloc[::-1], values.iloc[::-1], given=none, share=0.4, folds=5, seed=0)
    assert (again.side == "test").sum() == pytest.approx((division.side == "test").sum(), abs=8)
    other = divide(table, values, given=none, share=0.4, folds=5, seed=1)
    assert (other.side != division.side).any()


def test_a_template_of_many_patients_is_not_trained_on_when_it_is_held_out() -> None:
    table, values, none = reports()
    table.loc[table.index % 3 == 0, "text"] = "Normal chest."
    division = divide(table, values, given=none, share=0.4, folds=5, seed=0)
    assert "hang together" in division.how
    alike = table["text"].str.lower().str.replace(r"[\W\d]+", "", regex=True)
    texts = {side: set(alike[division.side == side]) for side in ("train", "test", "unused")}
    assert "normalchest" in texts["test"]
    assert not texts["train"] & texts["test"]
    assert texts["unused"] <= texts["test"]
    patients = {side: set(table["patient"][division.side == side]) - {""} for side in ("train", "test")}
    assert not patients["train"] & patients["test"]


@pytest.mark.parametrize("every", [4, 2])
def test_folds_of_a_given_split_keep_texts_together_or_say_that_they_do_not(every: int) -> None:
    table, values, _ = reports(350)
    table["patient"] = [f"p{k // 2}" for k in range(350)]
    table["text"] = [f"{table['text'][k // 2 * 2]} {'abc'[k % 3]}" for k in range(350)]
    template = (np.arange(350) % (2 * every) == 0) & (np.arange(350) >= 100)  # of every fourth or second patient
    table.loc[template, "text"] = "Normal chest."
    given = pd.Series(np.where(np.arange(350) < 100, "test", "train"))
    division = divide(table, values, given=given, share=0.4, folds=5, seed=0)
    training = division.side == "train"
    assert (pd.Series(division.fold)[training].groupby(table["patient"][training]).nunique() == 1).all()
    of_template = set(division.fold[template & training])
    assert set(division.fold[training]) == set(range(5))
    if every == 4:
        assert len(of_template) == 1
        assert "folds by patient alone" not in division.how
    else:
        assert len(of_template) > 1
        assert "folds by patient alone, 50% of the training reports hang together" in division.how


def test_a_split_of_ones_own_is_kept_and_checked() -> None:
    table, values, none = reports()
    table["patient"] = [f"p{k}" for k in range(400)]
    given = pd.Series(np.where(np.arange(400) < 100, "test", np.where(np.arange(400) < 340, "train", "")))
    division = divide(table, values, given=given, share=0.4, folds=5, seed=0)
    assert (division.side[:100] == "test").all()
    assert set(np.flatnonzero(division.side == "unused")) == {200, 300}
    table.loc[[3, 150], "patient"] = "both"
    with pytest.raises(DivisionError, match="1 patients stand on both sides"):
        divide(table, values, given=given, share=0.4, folds=5, seed=0)
    with pytest.raises(DivisionError, match="too few"):
        divide(table[:1], values[:1], given=none[:1], share=0.4, folds=5, seed=0)


def test_thresholds() -> None:
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    label = np.array([1, 1, 0, 1, 0, 0, 0, 0])
    # f1 of the first k: 2/4, 4/5, 4/6, 6/7, ...; sensitivity + specificity - 1: 1/3, 2/3, 7/15, 0.8, ...
    assert decide(label, score, "f1", 0).threshold == pytest.approx(0.55)
    assert decide(label, score, "youden", 0).threshold == pytest.approx(0.55)
    assert decide(label, score, "prevalence", 0).threshold == pytest.approx(3 / 8)
    none = decide(label, score, "f1", 0)
    assert none.labels(score).tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_the_band_of_the_unknown() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(4000)
    label = (rng.random(4000) < score).astype(float)  # calibrated
    chosen = decide(label, score, "f1", 0.9)
    given = chosen.labels(score)
    assert label[given == 1].mean() >= 0.9
    assert (label[given == 0]).sum() / label.sum() <= 0.1
    assert chosen.low < chosen.threshold < chosen.high
    assert chosen.high == pytest.approx(0.8, abs=0.05)  # the mean of what lies above 0.8 is 0.9
    assert chosen.low == pytest.approx(np.sqrt(0.1), abs=0.03)  # P(score < x | positive) = x squared
    never = decide(np.array([1, 0, 1, 0, 1, 0, 1, 0.0]), np.repeat([0.7, 0.6, 0.5, 0.4], 2), "f1", 0.9)
    assert never.high == np.inf
    assert not (never.labels(np.array([0.99])) == 1).any()

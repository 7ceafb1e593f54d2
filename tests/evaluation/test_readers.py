from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, recall_score, roc_curve

from domainseg.evaluation import EvaluationError, readers
from domainseg.evaluation.tables import Rows, rows_of


def drawn(n: int = 420, seed: int = 0) -> tuple[Rows, np.ndarray, np.ndarray]:
    """420 films and four readers, as CheXNet had."""
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.2).astype(int)
    call = np.stack([rng.random(n) < np.where(label, s, 0.15) for s in (0.6, 0.7, 0.8, 0.75)], axis=1).astype(float)
    table = pd.DataFrame({"image": [f"i{k}" for k in range(n)], "label_y": label})
    table["score_y"] = np.clip(0.5 * label + rng.normal(0.25, 0.2, n), 0, 1)
    return rows_of(table, "y"), call, (table["score_y"] > 0.5).to_numpy(float)


def long(call: np.ndarray) -> pd.DataFrame:
    n, count = call.shape
    return pd.DataFrame(
        {"image": np.repeat([f"i{k}" for k in range(n)], count), "reader": list("ABCD") * n, "call": call.ravel()}
    )


def test_calls_become_a_table_of_cases_and_readers() -> None:
    rows, call, _ = drawn()
    shuffled = long(call).sample(frac=1, random_state=0)
    found, names = readers.calls(shuffled, rows)
    assert names == list("ABCD")
    assert (found == call).all()


def test_calls_of_cases_that_the_table_lacks_are_told(caplog: pytest.LogCaptureFixture) -> None:
    rows, call, _ = drawn()
    known = np.arange(len(rows)) < 400
    readers.calls(long(call), rows.take(known))
    assert "20 of their cases are not among those judged" in caplog.text


def test_f1_of_each_against_the_others_is_sklearns_mean() -> None:
    rows, call, model = drawn()
    found = readers.agreement(call, list("ABCD"), model, rows.clusters, resamples=200)
    for k, name in enumerate("ABCD"):
        expected = np.mean([f1_score(call[:, j], call[:, k]) for j in range(4) if j != k])
        assert found["by"][name]["value"] == pytest.approx(expected)
    ours = np.mean([f1_score(call[:, j], model) for j in range(4)])
    mean = np.mean([found["by"][name]["value"] for name in "ABCD"])
    assert found["model"]["value"] == pytest.approx(ours)
    assert found["mean"]["value"] == pytest.approx(mean)
    assert found["difference"]["value"] == pytest.approx(ours - mean)
    assert found["difference"]["low"] < ours - mean < found["difference"]["high"]


def test_two_readers_are_compared_on_what_both_read() -> None:
    rows, call, model = drawn()
    call[:100, 0], call[50:150, 1] = np.nan, np.nan
    found = readers.agreement(call[:, :2], list("AB"), model, rows.clusters, resamples=20)
    both = ~np.isnan(call[:, :2]).any(axis=1)
    assert found["by"]["A"]["value"] == pytest.approx(f1_score(call[both, 0], call[both, 1]))
    assert found["mean"]["n"] == 420 - 50


def test_a_third_reader_who_agrees_with_nobody_lowers_all() -> None:
    rows, call, model = drawn()
    same = np.repeat(call[:, :1], 3, axis=1)
    found = readers.agreement(same, list("ABC"), same[:, 0], rows.clusters, resamples=50)
    assert found["mean"]["value"] == found["model"]["value"] == 1
    assert found["difference"]["value"] == 0
    alone = readers.agreement(call[:, :1], ["A"], model, rows.clusters)
    assert alone["mean"]["method"] == "fewer than 2 readers"


def test_points_on_the_roc_curve() -> None:
    rows, call, _ = drawn()
    found = readers.points(call, list("ABCD"), rows.label, rows.score, rows.clusters, resamples=200)
    sensitivity = [recall_score(rows.label, call[:, k]) for k in range(4)]
    specificity = [recall_score(1 - rows.label, 1 - call[:, k]) for k in range(4)]
    assert [one["sensitivity"]["value"] for one in found["by"].values()] == pytest.approx(sensitivity)
    assert found["mean"]["specificity"]["value"] == pytest.approx(np.mean(specificity))
    assert found["mean"]["sensitivity_sd"] == pytest.approx(np.std(sensitivity, ddof=1))
    false, true, _ = roc_curve(rows.label, rows.score, drop_intermediate=False)
    assert found["model"]["value"] == pytest.approx(np.interp(1 - np.mean(specificity), false, true))
    assert found["difference"]["value"] == pytest.approx(found["model"]["value"] - np.mean(sensitivity))
    assert readers.points(call, list("ABCD"), np.full(420, np.nan), rows.score, rows.clusters) == {}


def test_a_readers_specificity_at_a_step_of_the_curve_is_the_top_of_the_step() -> None:
    """10 positives and 10 negatives: one negative above all, nine positives next. 1 - 0.9 is not 0.1 in a computer."""
    label = np.repeat([1.0, 0.0], 10)
    score = np.r_[np.full(9, 0.9), 0.1, 0.99, np.full(9, 0.2)]
    call = np.r_[np.ones(9), 0, 1, np.zeros(9)][:, None]
    found = readers.points(call, ["A"], label, score, np.arange(20), resamples=20)
    assert found["mean"]["specificity"]["value"] == pytest.approx(0.9)
    assert found["model"]["value"] == pytest.approx(0.9)
    assert found["difference"]["value"] == pytest.approx(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.rename(columns={"call": "vote"}), "missing columns call"),
        (lambda t: t.assign(call=2), "2 is not 1, 0 or empty"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "A calls i0 twice"),
        (lambda t: t.assign(image="x"), "no case of theirs"),
        (lambda t: t.assign(reader=None), "has no reader"),
    ],
)
def test_wrong_tables_are_refused(change: object, message: str) -> None:
    rows, call, _ = drawn(30)
    with pytest.raises(EvaluationError, match=message):
        readers.calls(change(long(call)), rows)  # type: ignore[operator]

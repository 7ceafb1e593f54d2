from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from domainseg.evaluation import EvaluationError, evaluate
from domainseg.evaluation.tables import clusters_of, repaired


def table(n: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    label = np.arange(n) % 2
    return pd.DataFrame(
        {
            "image": [f"i{k}" for k in range(n)],
            "patient": [f"p{k}" for k in range(n)],
            "site": ["North", "South"] * (n // 2),
            "label_effusion": label,
            "score_effusion": np.clip(0.3 * label + 0.6 * rng.random(n), 0, 1),
        }
    )


def test_a_group_joins_patients_and_does_not_divide_one() -> None:
    """Two uploads of one patient, and a family of two: who belongs together is a chain."""
    several = table(6).assign(
        site="North", patient=["a", "a", "b", "c", "d", None], group=["1", "2", "3", "3", None, "2"]
    )
    assert pd.factorize(clusters_of(several))[0].tolist() == [0, 0, 1, 1, 2, 0]
    several["group"] = None
    assert pd.factorize(clusters_of(several))[0].tolist() == [0, 0, 1, 2, 3, 4]


def test_a_clean_table_is_left_as_it_is() -> None:
    clean = table()
    kept, said = repaired(clean)
    pd.testing.assert_frame_equal(kept, clean)
    assert said == []


def test_sites_that_differ_by_case_or_blanks_are_one_in_the_most_frequent_spelling() -> None:
    messy = table()
    messy.loc[2, "site"], messy.loc[4, "site"], messy.loc[1, "site"] = " north", "NORTH", "south  "
    kept, said = repaired(messy)
    assert sorted(set(kept["site"])) == ["North", "South"]
    assert len(said) == 1
    assert "“NORTH” as “North”" in said[0]
    assert "“south  ” as “South”" in said[0]
    assert evaluate(kept) == evaluate(table())


def test_names_of_columns() -> None:
    messy = table().rename(columns={"image": " Image", "site": "Site", "label_effusion": "Label_effusion "})
    kept, said = repaired(messy)
    assert list(kept) == list(table())
    assert "Site" in said[0]
    with pytest.raises(EvaluationError, match="two columns"):
        repaired(table().assign(Site="x"))


def test_repeated_cases_count_once_and_contradictions_are_refused() -> None:
    once = table()
    kept, said = repaired(pd.concat([once, once.iloc[:3]], ignore_index=True))
    pd.testing.assert_frame_equal(kept, once)
    assert said == ["3 rows repeat a case with the same labels and scores: each case counts once."]
    other = once.iloc[:1].assign(score_effusion=0.99)
    with pytest.raises(EvaluationError, match=r"image i0 stands there 2 times with different score_effusion"):
        repaired(pd.concat([once, other], ignore_index=True))
    with pytest.raises(EvaluationError, match=r"different label_effusion, score_effusion"):
        repaired(pd.concat([once, other.assign(label_effusion=1)], ignore_index=True))
    parts, _ = repaired(pd.concat([once.assign(part="left"), other.assign(part="right")], ignore_index=True))
    assert len(parts) == 13


def test_a_case_without_a_name_is_refused() -> None:
    with pytest.raises(EvaluationError, match="image, row 3"):
        repaired(table().assign(image=lambda t: t["image"].where(t.index != 2, "  ")))


def test_missing_scores_and_shared_patients_are_said() -> None:
    messy = table().assign(split=["train", "test"] * 6)
    messy.loc[0, "score_effusion"] = np.nan
    messy.loc[1, "patient"], messy.loc[2, "patient"] = "p4", "p4"
    messy["site"] = "North"
    _, said = repaired(messy, unscored="they count as wrong")
    assert said[0] == "effusion: 1 cases with a label have no score and no reason in excluded_by; they count as wrong."
    assert not any("no score" in line for line in repaired(messy)[1])
    assert said[1].startswith("1 patients have cases in more than one split")


def test_scores_that_are_no_probabilities_are_said() -> None:
    messy = table().assign(score_effusion=lambda t: 8 * t["score_effusion"] - 4)
    _, said = repaired(messy)
    assert "no probabilities" in said[0]


def test_one_class_only_is_said() -> None:
    _, said = repaired(table().assign(label_effusion=1))
    assert said == ["effusion: every known label is 1; with one class there is no AUC."]

"""The limits of bf16, on numbers made for the purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from domainseg.cascade.case import Case
from domainseg.cascade.operations import Sample
from domainseg.cascade.reads import WHOLE_FILMS, reading_of
from domainseg.cascade.stages import Frozen, Stage
from domainseg.imaging import Film
from domainseg.training.bf16 import Bf16Error, Judge, judge_cascade, judge_stage

FROZEN = Frozen(threshold=0.5)  # at logit 0
Notes = list[tuple[float, float, float]]


def notes(count: int = 1000) -> Notes:
    """Logits -5 to 5, the upper half positive but for a band that overlaps; bf16 says the same."""
    logits = np.linspace(-5, 5, count)
    labels = (logits + np.sin(37 * logits) > 0).astype(float)
    return [(label, x, x) for label, x in zip(labels, logits, strict=True)]


def flip(rows: Notes, count: int) -> Notes:
    """The ``count`` logits nearest above 0 said to be a hair below it by bf16, the order left as it is."""
    order = sorted(range(len(rows)), key=lambda k: abs(rows[k][1]) if rows[k][1] > 0 else np.inf)[:count]
    return [(a, b, -1e-6 * (len(rows) - k) / len(rows) if k in order else c) for k, (a, b, c) in enumerate(rows)]


def test_a_stage_within_its_limits_is_told_with_its_cases() -> None:
    found = judge_stage("fracture", flip(notes(), 2), FROZEN)
    assert (found["n"], found["flipped"], found["passed"]) == (1000, 0.002, True)
    assert found["auc_change"] == pytest.approx(0, abs=1e-4)


def test_one_flip_more_is_refused_with_stage_and_numbers() -> None:
    with pytest.raises(Bf16Error, match=r"stage fracture: 3 of 1000 decisions .*0\.3 %"):
        judge_stage("fracture", flip(notes(), 3), FROZEN)


def test_a_changed_auc_is_refused() -> None:
    """The called half in reverse order: no decision flips, the ranks of its false alarms do."""
    rows = [(label, x, 5.01 - x if x > 0 else x) for label, x, _ in notes()]
    with pytest.raises(Bf16Error, match="AUC changes"):
        judge_stage("fracture", rows, FROZEN)


def test_too_few_cases_judge_nothing() -> None:
    with pytest.raises(Bf16Error, match="99 cases are too few"):
        judge_stage("fracture", notes(99), FROZEN)


def test_without_both_classes_only_decisions_count() -> None:
    assert judge_stage("localizer", [(1.0, x, x) for _, x, _ in notes()], FROZEN)["auc_change"] is None
    assert judge_stage("localizer", [(np.nan, x, x) for _, x, _ in notes()], FROZEN)["n"] == 1000


def cascade(count: int = 500) -> pd.DataFrame:
    """A prediction table of one hip a film."""
    score = np.linspace(0.01, 0.99, count)
    return pd.DataFrame(
        {
            "image": [f"i{k:04}" for k in range(count)],
            "part": "hip_left",
            "excluded_by": "",
            "label_fracture": (score > 0.6).astype(float),
            "score_fracture": score,
            "threshold_fracture": 0.505,
        }
    )


def test_a_hip_that_is_lost_or_called_otherwise_counts_as_flipped() -> None:
    wanted = cascade()
    wanted.loc[[3, 7], "label_fracture"] = np.nan  # a decision about them counts, the AUC does not know of it
    got = wanted.copy()
    assert judge_cascade(wanted, got, "fracture")["flipped"] == 0
    got.loc[3, ["excluded_by", "score_fracture"]] = ["localizer", np.nan]
    assert judge_cascade(wanted, got, "fracture")["flipped"] == pytest.approx(1 / 500)
    with pytest.raises(Bf16Error, match="the whole cascade: 2 of 500"):
        judge_cascade(wanted, got.drop(index=7), "fracture")


def test_each_threshold_is_judged_with_or_without_cases_of_its_own() -> None:
    """Findings and types of bleeds are called by thresholds of their own."""
    wanted = cascade().rename(columns=lambda name: name.replace("fracture", "edema")).assign(label_edema=0.0)
    assert judge_cascade(wanted, wanted, "edema", main=False)["auc_change"] is None
    rare = wanted.assign(label_edema=(wanted.index == 499).astype(float))
    swapped = rare.assign(score_edema=rare["score_edema"].where(rare.index < 497, 0.9))
    assert judge_cascade(rare, swapped, "edema", main=False)["flipped"] == 0
    got = wanted.assign(score_edema=1 - wanted["score_edema"])
    with pytest.raises(Bf16Error, match="the whole cascade, edema"):
        judge_cascade(wanted, got, "edema", main=False)


class Edema:
    """A decision on whole films that calls two findings."""

    target, reads, version, part = "edema", "film", 1, "whole"

    def logits(self, outputs: Any) -> dict[str, float]:
        return {"": float(outputs["x"])}

    def thresholds(self, frozen: Frozen) -> dict[str, float]:
        return {"mass": 0.3}

    def decide(self, case: Case, *of: Any) -> list[Case]:
        return [case]


def test_films_that_are_judged_whole_are_judged_by_their_own_labels() -> None:
    class Truth:
        def film(self, image: str) -> dict[str, float]:
            return {"edema": 1.0}

    judge = Judge(Edema(), Truth())
    stage = Stage("findings", [], judge, lambda pictures: {}, frozen=Frozen(threshold=0.6))
    assert reading_of([stage]) is WHOLE_FILMS
    assert stage.thresholds == {"edema": 0.6, "mass": 0.3}
    outputs = {"x": np.array(1.0), "bf16 x": np.array(2.0)}
    judge.decide(
        Case.of("a", Film(np.zeros((2, 2), np.float32))), Sample(np.zeros((2, 2)), np.eye(3)), outputs, Frozen()
    )
    assert judge.notes == [(1.0, 1.0, 2.0)]


def test_a_cascade_without_cases_of_both_classes_is_not_judged() -> None:
    wanted = cascade().assign(label_fracture=0.0)
    with pytest.raises(Bf16Error, match="both classes of fracture"):
        judge_cascade(wanted, wanted, "fracture")

"""Findings of a whole film: numbers of each finding, maps against the base rate, the row of a film, the table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from domainseg.bundle.load import make_stages
from domainseg.bundle.schema import BundleError, check_record
from domainseg.cascade.case import Case
from domainseg.cascade.findings import Findings, against_base_rate
from domainseg.cascade.operations import preprocess, versioned
from domainseg.cascade.reads import FILMS, WHOLE_FILMS, reading_of
from domainseg.cascade.stages import Frozen, Stage, WholeFilm
from domainseg.cascade.table import prediction_table
from domainseg.cascade.whole import WholeTruth, whole_rows
from domainseg.data.manifest import build_manifest
from domainseg.imaging import Film, ImageReadError
from domainseg.imaging.film import READER_VERSION

FIT = [{"op": "fit", "size": 64}]
NUMBERS = {
    "pneumonia": {"base_rate": 0.1},
    "mass": {"base_rate": 0.2, "threshold": 0.3, "slope": 2.0, "intercept": -1.0},
}
DECISION = Findings("pneumonia", NUMBERS)


def decide(pneumonia: float, mass: float, frozen: Frozen, decision: Findings = DECISION) -> Case:
    case = Case.of("a", Film(pixels=np.zeros((40, 60), np.float32), spacing=(0.2, 0.2)))
    outputs = {"pneumonia": np.float32(pneumonia), "mass": np.float32(mass), "hernia": np.float32(9)}
    maps = {f"map_{name}": np.full((2, 2), value, np.float32) for name, value in outputs.items()}
    answers: Any = {**outputs, **maps}
    (found,) = decision.decide(case, preprocess(case, FIT), answers, frozen)  # type: ignore[misc]
    return found


def test_each_finding_has_its_own_calibration_and_threshold() -> None:
    frozen = Frozen(threshold=0.6, slope=0.5, intercept=0.25)
    case = decide(1.0, 1.0, frozen)
    assert case.values["score_pneumonia"] == pytest.approx(1 / (1 + np.exp(-0.75)))
    assert case.values["score_mass"] == pytest.approx(1 / (1 + np.exp(-1.0)))
    assert DECISION.thresholds(frozen) == {"pneumonia": 0.6, "mass": 0.3}
    assert list(case.arrays["called"]) == ["pneumonia", "mass"]
    assert list(decide(-1.0, 0.0, frozen).arrays["called"]) == []  # P(mass) is 0.27
    assert list(decide(0.0, 0.2, frozen).arrays["called"]) == ["mass"]  # 0.35; P(pneumonia) is 0.56


def test_what_nothing_was_learned_of_has_no_score() -> None:
    assert not [name for name in decide(0, 0, Frozen()).values if "hernia" in name]
    untrained = decide(0, 0, Frozen(), Findings("pneumonia"))
    assert list(untrained.values) == ["score_pneumonia"]


def test_a_map_is_the_log_of_how_many_times_the_base_rate() -> None:
    base = 0.012
    cells = np.array([[np.log(base / (1 - base)), np.log(0.12 / 0.88)], [0.0, -20.0]], np.float32)
    found = against_base_rate(cells, base)
    np.testing.assert_allclose(found[0], [0, np.log(10)], atol=1e-5)
    assert found[1, 0] == pytest.approx(np.log(0.5 / base))
    assert found[1, 1] == pytest.approx(-20 - np.log(base), abs=1e-5)
    np.testing.assert_array_equal(decide(1, 2, Frozen()).arrays["map_mass"], against_base_rate(np.full((2, 2), 2), 0.2))
    with pytest.raises(ValueError, match="base rate of 0"):
        against_base_rate(cells, 0.0)


@pytest.fixture
def truth(tmp_path: Path) -> WholeTruth:
    images = pd.DataFrame({"image": ["a", "b", "c"], "patient": ["1", "2", "3"], "site": "A"}, dtype=object)
    targets = pd.DataFrame(
        {"image": ["a", "a", "b"], "part": "whole", "label_pneumonia": ["1", "1", ""], "label_mass": ["0", "0", "1"]}
        | {"box": ["1,2,3,4", "5,6,7,8", ""]},
        dtype=object,
    )
    return WholeTruth(build_manifest(images, targets, tmp_path, "made"))


def test_every_film_is_one_row_with_its_labels(truth: WholeTruth, tmp_path: Path) -> None:
    """Two boxes are no two rows; a film without targets is unknown; one that cannot be read keeps its labels."""
    rows = whole_rows("a", decide(0, 0, Frozen()).film, [decide(0, 0, Frozen())], truth)  # type: ignore[arg-type]
    rows += whole_rows("b", ImageReadError(tmp_path / "b", "broken", "damaged"), [], truth)
    rows += whole_rows(
        "c", Film(pixels=np.zeros((8, 9), np.float32)), [replace(decide(0, 0, Frozen()), image="c")], truth
    )
    stage = Stage("findings", FIT, DECISION, lambda x: {}, Frozen(threshold=0.4))
    table = prediction_table(rows, [stage], truth.manifest.images).set_index("image")
    assert list(table["part"]) == ["whole"] * 3
    assert table["label_pneumonia"].tolist() == pytest.approx([1, np.nan, np.nan], nan_ok=True)
    assert table["label_mass"].tolist() == pytest.approx([0, 1, np.nan], nan_ok=True)
    assert table["eligible_mass"].tolist() == [True, True, False]
    assert (table["threshold_mass"] == 0.3).all()
    assert (table["threshold_pneumonia"] == 0.4).all()
    assert table.loc["b", ["excluded_by", "exclusion_reason"]].tolist() == ["read", "damaged"]
    assert table["score_mass"].notna().tolist() == [True, False, True]
    assert (table.loc["a", "width"], table.loc["a", "spacing"]) == (60, pytest.approx(0.2))


def test_the_decision_says_that_films_are_judged_whole() -> None:
    assert reading_of([Stage("findings", FIT, DECISION, lambda x: {})]) is WHOLE_FILMS
    assert reading_of([Stage("fracture", FIT, WholeFilm(), lambda x: {})]) is FILMS


def record(**decision: Any) -> bytes:
    """A bundle's record with one stage of findings."""
    frozen = {"threshold": 0.5, "slope": 1.0, "intercept": 0.0, "rule": "sensitivity_0.95", "provisional": False}
    stage = {
        "name": "findings",
        "file": "stages/findings.onnx",
        "batch": "dynamic",
        "decision": {"kind": "findings", "version": 1, "target": "pneumonia", "numbers": NUMBERS} | decision,
        "preprocessing": versioned(FIT),
        "outputs": {"pneumonia": [], "mass": [], "map_pneumonia": [2, 2], "map_mass": [2, 2]},
        "frozen": frozen,
    }
    empty: dict[str, Any] = {key: {} for key in ("versions", "labels", "data", "envelope", "parity")}
    own = {"schema": 1, "pipeline": "chest", "target": "pneumonia", "reader": READER_VERSION, "stages": [stage]}
    return json.dumps({**own, **empty}).encode()


def test_numbers_travel_in_the_record_of_a_bundle() -> None:
    (stage,) = make_stages(check_record(record()), {"findings": lambda x: {}})
    assert stage.decision == DECISION
    assert stage.thresholds == {"pneumonia": 0.5, "mass": 0.3}


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        ({"numbers": [1]}, "decision.numbers: a mapping is needed"),
        ({"numbers": {"mass": 0.3}}, "numbers.mass: a mapping is needed"),
        ({"numbers": {"mass": {"threshold": "0.3"}}}, "mass.threshold: must be a number"),
        ({"numbers": {"mass": {"threshold": 1.5}}}, "mass.threshold: must be a number, a threshold from 0 to 1"),
        ({"numbers": {"../mass": {}}}, "is no target's name"),
        ({"numbers": {"mass": {"base_rate": 0}}}, "a base rate of 0"),
        ({"numbers": {"hernia": {"base_rate": 0.1}}}, "cannot be made of the outputs"),
        ({"target": 3}, "decision.target: text is needed"),
        ({"target": "mass"}, "target: pneumonia is decided by no stage"),
        ({"level": 1}, "knows no such setting"),
    ],
)
def test_a_record_that_says_otherwise_is_refused(decision: dict[str, Any], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        make_stages(check_record(record(**decision)), {"findings": lambda x: {}})

"""Lessons of films judged whole: what is kept of init_from, where its weights are."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from domainseg.cascade.findings import Findings
from domainseg.cascade.stages import Frozen, Stage
from domainseg.data.cache import Cache
from domainseg.data.manifest import Manifest, build_manifest
from domainseg.files import read_json
from domainseg.training.builder import Builder
from domainseg.training.stages import RunError, new_stage

SETTINGS: dict[str, Any] = {
    "decision": {"_target_": "domainseg.cascade.findings.Findings", "target": "mass"},
    "network": {"_target_": "domainseg.networks.WholeFilmDenseNet121", "targets": ["mass", "edema", "hernia"]},
    "preprocessing": [{"op": "fit", "size": 32}],
    "rule": "sensitivity_0.95",
}
KNOWN = {"mass": {"base_rate": 0.1}, "edema": {"base_rate": 0.2, "threshold": 0.3, "slope": 2.0, "intercept": -1.0}}

MASS = Frozen(threshold=0.77, slope=3.0, intercept=1.0, rule="sensitivity_0.95", provisional=False)


def films(folder: Path, positives: int) -> Manifest:
    """Eight films of eight patients, so many of them with a mass and a hernia, none known to have an edema or not."""
    cv2.imwrite(str(folder / "film.png"), np.full((40, 40), 99, np.uint8))
    labels = [int(k < positives) for k in range(8)]
    images = pd.DataFrame({"image": [f"f{k}" for k in range(8)], "patient": [f"p{k}" for k in range(8)]})
    targets = images[["image"]].assign(part="whole", label_mass=labels, label_edema="", label_hernia=labels)
    return build_manifest(images.assign(path="film.png"), targets, folder, "mine")


def builder(folder: Path, positives: int) -> Builder:
    manifest = films(folder, positives)
    cfg = {"seed": 0, "init_from": str(folder / "old"), "stage": {"findings": SETTINGS}, "trainer": {"workers": 0}}
    return Builder(cfg | {"stages": ["findings"]}, folder, manifest, manifest, Cache(folder / "cache", 10**8))


def stages(target: str) -> tuple[Stage, Stage]:
    """The stage of this run and that of init_from."""
    stage = new_stage("findings", {**SETTINGS, "decision": {**SETTINGS["decision"], "target": target}}, "cpu", seed=0)
    return stage, replace(stage, decision=Findings("mass", KNOWN), frozen=MASS)


@pytest.mark.parametrize("positives", [0, 2, 3])
def test_findings_and_base_rates_stay_where_the_weights_do(tmp_path: Path, positives: int) -> None:
    lessons = builder(tmp_path, positives).lessons
    stage, previous = stages("mass")
    lessons.items(stage, [], Counter())
    tuned, record = lessons.tuned(stage, [], previous)
    assert isinstance(tuned.decision, Findings)
    rates = {name: own["base_rate"] for name, own in tuned.decision.numbers.items()}
    assert (
        rates
        == record["base_rates"]
        == ({"mass": 3 / 8, "hernia": 3 / 8} if positives == 3 else {"mass": 0.1, "edema": 0.2})
    )
    if positives < 3:  # nor is there a film on tune that would choose other numbers
        assert tuned.decision.numbers["edema"] == KNOWN["edema"]


def test_a_target_that_the_kept_weights_did_not_learn_is_refused(tmp_path: Path) -> None:
    lessons = builder(tmp_path, 2).lessons
    stage, previous = stages("hernia")
    lessons.items(stage, [], Counter())
    with pytest.raises(RunError, match=r"target=hernia: init_from has not learned it, .* of: mass, edema"):
        lessons.tuned(stage, [], previous)


@pytest.mark.parametrize(("target", "threshold", "slope"), [("mass", 0.77, 3.0), ("edema", 0.3, 2.0)])
def test_with_few_tune_films_a_target_keeps_its_own_numbers_and_no_others(
    tmp_path: Path, target: str, threshold: float, slope: float
) -> None:
    own, (stage, previous) = builder(tmp_path, 2), stages(target)
    own.lessons.items(stage, [], Counter())
    tuned, _ = own.lessons.tuned(stage, [], previous)
    (tmp_path / "new").mkdir()
    frozen = own.freeze(tuned, [], tmp_path / "new", previous, {}).frozen
    assert (frozen.threshold, frozen.slope, frozen.rule) == (threshold, slope, "sensitivity_0.95")
    assert frozen.provisional
    if target == "edema":  # what was the target there keeps its numbers as one of the others
        assert isinstance(tuned.decision, Findings)
        assert tuned.decision.numbers["mass"] == {"base_rate": 0.1, "threshold": 0.77, "slope": 3.0, "intercept": 1.0}


def test_a_target_without_numbers_of_its_own_gets_them_on_tune(tmp_path: Path) -> None:
    own, (stage, previous) = builder(tmp_path, 3), stages("hernia")
    own.lessons.items(stage, [], Counter())
    tuned, _ = own.lessons.tuned(stage, [], previous)
    (tmp_path / "new").mkdir()
    frozen = own.freeze(tuned, [], tmp_path / "new", previous, {}).frozen
    assert frozen.threshold != MASS.threshold
    assert read_json(tmp_path / "new/threshold.json")["chosen_on"] == "tune"
    assert read_json(tmp_path / "new/threshold.json")["n_positive"] == 3

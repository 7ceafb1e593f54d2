"""A stage's folder gives back what was trained, or says why it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException

from domainseg.cascade.stages import Frozen, Stage
from domainseg.files import read_json, read_sealed, write_json, write_sealed
from domainseg.training.stages import (
    RunError,
    build,
    is_finished,
    load_cascade,
    load_stage,
    load_weights,
    module_of,
    new_stage,
    save_stage,
)

SETTINGS: dict[str, Any] = {
    "decision": {"_target_": "domainseg.cascade.stages.Localizer", "roi_heads": 3.0},
    "network": {"_target_": "domainseg.networks.LocalizerRegression", "size": 64, "weights": None},
    "preprocessing": [{"op": "fit", "size": 64}, {"op": "stretch", "low": 2}],
}
VIEW: dict[str, Any] = {
    "decision": {"_target_": "domainseg.cascade.stages.ViewFilter"},
    "network": {"_target_": "domainseg.networks.ViewNet", "widths": [4, 8]},
    "preprocessing": [{"op": "fit", "size": 32}],
}
FROZEN = Frozen(threshold=0.123456789012345, slope=1.5, intercept=-0.25, rule="keep_0.99", provisional=False)


@pytest.fixture
def stage() -> Stage:
    """A view filter whose running statistics are not those of a new one."""
    stage = new_stage("view_filter", VIEW, "cpu", seed=4)
    module = module_of(stage).train()
    for k in range(3):
        module(torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(k)))
    return replace(stage, frozen=FROZEN)


@pytest.fixture
def folder(stage: Stage, tmp_path: Path) -> Path:
    """Its folder."""
    save_stage(stage, {**VIEW, "rule": "keep_0.99", "task": {}}, tmp_path / "view_filter", seconds=3)
    return tmp_path / "view_filter"


def test_what_is_loaded_answers_as_what_was_saved(stage: Stage, folder: Path) -> None:
    loaded = load_stage(folder, "cpu")
    pictures = np.random.default_rng(9).random((3, 1, 32, 32), dtype=np.float32)
    before, after = stage.network(pictures), loaded.network(pictures)
    assert set(before) == set(after)
    for name, value in before.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, after[name])
    assert loaded.frozen == FROZEN
    assert loaded.decision == stage.decision
    assert list(loaded.preprocessing) == list(stage.preprocessing)
    assert loaded.name == "view_filter"


def test_settings_of_decision_and_preprocessing_come_back(tmp_path: Path) -> None:
    made = new_stage("localizer", SETTINGS, "cpu", seed=0)
    save_stage(made, SETTINGS, tmp_path)
    loaded = load_stage(tmp_path, "cpu")
    assert loaded.decision == made.decision
    assert loaded.preprocessing == made.preprocessing
    assert loaded.frozen.provisional


def test_equal_weights_have_equal_checksums(stage: Stage, folder: Path, tmp_path: Path) -> None:
    save_stage(stage, VIEW, tmp_path / "again")
    assert read_json(folder / "stage.json")["sha256"] == read_json(tmp_path / "again/stage.json")["sha256"]


@pytest.mark.parametrize("what", ["film reader", "fit", "ViewFilter"])
def test_a_stage_of_another_version_is_refused(folder: Path, what: str) -> None:
    """Its weights and thresholds belong to other pictures, or to other decisions."""
    record = read_sealed(folder / "stage.json")
    now = record["versions"][what]
    write_sealed(folder / "stage.json", record | {"versions": record["versions"] | {what: 0}})
    with pytest.raises(RunError, match=f"trained with version 0 of {what}, this program has version {now}"):
        load_stage(folder, "cpu")
    del record["versions"]
    write_sealed(folder / "stage.json", record)
    with pytest.raises(RunError, match="trained with version unknown of film reader"):
        load_stage(folder, "cpu")


@pytest.mark.parametrize("place", [0.02, 0.5, 0.98])
def test_a_flipped_byte_is_refused(folder: Path, place: float) -> None:
    data = bytearray((folder / "network.pt").read_bytes())
    data[int(place * len(data))] ^= 1
    (folder / "network.pt").write_bytes(data)
    with pytest.raises(RunError, match=r"network\.pt: damaged"):
        load_stage(folder, "cpu")


def test_half_a_file_is_refused(folder: Path) -> None:
    data = (folder / "network.pt").read_bytes()
    (folder / "network.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(RunError, match="damaged"):
        load_stage(folder, "cpu")


@pytest.mark.parametrize(
    "other",
    [
        {"_target_": "domainseg.networks.ViewNet", "widths": [4, 12]},
        {"_target_": "domainseg.networks.ViewNet", "widths": [4, 8, 8]},
        {"_target_": "domainseg.networks.ImplantNet", "widths": [4, 8]},
    ],
)
def test_weights_of_another_network_are_refused(folder: Path, other: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="another network"):
        load_weights(new_stage("view_filter", {**VIEW, "network": other}, "cpu", seed=0), folder)
    record = read_sealed(folder / "stage.json")
    record["settings"]["network"] = other
    write_sealed(folder / "stage.json", record)
    with pytest.raises(RunError, match="another network"):
        load_stage(folder, "cpu")


def test_weights_for_other_findings_are_refused_though_they_fit(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "decision": {"_target_": "domainseg.cascade.findings.Findings", "target": "mass"},
        "network": {"_target_": "domainseg.networks.WholeFilmDenseNet121", "targets": ["mass", "edema", "hernia"]},
        "preprocessing": [{"op": "fit", "size": 32}],
    }

    def stage_for(*targets: str) -> Stage:
        network = {**settings["network"], "targets": list(targets)}
        return new_stage("findings", {**settings, "network": network}, "cpu", seed=0)

    save_stage(stage_for("mass", "edema", "hernia"), settings, tmp_path)
    load_weights(stage_for("mass", "edema", "hernia"), tmp_path)
    with pytest.raises(RunError, match=r"answer for edema where nodule is asked; .*\[mass,edema,hernia\]"):
        load_weights(stage_for("mass", "nodule", "hernia"), tmp_path)
    with pytest.raises(RunError, match="mass where edema is asked, edema where mass is asked; "):
        load_weights(stage_for("edema", "mass", "hernia"), tmp_path)
    with pytest.raises(RunError, match="hernia where nothing is asked; "):
        load_weights(stage_for("mass", "edema"), tmp_path)


@pytest.mark.parametrize("lost", ["network.pt", "stage.json"])
def test_an_unfinished_stage_is_refused(folder: Path, lost: str) -> None:
    (folder / lost).unlink()
    assert not is_finished(folder)
    with pytest.raises(RunError, match="no finished stage"):
        load_stage(folder, "cpu")


def test_a_cascade_comes_back_in_order(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not the folder of a finished run"):
        load_cascade(tmp_path, "cpu")
    for name in ("b", "a"):
        save_stage(replace(stage, name=name), VIEW, tmp_path / "stages" / name)
    write_json(tmp_path / "cascade.json", {"stages": ["b", "a"]})
    assert [loaded.name for loaded in load_cascade(tmp_path, "cpu")] == ["b", "a"]


def test_a_setting_that_a_data_source_does_not_know_is_told_in_one_line() -> None:
    settings = {"_target_": "domainseg.data.sources.manifest.load", "path": "films.csv", "n": 48, "reduction": 4}
    with pytest.raises(RunError) as told:
        build(settings)
    assert str(told.value) == (
        "data.n, data.reduction: the data source manifest does not know this setting; "
        "known: path, targets, root, check_files, fractions, cohort, folds, split, date"
    )


def test_a_setting_that_a_network_does_not_know_is_told_in_one_line() -> None:
    with pytest.raises(RunError, match=r"\Awidth: domainseg\.networks\.ViewNet does not know .*; known: .*widths"):
        build({"_target_": "domainseg.networks.ViewNet", "width": 4})


def test_a_mistake_inside_what_is_built_stays_one() -> None:
    with pytest.raises(InstantiationException, match="has no len"):
        build({"_target_": "domainseg.networks.ViewNet", "widths": 4})

"""What every pipeline and every experiment on it keeps: it composes, its stages are whole, and a film gets through."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import get_class, get_method, instantiate

from domainseg import phantom
from domainseg.bundle.predict import predict_manifest
from domainseg.cascade.operations import picture_shape, versioned
from domainseg.cascade.reads import reading_of
from domainseg.cascade.stages import Frozen
from domainseg.config import plain
from domainseg.data.manifest import Manifest, load_manifest
from domainseg.evaluation.operating import RULES
from domainseg.networks import Network
from domainseg.overrides import compose, conf_folder, options, parse, rewrite
from domainseg.tasks.augment import Augmenter
from domainseg.tasks.hemorrhage_items import SlabAugmenter
from domainseg.training.stages import module_of, new_stage

CONF = [conf_folder()]
PIPELINES = options(CONF, "pipeline")


def experiments(pipeline: str) -> list[str]:
    """Experiments that belong to a pipeline: named after it, or after none."""
    others = [name for name in PIPELINES if name != pipeline]
    return [name for name in options(CONF, "experiment") if not any(name.startswith(f"{other}_") for other in others)]


OVERLAID = [(pipeline, name) for pipeline in PIPELINES for name in experiments(pipeline)]


@cache
def composed(pipeline: str, experiment: str = "") -> dict[str, Any]:
    """The plain configuration of a pipeline, with an experiment laid over it."""
    argv = [f"+pipeline={pipeline}", *([f"+experiment={experiment}"] if experiment else [])]
    return plain(compose("train", parse(argv, CONF)[0], CONF))


def accepts(task: dict[str, Any]) -> None:
    """A task is a function of network, items and context that takes exactly the settings that it is given."""
    settings = {key: value for key, value in task.items() if key != "_target_"}
    inspect.signature(get_method(task["_target_"])).bind("network", "items", "context", **settings)
    if task["_target_"] != "domainseg.tasks.hemorrhage.fit_hemorrhage":
        Augmenter(seed=0, **settings["augment"])
    else:
        SlabAugmenter(settings["windows"], **settings["augment"])


def whole(name: str, settings: dict[str, Any]) -> None:
    """A stage has all that it needs, and none of it is misspelt."""
    operations = versioned(settings["preprocessing"])
    assert picture_shape(operations)[0] >= 1
    assert isinstance(operations[0]["size"], int)
    decision = get_class(settings["decision"]["_target_"])
    inspect.signature(decision).bind(**{key: v for key, v in settings["decision"].items() if key != "_target_"})
    network = get_class(settings["network"]["_target_"])
    assert issubclass(network, Network)
    inspect.signature(network).bind(**{key: v for key, v in settings["network"].items() if key != "_target_"})
    accepts(settings["task"])
    size = settings["network"].get("size")
    assert size is None or size == operations[0]["size"], name


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_stages_are_whole(pipeline: str) -> None:
    cfg = composed(pipeline)
    assert cfg["pipeline"] == pipeline
    assert sorted(cfg["stage"]) == sorted(cfg["stages"])
    for name in cfg["stages"]:
        whole(name, cfg["stage"][name])
        assert cfg["stage"][name]["rule"] in RULES
    decisions = {name: instantiate(cfg["stage"][name]["decision"]) for name in cfg["stages"]}
    for name, decision in decisions.items():
        assert decision.target == cfg["stage"][name]["decision"].get("target", name), "targets carry the stages' names"
    assert cfg["target"] == decisions[cfg["stages"][-1]].target


@pytest.mark.parametrize(("pipeline", "experiment"), OVERLAID)
def test_experiments_compose_on_their_pipelines(pipeline: str, experiment: str) -> None:
    base, cfg = composed(pipeline), composed(pipeline, experiment)
    assert cfg["pipeline"] == pipeline
    assert cfg["stages"] == base["stages"]
    assert set(cfg["data"]) == set(base["data"]), "an experiment makes up no setting of the data"
    for name in cfg["stages"]:
        whole(name, cfg["stage"][name])
        known, changed = base["stage"][name], cfg["stage"][name]
        assert set(known) == set(changed)
        for key in ("patch", "tail", "whole", "dense", "detector"):
            if key in known["task"]:
                assert set(known["task"][key]) == set(changed["task"][key]), f"{name}.task.{key}"
    for name, baseline in cfg["baselines"].items():
        assert baseline["title"]
        if "columns" not in baseline:
            whole(name, baseline)


def test_experiments_hold_no_settings_of_data_sources() -> None:
    for name in options(CONF, "experiment"):
        assert "data" not in yaml.safe_load((CONF[0] / "experiment" / f"{name}.yaml").read_text()), name


@pytest.mark.parametrize("experiment", ["hip_tiny", "hip_long"])
@pytest.mark.parametrize("source", ["manifest", "fracatlas"])
def test_a_source_that_is_typed_wins_over_that_of_the_experiment(experiment: str, source: str) -> None:
    """In any order of typing, and with none of the settings that belong to the simulation."""
    own = set(yaml.safe_load((CONF[0] / "data" / f"{source}.yaml").read_text()))
    for order in permutations(["+pipeline=hip", f"+experiment={experiment}", f"data={source}"]):
        data = compose("train", parse(rewrite(order), CONF)[0], CONF).data
        assert set(data) == own, order
        assert data["_target_"] == f"domainseg.data.sources.{source}.load"


def test_films_of_an_experiment_and_single_settings_typed_beside_it() -> None:
    base = composed("hip")["data"]
    assert composed("hip", "hip_tiny")["data"] == {**base, "n": 48, "reduction": 4}
    assert composed("hip", "hip_long")["data"] == {**base, "n": 2000}
    for order in permutations(["+pipeline=hip", "+experiment=tiny", "data.n=30", "data.workers=1"]):
        data = plain(compose("train", parse(rewrite(order), CONF)[0], CONF))["data"]
        assert data == {**base, "n": 30, "reduction": 4, "workers": 1}


PHANTOMS: dict[str, tuple[dict[str, Any], list[str]]] = {  # settings, and the parts of a film or exam
    "hip": (
        {"views": {"pelvis_ap": 1.0}, "turned": 0.0, "fracture": 1.0, "reduction": 6},
        ["hip_left", "hip_right"],
    ),
    "hemorrhage": ({"kind": "head", "other": 0.0, "reduction": 3}, ["head"]),
    "chest": ({"kind": "chest", "reduction": 6}, ["whole"]),
}


def simulated(pipeline: str, folder: Path) -> Manifest:
    """One coarse simulated film or exam: a pelvis with two hips, a head."""
    phantom.simulate({"n": 1, "seed": 3, "workers": 1, **PHANTOMS[pipeline][0]}, folder)
    return load_manifest(folder / "images.parquet", folder / "targets.parquet")


def needed(cfg: dict[str, Any]) -> set[str]:
    """Columns that the table of a pipeline has whatever happens to a film."""
    found = {"image", "part", "patient", "site", "split", "excluded_by", "exclusion_reason", "width", "height"}
    kinds = ("score", "threshold", "label", "eligible")
    return found | {f"{kind}_{name}" for name in targets_of(cfg).values() for kind in kinds}


def targets_of(cfg: dict[str, Any]) -> dict[str, str]:
    """Stage -> its target."""
    return {name: cfg["stage"][name]["decision"].get("target", name) for name in cfg["stages"]}


HIP_COLUMNS = {
    "location", "score_location_none", "score_location_intra", "score_location_extra", "head_x", "head_y", "side",
    "image_side", "side_source", "spacing", "true_head_x", "true_head_y", "head_error_mm", "head_error_pct",
    *(f"roi_{axis}{k}" for axis in "xy" for k in range(1, 5)),
}  # fmt: skip


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_an_untrained_cascade_fills_the_table(pipeline: str, tmp_path: Path) -> None:
    cfg, manifest = composed(pipeline), simulated(pipeline, tmp_path)
    stages = [new_stage(name, cfg["stage"][name], "cpu", seed=0) for name in cfg["stages"]]
    truth = reading_of(stages).truth(manifest)
    closed = predict_manifest(stages, manifest, truth, b"key")
    # With thresholds that let all pass, every stage has its say.
    thresholds = {name: 2.0 if name == "implant_filter" else -1.0 for name in cfg["stages"]}
    passing = [replace(stage, frozen=Frozen(threshold=thresholds[stage.name])) for stage in stages]
    opened = predict_manifest(passing, manifest, truth, b"key")
    for table in (closed, opened):
        assert needed(cfg) <= set(table)
        assert list(table["part"]) == PHANTOMS[pipeline][1]
        assert (table["patient"] != manifest.images["patient"].iloc[0]).all()
    assert (opened["excluded_by"] == "").all()
    for name, target in targets_of(cfg).items():
        assert opened[f"score_{target}"].between(0, 1).all()
        assert (opened[f"threshold_{target}"] == thresholds[name]).all()
    assert (closed["excluded_by"] == "").sum() + (closed["exclusion_reason"] != "").sum() == len(closed)
    if pipeline == "hip":
        assert set(opened) >= HIP_COLUMNS
        assert np.isfinite(opened[["head_x", "roi_x1", "roi_y4", "head_error_mm", "score_location_intra"]]).all().all()


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_same_seed_gives_the_same_stage(pipeline: str) -> None:
    cfg = composed(pipeline)
    for name in cfg["stages"]:
        one, same, other = (
            module_of(new_stage(name, cfg["stage"][name], "cpu", seed)).state_dict() for seed in (1, 1, 2)
        )
        assert all(torch.equal(value, same[key]) for key, value in one.items())
        assert not all(torch.equal(value, other[key]) for key, value in one.items())

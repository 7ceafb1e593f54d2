"""The cascade that is measured, as torch stages and as a bundle: a trained run's, or an untrained one of its shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.measure import Options
from domainseg.bundle.schema import SCHEMA, stage_file
from domainseg.bundle.verify import Verified, verify_bundle
from domainseg.bundle.write import write_bundle
from domainseg.cascade.decisions import DECISIONS
from domainseg.cascade.operations import picture_shape
from domainseg.cascade.stages import Frozen, Stage
from domainseg.config import plain
from domainseg.imaging.film import READER_VERSION
from domainseg.overrides import compose, conf_folder, parse
from domainseg.phantom.simulate import simulate
from domainseg.training.onnx_model import OnnxModel, to_onnx
from domainseg.training.stages import load_cascade, module_of, new_stage

OPEN = {"view_filter": 0.0, "localizer": 0.0, "implant_filter": 1.0}
"""Thresholds that let every film through an untrained cascade, so that it does all of its work."""


def weights(options: Options) -> str:
    """Which weights are measured, for people."""
    return f"trained ({options.run.name})" if options.run else "untrained, statistics settled on noise"


def cascade(options: Options) -> list[Stage]:
    """The stages of the run, or of conf/pipeline/hip.yaml with untrained weights; the last sees ``size`` pixels."""
    if options.run:
        stages = load_cascade(options.run, "cpu")
    else:
        settings = settings_of("hip")
        stages = [untrained(name, settings["stage"][name]) for name in settings["stages"]]
    size = {"op": "fit", "size": options.size, "version": 1}
    return [*stages[:-1], replace(stages[-1], preprocessing=[size, *stages[-1].preprocessing[1:]])]


def settings_of(pipeline: str) -> dict[str, Any]:
    """The configuration of a pipeline as typed."""
    folders = [conf_folder()]
    settings: dict[str, Any] = plain(compose("train", parse([f"+pipeline={pipeline}"], folders)[0], folders))
    return settings


def untrained(name: str, settings: dict[str, Any]) -> Stage:
    """A stage with random weights whose norms have seen some noise, so that its numbers stay in a usual range."""
    stage = new_stage(name, settings, "cpu", seed=0)
    network = module_of(stage).train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.rand(4, picture_shape(stage.preprocessing)[0], 256, 256))
    network.eval()
    return replace(stage, frozen=Frozen(threshold=OPEN.get(name, 0.5)))


def bundle(options: Options) -> tuple[Path, Verified]:
    """The bundle of the cascade: the run's own where it has one, else one made in ``scratch``, once for all topics."""
    if options.run and (options.run / "bundle").is_dir():
        return options.run / "bundle", verify_bundle(options.run / "bundle")
    folder = options.scratch / "bundle"
    if not folder.exists():
        stages = cascade(options)
        models = {stage.name: to_onnx(module_of(stage), int(stage.preprocessing[0]["size"])) for stage in stages}
        record = {"schema": SCHEMA, "pipeline": "hip", "target": "fracture", "reader": READER_VERSION}
        record |= {key: {} for key in ("versions", "labels", "data", "envelope", "parity")}
        record |= {"stages": [entry(stage, models[stage.name]) for stage in stages]}
        documents = {"MODEL_CARD.md": "Made by the benchmark.\n", "metrics.json": "{}\n"}
        write_bundle(folder, record, {name: model.data for name, model in models.items()}, documents)
    return folder, verify_bundle(folder)


def films(options: Options) -> list[Path]:
    """Simulated DICOM films, made once for all topics."""
    folder = options.scratch / "films"
    simulate({"n": options.films, "seed": 2}, folder)
    return sorted((folder / "images").glob("*.dcm"))


def entry(stage: Stage, model: OnnxModel) -> dict[str, Any]:
    """A stage as bundle.json has it."""
    (kind,) = (name for name, made in DECISIONS.items() if made is type(stage.decision))
    settings = {key: value for key, value in vars(stage.decision).items() if key != "target"}
    return {
        "name": stage.name,
        "file": stage_file(stage.name),
        "batch": model.batch,
        "decision": {"kind": kind, "version": stage.decision.version, **settings},
        "preprocessing": list(stage.preprocessing),
        "outputs": {name: list(shape) for name, shape in model.outputs.items()},
        "frozen": vars(stage.frozen),
        "bf16": None,
    }

"""Stages from their settings, and their folder: weights with a checksum, frozen numbers, settings."""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from torch import nn

from domainseg.cascade.operations import versioned
from domainseg.cascade.reads import Reading, reading_for
from domainseg.cascade.stages import Frozen, Stage
from domainseg.data.splits import DIVIDING
from domainseg.files import DamagedError, DomainsegError, read_json, read_sealed, write_bytes, write_sealed
from domainseg.networks import WholeFilmDenseNet121
from domainseg.training.runner import TorchNetwork

log = logging.getLogger(__name__)

RECORD = "stage.json"  # written last: a folder without it is not finished
WEIGHTS = "network.pt"
REFIT = "refit"  # folder of the cascade that a cross-validated run trains on all films, for its bundle
AGAIN = "remove this stage's folder and go on with resume=true to train it again"


class RunError(DomainsegError):
    """A run folder that cannot be used; the message says which, why and what to do."""


def build(config: Mapping[str, Any]) -> Any:
    """What a ``_target_`` of the configuration makes; an error that is for people comes through as it is."""
    try:
        return instantiate(config, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, DomainsegError):
            raise error.__cause__ from None
        if isinstance(error.__cause__, TypeError) and (line := _unknown_settings(config)) is not None:
            raise RunError(line) from None
        raise


def _unknown_settings(config: Mapping[str, Any]) -> str | None:
    """Which settings a ``_target_`` does not know, and which it knows; None where it knows them all."""
    target = str(config["_target_"])
    made = get_object(target)
    parameters = inspect.signature(made).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    unknown = [key for key in config if not key.startswith("_") and key not in parameters]
    if not unknown:
        return None
    source = target.startswith("domainseg.data.sources.")
    known = [*parameters, *(DIVIDING if source else ())]
    what = f"the data source {target.split('.')[-2]}" if source else target
    where = "data." if source else ""
    return f"{', '.join(where + key for key in unknown)}: {what} does not know this setting; known: {', '.join(known)}"


def new_stage(name: str, settings: Mapping[str, Any], accelerator: str, seed: int) -> Stage:
    """An untrained stage from its part of the configuration; the same seed gives the same weights."""
    torch.manual_seed(seed)
    network: nn.Module = build(settings["network"])
    return Stage(
        name=name,
        preprocessing=versioned(settings["preprocessing"]),
        decision=build(settings["decision"]),
        network=TorchNetwork(network, accelerator=accelerator),
    )


def reading_in(settings: Mapping[str, Any]) -> Reading:
    """What the pipeline of a configuration reads, as its first decision says."""
    return reading_for(get_object(settings["stage"][settings["stages"][0]]["decision"]["_target_"]))


def module_of(stage: Stage) -> nn.Module:
    """The torch network of a stage."""
    assert isinstance(stage.network, TorchNetwork)
    return stage.network.module


def save_stage(stage: Stage, settings: Mapping[str, Any], folder: Path, **notes: Any) -> None:
    """Write weights, their SHA-256, the frozen numbers and the settings that rebuild the stage."""
    state = {key: value.cpu().contiguous() for key, value in module_of(stage).state_dict().items()}
    # To a stream: given a path, torch writes its (random) name into the file, and equal weights get unequal checksums.
    stream = BytesIO()
    torch.save(state, stream)
    write_bytes(folder / WEIGHTS, stream.getbuffer())
    record = {
        "name": stage.name,
        "sha256": hashlib.sha256(stream.getbuffer()).hexdigest(),
        "frozen": asdict(stage.frozen),
        "settings": {key: settings[key] for key in ("decision", "network", "preprocessing")},
        "versions": versions_in(stage),
        **notes,
    }
    write_sealed(folder / RECORD, record)


def versions_in(stage: Stage) -> dict[str, Any]:
    """Versions of what shows a stage its pictures and decides on its outputs: weights and thresholds belong to them."""
    reading = reading_for(stage.decision)
    return {
        f"{reading.name} reader": reading.version,
        **{operation["op"]: operation["version"] for operation in stage.preprocessing},
        type(stage.decision).__name__: stage.decision.version,
    }


def is_finished(folder: Path) -> bool:
    """Whether a stage was trained to its end there."""
    return (folder / RECORD).is_file() and (folder / WEIGHTS).is_file()


def stage_record(folder: Path) -> dict[str, Any]:
    """What a finished stage's folder says about it. Raises RunError when a byte of it was changed."""
    try:
        return read_sealed(folder / RECORD)
    except DamagedError as error:
        raise RunError(f"{error}; {AGAIN}") from error


def load_stage(folder: Path, accelerator: str) -> Stage:
    """A trained stage. Raises RunError when it is missing, unfinished, damaged, or of another version of domainseg."""
    if not is_finished(folder):
        raise RunError(f"{folder}: holds no finished stage; train it first")
    try:
        record = stage_record(folder)
        settings, frozen, versions = dict(record["settings"]), Frozen(**record["frozen"]), record.get("versions", {})
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / RECORD}: damaged ({type(error).__name__})") from error
    if "weights" in settings["network"]:  # the file that training began with; the stage has weights of its own
        settings["network"] = {**settings["network"], "weights": None}
    stage = new_stage(record["name"], settings, accelerator, seed=0)
    for what, version in versions_in(stage).items():
        if (then := versions.get(what, "unknown")) != version:
            raise RunError(
                f"{folder}: trained with version {then} of {what}, this program has version {version}: "
                "its pictures or decisions would be others. Use the domainseg that it was trained with, or train again"
            )
    load_weights(stage, folder)
    return replace(stage, frozen=frozen)


def load_weights(stage: Stage, folder: Path) -> None:
    """Put the weights of a finished stage into ``stage``. Raises RunError when they are damaged or do not fit."""
    if not is_finished(folder):
        raise RunError(f"{folder}: holds no finished stage (for a cross-validated run name one of its folds/<k>)")
    data = (folder / WEIGHTS).read_bytes()
    if hashlib.sha256(data).hexdigest() != stage_record(folder).get("sha256"):
        raise RunError(f"{folder / WEIGHTS}: damaged, its checksum is not the one written down; {AGAIN}")
    _same_targets(stage, folder)
    state = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    try:
        module_of(stage).load_state_dict(state)
    except RuntimeError as error:
        raise RunError(f"{folder}: these weights belong to another network ({str(error).splitlines()[0]})") from error


def _same_targets(stage: Stage, folder: Path) -> None:
    """Raise RunError where saved weights answer for other targets than the network: rows fit by place, not by name."""
    module = module_of(stage)
    saved = stage_record(folder)["settings"]["network"].get("targets")
    if not isinstance(module, WholeFilmDenseNet121) or saved is None or list(saved) == list(module.targets):
        return
    pairs = zip_longest(saved, module.targets, fillvalue="nothing")
    unequal = ", ".join(f"{there} where {here} is asked" for there, here in pairs if there != here)
    raise RunError(
        f"{folder}: these weights belong to another network, they answer for {unequal}; set the network's targets to "
        f"[{','.join(saved)}], or choose another run"
    )


def load_cascade(run: Path, accelerator: str) -> list[Stage]:
    """The stages of a finished run, in order. Raises RunError."""
    order = run / "cascade.json"
    if not order.is_file():
        raise RunError(f"{run}: is not the folder of a finished run (no cascade.json)")
    return [load_stage(run / "stages" / name, accelerator) for name in read_json(order)["stages"]]

"""A trained run as a bundle: networks as ONNX, checked against torch, with all that is needed to run and judge them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from domainseg.bundle.inputs import read_input
from domainseg.bundle.kinds import BUNDLE, is_bundle, is_run, unfinished
from domainseg.bundle.schema import SCHEMA, stage_file
from domainseg.bundle.write import check_place, write_bundle
from domainseg.cascade.cascade import read_ahead
from domainseg.cascade.decisions import DECISIONS
from domainseg.cascade.reads import Reading, reading_of
from domainseg.cascade.stages import Stage
from domainseg.data.manifest import Manifest
from domainseg.data.splits import DIVIDING, refit_manifest
from domainseg.evaluation import read_table
from domainseg.files import read_json
from domainseg.imaging import Film, ImageReadError
from domainseg.imaging.volume import Volume
from domainseg.reporting.model_card import model_card
from domainseg.reporting.words import CLASSES, QUESTIONS
from domainseg.training.bf16 import Bf16Error, check_bf16
from domainseg.training.described import described, spaced
from domainseg.training.environment import versions_of
from domainseg.training.onnx_model import ExportError, OnnxModel, opened, opset_of, to_onnx
from domainseg.training.parity import check_cascade, check_parity
from domainseg.training.run import load_data
from domainseg.training.stages import REFIT, build, load_cascade, module_of, reading_in

log = logging.getLogger(__name__)

FILMS = 8  # films that both backends are compared on, unless told otherwise
PACKAGES = ("domainseg", "onnx", "onnxruntime", "onnxscript", "torch")
BF16 = "bf16"
CROSS_VALIDATED = (
    "These figures are those of a cross-validation in {folds} folds. The networks of this bundle were trained once "
    "more, on all films but one tune part, and have not been tested themselves."
)


def export(cfg: Mapping[str, Any], output: Path) -> None:
    """The command: write the bundle of a run to ``output``. Raises ExportError, BundleError, ParityError, Bf16Error.

    cfg: run; input (films to compare both backends on, when those of the run are not there); films (how many); check
    (null or bf16); data (labelled films for that check, null: tune and test of the run).
    """
    run = Path(cfg["run"])
    check_run(run)
    check_place(output)
    if cfg["check"] not in (None, BF16):
        raise ExportError(f"check={cfg['check']}: known is {BF16}")
    if cfg["threads"]:
        torch.set_num_threads(int(cfg["threads"]))
    settings = yaml.safe_load((run / "config.yaml").read_text())
    stages_folder(run, settings)  # refuses before films are read
    own = None if cfg["input"] else films_of(run, settings)
    reading = reading_in(settings)
    shown = read_input(Path(cfg["input"]), reading=reading) if own is None else held_out(own)
    labelled = None
    if cfg["check"] == BF16:
        data = cfg.get("data")
        labelled = held_out(own) if data is None and own is not None else labelled_films(data)
    export_run(run, output, settings, own, shown, films=int(cfg["films"]), labelled=labelled)


def check_run(run: Path) -> None:
    """Raise ExportError for a folder that is not that of a finished run, saying what it is."""
    if not run.is_dir():
        raise ExportError(f"run={run}: no such folder")
    if is_bundle(run):
        raise ExportError(f"run={run}: is a bundle already, and predict runs it with bundle={run}; name a run")
    if not is_run(run):
        raise ExportError(f"run={run}: is not the folder of a run of domainseg.train (no config.yaml)")
    if told := unfinished(run):
        raise ExportError(f"run={run}: {told}")


def deliver(settings: Mapping[str, Any], run: Path, manifest: Manifest) -> None:
    """The end of training: the bundle of a finished run, in its folder."""
    own = delivered(settings, manifest)
    export_run(run, run / BUNDLE, settings, own, held_out(own))


def delivered(settings: Mapping[str, Any], manifest: Manifest) -> Manifest:
    """The films of a run with the splits that the delivered cascade has learned from."""
    return refit_manifest(manifest) if settings["data"].get("folds") else manifest


def export_run(
    run: Path,
    output: Path,
    settings: Mapping[str, Any],
    own: Manifest | None,
    shown: Manifest,
    *,
    films: int = FILMS,
    labelled: Manifest | None = None,
) -> str:
    """Write the bundle of a run; returns its SHA-256. A run, its films and weights give the same bytes each time.

    own: the run's films with their splits, None when they are not there. shown: films that both backends are compared
    on, ``films`` of them, evenly spaced. labelled: films for the check of bf16; when it is not passed the bundle is
    written without bf16, and Bf16Error is raised.
    """
    trained = stages_folder(run, settings)
    stages = load_cascade(trained, "cpu")
    models = {}
    for stage in stages:
        models[stage.name] = to_onnx(module_of(stage), int(stage.preprocessing[0]["size"]))
        log.info("%s: exported, %.1f MB", stage.name, len(models[stage.name].data) / 1e6)
    threads = torch.get_num_threads()
    exported = opened(stages, models, threads=threads)
    reading = reading_of(stages)
    seen = read_some(shown, films, reading)
    parity = check_parity(stages, exported, models, seen)
    log.info("torch and ONNX Runtime agree on %d %s", len(seen), reading.plural)
    if find_spec("openvino") is not None:  # an extra
        exported = opened(stages, models, backend="openvino", threads=threads)
        parity["openvino"] = check_cascade(stages, exported, seen, "OpenVINO")
        log.info("torch and OpenVINO agree on them as well")
    bf16, refused = {}, None
    if labelled is not None:
        try:
            bf16 = check_bf16(stages, models, labelled, threads)
        except Bf16Error as error:
            refused = error
    entries = [stage_entry(trained, stage, models[stage.name], bf16.get(stage.name)) for stage in stages]
    record = bundle_record(run, settings, entries, own, rounded(parity))
    if bf16:
        record["bf16"] = bf16["cascade"]
    metrics = (run / "metrics.json").read_text()
    documents = {"MODEL_CARD.md": model_card(record, read_json(run / "metrics.json")), "metrics.json": metrics}
    sha256 = write_bundle(output, record, {name: model.data for name, model in models.items()}, documents)
    log.info("bundle: %s (%s)", output, sha256[:12])
    if refused is not None:
        raise refused
    return sha256


def bundle_record(
    run: Path, settings: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], own: Manifest | None, parity: Any
) -> dict[str, Any]:
    """bundle.json. It holds no time of writing: the same run gives the same bundle."""
    environment, folds = read_json(run / "environment.json"), settings["data"].get("folds")
    data = described(run, settings, own)
    trained = {name: version for name, version in environment["versions"].items() if version}
    return {
        "schema": SCHEMA,
        "pipeline": settings["pipeline"],
        "target": settings["target"],
        "versions": {"trained": {"python": environment["python"], **trained}, "exported": versions_of(PACKAGES)},
        "reader": reading_in(settings).version,
        "stages": list(entries),
        "labels": {
            target: {
                "question": QUESTIONS.get(target, ""),
                **dict(zip(("negative", "positive"), CLASSES.get(target, ("0", "1")), strict=True)),
            }
            for entry in entries
            for target in (entry["target"], *entry["decision"].get("numbers", {}))
        },
        "data": {
            **{name: value for name, value in data.items() if name != "envelope"},
            "seed": settings["seed"],
            **({"judged": CROSS_VALIDATED.format(folds=folds)} if folds else {}),
            "exclusions": exclusions(read_table(run / "predictions.parquet")),
        },
        "envelope": data["envelope"],
        "parity": parity,
    }


def stages_folder(run: Path, settings: Mapping[str, Any]) -> Path:
    """Where the cascade lies that a run delivers. Raises ExportError for a cross-validated run without one."""
    if not settings["data"].get("folds"):
        return run
    if not (run / REFIT / "cascade.json").is_file():
        raise ExportError(
            f"{run}: its cascades are those of a cross-validation, one a fold; train it with refit=true to have one "
            "for delivery"
        )
    return run / REFIT


def stage_entry(run: Path, stage: Stage, model: OnnxModel, bf16: Any) -> dict[str, Any]:
    """A stage's part of bundle.json."""
    kinds = [kind for kind, made in DECISIONS.items() if made is type(stage.decision)]
    if not kinds:
        raise ExportError(f"stage {stage.name}: {type(stage.decision).__name__} is no decision that a bundle can name")
    # A target is a setting where the decision does not bring its own.
    settings = [item for item in fields(stage.decision) if item.name != "target" or item.default is MISSING]  # type: ignore[arg-type]
    own = {item.name: getattr(stage.decision, item.name) for item in settings}
    return {
        "name": stage.name,
        "target": stage.decision.target,
        "file": stage_file(stage.name),
        "batch": model.batch,
        "opset": opset_of(model.data),
        "decision": {"kind": kinds[0], "version": stage.decision.version, **own},
        "preprocessing": list(stage.preprocessing),
        "outputs": {name: list(shape) for name, shape in model.outputs.items()},
        "frozen": asdict(stage.frozen),
        "chosen": read_json(chosen) if (chosen := run / "stages" / stage.name / "threshold.json").is_file() else {},
        "bf16": bf16,
    }


def exclusions(table: pd.DataFrame) -> dict[str, Any]:
    """How often the stages set cases aside: films, rows and scored rows of the test split (of all without one)."""
    split = "test" if "split" in table and (table["split"] == "test").any() else "whole"
    part = table if split == "whole" else table[table["split"] == "test"]
    taken = part[part["excluded_by"] != ""].groupby(["excluded_by", "exclusion_reason"], sort=True)
    return {
        "split": split,
        "films": int(part["image"].nunique()),
        "rows": len(part),
        "scored": int((part["excluded_by"] == "").sum()),
        "reasons": [
            {"stage": stage, "reason": reason, "films": int(rows["image"].nunique()), "rows": len(rows)}
            for (stage, reason), rows in taken
        ],
    }


def films_of(run: Path, settings: Mapping[str, Any]) -> Manifest:
    """The films of a run with their splits. Raises ExportError when they are not those that it was trained on."""
    advice = "name films to compare both backends on: input=FILE|FOLDER|MANIFEST"
    try:
        manifest = load_data(settings)
    except (ImageReadError, OSError) as error:
        raise ExportError(f"the films of {run} are not there ({error}); {advice}") from error
    if manifest.hash() != read_json(run / "environment.json")["manifest"]["sha256"]:
        raise ExportError(f"the films, labels or splits of {run} have changed since it was trained; {advice}")
    return delivered(settings, manifest)


def held_out(manifest: Manifest) -> Manifest:
    """The films that no network was trained on."""
    return manifest.where(manifest.images["split"].isin(["tune", "test"]))


def labelled_films(data: Mapping[str, Any] | None) -> Manifest:
    """Labelled films of the data group, all of them. Raises ExportError."""
    if data is None:
        raise ExportError("check=bf16 needs labelled films: data=manifest data.path=FILE (data.targets=FILE)")
    found: Manifest = build({key: value for key, value in data.items() if key not in DIVIDING})
    return found


def read_some(manifest: Manifest, count: int, reading: Reading) -> list[tuple[str, Film | Volume]]:
    """Up to ``count`` readable films or exams, evenly spaced. Raises ExportError when there is none."""
    images = spaced(list(manifest.images["image"]), count)
    read = read_ahead([(image, manifest.path(image)) for image in images], reading=reading)
    films = [(image, film) for image, film in read if not isinstance(film, ImageReadError)]
    if not films:
        raise ExportError(
            f"{manifest.name}: none of {len(images)} {reading.plural} could be read, so nothing can be compared"
        )
    return films


def rounded(value: Any) -> Any:
    """Floats to two significant digits, in nested lists and mappings."""
    if isinstance(value, Mapping):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.1e}") if isinstance(value, float) else value

"""Train a cascade: stages in order, thresholds on tune, then the test, the tables and the report."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from domainseg.bundle.kinds import BUNDLE
from domainseg.bundle.workers import peak_bytes
from domainseg.cascade.reads import VOLUMES
from domainseg.cascade.stages import Stage
from domainseg.cascade.table import write_table
from domainseg.data.cache import Cache
from domainseg.data.manifest import Manifest
from domainseg.data.privacy import patient_key
from domainseg.data.splits import DIVIDING, clusters, divided, fold_manifest, refit_manifest, write_splits
from domainseg.evaluation.metrics import get
from domainseg.evaluation.operating import RULES
from domainseg.evaluation.tables import films
from domainseg.files import read_json, remove_partial, write_json
from domainseg.reporting.evaluate import evaluate_run
from domainseg.tasks import ranks
from domainseg.training.baselines import check_baselines, score_baselines, write_comparisons
from domainseg.training.builder import Builder
from domainseg.training.environment import write_environment
from domainseg.training.gathered import predict_together
from domainseg.training.hips import ROIS
from domainseg.training.pictures import write_pictures
from domainseg.training.processes import fingerprints, threads_of, together
from domainseg.training.stages import REFIT, RunError, build

log = logging.getLogger(__name__)


def train(cfg: dict[str, Any], output: Path) -> float:
    """Train the pipeline of a resolved configuration into ``output``; returns tune.<main target>.intention.auc.

    Raises RunError, ManifestError or ImageReadError's kin for what a person has to mend.
    """
    if cfg["refit"] and not cfg["data"].get("folds"):
        raise RunError("refit=true is for cross-validated runs: add data.folds=5, or leave refit out")
    if not cfg["stage"]:
        raise RunError("nothing to train: name a pipeline, as in python -m domainseg.train +pipeline=hip")
    _check(cfg)
    with together(cfg, output):
        return train_here(cfg, output)


def _check(cfg: Mapping[str, Any]) -> None:
    """Raise RunError for names that a stage would stumble over hours later."""
    for name, settings in cfg["stage"].items():
        if (rule := settings.get("rule")) is not None and rule not in RULES:
            raise RunError(f"stage.{name}.rule={rule}: known are {', '.join(RULES)}")
    if (rois := cfg.get("rois")) is not None and rois not in ROIS:
        raise RunError(f"rois={rois}: known are {', '.join(ROIS)}")


def train_here(cfg: dict[str, Any], output: Path) -> float:
    """What each process of a run does: all share the work, the first one writes the files and has the result.

    Returns NaN in the other processes.
    """
    started = time.monotonic()
    if threads := threads_of(cfg["trainer"]):
        torch.set_num_threads(threads)
    delivers = cfg["export"] and (not cfg["data"].get("folds") or cfg["refit"])
    last = output / (f"{BUNDLE}/SHA256SUMS" if delivers else "resources.json")  # written when all is done
    if cfg["resume"] and ranks.first(last.is_file):
        log.info("finished before: %s", output)
        return value_of(read_json(output / "metrics.json"), cfg)
    with ranks.first_alone():
        manifest = load_data(cfg)
    check_baselines(cfg, manifest)
    processes = [{"config_sha256": sha256} for sha256 in fingerprints(cfg)]
    if ranks.is_first():
        if cfg["resume"]:
            remove_partial(output)
        check_same_films(cfg, manifest, output)
        write_environment(cfg, manifest, output, processes=processes)
        write_splits(manifest, output / "splits.csv")
    folds = cfg["data"].get("folds")
    with ranks.first_alone():
        key = patient_key(None, output)
    if folds:
        parts = []
        for fold in range(int(folds)):
            log.info("fold %d of %d", fold + 1, folds)
            found = train_cascade(cfg, fold_manifest(manifest, fold), output / "folds" / str(fold), key)
            parts.append({name: table.assign(fold=str(fold)) for name, table in found.items()})
        if cfg["refit"]:
            log.info("one more cascade, on all films, for the bundle")
            fit_cascade(cfg, refit_manifest(manifest), output / REFIT)
        tables = {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in parts[0]}
    else:
        tables = train_cascade(cfg, manifest, output, key)
    if not ranks.is_first():
        return float("nan")
    for name, table in tables.items():
        write_table(table, output, name)
    if cfg["baselines"]:
        write_comparisons(cfg, tables["films"], output)
    write_pictures(output, tables["predictions"], manifest)
    metrics = evaluate_run(output)
    used = {"seconds": round(time.monotonic() - started), "peak_memory_gb": round(peak_bytes() / 1e9, 2)}
    write_json(output / "resources.json", used)
    log.info("%d s, at most %.1f GB of memory; report: %s", *used.values(), output / "report.html")
    if delivers:
        from domainseg.training.export import deliver  # late: the exporter takes seconds to import

        deliver(cfg, output, manifest)
    return value_of(metrics, cfg)


def value_of(metrics: Mapping[str, Any], cfg: Mapping[str, Any]) -> float:
    """What a run returns: the AUC of its main target on tune, on intention."""
    value = get(metrics, f"tune.{cfg['target']}.intention.auc")["value"]
    return float("nan") if value is None else float(value)


def load_data(cfg: Mapping[str, Any]) -> Manifest:
    """The manifest of the configuration, with its splits."""
    manifest: Manifest = build({key: value for key, value in cfg["data"].items() if key not in DIVIDING})
    return divided(manifest, cfg["data"], int(cfg["seed"]))


def check_same_films(cfg: Mapping[str, Any], manifest: Manifest, output: Path) -> None:
    """Raise RunError where finished stages would meet films that they must not.

    A resumed run goes on with the films, labels and splits that it began with. The run of init_from, if it is of the
    same films (by its data settings), has trained and tuned on none of the patients that are tested here.
    """
    begun = output / "environment.json"
    if cfg["resume"] and begun.is_file() and read_json(begun)["manifest"]["sha256"] != manifest.hash():
        raise RunError(f"resume=true: films, labels or splits are not those that {output} began with; start a new run")
    if cfg["init_from"] is None:
        return
    start = Path(cfg["init_from"])
    run = next((folder for folder in (start, *start.parents[:2]) if (folder / "splits.csv").is_file()), start)
    if not (run / "splits.csv").is_file() or not (run / "config.yaml").is_file():
        return
    before, now = (_source(data) for data in (yaml.safe_load((run / "config.yaml").read_text())["data"], cfg["data"]))
    if _other_films(before, now):
        return
    table = pd.read_csv(run / "splits.csv", dtype=str, keep_default_na=False)
    fold = f"split_fold{start.name}"
    if start.parent.name == "folds" and fold in table:  # one cascade of a cross-validated run
        seen = table[fold].isin(["train", "tune"])
    else:
        seen = table["split"].isin(["train", "tune"]) | (table.filter(like="split_fold") != "").any(axis=1)
    images = manifest.images
    tested = (images["split"] == "test") | images.get("fold", pd.Series("", index=images.index)).ne("")
    patients = clusters(images)
    known = set(patients[images["image"].isin(table.loc[seen, "image"])])
    if leaked := sorted(images.loc[tested & patients.isin(known), "image"]):
        said = (
            f"init_from={start}: it learned from patients of {len(leaked)} films that are tested here, "
            f"first {leaked[0]}; use the same labels, seed, data.fractions and data.cohort, or begin from other films"
        )
        if before.get("path") == now.get("path"):
            raise RunError(said)
        log.warning("%s (unless %s has other films of the same names)", said, now.get("path"))


def _other_films(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether settings differ that are none of finding, labelling, choosing or dividing films."""
    ways = (*DIVIDING, "path", "root", "targets", "check_files", "n", "workers")
    for key in before.keys() & now.keys() - set(ways):
        one, other = before[key], now[key]
        inner = isinstance(one, Mapping) and isinstance(other, Mapping)
        if _other_films(one, other) if inner else one != other:
            return True
    return False


def _source(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of the films themselves, where a probe has divided them."""
    inner = data.get("source")
    return inner if isinstance(inner, Mapping) else data


def train_cascade(cfg: Mapping[str, Any], manifest: Manifest, folder: Path, key: bytes) -> dict[str, pd.DataFrame]:
    """Fit the stages on one split of the films and predict tune and test.

    Returns tables by name: predictions; lesions, where the cascade lists them; films, where there are baselines: one
    row a film with the cascade's and the baselines' scores.
    """
    builder, stages = fit_cascade(cfg, manifest, folder, needed=("train", "tune", "test"))
    held = manifest.where(manifest.images["split"].isin(["tune", "test"]))
    truth = builder.reading.truth(held)
    table, lesions = predict_together(stages, held, truth, key, what="predicting tune and test")
    found = {"predictions": table}
    if builder.reading is VOLUMES:
        found["lesions"] = lesions
    if ranks.is_first():
        for name, part in found.items():
            write_table(part, folder, name)
    if cfg["baselines"]:
        found["films"] = score_baselines(cfg, manifest, films(table, cfg["target"]), builder, folder)
    return found


def fit_cascade(
    cfg: Mapping[str, Any], manifest: Manifest, folder: Path, needed: Sequence[str] = ("train", "tune")
) -> tuple[Builder, list[Stage]]:
    """Fit the stages on train and freeze them on tune. Raises RunError when a needed split is empty."""
    for name in needed:
        if len(manifest.split(name)) == 0:
            patients = clusters(manifest.images).nunique()
            raise RunError(
                f"no film in the {name} split: {len(manifest)} films of {patients} patients are too few for "
                "data.fractions and data.cohort (an export may name one patient for all)"
            )
    builder = Builder(
        cfg=cfg,
        folder=folder,
        train=manifest.split("train"),
        tune=manifest.split("tune"),
        cache=Cache(Path(cfg["cache"]["folder"]), int(float(cfg["cache"]["max_gb"]) * 1e9)),
    )
    unknown = sorted(set(cfg["only"] or []) - set(cfg["stages"]))
    if unknown:
        raise RunError(f"only={unknown[0]}: is no stage of this pipeline; there are {', '.join(cfg['stages'])}")
    stages: list[Stage] = []
    for name in cfg["stages"]:
        stages.append(builder.stage(name, stages))
    log.info(builder.cache.summary())
    if ranks.is_first():
        order = {"pipeline": cfg["pipeline"], "target": cfg["target"], "stages": cfg["stages"]}
        write_json(folder / "cascade.json", order)
    return builder, stages

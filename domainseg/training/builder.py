"""Fit the stages of a cascade one after the other: samples, training, calibration and threshold, the stage's folder."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from hydra.utils import instantiate

from domainseg.cascade.cascade import Cascade
from domainseg.cascade.stages import PARTS, Localizer, Stage
from domainseg.cascade.truth import Truth
from domainseg.data.cache import Cache
from domainseg.data.manifest import Manifest
from domainseg.data.splits import clusters
from domainseg.evaluation.operating import Threshold
from domainseg.files import DamagedError, read_json, read_sealed, write_json, write_sealed
from domainseg.tasks import ranks
from domainseg.tasks.checkpoints import remove_checkpoints
from domainseg.tasks.fit import FitContext
from domainseg.tasks.items import Item
from domainseg.training.freeze import doubts, freeze
from domainseg.training.gathered import predict_together
from domainseg.training.processes import devices_of
from domainseg.training.samples import (
    Films,
    Head,
    Sampler,
    found_heads,
    head_errors,
    jittered_heads,
    true_heads,
)
from domainseg.training.stages import (
    RunError,
    is_finished,
    load_stage,
    load_weights,
    module_of,
    new_stage,
    save_stage,
    stage_record,
)

log = logging.getLogger(__name__)

FEW = 10  # tune positives with which a threshold chosen elsewhere is still the better one (our choice)
TOO_FEW = 3  # training positives that fine-tuning would only learn by heart (our choice)
FILM_LABELS = "stages/film_labels.json"
Heads = Mapping[tuple[str, str], Sequence[Head]]


@dataclass
class Builder:
    """Fits, freezes, saves or loads one stage after the other."""

    cfg: Mapping[str, Any]
    folder: Path
    train: Manifest
    tune: Manifest
    cache: Cache
    _localizer_items: list[Item] | None = None
    _heads: dict[tuple[str, int], Heads] = field(default_factory=dict)

    def stage(self, name: str, before: Sequence[Stage]) -> Stage:
        """The stage ``name``, trained behind ``before``: taken up finished, taken over from init_from, or fitted."""
        folder = self.folder / "stages" / name
        accelerator = str(self.cfg["trainer"]["accelerator"])
        if ranks.first(lambda: is_finished(folder)):
            log.info("%s: finished before, loaded", name)
            if ranks.is_first():
                remove_checkpoints(folder)
            return load_stage(folder, accelerator)
        settings = self.cfg["stage"][name]
        start = None if self.cfg["init_from"] is None else Path(self.cfg["init_from"]) / "stages" / name
        only = self.cfg["only"]
        if only and name not in only:
            if start is None:
                raise RunError(f"only={','.join(only)}: stage {name} comes before and needs init_from=RUN")
            stage = load_stage(start, accelerator)
            own = stage_record(start)["settings"]  # its weights belong to these, whatever this run says
            if ranks.is_first():
                save_stage(stage, own, folder, origin=f"taken over as it is from {start.parent.parent.name}")
            return stage
        stage = new_stage(name, settings, accelerator, seed=int(self.cfg["seed"]))
        previous = None
        if start is not None:
            load_weights(stage, start)
            previous = load_stage(start, accelerator).frozen
        started = time.monotonic()
        report: Counter[str] = Counter()
        items = self.items(stage, before, report)
        self.fit(stage, items, folder, report)
        stage = self.freeze(stage, before, folder, previous)
        seconds = round(time.monotonic() - started)
        cohort = dict(sorted(report.items()))
        if ranks.is_first():
            save_stage(stage, settings, folder, samples=len(items), cohort=cohort, seconds=seconds)
            remove_checkpoints(folder)
        log.info("%s: %d s, threshold %.4f (%s)", name, seconds, stage.frozen.threshold, stage.frozen.rule)
        return stage

    def items(self, stage: Stage, before: Sequence[Stage], report: Counter[str]) -> list[Item]:
        """The training samples of a stage."""
        sampler = self.sampler()
        if stage.name == "view_filter":
            return sampler.view(stage)
        if stage.name == "localizer":
            self._localizer_items = sampler.localizer(stage, Cascade(before), report)
            return self._localizer_items
        heads = self.heads(before, str(self.cfg["rois"]), int(self.cfg["stage"][stage.name].get("variants", 1)))
        items = sampler.hips(stage, Cascade(before), heads, report)
        if stage.decision.target == self.cfg["target"]:
            labels = self._label_films(items)
            if ranks.is_first():
                write_json(self.folder / FILM_LABELS, labels)
        return items

    def _label_films(self, items: Sequence[Item]) -> dict[str, int]:
        """1 where a hip is fractured, 0 where none is; a film with an intact and an unknown hip is left out."""
        labels: dict[str, int] = {}
        truth = Truth(self.train)
        for item in items:
            labels[item.image] = max(labels.get(item.image, 0), int(item.truth["fracture"]))
        known = {
            image: not any(np.isnan(truth.label("fracture", image, p)) for p in PARTS if truth.has(image, p))
            for image in labels
        }
        return {image: label for image, label in labels.items() if label or known[image]}

    def film_labels(self) -> dict[str, int]:
        """Training films that the last stage learned from, and whether one of their hips is fractured."""
        labels: dict[str, int] = ranks.first(lambda: read_json(self.folder / FILM_LABELS))
        return labels

    def sampler(self) -> Sampler:
        """The maker of training samples."""
        return Sampler(self._films(self.train), Truth(self.train), self.cache, int(self.cfg["seed"]))

    def fit(
        self, stage: Stage, items: Sequence[Item], folder: Path, report: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        """Train the network of a stage on its samples; with next to none the weights of init_from stay.

        report: how many samples and films were left out, and why. Raises RunError where no sample is left.
        """
        task = self.cfg["stage"][stage.name]["task"]
        if not items and self.cfg["init_from"] is None:
            raise RunError(f"stage {stage.name}: no training sample; {_why_none(report)}")
        positives = sum(item.truth.get("label", item.truth.get("fracture", 1)) for item in items)
        if positives < TOO_FEW and self.cfg["init_from"] is not None:
            log.warning("%s: %d positive training samples, the weights of init_from are kept", stage.name, positives)
            return
        log.info("%s: %d samples", stage.name, len(items))
        instantiate({**task, "_partial_": True}, _convert_="all")(module_of(stage), items, self.context(folder))

    def context(self, folder: Path) -> FitContext:
        """Lightning's settings for one fit."""
        trainer = self.cfg["trainer"]
        folder.mkdir(parents=True, exist_ok=True)
        return FitContext(
            folder=folder,
            seed=int(self.cfg["seed"]),
            accelerator=trainer["accelerator"],
            devices=devices_of(trainer),
            nodes=int(trainer["nodes"]),
            sync_batchnorm=bool(trainer["sync_batchnorm"]),
            progress=ranks.is_first(),
            run=Path(self.cfg["output"]),
            loggers=trainer["loggers"],
            precision="bf16-mixed" if trainer["precision"] == "bf16" else "32-true",
            workers=int(trainer["workers"]),
            checkpoint_every=int(trainer["checkpoint_every"]),
        )

    def freeze(self, stage: Stage, before: Sequence[Stage], folder: Path, previous: Any) -> Stage:
        """Choose calibration and threshold on tune; with FEW labelled positives there, keep what init_from had."""
        # A threshold below every score lets all cases through, so that each has a score of this stage.
        open_stage = replace(stage, frozen=replace(stage.frozen, threshold=2.0 if _excludes_above(stage) else -1.0))
        table = predict_together([*before, open_stage], self.tune, Truth(self.tune), None, what=f"{stage.name}: tune")
        target = stage.decision.target
        if target == "view_filter":
            table = table.drop_duplicates("image")
        if target == "localizer":  # let through, it has scored both sides of every film: absent hips count here
            table = table[table["label_localizer"].notna() & (table["label_view_filter"] != 0)]
        else:
            table = table[table[f"eligible_{target}"].astype(bool)] if f"eligible_{target}" in table else table.iloc[:0]
        labels = table[f"label_{target}"].to_numpy(float) if len(table) else np.zeros(0)
        positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
        scores = table[f"score_{target}"].to_numpy(float) if len(table) else np.zeros(0)
        with np.errstate(divide="ignore"):
            logits = np.log(scores) - np.log1p(-np.minimum(scores, 1 - 1e-16))
        logits = np.where(np.isnan(scores), np.where(labels == 1, -np.inf, np.inf), logits)
        if positives < FEW and previous is not None:
            log.warning(
                "%s: %d positive cases on tune, calibration and threshold of init_from kept", stage.name, positives
            )
            nothing = float("nan")
            kept = Threshold(
                previous.threshold, previous.rule, "init_from", positives, negatives, nothing, nothing, False, True
            )
            if ranks.is_first():
                write_json(folder / "threshold.json", kept.to_dict())
            for doubt in doubts(previous, labels, logits):
                log.warning("WARNING %s: %s", stage.name, doubt)
            return replace(stage, frozen=replace(previous, provisional=True))
        frozen, record = freeze(labels, logits, str(self.cfg["stage"][stage.name]["rule"]))
        for doubt in doubts(frozen, labels, logits):
            log.warning("WARNING %s: %s", stage.name, doubt)
        if ranks.is_first():
            write_json(folder / "threshold.json", record)
        return replace(stage, frozen=frozen)

    def heads(self, before: Sequence[Stage], rois: str, variants: int) -> Heads:
        """Where the ROIs of the training hips lie: as imperfect as on films that the localizer has not seen.

        rois: jittered (true heads moved by errors drawn from tune), true, or cross_fitted (each film localised by a
        network that was trained without its patient). Films without marked heads are localised by the localizer itself.
        """
        key = (rois, variants)
        if key not in self._heads:
            upto = Cascade([stage for stage in before if stage.name in ("view_filter", "localizer")])
            self._heads[key] = self._find_heads(upto, rois, variants)
        return self._heads[key]

    def _find_heads(self, upto: Cascade, rois: str, variants: int) -> Heads:
        images = list(self.train.images["image"])
        films = self._films(self.train)
        true = true_heads(Truth(self.train), images)
        marked = {image for image, _ in true}
        rest = [image for image in images if image not in marked and _may_hold_hip(Truth(self.train), image)]
        found: dict[tuple[str, str], list[Head]] = {}
        if rois == "cross_fitted":
            return self._cross_fitted(upto)
        if rest:
            found = found_heads(films, upto, "localizer: unmarked films", rest)
        if rois == "true":
            return {**found, **true}
        if rois != "jittered":
            raise RunError(f"rois={rois}: known are jittered, true and cross_fitted")
        tune = found_heads(self._films(self.tune), upto, "localizer: errors on tune")
        errors = head_errors(tune, true_heads(Truth(self.tune), list(self.tune.images["image"])))
        return {**found, **jittered_heads(true, errors, variants=variants, seed=int(self.cfg["seed"]))}

    def _cross_fitted(self, upto: Cascade, folds: int = 2) -> dict[tuple[str, str], list[Head]]:
        cached = self.folder / "stages" / "localizer" / "cross_fitted.json"
        heads: list[Any] | None = ranks.first(lambda: _whole_heads(cached))
        if heads is None:
            heads = []
            localizer = next(stage for stage in upto.stages if isinstance(stage.decision, Localizer))
            items = self._localizer_items
            if items is None:
                items = self.sampler().localizer(localizer, Cascade(upto.stages[:1]), Counter())
            patients = clusters(self.train.images)  # a patient's films stay together
            order = np.random.default_rng((int(self.cfg["seed"]), 11)).permutation(sorted(set(patients)))
            for fold in range(folds):
                mine = set(self.train.images.loc[patients.isin(order[fold::folds]), "image"])
                settings = self.cfg["stage"]["localizer"]
                other = new_stage("localizer", settings, str(self.cfg["trainer"]["accelerator"]), seed=fold + 1)
                folder = cached.parent / f"cross_fit_{fold}"
                self.fit(other, [item for item in items if item.image not in mine], folder)
                other = replace(other, frozen=localizer.frozen)
                cascade = Cascade([*upto.stages[:-1], other])
                found = found_heads(self._films(self.train), cascade, f"cross-fit {fold + 1}", sorted(mine))
                heads += [[*key, list(map(float, center)), size] for key, ((center, size),) in found.items()]
            if ranks.is_first():
                write_sealed(cached, {"heads": heads})
        if ranks.is_first():  # not before: a run that goes on takes up the folds that were finished
            for folder in cached.parent.glob("cross_fit_*"):
                shutil.rmtree(folder)
        return {(image, part): [(np.array(center), size)] for image, part, center, size in heads}

    def _films(self, manifest: Manifest) -> Films:
        return Films(manifest, workers=max(2, int(self.cfg["trainer"]["workers"])))


def _whole_heads(cached: Path) -> list[Any] | None:
    """The heads that cross-fitting found, None when it was not done or its file is damaged."""
    if not cached.is_file():
        return None
    try:
        heads: list[Any] = read_sealed(cached)["heads"]
    except (DamagedError, KeyError) as error:
        log.warning("%s: cross-fitting is done again", error)
        return None
    return heads


def _excludes_above(stage: Stage) -> bool:
    return stage.decision.target == "implant_filter"


def _may_hold_hip(truth: Truth, image: str) -> bool:
    return bool(truth.film(image)["label_view_filter"] != 0)


def _why_none(report: Mapping[str, int]) -> str:
    """Why a stage has no training sample, from what was counted on the way."""
    said = [f"{report['unreadable']} films unreadable"] if report.get("unreadable") else []
    by: Counter[str] = Counter()
    for key, count in report.items():
        if key.startswith("excluded_by_"):
            by[key.removeprefix("excluded_by_").partition("_label_")[0]] += count
    for name, count in sorted(by.items()):
        what = "films" if name == "view_filter" else "hip ROIs"
        said.append(f"{count} {what} excluded by {name} (see stages/{name}/threshold.json)")
    others = "for the others: " if said else ""
    return "; ".join([*said, f"{others}are its labels in the manifest's train split?"])

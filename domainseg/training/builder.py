"""Fit the stages of a cascade one after the other: samples, training, calibration and threshold, the stage's folder."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import pandas as pd
from hydra.utils import instantiate

from domainseg.cascade.reads import VOLUMES, WHOLE_FILMS, Reading
from domainseg.cascade.stages import Stage
from domainseg.data.cache import Cache
from domainseg.data.manifest import Manifest
from domainseg.evaluation.operating import Threshold
from domainseg.files import read_json, write_json
from domainseg.tasks import ranks
from domainseg.tasks.checkpoints import remove_checkpoints
from domainseg.tasks.fit import FitContext
from domainseg.training.freeze import answered, doubts, freeze, on_tune
from domainseg.training.gathered import predict_together
from domainseg.training.hips import Hips
from domainseg.training.processes import devices_of
from domainseg.training.stages import (
    RunError,
    is_finished,
    load_stage,
    load_weights,
    module_of,
    new_stage,
    reading_in,
    save_stage,
    stage_record,
)

log = logging.getLogger(__name__)

FEW = 10  # tune positives with which a threshold chosen elsewhere is still the better one (our choice)
TOO_FEW = 3  # training positives that fine-tuning would only learn by heart (our choice)


class Lessons(Protocol):
    """What is particular to an anatomy: the samples of each stage, and the tune cases that choose its numbers."""

    def items(self, stage: Stage, before: Sequence[Stage], report: Counter[str]) -> list[Any]:
        """The training samples of a stage that stands behind ``before``; ``report`` counts what was left out."""

    def watched(self, stage: Stage, before: Sequence[Stage]) -> list[Any]:
        """Samples of tune by whose loss the stage's task goes; none where it goes by steps."""

    def positives(self, items: Sequence[Any]) -> int:
        """How many samples show what the stage looks for."""

    def tuned(self, stage: Stage, before: Sequence[Stage], previous: Stage | None) -> tuple[Stage, dict[str, Any]]:
        """The stage with the decision's own numbers chosen on tune, and what to write down about that.

        previous: the stage of init_from. Where its threshold is kept (FEW), so are the numbers that it belongs to.
        """

    def asked(self, target: str, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a tune table, made with an open threshold, that choose the threshold of ``target``."""


@dataclass
class Builder:
    """Fits, freezes, saves or loads one stage after the other."""

    cfg: Mapping[str, Any]
    folder: Path
    train: Manifest
    tune: Manifest
    cache: Cache

    @cached_property
    def lessons(self) -> Lessons:
        """Those of the pipeline's anatomy."""
        if self.reading is VOLUMES:
            from domainseg.training.heads import Heads

            return Heads(self)
        if self.reading is WHOLE_FILMS:
            from domainseg.training.chest import Chest

            return Chest(self)
        return Hips(self)

    @cached_property
    def reading(self) -> Reading:
        """What the pipeline reads, as its first decision says."""
        return reading_in(self.cfg)

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
            asked = {**settings, "decision": {**own["decision"], **settings["decision"]}}  # not the numbers from tune
            if other := [key for key in own if asked[key] != own[key]]:
                what = ", ".join(other)
                log.warning("%s: taken over as it is; what this run says of its %s does not count", name, what)
            if ranks.is_first():
                if (start / "threshold.json").is_file():
                    write_json(folder / "threshold.json", read_json(start / "threshold.json"))
                save_stage(stage, own, folder, origin=f"taken over as it is from {start.parent.parent.name}")
            return stage
        stage = new_stage(name, settings, accelerator, seed=int(self.cfg["seed"]))
        previous = None
        if start is not None:
            load_weights(stage, start)
            previous = load_stage(start, accelerator)
        started = time.monotonic()
        report: Counter[str] = Counter()
        items = self.lessons.items(stage, before, report)
        self.fit(stage, items, folder, report, self.lessons.watched(stage, before))
        stage, chosen = self.lessons.tuned(stage, before, previous)
        stage = self.freeze(stage, before, folder, previous, chosen)
        settings = {**settings, "decision": {**settings["decision"], **_numbers(stage)}}
        seconds = round(time.monotonic() - started)
        cohort = dict(sorted(report.items()))
        if ranks.is_first():
            save_stage(stage, settings, folder, samples=len(items), cohort=cohort, seconds=seconds)
            remove_checkpoints(folder)
        log.info("%s: %d s, threshold %.4f (%s)", name, seconds, stage.frozen.threshold, stage.frozen.rule)
        return stage

    def fit(
        self,
        stage: Stage,
        items: Sequence[Any],
        folder: Path,
        report: Mapping[str, int] = MappingProxyType({}),
        watched: Sequence[Any] = (),
    ) -> None:
        """Train the network of a stage on its samples; with next to none the weights of init_from stay.

        report: how many samples and films were left out, and why. watched: samples of tune, for schedules that go by
        the loss there. Raises RunError where no sample is left.
        """
        task = self.cfg["stage"][stage.name]["task"]
        if not items and self.cfg["init_from"] is None:
            raise RunError(f"stage {stage.name}: no training sample; {_why_none(report)}")
        if self.keeps_weights(items):
            positives = self.lessons.positives(items)
            log.warning("%s: %d positive training samples, the weights of init_from are kept", stage.name, positives)
            return
        log.info("%s: %d samples", stage.name, len(items))
        instantiate({**task, "_partial_": True}, _convert_="all")(
            module_of(stage), items, replace(self.context(folder), watched=watched)
        )

    def keeps_weights(self, items: Sequence[Any]) -> bool:
        """Whether the weights of init_from stay, because there is next to nothing to learn from."""
        return self.cfg["init_from"] is not None and self.lessons.positives(items) < TOO_FEW

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

    def freeze(
        self, stage: Stage, before: Sequence[Stage], folder: Path, old: Stage | None, chosen: Mapping[str, Any]
    ) -> Stage:
        """Choose calibration and threshold on tune; with FEW labelled positives there, keep what init_from had for this
        target.

        old: the stage of init_from. chosen: what is written down about the decision's own numbers.
        """
        numbers = {"numbers": chosen} if chosen else {}
        # A threshold below every score lets all cases through, so that each has a score of this stage.
        open_stage = replace(stage, frozen=replace(stage.frozen, threshold=2.0 if _excludes_above(stage) else -1.0))
        truth = self.reading.truth(self.tune)
        table, _ = predict_together([*before, open_stage], self.tune, truth, None, what=f"{stage.name}: tune")
        target = stage.decision.target
        labels, logits = on_tune(self.lessons.asked(target, table), target)
        positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
        previous = None if old is None else answered(old, target)
        if positives < FEW and previous is not None:
            log.warning(
                "%s: %d positive cases on tune, calibration and threshold of init_from kept", stage.name, positives
            )
            nothing = float("nan")
            kept = Threshold(
                previous.threshold, previous.rule, "init_from", positives, negatives, nothing, nothing, False, True
            )
            if ranks.is_first():
                write_json(folder / "threshold.json", {**kept.to_dict(), **numbers})
            for doubt in doubts(previous, labels, logits):
                log.warning("WARNING %s: %s", stage.name, doubt)
            return replace(stage, frozen=replace(previous, provisional=True))
        frozen, record = freeze(labels, logits, str(self.cfg["stage"][stage.name]["rule"]))
        for doubt in doubts(frozen, labels, logits):
            log.warning("WARNING %s: %s", stage.name, doubt)
        if ranks.is_first():
            write_json(folder / "threshold.json", {**record, **numbers})
        return replace(stage, frozen=frozen)


def _numbers(stage: Stage) -> dict[str, Any]:
    """The settings of a stage's decision as they are now: some of them may have been chosen on tune."""
    return {
        item.name: getattr(stage.decision, item.name)
        for item in fields(stage.decision)  # type: ignore[arg-type]
        if item.name != "target"
    }


def _excludes_above(stage: Stage) -> bool:
    return stage.decision.target == "implant_filter"


def _why_none(report: Mapping[str, int]) -> str:
    """Why a stage has no training sample, from what was counted on the way."""
    said = [f"{report['unreadable']} films unreadable"] if report.get("unreadable") else []
    said += (
        [f"{report['mask_unreadable']} exams with a mask that cannot be read"] if report.get("mask_unreadable") else []
    )
    by: Counter[str] = Counter()
    for key, count in report.items():
        if key.startswith("excluded_by_"):
            by[key.removeprefix("excluded_by_").partition("_label_")[0]] += count
    for name, count in sorted(by.items()):
        what = {"view_filter": "films", "head_filter": "exams"}.get(name, "hip ROIs")
        said.append(f"{count} {what} excluded by {name} (see stages/{name}/threshold.json)")
    others = "for the others: " if said else ""
    return "; ".join([*said, f"{others}are its labels in the manifest's train split?"])

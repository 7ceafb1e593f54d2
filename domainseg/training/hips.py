"""What the hip cascade learns from: the samples of each stage, and the tune cases that choose its threshold."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from domainseg.cascade.cascade import Cascade
from domainseg.cascade.stages import PARTS, Localizer, Stage
from domainseg.cascade.truth import Truth
from domainseg.data.manifest import Manifest
from domainseg.data.splits import clusters
from domainseg.files import DamagedError, read_json, read_sealed, write_json, write_sealed
from domainseg.tasks import ranks
from domainseg.tasks.items import Item
from domainseg.training.samples import (
    Films,
    Head,
    Sampler,
    found_heads,
    head_errors,
    jittered_heads,
    true_heads,
)
from domainseg.training.stages import load_weights, new_stage

if TYPE_CHECKING:
    from domainseg.training.builder import Builder

log = logging.getLogger(__name__)

FILM_LABELS = "stages/film_labels.json"
ROIS = ("jittered", "true", "cross_fitted")  # where the training hips' ROIs come from: see ``Hips.heads``
Heads = Mapping[tuple[str, str], Sequence[Head]]


@dataclass
class Hips:
    """Lessons of the hip cascade (see ``Lessons`` in domainseg/training/builder.py)."""

    builder: Builder
    _localizer_items: list[Item] | None = None
    _heads: dict[tuple[str, int], Heads] = field(default_factory=dict)

    def items(self, stage: Stage, before: Sequence[Stage], report: Counter[str]) -> list[Item]:
        """The training samples of a stage."""
        sampler = self.sampler()
        if stage.name == "view_filter":
            return sampler.view(stage)
        if stage.name == "localizer":
            self._localizer_items = sampler.localizer(stage, Cascade(before), report)
            return self._localizer_items
        heads = self.heads(
            before, str(self.builder.cfg["rois"]), int(self.builder.cfg["stage"][stage.name].get("variants", 1))
        )
        items = sampler.hips(stage, Cascade(before), heads, report)
        if stage.decision.target == self.builder.cfg["target"]:
            labels = self._label_films(items)
            if ranks.is_first():
                write_json(self.builder.folder / FILM_LABELS, labels)
        return items

    def _label_films(self, items: Sequence[Item]) -> dict[str, int]:
        """1 where a hip is fractured, 0 where none is; a film with an intact and an unknown hip is left out."""
        labels: dict[str, int] = {}
        unknown: set[str] = set()
        truth = Truth(self.builder.train)
        for item in items:
            labels[item.image] = max(labels.get(item.image, 0), int(item.truth["fracture"]))
        for image in labels:  # also of a hip that is no sample: its head was not found, or it has metal
            told = [truth.label("fracture", image, part) for part in PARTS if truth.has(image, part)]
            if 1 in told or truth.film(image).get("label_fracture") == 1:
                labels[image] = 1
            elif np.isnan(told).any():
                unknown.add(image)
        return {image: label for image, label in labels.items() if label or image not in unknown}

    def watched(self, stage: Stage, before: Sequence[Stage]) -> list[Any]:
        """None: fits here go by steps."""
        return []

    def positives(self, items: Sequence[Item]) -> int:
        """How many samples show what the stage looks for; all of them where that is not the question."""
        return int(sum(item.truth.get("label", item.truth.get("fracture", 1)) for item in items))

    def tuned(self, stage: Stage, before: Sequence[Stage], previous: Stage | None) -> tuple[Stage, dict[str, Any]]:
        """No decision here has numbers of its own to choose."""
        return stage, {}

    def asked(self, target: str, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a tune table, made with an open threshold, that choose the threshold of ``target``."""
        if target == "view_filter":
            table = table.drop_duplicates("image")
        if f"label_{target}" not in table:  # nothing of tune was read, or let through
            return table.iloc[:0]
        if target == "localizer":  # let through, it has scored both sides of every film: absent hips count here
            return table[table["label_localizer"].notna() & (table["label_view_filter"] != 0)]
        return table[table[f"eligible_{target}"].astype(bool)] if f"eligible_{target}" in table else table.iloc[:0]

    def film_labels(self) -> dict[str, int]:
        """Training films that the last stage learned from, and whether one of their hips is fractured."""
        labels: dict[str, int] = ranks.first(lambda: read_json(self.builder.folder / FILM_LABELS))
        return labels

    def sampler(self) -> Sampler:
        """The maker of training samples."""
        return Sampler(
            self._films(self.builder.train),
            Truth(self.builder.train),
            self.builder.cache,
            int(self.builder.cfg["seed"]),
        )

    def heads(self, before: Sequence[Stage], rois: str, variants: int) -> Heads:
        """Where the ROIs of the training hips lie: as imperfect as on films that the localizer has not seen.

        rois: jittered (true heads moved by errors drawn from tune), true, or cross_fitted (each film localised by a
        network that was trained without its patient). Hips without a marked head are localised by the localizer itself.
        """
        key = (rois, variants)
        if key not in self._heads:
            upto = Cascade([stage for stage in before if stage.name in ("view_filter", "localizer")])
            self._heads[key] = self._find_heads(upto, rois, variants)
        return self._heads[key]

    def _find_heads(self, upto: Cascade, rois: str, variants: int) -> Heads:
        images = list(self.builder.train.images["image"])
        films = self._films(self.builder.train)
        truth = Truth(self.builder.train)
        true = true_heads(truth, images)
        rest = [image for image in images if _may_hold_unmarked_hip(truth, image, true)]
        found: dict[tuple[str, str], list[Head]] = {}
        if rois == "cross_fitted":
            return self._cross_fitted(upto)
        if rest:
            found = found_heads(films, upto, "localizer: unmarked hips", rest)
        if rois == "true":
            return {**found, **true}
        tune = found_heads(self._films(self.builder.tune), upto, "localizer: errors on tune")
        errors = head_errors(tune, true_heads(Truth(self.builder.tune), list(self.builder.tune.images["image"])))
        return {**found, **jittered_heads(true, errors, variants=variants, seed=int(self.builder.cfg["seed"]))}

    def _cross_fitted(self, upto: Cascade, folds: int = 2) -> dict[tuple[str, str], list[Head]]:
        cached = self.builder.folder / "stages" / "localizer" / "cross_fitted.json"
        heads: list[Any] | None = ranks.first(lambda: _whole_heads(cached))
        if heads is None:
            heads = []
            localizer = next(stage for stage in upto.stages if isinstance(stage.decision, Localizer))
            items = self._localizer_items
            if items is None:
                items = self.sampler().localizer(localizer, Cascade(upto.stages[:1]), Counter())
            patients = clusters(self.builder.train.images)  # a patient's films stay together
            order = np.random.default_rng((int(self.builder.cfg["seed"]), 11)).permutation(sorted(set(patients)))
            for fold in range(folds):
                mine = set(self.builder.train.images.loc[patients.isin(order[fold::folds]), "image"])
                settings = self.builder.cfg["stage"]["localizer"]
                fresh = new_stage("localizer", settings, str(self.builder.cfg["trainer"]["accelerator"]), seed=fold + 1)
                other = replace(localizer, network=fresh.network)
                if (start := self.builder.cfg["init_from"]) is not None:
                    load_weights(other, Path(start) / "stages" / "localizer")
                folder = cached.parent / f"cross_fit_{fold}"
                self.builder.fit(other, [item for item in items if item.image not in mine], folder)
                cascade = Cascade([*upto.stages[:-1], other])
                found = found_heads(self._films(self.builder.train), cascade, f"cross-fit {fold + 1}", sorted(mine))
                heads += [[*key, list(map(float, center)), size] for key, ((center, size),) in found.items()]
            if ranks.is_first():
                write_sealed(cached, {"heads": heads})
        if ranks.is_first():  # not before: a run that goes on takes up the folds that were finished
            for folder in cached.parent.glob("cross_fit_*"):
                shutil.rmtree(folder)
        return {(image, part): [(np.array(center), size)] for image, part, center, size in heads}

    def _films(self, manifest: Manifest) -> Films:
        return Films(manifest, workers=max(2, int(self.builder.cfg["trainer"]["workers"])))


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


def _may_hold_unmarked_hip(truth: Truth, image: str, marked: Container[tuple[str, str]]) -> bool:
    """A film of which no head is marked may; of others those of which a hip without a mark is known."""
    unmarked = [(image, part) for part in PARTS if (image, part) not in marked]
    known = len(unmarked) == len(PARTS) or any(truth.has(*hip) for hip in unmarked)
    return known and bool(truth.film(image)["label_view_filter"] != 0)

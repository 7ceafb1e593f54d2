"""What the head CT cascade learns from: the samples of each stage, and the tune exams that choose its numbers."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.cascade import volumes
from domainseg.cascade.cascade import Cascade
from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.head import HemorrhageDetector
from domainseg.cascade.head_truth import CONTRADICTS, HeadTruth, doubt
from domainseg.cascade.lens import fit_lens
from domainseg.cascade.operations import preprocess, versioned
from domainseg.cascade.reads import VOLUMES
from domainseg.cascade.stages import Stage
from domainseg.data.cache import cache_key
from domainseg.data.painted import with_painted
from domainseg.files import atomic_path
from domainseg.imaging import Film, ImageReadError
from domainseg.imaging.hemorrhage import TYPES
from domainseg.imaging.volume import Volume
from domainseg.tasks import ranks
from domainseg.tasks.hemorrhage_items import HU_ZERO, SHOWN, Exam
from domainseg.tasks.items import Item, as_uint16
from domainseg.training.builder import FEW
from domainseg.training.runner import Remembering, TorchNetwork
from domainseg.training.samples import CachedPlanes, Films, Sampler
from domainseg.training.tuned import tune_hemorrhage

if TYPE_CHECKING:
    from domainseg.data.manifest import Manifest
    from domainseg.training.builder import Builder

log = logging.getLogger(__name__)

_NO_VOLUME = Volume(voxels=np.zeros((1, 1, 1), np.int16), affine=None, source_shape=(1, 1, 1))


@dataclass
class Heads:
    """Lessons of the head CT cascade (see ``Lessons`` in domainseg/training/builder.py)."""

    builder: Builder
    learned: list[Exam] = field(default_factory=list)  # the exams that the hemorrhage stage learns from

    @cached_property
    def sampler(self) -> HeadSampler:
        """The maker of training samples."""
        return self._sampler(self.builder.train)

    def _sampler(self, manifest: Manifest) -> HeadSampler:
        films = Films(manifest, reading=VOLUMES)
        return HeadSampler(films, HeadTruth(manifest), self.builder.cache, int(self.builder.cfg["seed"]))

    def items(self, stage: Stage, before: Sequence[Stage], report: Counter[str]) -> list[Any]:
        """Exams of known anatomy for the head filter; behind it exams with a mask or labels."""
        if stage.decision.target == "head_filter":
            return self.sampler.anatomy(stage, report)
        self.learned = self._sampler(self._painted(stage, report)).exams(stage, Cascade(before), report)
        return self.learned

    def _painted(self, stage: Stage, report: Counter[str]) -> Manifest:
        """The training part, with bleeds painted into its normal exams where the stage's settings ask for them."""
        builder = self.builder
        wanted = builder.cfg["stage"][stage.name].get("painted")
        if not wanted:
            return builder.train
        with ranks.first_alone():
            folder = Path(builder.cfg["output"]) / "painted"  # the folds of a run share them
            manifest = with_painted(builder.train, folder, **wanted, seed=int(builder.cfg["seed"]))
        made = manifest.images.loc[manifest.images["painted_of"] != "", ["image", "painted_of"]]
        if ranks.is_first():
            report["painted"] = len(made)
            with atomic_path(builder.folder / "painted.csv") as partial:
                made.to_csv(partial, index=False)
        return manifest

    def watched(self, stage: Stage, before: Sequence[Stage]) -> list[Any]:
        """None: fits here go by steps."""
        return []

    def positives(self, items: Sequence[Any]) -> int:
        """How many samples show what the stage looks for."""
        return int(sum(item.truth.get("label", item.truth.get("hemorrhage", 0)) == 1 for item in items))

    def tuned(self, stage: Stage, before: Sequence[Stage], previous: Stage | None) -> tuple[Stage, dict[str, Any]]:
        """The detector's own numbers (candidates, outlines, suppression, types' thresholds), chosen on tune."""
        if stage.decision.target != "hemorrhage":
            return stage, {}
        if previous is not None:  # what tune is too poor to choose stays as it was, not as an untrained stage has it
            assert isinstance(previous.decision, HemorrhageDetector)
            typed = [name for name in self.builder.cfg["stage"][stage.name]["decision"] if name != "_target_"]
            own = {name: getattr(stage.decision, name) for name in typed}
            stage = replace(stage, decision=replace(previous.decision, **own))
            bleeds = sum(exam["hemorrhage"] == 1 for exam in self._asked())
            if bleeds < FEW:  # the threshold of init_from is kept, and means something with its numbers only
                return stage, {"kept": f"{bleeds} exams with hemorrhage on tune: the numbers of init_from"}
        if isinstance(stage.network, TorchNetwork):
            stage = replace(stage, network=Remembering(stage.network))
        offset, slope = fit_lens(exam.planes()[1] for exam in self.learned if exam.has_mask)
        if slope:  # else masks are too few to tell
            assert isinstance(stage.decision, HemorrhageDetector)
            stage = replace(stage, decision=replace(stage.decision, lens_offset=offset, lens_slope=slope))
        rule = str(self.builder.cfg["stage"][stage.name]["rule"])
        stage, record = tune_hemorrhage(stage, self._tune_cases(Cascade(before)), rule)
        return stage, {**record, "lens": {"offset": offset, "slope": slope, "chosen_on": "train"}}

    def _asked(self) -> list[Mapping[str, float]]:
        """Labels of the tune exams that the threshold is chosen on: those that are not known to be no head."""
        truth = HeadTruth(self.builder.tune)
        exams = [truth.exam(image) for image in self.builder.tune.images["image"]]
        return [exam for exam in exams if exam["head_filter"] != 0]

    def _tune_cases(self, before: Cascade) -> Iterator[tuple[Case | Exclusion, HeadTruth]]:
        sampler = self._sampler(self.builder.tune)
        for image, volume in sampler.films.each("hemorrhage: numbers of the decision", share=False):
            # An exam that is known to be no head is none of those that the threshold is chosen on.
            cases: list[Case | Exclusion] = []
            if sampler.truth.is_head(image) != 0:
                if isinstance(volume, ImageReadError):
                    cases.append(Exclusion(image, "", "read", volume.kind))
                else:
                    cases += before.run(Case.of(image, volume))
            del volume  # before the next one is read: one volume is in memory at a time
            while cases:
                yield cases.pop(), sampler.truth

    def asked(self, target: str, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a tune table, made with an open threshold, that choose the threshold of ``target``."""
        return table[table[f"eligible_{target}"].astype(bool)] if f"eligible_{target}" in table else table.iloc[:0]


class HeadSampler(Sampler):
    """Makes training items of head CT exams."""

    truth: HeadTruth

    def anatomy(self, stage: Stage, report: Counter[str]) -> list[Item]:
        """Every readable exam of which is known whether it is a head."""
        items = []
        for image, volume in self.films.each(f"{stage.name}: samples"):
            label = self.truth.is_head(image)
            if isinstance(volume, ImageReadError):
                report["unreadable"] += 1
            elif not np.isnan(label):
                report[f"used_label_{int(label)}"] += 1
                assert isinstance(volume, Volume)
                key = self._key(image, stage, Case.of(image, volume))
                # Exported pictures come to the filter as well: each exam is shown as they would show it, too.
                for pictures in (False,) if volume.rendering else (False, True):
                    planes = ViewPlanes(self, {**key, "pictures": pictures}, image, stage.preprocessing, pictures)
                    items.append(Item(image, "", planes, np.eye(4), {"label": int(label)}, channels=len(planes())))
            del volume
        return self.all_of(items, report)

    def exams(self, stage: Stage, before: Cascade, report: Counter[str]) -> list[Exam]:
        """Exams that the head filter lets through and of which a mask or a label is known."""
        items = []
        for image, volume in self.films.each(f"{stage.name}: samples"):
            items += self._exams_of(stage, before, image, volume, report)
            del volume  # before the next one is read: one volume is in memory at a time
        return self.all_of(items, report)

    def _exams_of(
        self, stage: Stage, before: Cascade, image: str, volume: Film | Volume | ImageReadError, report: Counter[str]
    ) -> list[Exam]:
        if isinstance(volume, ImageReadError):
            report["unreadable"] += 1
            return []
        assert isinstance(volume, Volume)
        known = self.truth.exam(image, volume)
        try:
            labels, slices = self.truth.labels(image, volume), self.truth.slices(image, volume)
        except ImageReadError as error:  # one exam does not end a run
            log.warning("%s: left out: %s", image, error.reason)
            report["mask_unreadable"] += 1
            return []
        if labels is not None and (why := doubt(labels, known)):
            if why == CONTRADICTS:
                log.warning("%s: left out: %s", image, why)
                report["mask_contradicts_label"] += 1
                return []
            report["mask_incomplete"] += 1  # what it leaves blank may be blood
            labels = None
        # Labels of types alone teach nothing.
        if labels is None and np.isnan(slices[:, 0]).all() and np.isnan(known["hemorrhage"]):
            report["without_truth"] += 1
            return []
        (case,) = before.run(Case.of(image, volume))
        label = "unknown" if np.isnan(known["hemorrhage"]) else int(known["hemorrhage"])
        if isinstance(case, Exclusion):
            report[f"excluded_by_{case.excluded_by}_label_{label}"] += 1
            return []
        report[f"used_label_{label}"] += 1
        return [self._exam(stage, case, known, labels, slices)]

    def _exam(
        self,
        stage: Stage,
        case: Case,
        known: Mapping[str, float],
        labels: NDArray[np.uint8] | None,
        slices: NDArray[np.float64],
    ) -> Exam:
        size, thickness = int(stage.preprocessing[0]["size"]), float(stage.preprocessing[0]["thickness"])
        frame = replace(case, film=_NO_VOLUME, values={}, arrays={})
        key = self._key(case.image, stage, case)
        masks = zip(self.truth.files(case.image), self.truth.kinds(case.image), strict=True)
        key["masks"] = [[self.films.file_sha256(path), kind] for path, kind in masks]
        key["outlined"] = labels is not None  # masks in doubt are not taken, until labels say otherwise
        planes = SlabPlanes(self, key, frame, size, thickness, labels is not None)
        planes()
        volume = case.film
        assert isinstance(volume, Volume)
        return Exam(
            image=case.image,
            part=case.part,
            planes=planes,
            truth={name: known[name] for name in ("hemorrhage", *TYPES)},
            has_mask=labels is not None,
            slices=volumes.slices_on_grid(case, slices, thickness),
            rendering=volume.rendering is not None,
        )

    def _key(self, image: str, stage: Stage, case: Case) -> dict[str, Any]:
        """What the planes depend on; of the windows, which are made anew each time, nothing."""
        key = cache_key(
            self.films.sha256(image),
            reader=VOLUMES.version,
            lut_policy="hounsfield",
            operations=versioned(stage.preprocessing)[:1],
            affine=case.affine,
        )
        key["shape"] = list(case.shape)
        return key


@dataclass
class ViewPlanes(CachedPlanes):
    """The projections of an exam, [6, H, W]; ``pictures``: as exported ones."""

    image: str
    preprocessing: Sequence[Mapping[str, Any]]
    pictures: bool

    def _build(self) -> tuple[NDArray[np.uint16], dict[str, Any]]:
        volume = self.sampler.films.get(self.image)
        assert isinstance(volume, Volume)
        if self.pictures:
            thick = volume.voxels[:: volumes.group_size(volume, volumes.THICK)]  # few people export thin slices
            shown = np.clip(thick, int(SHOWN[0]), int(SHOWN[1])).astype(np.int16)
            volume = replace(volume, voxels=shown, affine=None, rendering=SHOWN)
        case = Case.of(self.image, volume)
        return as_uint16(preprocess(case, self.preprocessing).pixels[0]), {}


@dataclass
class SlabPlanes(CachedPlanes):
    """An exam on the grid of its slabs, [2, Z, H, W]: HU + HU_ZERO, and the codes of its mask."""

    frame: Case
    size: int
    thickness: float
    has_mask: bool

    def _build(self) -> tuple[NDArray[np.uint16], dict[str, Any]]:
        volume = self.sampler.films.get(self.frame.image)
        assert isinstance(volume, Volume)
        case = replace(self.frame, film=volume)
        voxels, _ = volumes.grid(case, self.size, self.thickness)
        stored = np.clip(np.rint(voxels) + HU_ZERO, 0, 4095).astype(np.uint16)
        labels = self.sampler.truth.labels(case.image, volume) if self.has_mask else None
        codes = np.zeros(voxels.shape, np.uint8)
        if labels is not None:
            codes = volumes.on_grid(case, labels, self.size, self.thickness)
        return np.stack([stored, codes.astype(np.uint16)]), {}

"""The numbers of the hemorrhage detector, chosen on tune, then frozen: what is a candidate, what counts, what is drawn.

Our method. In order: the numbers that make the calls (voxel level or box level, smallest candidate, weights of the
presence head and of the mask), by the mean of the exam's AUC, the lesion sensitivity at one false lesion a normal exam
and 1 / (1 + false lesions a normal exam at the rule's threshold); then the level at which outlines are drawn, by the
mean Dice of the exams with a bleed; then each type's threshold, by the exam's rule. A number that gains less than
ENOUGH stays at its simplest: tune exams are few.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.cascade import volumes
from domainseg.cascade.candidates import MOST, STRONGEST, logit, top
from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.head import HemorrhageDetector
from domainseg.cascade.head_truth import HeadTruth, doubt
from domainseg.cascade.operations import Sample, preprocess
from domainseg.cascade.overlap import TrueLesion, dice, matches, true_lesions
from domainseg.cascade.stages import Frozen, Outputs, Stage
from domainseg.evaluation.calibration import fit_platt
from domainseg.evaluation.operating import choose_threshold
from domainseg.evaluation.roc import auc
from domainseg.imaging import ImageReadError
from domainseg.imaging.hemorrhage import TYPES
from domainseg.imaging.volume import Volume
from domainseg.training.freeze import middle_of_gap

log = logging.getLogger(__name__)

# What is tried, the simplest first.
LEVELS = (0.5, 0.3, 0.15, 0.7)
BOX_LEVELS = (0.05, 0.1, 0.2, 0.02)
SMALLEST = (4.0, 8.0, 16.0, 32.0)
PRESENCE = (0.0, 0.25, 0.5, 1.0)  # 1: networks that learned from labels of slices alone outline nothing
MASK_WEIGHTS = (0.0, 0.3, 0.6)
OUTLINES = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2)
ENOUGH = 0.005
FLOOR = 0.05  # voxels of a lower probability are not kept: no level lies below it
_VOXELS = 200_000  # of an exam that are kept, the strongest ones
_FAR = -20.0  # logit of the others

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tuned:
    """A tune exam after its network: as little of the outputs as its candidates need, and the truth on their grid.

    labels: 1, 0 or NaN of the exam and of the types. lesions: None where no mask is known.
    """

    labels: dict[str, float]
    outputs: Outputs
    where: NDArray[np.intp]
    kept: NDArray[np.float16]
    shape: tuple[int, ...]
    truth: NDArray[np.uint8] | None
    lesions: list[TrueLesion] | None
    size: tuple[int, int]

    @classmethod
    def of(cls, stage: Stage, case: Case, truth: HeadTruth) -> Tuned:
        """Run the network and keep what is needed."""
        sample = preprocess(case, stage.preprocessing)
        outputs = {name: np.asarray(array, np.float32) for name, array in stage.network(sample.pictures).items()}
        settings = stage.preprocessing[0]
        assert isinstance(case.film, Volume)
        known = truth.exam(case.image, case.film)
        try:
            codes = truth.labels(case.image, case.film)
            why = "" if codes is None else doubt(codes, known)
        except ImageReadError as error:
            codes, why = None, error.reason
        if why:  # its label still counts
            log.warning("%s: its mask is left out: %s", case.image, why)
            codes = None
        if codes is not None:
            codes = volumes.on_grid(case, codes, int(settings["size"]), float(settings["thickness"]))
        dense = outputs.pop("mask", None)
        where, kept, shape = np.zeros(0, np.intp), np.zeros((6, 0), np.float16), ()
        if dense is not None:
            shape = dense.shape
            where, kept = _strongest(dense)
        if "masks" in outputs:
            outputs["masks"] = outputs["masks"].astype(np.float16)
        return cls(
            labels=dict(known),
            outputs=outputs,
            where=where,
            kept=kept,
            shape=tuple(shape),
            truth=codes,
            lesions=None if codes is None else true_lesions(codes, _place(sample, case.film)),
            size=(sample.pictures.shape[-2], sample.pictures.shape[-1]),
        )

    def full(self) -> Outputs:
        """The outputs as the network gave them, but for voxels of next to no probability."""
        outputs = {name: array.astype(np.float32, copy=False) for name, array in self.outputs.items()}
        if self.shape:
            dense = np.zeros((self.shape[1], self.shape[0] * self.shape[2] * self.shape[3]), np.float32)
            dense[0] = _FAR
            dense[:, self.where] = self.kept
            outputs["mask"] = dense.reshape(self.shape[1], self.shape[0], *self.shape[2:]).swapaxes(0, 1)
        return outputs


def _place(sample: Sample, volume: Volume) -> Volume:
    """A volume whose voxels are those of the grid, for the size of specks."""
    affine = None if volume.affine is None else volume.affine @ sample.affine
    shape = (sample.count, *sample.pictures.shape[-2:])
    return Volume(np.broadcast_to(np.int16(0), shape), affine, source_shape=shape)


def _strongest(dense: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float16]]:
    """Places (in [Z, H, W]) and logits [6, n] of the voxels from FLOOR on, and of the STRONGEST of each slice."""
    flat = dense.swapaxes(0, 1).reshape(dense.shape[1], -1)
    planes = flat[0].reshape(len(dense), -1)
    likely = np.flatnonzero(flat[0] >= logit(FLOOR))
    if len(likely) > _VOXELS:
        likely = likely[np.argpartition(-flat[0, likely], _VOXELS)[:_VOXELS]]
    some = min(STRONGEST, planes.shape[1])
    highest = np.argpartition(planes, -some, axis=1)[:, -some:] + planes.shape[1] * np.arange(len(planes))[:, None]
    where = np.union1d(likely, highest)
    return where, flat[:, where].astype(np.float16)


@dataclass(frozen=True)
class Found:
    """The candidates of one exam for one level, of any size, and its slices, the likeliest of which stands for them.

    own, dense, presence: logits [n] (dense 0 where there is none to mix). size: voxels [n]. met: matches [n, true
    lesions]. slices: logits [2, Z] of the mask and of presence; none where boxes are the candidates.
    """

    own: Floats
    dense: Floats
    presence: Floats
    size: Floats
    met: NDArray[np.bool_]
    slices: Floats


def tune_hemorrhage(
    stage: Stage, exams: Iterable[tuple[Case | Exclusion, HeadTruth]], rule: str
) -> tuple[Stage, dict[str, Any]]:
    """The stage with the detector's numbers chosen on tune, and what was tried, as plain values for a JSON file.

    exams: cases as they come to the stage (the head in its frame), each with the truth that knows it; the network runs
    once on each. One that was lost before counts where the types' thresholds are chosen: it has found nothing.
    rule: by which the exam's threshold will be chosen (RULES). Without exams of both kinds the numbers stay what they
    are.
    """
    decision = stage.decision
    assert isinstance(decision, HemorrhageDetector)
    tuned: list[Tuned] = []
    lost: list[Mapping[str, float]] = []
    for case, truth in exams:
        if isinstance(case, Exclusion):
            lost.append(truth.exam(case.image))
        else:
            assert isinstance(case.film, Volume)
            if not np.isnan(truth.exam(case.image, case.film)["hemorrhage"]):
                tuned.append(Tuned.of(stage, case, truth))
        del case  # before the next volume is read
    labels = np.array([exam.labels["hemorrhage"] for exam in tuned])
    record: dict[str, Any] = {"exams": len(tuned), "with_hemorrhage": int((labels == 1).sum()), "rule": rule}
    if len(np.unique(labels)) < 2:
        return stage, {**record, "kept": "tune has no exams of both kinds"}
    calling, record["calls"] = _calls(decision, tuned, labels, rule)
    drawing, record["outlines"] = _outlines(calling, tuned, labels, rule)
    typing, record["types"] = _types(drawing, tuned, labels, lost, rule)
    return replace(stage, decision=typing), record


def _calls(
    decision: HemorrhageDetector, tuned: Sequence[Tuned], labels: Floats, rule: str
) -> tuple[HemorrhageDetector, list[dict[str, float]]]:
    boxes = "boxes" in tuned[0].outputs
    tried: list[dict[str, float]] = []
    for level in BOX_LEVELS if boxes else LEVELS:
        base = replace(decision, presence=0.0, mask_weight=0.0, smallest=1.0)
        base = replace(base, box_level=level) if boxes else replace(base, level=level, outline=level)
        found = [_found(base, exam) for exam in tuned]
        presence = PRESENCE if "presence" in tuned[0].outputs else PRESENCE[:1]
        mixed = MASK_WEIGHTS if boxes and tuned[0].shape else MASK_WEIGHTS[:1]
        for smallest, weight, mask_weight in product(SMALLEST[:1] if boxes else SMALLEST, presence, mixed):
            numbers = {"box_level" if boxes else "level": level, "presence": weight}
            numbers |= {"mask_weight": mask_weight} if boxes else {"smallest": smallest}
            tried.append({**numbers, **_judged(found, tuned, labels, rule, smallest, weight, mask_weight)})
    best = _simplest(tried, "objective")
    chosen: dict[str, Any] = {
        name: best[name] for name in ("level", "box_level", "smallest", "presence", "mask_weight") if name in best
    }
    return replace(decision, **chosen), tried


def _found(decision: HemorrhageDetector, exam: Tuned) -> Found:
    outputs = exam.full()
    candidates = decision.candidates(outputs, exam.size)
    dense, presence = outputs.get("mask"), outputs.get("presence")
    by_slice = None if "boxes" in outputs else dense
    if by_slice is not None and by_slice[:, 0].max() < logit(decision.level):
        candidates = []
    if by_slice is not None and len(candidates) == MOST:  # serving takes the strongest of those that are large enough
        each = {(one.z[0], one.y[0], one.x[0]): one for one in candidates}
        for smallest in SMALLEST:
            for one in replace(decision, smallest=smallest).candidates(outputs, exam.size):
                if len(one.z) >= smallest:  # else it stands for an exam without a candidate
                    each.setdefault((one.z[0], one.y[0], one.x[0]), one)
        candidates = sorted(each.values(), key=lambda one: -one.logit)
    numbers = np.zeros((len(next(iter(outputs.values()))), *exam.size), np.uint16)
    for number, one in reversed(list(enumerate(candidates, 1))):
        numbers[one.z, one.y, one.x] = number
    lesions = exam.lesions or []
    met = np.zeros((len(candidates), len(lesions)), bool)
    for lesion, same in enumerate(matches(numbers, lesions)):
        met[np.array(same, int) - 1, lesion] = True
    shown = np.zeros(len(numbers)) if presence is None else presence[:, 0].astype(np.float64)
    slices = np.zeros((2, 0))
    if by_slice is not None:
        slices = np.stack([[top(plane) for plane in by_slice[:, 0]], shown])
    return Found(
        own=np.array([one.logit for one in candidates]),
        dense=np.array([0.0 if dense is None else top(dense[one.z, 0, one.y, one.x]) for one in candidates]),
        presence=np.array([shown[np.unique(one.z)].max() for one in candidates]),
        size=np.array([float(len(one.z)) for one in candidates]),
        met=met,
        slices=slices,
    )


def _judged(
    found: Sequence[Found],
    tuned: Sequence[Tuned],
    labels: Floats,
    rule: str,
    smallest: float,
    presence: float,
    mask_weight: float,
) -> dict[str, float]:
    """How well the exams are called with these numbers."""
    exam_logits, false, true = [], [], []
    for one, exam, label in zip(found, tuned, labels, strict=True):
        fit = one.size >= smallest
        fit &= np.cumsum(fit) <= MOST
        mixed = one.own + mask_weight * (one.dense - one.own)
        values = (mixed + presence * (one.presence - mixed))[fit]
        likeliest = (one.slices[0] + presence * (one.slices[1] - one.slices[0])).max(initial=logit(0.0))
        exam_logits.append(values.max() if len(values) else likeliest)
        if label == 0:
            false.append(values if len(values) else exam_logits[-1:])
        elif exam.lesions:
            met = one.met[fit]
            true += [values[same].max() if same.any() else -np.inf for same in met.T]
    scores = np.array(exam_logits)
    threshold = choose_threshold(labels, scores, rule).value
    out = {"auc": auc(labels, scores)["value"]}
    wrong = np.sort(np.concatenate(false))[::-1]
    out["false_lesions_per_normal"] = float((wrong >= threshold).sum() / len(false))
    parts = [out["auc"], 1 / (1 + out["false_lesions_per_normal"])]
    if true:
        # From which logit on there is no more than one false lesion a normal exam.
        limit = wrong[len(false)] if len(wrong) > len(false) else -np.inf
        out["lesion_sensitivity_at_1"] = float((np.array(true) > limit).mean())
        parts.append(out["lesion_sensitivity_at_1"])
    out["objective"] = float(np.mean(parts))
    return {name: float(value) for name, value in out.items()}


def _simplest(tried: Sequence[dict[str, float]], name: str) -> dict[str, float]:
    """The first that is within ENOUGH of the best."""
    best = max(entry[name] for entry in tried)
    return next(entry for entry in tried if entry[name] >= best - ENOUGH)


def _logit(decision: HemorrhageDetector, exam: Tuned) -> float:
    return decision.exam_logit(decision.candidates(exam.full(), exam.size))


def _outlines(
    decision: HemorrhageDetector, tuned: Sequence[Tuned], labels: Floats, rule: str
) -> tuple[HemorrhageDetector, list[dict[str, float]]]:
    """The outline level, by the Dice of what would be called at the rule's threshold."""
    outlined = [exam for exam in tuned if exam.lesions]
    if not outlined:
        return decision, []
    logits = np.array([_logit(decision, exam) for exam in tuned])
    threshold = choose_threshold(labels, logits, rule).value
    tried = []
    for outline in OUTLINES:
        trial = replace(decision, outline=outline)
        values = []
        for exam in outlined:
            assert exam.truth is not None
            drawn = np.zeros(exam.truth.shape, bool)
            for one in trial.candidates(exam.full(), exam.size):
                if one.logit >= threshold:
                    drawn[one.z, one.y, one.x] = True
            values.append(dice(drawn, exam.truth > 0))
        tried.append({"outline": outline, "dice": float(np.mean(values))})
    return replace(decision, outline=_simplest(tried, "dice")["outline"]), tried


def _types(
    decision: HemorrhageDetector,
    tuned: Sequence[Tuned],
    labels: Floats,
    lost: Sequence[Mapping[str, float]],
    rule: str,
) -> tuple[HemorrhageDetector, dict[str, Any]]:
    """The types' thresholds on the calibrated scale, on intention.

    A type that no tune exam has keeps its own, which nothing speaks for: it is provisional, and told.
    """
    platt = fit_platt(labels, np.array([_logit(decision, exam) for exam in tuned]))
    frozen = Frozen(slope=platt.slope, intercept=platt.intercept)
    scores = [
        decision.type_scores(outputs, decision.candidates(outputs, exam.size), frozen)
        for exam in tuned
        for outputs in [exam.full()]
    ]
    record: dict[str, Any] = {}
    chosen: dict[str, Any] = {}
    for name in TYPES:
        known = np.array([exam.labels[name] for exam in tuned])
        if not (known == 1).any():
            value = float(getattr(decision, f"threshold_{name}"))
            record[name] = {"value": value, "rule": "none", "n_positive": 0, "provisional": True}
            log.warning("%s: no tune exam that was read has it; nothing speaks for its threshold %g", name, value)
            continue
        own = np.array([score[name] for score in scores])
        gone = np.array([exam[name] for exam in lost])
        asked = np.concatenate([known, gone]), np.concatenate([own, np.where(gone == 1, -np.inf, np.inf)])
        threshold = middle_of_gap(choose_threshold(*asked, rule), own)
        record[name], chosen[f"threshold_{name}"] = threshold.to_dict(), threshold.value
    return replace(decision, **chosen), record

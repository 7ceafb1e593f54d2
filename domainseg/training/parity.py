"""The same answers from torch and from the exported files: picture by picture, and film by film through the cascade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from domainseg.cascade.cascade import Cascade
from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.operations import Sample, preprocess
from domainseg.cascade.reads import VOLUMES
from domainseg.cascade.stages import Localizer, Network, Outputs, Stage
from domainseg.files import DomainsegError
from domainseg.imaging import Film
from domainseg.imaging.geometry import identity
from domainseg.imaging.volume import Volume
from domainseg.training.onnx_model import INPUT, OnnxModel

LOGITS = 1e-4  # largest difference of a stage's logits
MAPS = 1e-3  # largest difference anywhere on an output that is a picture (values of a U-Net round further apart)
SCORES = 1e-3  # largest difference of a score after all stages: a hair's breadth of a ROI moves the next one's logits
HEAD = 0.05  # pixels between femoral head centres: of the network's input, and of the source film
BATCH = 4  # pictures a batch, where a stage takes several
BOXES = 0.05  # pixels between the corners of boxes that a detector gives
ML, ML_SHARE = 0.02, 1e-3  # of a volume: rounding moves single voxels of an outline (our choice)
MOST = 8  # pictures of a stage that are compared

_LESIONS = "lesion_scores"

Pictures = NDArray[np.float32]


class ParityError(DomainsegError):
    """The exported network answers otherwise than torch; the message names the stage, the numbers and the limit."""


@dataclass
class Recorder:
    """Runs a network and keeps the first pictures that it is given."""

    network: Network
    pictures: list[Pictures] = field(default_factory=list)

    def __call__(self, pictures: Pictures) -> Outputs:
        # Of a volume's many pictures a few along its way: its first ones show little.
        some = pictures[:: max(1, len(pictures) // (MOST // 2))]
        self.pictures += [picture.copy() for picture in some[: MOST - len(self.pictures)]]
        return self.network(pictures)


def check_parity(
    stages: Sequence[Stage],
    exported: Sequence[Stage],
    models: Mapping[str, OnnxModel],
    films: Sequence[tuple[str, Film | Volume]],
) -> dict[str, Any]:
    """Compare both backends on ``films`` (image, film); returns the measured differences. Raises ParityError.

    stages: with torch networks; exported: the same with those of the bundle's runtime; models: the files by stage.
    Pictures reach a stage through the earlier ones; a stage that fewer than two reach is also shown whole films.
    """
    recorded = [replace(stage, network=Recorder(stage.network)) for stage in stages]
    cascade = check_cascade(recorded, exported, films)
    found = {}
    for stage, record in zip(stages, recorded, strict=True):
        assert isinstance(record.network, Recorder)
        pictures, shown = list(record.network.pictures), "cases that reached it"
        if len(pictures) < 2:
            cases = [Case.of(image, film) for image, film in films[:MOST]]
            whole = [p for case in cases for p in preprocess(case, stage.preprocessing).pictures]
            pictures, shown = [*pictures, *whole][:MOST], "whole films, too few cases reached it"
        found[stage.name] = {**check_stage(stage, models[stage.name], pictures), "pictures_are": shown}
    limits = {"logits": LOGITS, "maps": MAPS, "head_px": HEAD}
    return {"backends": ["torch", "onnxruntime"], "limits": limits, "stages": found, "cascade": cascade}


def check_stage(stage: Stage, model: OnnxModel, pictures: Sequence[Pictures]) -> dict[str, Any]:
    """Largest differences of one stage over ``pictures`` [1, H, W] in batches. Raises ParityError."""
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(model.data, options, providers=["CPUExecutionProvider"])
    step = 1 if model.batch == 1 else BATCH
    logits = head = 0.0
    outputs = dict.fromkeys(model.outputs, 0.0)
    for start in range(0, len(pictures), step):
        batch = np.stack(pictures[start : start + step])
        ours = stage.network(batch)
        theirs = dict(zip(model.outputs, session.run(list(model.outputs), {INPUT: batch}), strict=True))
        for name in outputs:
            outputs[name] = max(outputs[name], _difference(ours[name], theirs[name]))
        for k, picture in enumerate(batch):
            part_of = slice(k, k + 1) if stage.decision.reads == VOLUMES.name else k  # a volume's decision sees several
            one, other = ({name: value[part_of] for name, value in answer.items()} for answer in (ours, theirs))
            wanted, got = stage.decision.logits(one), stage.decision.logits(other)
            logits = max(logits, *(_difference(wanted[part], got[part]) for part in wanted))
            if isinstance(stage.decision, Localizer):
                head = max(head, _head_distance(stage, stage.decision, picture[0], one, other))
    found = {"pictures": len(pictures), "batch": step, "logits": logits, "outputs": outputs}
    if isinstance(stage.decision, Localizer):
        found["head_px"] = head
    boxes = outputs.get("boxes", 0.0)
    plain = {name: value for name, value in outputs.items() if len(model.outputs[name]) < 3 and name != "boxes"}
    worst = max([("its logit", logits), *plain.items()], key=lambda item: item[1])
    maps = max(
        [("", 0.0), *((name, outputs[name]) for name in outputs if len(model.outputs[name]) > 2)],
        key=lambda item: item[1],
    )
    checks = (
        (worst, LOGITS, ""),
        (maps, MAPS, ""),
        (("the femoral head's centre", head), HEAD, " px"),
        (("a corner of a box", boxes), BOXES, " px"),
    )
    for (what, value), limit, unit in checks:
        if not value <= limit:
            raise ParityError(
                f"stage {stage.name}: ONNX Runtime answers otherwise than torch: {what} differs by {value:.2g}{unit} "
                f"on {len(pictures)} pictures, at most {limit:g}{unit} is allowed. Nothing is exported"
            )
    return found


def check_cascade(
    stages: Sequence[Stage],
    exported: Sequence[Stage],
    films: Sequence[tuple[str, Film | Volume]],
    runtime: str = "ONNX Runtime",
) -> dict[str, Any]:
    """Films through both cascades: the same cases, sides, locations, exclusions, lesions, volumes and scores.

    runtime: what computes ``exported``, in words. A film may differ where the score that decides lies within 1e-4 of
    its threshold; it is counted as ``excused``. Raises ParityError.
    """
    cases = excused = 0
    score = head = 0.0
    for image, film in films:
        one, other = (_answers(cascade, image, film) for cascade in (stages, exported))
        cases += len(one)
        different, deciding = _different(one, other)
        if different:
            if not _near_threshold(stages, deciding, [*one.values(), *other.values()]):
                raise ParityError(
                    f"film {image}: {runtime} answers otherwise than torch ({different}), and no score that "
                    "decides this is within 1e-4 of its threshold. Nothing is exported"
                )
            excused += 1
            continue
        for part, values in one.items():
            for name in (name for name in values if name.startswith("score_")):
                score = max(score, _difference(values[name], other[part][name]))
            if "head_x" in values:
                moved = [values[axis] - other[part][axis] for axis in ("head_x", "head_y")]
                head = max(head, float(np.hypot(*moved)))
    if not head <= HEAD:
        raise ParityError(
            f"{runtime} finds femoral heads {head:.2g} px from where torch finds them, at most {HEAD} px is "
            "allowed. Nothing is exported"
        )
    if not score <= SCORES:
        raise ParityError(
            f"{runtime} gives scores {score:.2g} away from torch's, at most {SCORES:g} is allowed. Nothing is exported"
        )
    return {"films": len(films), "cases": cases, "excused": excused, "score": score, "head_px": head}


def _answers(stages: Sequence[Stage], image: str, film: Film | Volume) -> dict[str, dict[str, Any]]:
    """Per part: the values of the table, and how the case ended."""
    found = {}
    for result in Cascade(stages).run(Case.of(image, film)):
        ended = (result.excluded_by, result.reason) if isinstance(result, Exclusion) else ("", "")
        found[result.part] = {**result.values, "excluded_by": ended[0], "exclusion_reason": ended[1]}
        if isinstance(result, Case):
            called = [lesion for lesion in result.lesions if lesion["called"]]
            found[result.part]["lesions"] = ", ".join(sorted(str(lesion["type"]) for lesion in called))
            found[result.part][_LESIONS] = [float(lesion["score"]) for lesion in result.lesions]
    return found


def _different(one: Mapping[str, Mapping[str, Any]], other: Mapping[str, Mapping[str, Any]]) -> tuple[str, set[str]]:
    """What differs between two answers to a film, in words, and the targets whose threshold decides it.

    ("", none) when nothing does. No threshold decides how a film is turned, nor whose side a hip is.
    """
    if set(one) != set(other):
        whole = {answer[""]["excluded_by"] for answer in (one, other) if "" in answer}
        return f"hips found: {', '.join(one) or 'none'}; {', '.join(other) or 'none'}", whole or {"localizer"}
    for part, values in one.items():
        for name in ("turns", "image_side", "side", "excluded_by", "exclusion_reason", "location", "lesions"):
            mine, others = values.get(name), other[part].get(name)
            if mine != others:
                by: dict[str, set[str]] = {
                    "excluded_by": {str(mine), str(others)} - {""},
                    "location": {"fracture", "location"},
                    "lesions": {"hemorrhage", _LESIONS},
                }
                return f"{name}: {mine}; {others}", by.get(name, set())
        volume, theirs = (float(answer.get("volume_ml", np.nan)) for answer in (values, other[part]))
        if abs(volume - theirs) > max(ML, ML_SHARE * volume):
            return f"volume: {volume:.3f} ml; {theirs:.3f} ml", set()
    return "", set()


def _near_threshold(
    stages: Sequence[Stage], targets: set[str], answers: Sequence[Mapping[str, Any]], within: float = LOGITS
) -> bool:
    """Whether a score of ``targets`` lies so near its threshold that rounding decides; "location": intra near extra."""
    deciding = [stage for stage in stages if stage.decision.target in targets]
    for values in answers:
        for stage in deciding:
            value = values.get(f"score_{stage.decision.target}")
            if value is not None and abs(value - stage.frozen.threshold) <= within:
                return True
        if _LESIONS in targets and any(
            abs(score - stage.frozen.threshold) <= within for stage in deciding for score in values.get(_LESIONS, ())
        ):
            return True
        located = "location" in targets and "location" in values
        if located and abs(values["score_location_intra"] - values["score_location_extra"]) <= within:
            return True
    return False


def _head_distance(stage: Stage, decision: Localizer, pixels: Pictures, one: Outputs, other: Outputs) -> float:
    """Largest distance between the head centres of hips that are found, in pixels of the network's input."""
    sample = Sample(pixels=pixels, affine=identity())
    moved = 0.0
    for part, logit in decision.logits(one).items():
        if stage.frozen.probability(logit) >= stage.frozen.threshold:
            move = decision.head(part, sample, one)[0] - decision.head(part, sample, other)[0]
            moved = max(moved, float(np.hypot(*move)))
    return moved


def _difference(one: Any, other: Any) -> float:
    """Largest absolute difference; infinite where the shapes differ, and where an answer is no number: none agrees."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if one.shape != other.shape or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float("inf")
    return float(np.abs(one - other).max(initial=0.0))

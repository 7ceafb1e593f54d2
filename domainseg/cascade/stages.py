"""Stages, and the decisions of the hip cascade: what each makes of its network's outputs.

Every stage is its preprocessing, a network (a function from arrays to named arrays: torch, ONNX Runtime and OpenVINO
are the same to it), frozen numbers chosen on tune (threshold, calibration), and ``decide``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.operations import Sample
from domainseg.imaging.film import Film
from domainseg.imaging.geometry import inverse, quarter_turns, square, step, transform
from domainseg.imaging.sides import patient_side

Outputs = Mapping[str, NDArray[np.float32]]
Network = Callable[[NDArray[np.float32]], Mapping[str, NDArray[np.float32]]]
HEADS_APART = 3.5  # diameters of a femoral head between both (our choice: 17 cm and more at 5 cm)
ROI_SIZE = 1024  # pixels of the ROI that Gale et al. 2017 (arXiv 1711.06504) cut around the femoral head


@dataclass(frozen=True)
class Frozen:
    """Chosen on the tune split, then frozen: P = sigmoid(slope * logit + intercept), call = P >= threshold."""

    threshold: float = 0.5
    slope: float = 1.0
    intercept: float = 0.0
    rule: str = "none chosen"
    provisional: bool = True

    def probability(self, logit: float) -> float:
        """Calibrated probability of a raw logit."""
        return float(1 / (1 + np.exp(-np.clip(self.slope * logit + self.intercept, -60, 60))))


class Decision(Protocol):
    """How a stage turns outputs into cases or an exclusion.

    One that answers more than its target also has ``thresholds(frozen)``: {target: from which score on it is called}.
    One that judges films whole, not what it finds in them, has ``part`` = "whole".
    """

    @property
    def target(self) -> str:
        """The question, as tables name it."""

    @property
    def reads(self) -> str:
        """film or volume."""

    @property
    def version(self) -> int:
        """Raised by a change of what is decided from the same outputs: runs and bundles depend on it."""

    def logits(self, outputs: Outputs) -> dict[str, float]:
        """Raw logit of the stage's question, by part ("" where the question is about the case itself)."""

    def decide(self, case: Case, sample: Sample, outputs: Outputs, frozen: Frozen) -> list[Case] | Exclusion:
        """What goes on to the next stage, or why the case stops here."""


@dataclass(frozen=True)
class Stage:
    """One step of a cascade; ``network`` maps float32 [N, C, H, W] in 0..1 to named arrays with leading N."""

    name: str
    preprocessing: Sequence[Mapping[str, Any]]
    decision: Decision
    network: Network
    frozen: Frozen = field(default_factory=Frozen)

    @property
    def thresholds(self) -> dict[str, float]:
        """Target -> threshold of all that is decided here: a decision may answer for more than its own target."""
        more = getattr(self.decision, "thresholds", None)
        return {self.decision.target: self.frozen.threshold, **(more(self.frozen) if more else {})}


@dataclass(frozen=True)
class ViewFilter:
    """Keeps frontal hip and pelvis films and turns them upright.

    Outputs: view [3] logits (frontal hip, other view of the hip, other body part), turn [4] logits (quarter turns k
    such that np.rot90(pixels, k) stands upright).
    """

    target: str = "view_filter"
    reads: ClassVar[str] = "film"
    version: ClassVar[int] = 1

    def logits(self, outputs: Outputs) -> dict[str, float]:
        """Logit of P(frontal hip or pelvis) against the two other classes together."""
        view = outputs["view"].astype(np.float64)
        return {"": float(view[0] - np.logaddexp(view[1], view[2]))}

    def decide(self, case: Case, sample: Sample, outputs: Outputs, frozen: Frozen) -> list[Case] | Exclusion:
        """The upright film, or an exclusion that names the class the film was taken for."""
        score = frozen.probability(self.logits(outputs)[""])
        turns = int(np.argmax(outputs["turn"]))
        case = case.with_values(score_view_filter=score, turns=turns)
        if score < frozen.threshold:
            reason = ("not_frontal_hip", "other_view_of_hip", "other_body_part")[int(np.argmax(outputs["view"]))]
            return Exclusion(case.image, case.part, self.target, reason, case.values)
        shape = case.shape if turns % 2 == 0 else case.shape[::-1]
        return [replace(case, affine=case.affine @ quarter_turns(case.shape, turns), shape=shape)]


PARTS = ("hip_left", "hip_right")


@dataclass(frozen=True)
class Localizer:
    """Finds the femoral heads and cuts a square ROI around each proximal femur.

    Accepts either network of the contract. Segmentation: head [2, h, w] heatmap logits (left, right in the picture),
    diameter [1, h, w], log of head diameter over input width, read at the head. Regression (as in Gale): presence
    [2], center [2, 2] in 0..1 of the input, diameter [2].

    roi_heads: side of the ROI in head diameters, the same at every site, so that stated spacing tells no site apart.
    lateral, distal: shift of its middle away from the head towards trochanter and shaft, in head diameters.
    """

    roi_heads: float = 3.4
    lateral: float = 0.45
    distal: float = 0.75
    target: str = "localizer"
    reads: ClassVar[str] = "film"
    version: ClassVar[int] = 1

    def logits(self, outputs: Outputs) -> dict[str, float]:
        """Logit that this hip is in the film, by part."""
        if "presence" in outputs:
            return {part: float(outputs["presence"][k]) for k, part in enumerate(PARTS)}
        return {part: float(outputs["head"][k].max()) for k, part in enumerate(PARTS)}

    def decide(self, case: Case, sample: Sample, outputs: Outputs, frozen: Frozen) -> list[Case] | Exclusion:
        """One case a hip found, its frame the mirrored-to-canonical ROI; an exclusion where there is none.

        Two heads less than a head apart are one hip seen twice: the likelier side keeps it.
        """
        scores = {part: frozen.probability(logit) for part, logit in self.logits(outputs).items()}
        kept = {part: self.head(part, sample, outputs) for part in PARTS if scores[part] >= frozen.threshold}
        if len(kept) == 2:
            (one, diameter), (other, _) = kept.values()
            if np.hypot(*(one - other)) < diameter:
                del kept[min(kept, key=lambda part: scores[part])]
        if not kept:
            values = {**case.values, "score_localizer": max(scores.values())}
            return Exclusion(case.image, case.part, self.target, "no_hip_found", values)
        return [
            self.roi(
                case.with_values(score_localizer=scores[part]),
                part,
                *head,
                alone=len(kept) == 1 and _alone(case, part, *head),
            )
            for part, head in kept.items()
        ]

    def head(self, part: str, sample: Sample, outputs: Outputs) -> tuple[NDArray[np.float64], float]:
        """Femoral head centre (x, y) and diameter, both in source pixels."""
        k = PARTS.index(part)
        size = sample.pixels.shape[1]
        if "presence" in outputs:
            point = outputs["center"][k].astype(np.float64) * np.array(sample.pixels.shape[::-1]) - 0.5
            log_diameter = float(outputs["diameter"][k])
        else:
            heat = outputs["head"][k]
            row, column = np.unravel_index(int(np.argmax(heat)), heat.shape)
            stride = size / heat.shape[1]
            top, left = max(0, row - 3), max(0, column - 3)
            # Sub-pixel: centre of mass of the peak's own neighbourhood.
            window = 1 / (1 + np.exp(-heat[top : row + 4, left : column + 4].astype(np.float64)))
            ys, xs = np.mgrid[top : top + window.shape[0], left : left + window.shape[1]]
            point = np.array([(xs * window).sum(), (ys * window).sum()]) / window.sum()
            log_diameter = float(outputs["diameter"][0][row, column])
            point = point * stride + (stride - 1) / 2
        diameter = float(np.exp(np.clip(log_diameter, -6, 0))) * size * step(sample.affine)
        return transform(sample.affine, point), diameter

    def roi(self, case: Case, part: str, center: NDArray[np.float64], diameter: float, *, alone: bool = True) -> Case:
        """The case of one hip: ROI around ``center`` (source pixels) on the upright frame of ``case``.

        alone: whether it is the film's only hip, so that a laterality tag speaks of it.
        """
        upright = case.affine
        assert isinstance(case.film, Film)
        lateral = -1 if part == "hip_left" else 1
        head = transform(inverse(upright), center)
        unit = diameter / step(upright)
        middle = head + unit * np.array([lateral * self.lateral, self.distal])
        affine = upright @ square(middle, self.roi_heads * unit, ROI_SIZE, mirrored=part == "hip_right")
        side, source = patient_side(case.film, upright, part.removeprefix("hip_"), alone=alone)
        corners = transform(affine, [[-0.5, -0.5], [1023.5, -0.5], [1023.5, 1023.5], [-0.5, 1023.5]])
        values = {f"roi_{axis}{k + 1}": float(corners[k, j]) for k in range(4) for j, axis in enumerate("xy")}
        return replace(case, part=part, affine=affine, shape=(ROI_SIZE, ROI_SIZE)).with_values(
            head_x=float(center[0]),
            head_y=float(center[1]),
            head_diameter=diameter,
            image_side=part.removeprefix("hip_"),
            side=side,
            side_source=source,
            **values,
        )


def _alone(case: Case, part: str, center: NDArray[np.float64], diameter: float) -> bool:
    """Whether a hip (source pixels) is the only one in the film: the other head would lie outside, medially.

    One that was not found, as a prosthesis has no head, is in the film all the same.
    """
    medial = 1 if part == "hip_left" else -1
    other = transform(inverse(case.affine), center)[0] + medial * HEADS_APART * diameter / step(case.affine)
    return not 0 <= other < case.shape[1]


@dataclass(frozen=True)
class ImplantFilter:
    """Sets aside hips with metal: an implant marks a past fracture and gives the label away. Output: implant []."""

    target: str = "implant_filter"
    reads: ClassVar[str] = "film"
    version: ClassVar[int] = 1

    def logits(self, outputs: Outputs) -> dict[str, float]:
        """Logit of P(metal)."""
        return {"": float(outputs["implant"])}

    def decide(self, case: Case, sample: Sample, outputs: Outputs, frozen: Frozen) -> list[Case] | Exclusion:
        """The hip itself, or its exclusion; the other side of the film goes on."""
        score = frozen.probability(self.logits(outputs)[""])
        case = case.with_values(score_implant_filter=score)
        if score >= frozen.threshold:
            return Exclusion(case.image, case.part, self.target, "metal", case.values)
        return [case]


LOCATIONS = ("none", "intra", "extra")


@dataclass(frozen=True)
class FractureDetector:
    """Calls the fracture and its location at full resolution and points at it.

    Outputs: fracture [] logit, location [3] logits (none, intra, extra), map [3, h, w] logits (any, intra, extra).
    ``location`` is none where the fracture is not called, else the likelier of intra and extra. pointing_x and
    pointing_y are the middle of the map's strongest cell, in source pixels.
    """

    target: str = "fracture"
    reads: ClassVar[str] = "film"
    version: ClassVar[int] = 1

    def logits(self, outputs: Outputs) -> dict[str, float]:
        """Logit of P(fracture) before calibration."""
        return {"": float(outputs["fracture"])}

    def decide(self, case: Case, sample: Sample, outputs: Outputs, frozen: Frozen) -> list[Case] | Exclusion:
        """The case with its score, location and pointing position; nothing is excluded here."""
        score = frozen.probability(self.logits(outputs)[""])
        location = outputs["location"].astype(np.float64)
        share = np.exp(location - location.max())
        share /= share.sum()
        called = LOCATIONS[1 + int(share[2] > share[1])] if score >= frozen.threshold else "none"
        values: dict[str, Any] = {f"score_location_{name}": float(p) for name, p in zip(LOCATIONS, share, strict=True)}
        arrays = dict(case.arrays)
        if "map" in outputs:
            heat = outputs["map"][0]
            stride = sample.pixels.shape[1] / heat.shape[1]
            row, column = np.unravel_index(int(np.argmax(heat)), heat.shape)
            x, y = transform(sample.affine, np.array([column, row]) * stride + (stride - 1) / 2)
            values |= {"pointing_x": float(x), "pointing_y": float(y)}
            arrays["map"] = heat
        return [replace(case.with_values(score_fracture=score, location=called, **values), arrays=arrays)]


@dataclass(frozen=True)
class WholeFilm:
    """The whole-image classifier that cascades are compared with: one score a film. Output: fracture []."""

    target: str = "fracture"
    reads: ClassVar[str] = "film"
    version: ClassVar[int] = 1

    def logits(self, outputs: Outputs) -> dict[str, float]:
        """Logit of P(fracture somewhere in the film)."""
        return {"": float(outputs["fracture"])}

    def decide(self, case: Case, sample: Sample, outputs: Outputs, frozen: Frozen) -> list[Case] | Exclusion:
        """The film with its score."""
        return [case.with_values(score_fracture=frozen.probability(self.logits(outputs)[""]))]

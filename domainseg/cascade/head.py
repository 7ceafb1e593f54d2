"""Decisions of the head CT cascade: is this a head, where is it; and what bleeds in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from domainseg.cascade.candidates import Candidate, box_candidates, dense_candidates, disjoint, logit, peak, top
from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.head_box import head_frame
from domainseg.cascade.lens import with_shape
from domainseg.cascade.lesions import Grid, by_type, divided, labels_on_volume, measured, names
from domainseg.cascade.operations import Sample
from domainseg.cascade.stages import Frozen, Outputs
from domainseg.imaging.hemorrhage import TYPES
from domainseg.imaging.volume import Volume

__all__ = ["HeadFilter", "HemorrhageDetector", "labels_on_volume"]


CUT = "the head goes on above the uppermost slice: what lies there was not looked at"


@dataclass(frozen=True)
class HeadFilter:
    """Keeps CTs of the head and cuts the frame around it; notes one that is cut off. Output: head [1] logit."""

    target: str = "head_filter"
    reads: ClassVar[str] = "volume"
    version: ClassVar[int] = 1

    def logits(self, outputs: Outputs) -> dict[str, float]:
        """Logit of P(head CT)."""
        return {"": float(np.ravel(outputs["head"])[0])}

    def decide(self, case: Case, sample: Sample, outputs: Outputs, frozen: Frozen) -> list[Case] | Exclusion:
        """The head in its frame (``head_frame``), or an exclusion."""
        score = frozen.probability(self.logits(outputs)[""])
        case = case.with_values(score_head_filter=score)
        if score < frozen.threshold:
            return Exclusion(case.image, case.part, self.target, "no_head", case.values)
        assert isinstance(case.film, Volume)
        frame = head_frame(case.film)
        if frame.cut:
            case = case.with_values(notes="; ".join([*case.film.notes, CUT]))
        return [replace(case, part="head", affine=frame.affine, shape=frame.shape)]


@dataclass(frozen=True)
class HemorrhageDetector:
    """Calls a hemorrhage, outlines it, types it and measures it.

    Outputs, by slices of the grid: mask [Z, 6, H, W] logits (any bleed; the types among themselves) and presence
    [Z, 6] logits, or boxes [Z, K, 4] (x0, y0, x1, y1 in pixels), scores [Z, K], types [Z, K, 5] logits and masks
    [Z, K, h, w] logits, or both: then boxes make the calls and the mask their outlines.

    A candidate of the mask grows from a 26-connected component of at least ``smallest`` voxels of the grid of
    probability ``level`` or more, over all voxels of ``outline`` or more that hang together with it (where ``outline``
    is the higher one, these are what is drawn, all where it has none); its logit is the mean of its component's
    strongest voxels'. A candidate of boxes are boxes from ``box_level`` on that pass non-maximum suppression at IoU
    ``overlap``, linked over slices, in which the voxels of ``outline`` or more are drawn; what two share goes to the
    stronger one, and with it all of one that it has most of. Its logit is its strongest box's, mixed with the mask's
    there by ``mask_weight``. Of either ``presence`` is the weight of the highest presence logit among its slices. Where
    nothing reaches ``level`` or ``box_level``, what comes closest is the one candidate.
    The exam's logit is that of its strongest candidate, so that an exam that is called shows where; it is the lowest
    there is where a network gives no box at all.

    ``lens_offset`` and ``lens_slope`` tell by a candidate's thickness whether it is rather epidural than subdural, as
    the masks of train do (domainseg/cascade/lens.py); a slope of 0 leaves that to the network.

    A lesion's score is the calibrated probability of its logit; it is called from the threshold on. score_<type> is
    the highest product of a lesion's score, called or not, and that type's share of it: on the exam's scale, but no
    probability of its own; threshold_<type>, chosen on tune like the exam's, tells when a type is called. In shares
    ``presence`` is the weight of the presence head too. All numbers are chosen on tune (domainseg/training/tuned.py).
    """

    level: float = 0.5
    outline: float = 0.5
    smallest: float = 4.0
    presence: float = 0.0
    box_level: float = 0.05
    overlap: float = 0.5
    mask_weight: float = 0.0
    lens_offset: float = 0.0
    lens_slope: float = 0.0
    threshold_intraparenchymal: float = 0.5
    threshold_subdural: float = 0.5
    threshold_epidural: float = 0.5
    threshold_subarachnoid: float = 0.5
    threshold_intraventricular: float = 0.5
    target: str = "hemorrhage"
    reads: ClassVar[str] = "volume"
    version: ClassVar[int] = 1

    def thresholds(self, frozen: Frozen) -> dict[str, float]:
        """From which score on each type is called."""
        return {name: float(getattr(self, f"threshold_{name}")) for name in TYPES}

    def logits(self, outputs: Outputs) -> dict[str, float]:
        """Logit of P(hemorrhage) of the exam, before calibration."""
        return {"": self.exam_logit(self.candidates(outputs, _shape(outputs)))}

    def candidates(self, outputs: Outputs, shape: tuple[int, int]) -> list[Candidate]:
        """What may be a bleed, strongest first; shape: height and width of the pictures."""
        if "boxes" in outputs:
            found = box_candidates(outputs, shape, self.box_level, self.outline, self.overlap)
        else:
            found = dense_candidates(outputs["mask"], self.level, self.outline, self.smallest)
            if not found:
                found = [peak(outputs["mask"], int(np.argmax(self.slice_logits(outputs))), self.outline)]
        weighed = []
        for one in found:
            value = one.logit
            if "boxes" in outputs and "mask" in outputs:
                dense = top(outputs["mask"][one.z, 0, one.y, one.x])
                value += self.mask_weight * (dense - value)
            one = replace(one, logit=self._with_presence(value, outputs, np.unique(one.z)))
            weighed.append(with_shape(one, self.lens_offset, self.lens_slope) if self.lens_slope else one)
        weighed.sort(key=lambda one: -one.logit)
        return disjoint(weighed) if "boxes" in outputs else weighed  # what two boxes share is one bleed

    def slice_logits(self, outputs: Outputs) -> NDArray[np.float64]:
        """How likely each slice of the grid is to show a bleed, [Z]: its strongest voxels or box, and its presence."""
        if "boxes" in outputs:
            heights = [logit(float(scores.max(initial=0.0))) for scores in outputs["scores"]]
        else:
            heights = [top(plane) for plane in outputs["mask"][:, 0]]
        return np.array([self._with_presence(value, outputs, np.array([z])) for z, value in enumerate(heights)])

    @staticmethod
    def exam_logit(candidates: list[Candidate]) -> float:
        """The strongest candidate's logit."""
        return candidates[0].logit if candidates else logit(0.0)

    def _with_presence(self, value: float, outputs: Outputs, slices: NDArray[np.intp]) -> float:
        if "presence" not in outputs or not self.presence:
            return value
        return value + self.presence * (float(outputs["presence"][slices, 0].max()) - value)

    def decide(self, case: Case, sample: Sample, outputs: Outputs, frozen: Frozen) -> list[Case] | Exclusion:
        """The exam with its scores, volumes and lesions; nothing is excluded here.

        Raises ValueError for a mask of another size than the pictures: it would be measured in the wrong place.
        """
        shape = sample.pixels.shape[-2:]
        if "mask" in outputs and outputs["mask"].shape[-2:] != shape:
            raise ValueError(f"a mask of {outputs['mask'].shape[-2:]} for pictures of {shape}")
        depth = len(next(iter(outputs.values())))
        found = self.candidates(outputs, (int(shape[0]), int(shape[1])))
        score = frozen.probability(self.exam_logit(found))
        grid = Grid.of(case, sample.affine, depth)
        lesions: list[dict[str, Any]] = []
        numbers = np.zeros((depth, *shape), np.uint16)
        for one in found:
            probability = frozen.probability(one.logit)
            likely = one.types * one.types.mean(axis=0)  # a voxel that is unsure is what its candidate mostly is
            typed = divided(1 + np.argmax(likely, axis=1), likely)
            for name, code in names(typed):
                own = typed == code
                z, y, x = one.z[own], one.y[own], one.x[own]
                row = {"lesion": len(lesions) + 1, "source": "predicted", "type": name, "score": probability}
                called = int(probability >= frozen.threshold)
                lesions.append({**row, "called": called, **measured(grid, z, y, x)})
                numbers[z, y, x] = len(lesions)
        for lesion, ml in zip(lesions, grid.ml(numbers)[1:], strict=True):
            lesion["ml"] = float(ml)
        arrays = {**case.arrays, "lesions": numbers, "grid": sample.affine}
        types = {f"score_{name}": value for name, value in self.type_scores(outputs, found, frozen).items()}
        volumes = by_type(lesions, known=grid.volume.affine is not None)
        case = case.with_values(score_hemorrhage=score, **types, **volumes)
        return [replace(case, lesions=lesions, arrays=arrays)]

    def type_scores(self, outputs: Outputs, candidates: list[Candidate], frozen: Frozen) -> dict[str, float]:
        """score_<type> of each type."""
        products = [
            frozen.probability(one.logit) * self._shares(one.types, outputs, np.unique(one.z)) for one in candidates
        ]
        highest = np.max(products, axis=0, initial=0.0) if products else np.zeros(len(TYPES))
        return dict(zip(TYPES, highest.tolist(), strict=True))

    def _shares(self, types: NDArray[np.float32], outputs: Outputs, slices: NDArray[np.intp]) -> NDArray[np.float64]:
        """The types' shares [5] of voxels [n, 5], with the presence head's opinion of their slices."""
        share: NDArray[np.float64] = types.mean(axis=0, dtype=np.float64)
        if "presence" not in outputs or not self.presence:
            return share
        said = 1 / (1 + np.exp(-outputs["presence"][slices, 1:].max(axis=0).astype(np.float64)))
        return np.asarray(share + self.presence * (said / said.sum() - share), np.float64)


def _shape(outputs: Mapping[str, NDArray[np.float32]]) -> tuple[int, int]:
    """Height and width of the pictures, or of what holds all boxes: a candidate's logit is the same on either."""
    if "mask" in outputs:
        height, width = outputs["mask"].shape[-2:]
        return int(height), int(width)
    reach = outputs["boxes"].reshape(-1, 4).max(axis=0, initial=1.0)
    return int(np.ceil(reach[3])), int(np.ceil(reach[2]))

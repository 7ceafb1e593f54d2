"""Training of the hemorrhage networks on slabs: outlines and types where there are masks, presence everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainseg.imaging.hemorrhage import TYPES
from domainseg.networks import BoxesAndOutlines, MaskRoiCnn
from domainseg.tasks import ranks
from domainseg.tasks.fit import FitContext, StepModule, fit
from domainseg.tasks.hemorrhage_items import Exam, ExamDataset, LesionDataset, SlabDataset, Windows
from domainseg.tasks.items import balancing

NO_TYPE = -1
SMOOTH = 10.0  # pixels added to a slab's Dice: an outline of a few pixels is not held to each of them
DENSE_SMOOTH = 2.0  # the same at the finest level of the detector's pyramid
FLOOR = 2e-3  # share of the pixels that count as blood at least, for batches without any


class DenseModule(StepModule):
    """Outline of any hemorrhage (Dice and focal), its type where known (Dice too), and presence in the slice.

    Coarser masks that a network gives in training are learned from too, with weights that halve from level to level
    (deep supervision, as nnU-Net has it: Isensee et al. 2021, Nature Methods 18:203).
    Slabs without masks count for presence only. focal: exponent of the focal loss, 0 is plain cross-entropy.
    dice, slab, pixel, type, typed, presence: weights of the parts.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        steps: int,
        lr: float,
        focal: float = 1.0,
        dice: float = 0.5,
        slab: float = 0.5,
        pixel: float = 1.0,
        type: float = 1.0,
        typed: float = 1.0,
        presence: float = 0.5,
    ) -> None:
        super().__init__(network, steps=steps, lr=lr)
        self.focal = focal
        self.parts = {"dice": dice, "slab": slab, "pixel": pixel, "type": type, "typed": typed, "presence": presence}

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parts and their weighted sum, with that of coarser masks: 1 / s of the loss of one at stride s."""
        outputs = self.network(batch["picture"])
        codes, outlined = batch["codes"], batch["outlined"]
        losses = {
            **outline_losses(outputs["mask"], codes, outlined, self.focal),
            "presence": presence_loss(outputs["presence"], batch["presence"]),
        }
        found = weighted(losses, self.parts)
        for name, mask in outputs.items():
            if name.startswith("mask_"):
                stride = codes.shape[-1] // mask.shape[-1]
                coarse = codes[:, stride // 2 :: stride, stride // 2 :: stride]
                own = weighted(outline_losses(mask, coarse, outlined, self.focal), self.parts)["loss"]
                found = {**found, "loss": found["loss"] + own / stride, f"{name}_loss": own}
        return found


class DetectorModule(StepModule):
    """The losses of anchors and boxes (torchvision's), and of what a network learns from faster: a dense map, presence.

    Slabs without masks count for presence only. Weights: objectness and anchor (of the proposals), class, box, mask and
    type (of the boxes), dense (Dice, half of it slab by slab as in `outline_losses`, and cross-entropy of blood at the
    finest level; without it the network stayed on background), presence.
    """

    network: MaskRoiCnn

    def __init__(
        self,
        network: nn.Module,
        *,
        steps: int,
        lr: float,
        dense: float = 1.0,
        type: float = 0.5,
        presence: float = 0.5,
    ) -> None:
        super().__init__(network, steps=steps, lr=lr)
        torchvision = dict.fromkeys(("objectness", "anchor", "class", "box", "mask"), 1.0)
        self.parts = {**torchvision, "type": type, "dense": dense, "presence": presence}

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parts and their weighted sum."""
        outputs, means, counts = self.network.detection_losses(
            batch["picture"], _targets(batch), batch["outlined"].bool()
        )
        losses = {name: mean * (counts[name] / ranks.count(counts[name])) for name, mean in means.items()}
        side = batch["codes"].shape[-1] // outputs["dense"].shape[-1]
        blood = F.avg_pool2d((batch["codes"] > 0).float()[:, None], side)[:, 0]
        dice, pixel = blood_losses(outputs["dense"], blood, batch["outlined"], 1.0)
        slab = slab_loss(outputs["dense"], blood, batch["outlined"], DENSE_SMOOTH)
        losses["dense"] = 0.5 * (dice + slab) + pixel
        losses["presence"] = presence_loss(outputs["presence"], batch["presence"])
        return weighted(losses, self.parts)


class ExamModule(StepModule):
    """Labels of whole exams: the slab in which hemorrhage, or a type, is most likely must show it, or none may."""

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of presence."""
        pictures = batch["pictures"]
        logits = self.network(pictures.flatten(0, 1))["presence"]
        return {"loss": presence_loss(logits.unflatten(0, pictures.shape[:2]).amax(1), batch["truth"])}


def _targets(batch: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """What the detector's heads learn from, slab by slab."""
    found = []
    for boxes, types, instances in zip(batch["boxes"], batch["types"], batch["instances"], strict=True):
        there = types >= 0
        numbers = torch.arange(1, 1 + len(types), device=types.device)[there]
        found.append(
            {
                "boxes": boxes[there],
                "labels": torch.ones_like(types[there]),
                "types": types[there],
                "masks": (instances == numbers[:, None, None]).to(torch.uint8),
            }
        )
    return found


def weighted(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """``loss``, the weighted sum, and each part by its name."""
    loss = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
    return {"loss": loss, **{f"{name}_loss": value for name, value in losses.items()}}


def outline_losses(logits: Tensor, codes: Tensor, outlined: Tensor, focal: float) -> dict[str, Tensor]:
    """Losses of mask logits [B, 6, H, W] against codes [B, H, W], in slabs with masks (outlined [B]).

    dice: 1 - Dice of any hemorrhage over the whole batch. slab: the same within each slab that shows any, the mean of
    these slabs, in which a thin bleed counts as much as a large one (our choice). pixel: focal binary cross-entropy of
    any hemorrhage. type: cross-entropy among the types where the type is known, the mean of each type's mean, for a
    subarachnoid bleed has few pixels beside an intraparenchymal one (our choice). typed: 1 - Dice of each type that the
    batch shows, as it is drawn, over the whole batch; the mean of the types (our choice).
    """
    logits = logits.float()
    typed = (codes >= 1) & (codes <= len(TYPES))
    target = torch.where(typed, codes - 1, NO_TYPE)
    wrong = F.cross_entropy(logits[:, 1:], target, ignore_index=NO_TYPE, reduction="none")
    of_type = F.one_hot(target + 1, len(TYPES) + 1)[..., 1:].float()
    counts = of_type.sum((0, 1, 2))
    mean = (wrong[..., None] * of_type).sum((0, 1, 2)) / ranks.count(counts)
    dice, pixel = blood_losses(logits[:, 0], (codes > 0).float(), outlined, focal)
    drawn = logits[:, 1:].softmax(1).movedim(1, -1) * logits[:, :1].sigmoid().movedim(1, -1)
    known = (outlined[:, None, None] * (codes <= len(TYPES)))[..., None]
    both, sizes = (ranks.total(part.sum((0, 1, 2))) for part in (drawn * of_type * known, (drawn + of_type) * known))
    shown = (ranks.total(counts) > 0).float()
    typed = ((1 - (2 * both + 1) / (sizes + 1)) * shown).sum() / shown.sum().clamp(min=1)
    slab = slab_loss(logits[:, 0], codes > 0, outlined)
    return {"dice": dice, "slab": slab, "pixel": pixel, "type": mean.sum() / len(TYPES), "typed": typed}


def slab_loss(logits: Tensor, blood: Tensor, outlined: Tensor, smooth: float = SMOOTH) -> Tensor:
    """1 - Dice within each slab with a mask that shows blood, the mean of these; logits and blood are [B, H, W]."""
    drawn = logits.sigmoid()
    both, sizes = (drawn * blood).sum((1, 2)), (drawn + blood).sum((1, 2))
    shown = outlined * blood.any(2).any(1)
    return ((1 - (2 * both + smooth) / (sizes + smooth)) * shown).sum() / ranks.count(shown.sum())


def blood_losses(logits: Tensor, blood: Tensor, outlined: Tensor, focal: float) -> tuple[Tensor, Tensor]:
    """Dice loss over the whole batch and focal binary cross-entropy; logits and blood (0..1) are [B, H, W].

    The latter is a sum over pixels by the number of those that show blood. A mean over all pixels is so small beside
    the type's loss that a hundred steps went by before anything was outlined.
    """
    logits = logits.float()
    known = outlined[:, None, None]
    probability = logits.sigmoid()
    both = ranks.total((probability * blood * known).sum())
    sizes = ranks.total(((probability + blood) * known).sum())
    each = F.binary_cross_entropy_with_logits(logits, blood, reduction="none")
    hard = (probability - blood).abs().detach() ** focal
    pixels = (blood * known).sum() + known.sum() * blood[0].numel() * FLOOR
    pixel = (each * hard * known).sum() / ranks.count(pixels)
    return 1 - (2 * both + 1) / (sizes + 1), pixel


def presence_loss(logits: Tensor, presence: Tensor) -> Tensor:
    """Binary cross-entropy of presence [B, 6] where known (not NaN)."""
    known = ~presence.isnan()
    each = F.binary_cross_entropy_with_logits(logits.float(), presence.nan_to_num(), reduction="none")
    return (each * known).sum() / ranks.count(known.sum())


def fit_hemorrhage(
    network: nn.Module,
    items: Sequence[Exam],
    context: FitContext,
    *,
    windows: Windows,
    positives: float,
    dense: Mapping[str, Any],
    detector: Mapping[str, Any],
    exams: Mapping[str, Any],
    augment: Mapping[str, Any],
) -> None:
    """Train a hemorrhage network in place: slabs of which it is known what they show, then labels of whole exams.

    windows: low and high in HU, as in the stage's preprocessing. positives: share of slabs that show hemorrhage.
    dense: steps, batch_size, lr and the weights of `DenseModule`, for networks that outline. detector: steps,
    batch_size, lr, min_area (pixels of the smallest lesion) and the weights of `DetectorModule`, for those that detect.
    exams: steps, batch_size, lr and slabs (of an exam at a time) for presence, where an exam is known to show
    hemorrhage and not where; left out where there is none. augment: see `SlabAugmenter`.
    """
    slabs: dict[str, Any] = {
        "slices": int(network.channels) // len(windows),  # type: ignore[arg-type]
        "windows": windows,
        "augment": augment,
        "seed": context.seed,
    }
    outlines, detects = _parts(network)
    dataset = SlabDataset(items, **slabs)
    if outlines is not None and len(dataset):
        settings = dict(dense)
        size = int(settings.pop("batch_size"))
        weights = dataset.weights(positives)
        fit(DenseModule(outlines, **settings), dataset, batch_size=size, context=context, name="dense", weights=weights)
    if detects is not None and len(dataset):
        settings = dict(detector)
        size = int(settings.pop("batch_size"))
        dataset = LesionDataset(items, min_area=int(settings.pop("min_area")), **slabs)
        module = DetectorModule(detects, **settings)
        weights = dataset.weights(positives)
        fit(module, dataset, batch_size=size, context=context, name="detector", weights=weights)
    if exams["steps"] and any(is_weak(exam) for exam in items):
        whole = ExamDataset(items, count=int(exams["slabs"]), **slabs)
        fit(
            ExamModule(outlines or network, steps=exams["steps"], lr=exams["lr"]),
            whole,
            batch_size=exams["batch_size"],
            context=context,
            name="exams",
            weights=balancing([int(exam.truth["hemorrhage"]) for exam in whole.exams]),
        )
    network.eval()


def _parts(network: nn.Module) -> tuple[nn.Module | None, MaskRoiCnn | None]:
    """What outlines and what detects."""
    if isinstance(network, BoxesAndOutlines):
        return network.outliner, network.detector
    return (None, network) if isinstance(network, MaskRoiCnn) else (network, None)


def is_weak(exam: Exam) -> bool:
    """Whether an exam is known to show hemorrhage, and none of its slices is."""
    return exam.truth["hemorrhage"] == 1 and not exam.has_mask and bool(np.isnan(exam.slices[:, 0]).all())

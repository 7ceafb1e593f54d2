"""Training of the fracture network: dense maps on patches first, the whole ROI and the two heads after.

The order is ours, found by trial (end-to-end training of 1024 px ROIs from scratch stays at chance for a long time on
a few hundred hips): 1. patches of the full-resolution ROI with the fracture line as a dense target at strides 8, 16
and 32; 2. the tail (last blocks, the fracture and the location head) on cached stride-32 features of whole ROIs;
3. optionally all of it end to end with the norms' statistics held. Films whose fracture has no outline take part from
step 2 on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainseg.imaging.geometry import Affine, warp
from domainseg.networks import FractureDenseNet
from domainseg.tasks import ranks
from domainseg.tasks.augment import Augmenter
from domainseg.tasks.fit import FitContext, StepModule, fit
from domainseg.tasks.items import Item, ItemDataset, StepDataset, as_unit, balancing

log = logging.getLogger(__name__)

LESION = "lesion"


class PatchDataset(StepDataset):
    """Square patches of the ROI with the fracture line's mask.

    truth: fracture (0, 1), location (0 none, 1 intra, 2 extra, -1 unknown). A fractured hip mostly gives patches around
    its line, an intact one half the time where lines of other hips lie, so that place alone tells nothing and mimics
    are met often; the rest lies anywhere, so that the map learns the pelvis too.
    """

    def __init__(self, items: Sequence[Item], augmenter: Augmenter, *, size: int, seed: int) -> None:
        super().__init__([item.image for item in items])
        self.items, self.augmenter, self.size, self.seed = items, augmenter, size, seed
        self.spots: dict[int, np.ndarray[Any, Any]] = {}
        for index, item in enumerate(items):
            mask = item.mask(LESION)
            if mask is not None and mask.any():
                spots = np.argwhere(mask)
                self.spots[index] = spots[:: max(1, len(spots) // 200)]
        self.lines = np.concatenate(list(self.spots.values()))

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        draw, index = key
        item = self.items[index]
        rng = np.random.default_rng((self.seed, draw, index, 1))
        planes = item.planes()
        spots = self.spots.get(index, self.lines)
        row, column = spots[rng.integers(len(spots))]
        if rng.random() < (0.15 if index in self.spots else 0.5):
            row, column = rng.integers(planes.shape[1]), rng.integers(planes.shape[2])
        # Turned and scaled while it is cut out, so that no border is made up inside the film.
        angle, scale = np.deg2rad(rng.uniform(-12, 12)), np.exp(rng.uniform(-0.12, 0.12))
        turn: Affine = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        turn[:2, :2] *= scale
        shift = rng.uniform(-0.35, 0.35, 2) * self.size
        middle = (self.size - 1) / 2
        affine = _translate(column, row) @ turn @ _translate(shift[0] - middle, shift[1] - middle)
        shape = (self.size, self.size)
        cut = as_unit(warp(np.asarray(planes[0]), affine, shape, fill=32768))
        picture = self.augmenter(cut, epoch=draw, index=index).image
        lesion = np.zeros(shape, np.float32)
        if index in self.spots:
            plane = np.asarray(planes[1 + list(item.masks).index(LESION)])
            lesion = (warp(plane, affine, shape) > 16384).astype(np.float32)
        return {
            "picture": torch.from_numpy(picture)[None],
            "lesion": torch.from_numpy(lesion)[None],
            "location": int(item.truth["location"]),
        }


class PatchModule(StepModule):
    """Binary cross-entropy on the maps (any, intra, extra); cells of lines and the rest weigh the same in sum."""

    network: FractureDenseNet

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loss per stride and their mean."""
        location = batch["location"]
        losses: dict[str, Tensor] = {}
        for stride, logits in self.network.dense(batch["picture"]).items():
            line = F.max_pool2d(batch["lesion"], stride)
            intra = line * (location == 1)[:, None, None, None]
            extra = line * (location == 2)[:, None, None, None]
            target = torch.cat([line, intra, extra], 1)
            known = torch.ones_like(target)
            known[:, 1:] *= (location >= 0)[:, None, None, None]
            each = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none") * known
            positive = (each * target).sum() / ranks.count(target.sum())
            rest = (1 - target) * known
            negative = (each * rest).sum() / ranks.count(rest.sum())
            losses[f"stride_{stride}"] = 0.3 * positive + negative
        return {"loss": torch.stack(list(losses.values())).mean(), **losses}


class FeatureDataset(StepDataset):
    """Cached stride-32 features of whole ROIs, shifted by up to two cells."""

    def __init__(self, features: Tensor, items: Sequence[Item], seed: int) -> None:
        super().__init__([item.image for item in items])
        self.features, self.truths, self.seed = features, [item.truth for item in items], seed

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        draw, index = key
        rng = np.random.default_rng((self.seed, draw, index, 2))
        down, right = (int(value) for value in rng.integers(-2, 3, 2))
        feature = F.pad(self.features[index].float(), (2, 2, 2, 2), mode="replicate")
        height, width = self.features.shape[-2:]
        return {
            "feature": feature[:, 2 + down : 2 + down + height, 2 + right : 2 + right + width],
            "fracture": float(self.truths[index]["fracture"]),
            "location": int(self.truths[index]["location"]),
        }


def head_losses(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], location_weight: float
) -> dict[str, Tensor]:
    """The two losses of Gale et al. 2017: fracture or not, and location (none, intra, extra; unknown masked out)."""
    fracture = F.binary_cross_entropy_with_logits(outputs["fracture"].float(), batch["fracture"].float())
    known = ranks.count((batch["location"] >= 0).sum())
    location = F.cross_entropy(outputs["location"].float(), batch["location"], ignore_index=-1, reduction="sum") / known
    return {"loss": fracture + location_weight * location, "fracture_loss": fracture, "location_loss": location}


class Tail(nn.Module):
    """The part of the fracture network behind the stride-32 map."""

    def __init__(self, network: FractureDenseNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Features [B, C, h, w] to the fracture and location logits."""
        outputs: dict[str, Tensor] = self.network.tail(features)
        return outputs


class TailModule(StepModule):
    """The two head losses on cached features."""

    def __init__(
        self, network: nn.Module, *, location_weight: float, steps: int, lr: float, weight_decay: float
    ) -> None:
        super().__init__(network, steps=steps, lr=lr, weight_decay=weight_decay)
        self.location_weight = location_weight

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fracture and location loss."""
        return head_losses(self.network(batch["feature"]), batch, self.location_weight)


class RoiDataset(ItemDataset):
    """Whole ROIs with the labels of both heads."""

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        draw, index = key
        item = self.items[index]
        return {
            "picture": torch.from_numpy(self.augmenter(item.picture(), epoch=draw, index=index).image)[None],
            "fracture": float(item.truth["fracture"]),
            "location": int(item.truth["location"]),
        }


class RoiModule(StepModule):
    """The two head losses on whole ROIs; the norms' running statistics are held, for batches are small at 1024 px."""

    network: FractureDenseNet

    def __init__(self, network: nn.Module, *, location_weight: float, steps: int, lr: float) -> None:
        super().__init__(network, steps=steps, lr=lr)
        self.location_weight = location_weight

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Hold the statistics: Lightning sets train mode at every start."""
        super().on_train_batch_start(batch, batch_idx)
        self.network.freeze_norm()

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fracture and location loss."""
        return head_losses(self.network(batch["picture"]), batch, self.location_weight)


@torch.no_grad()
def features(network: FractureDenseNet, items: Sequence[Item], context: FitContext) -> Tensor:
    """Stride-32 features of whole ROIs, [N, C, 32, 32] in bfloat16 on the CPU, made by all processes together."""
    device = torch.device("cuda" if context.accelerator == "gpu" else "cpu")
    network.eval().to(device)
    found = []
    for item in ranks.share(items):
        picture = torch.from_numpy(item.picture())[None, None].to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled="bf16" in context.precision):
            found.append(network.front(picture)[0].to("cpu", torch.bfloat16))
    parts = ranks.gather(found)
    return torch.stack([parts[number % len(parts)][number // len(parts)] for number in range(len(items))])


def fit_fracture(
    network: FractureDenseNet,
    items: Sequence[Item],
    context: FitContext,
    *,
    location_weight: float,
    patch: Mapping[str, Any],
    tail: Mapping[str, Any],
    whole: Mapping[str, Any],
    augment: Mapping[str, Any],
) -> None:
    """Train a fracture network in place, in the three phases of this module.

    patch: steps, batch_size, lr, size (pixels of the ROI), positives (share of fractured hips).
    tail: steps, batch_size, lr, weight_decay. whole: steps, batch_size, lr; no steps leaves the phase out.
    """
    augmenter = Augmenter(seed=context.seed, **augment)
    outlined = [item for item in items if item.truth["fracture"] == 0 or _shows_line(item)]
    labels = [int(item.truth["fracture"]) for item in outlined]
    if patch["steps"] and not any(labels):
        log.warning(
            "fracture: no fractured hip has an outline, so the first blocks keep the weights that they began with; "
            "outline fractures, begin from a run (init_from), or train the whole network (whole.steps)"
        )
    elif patch["steps"]:
        fit(
            PatchModule(network, steps=patch["steps"], lr=patch["lr"]),
            PatchDataset(outlined, augmenter, size=patch["size"], seed=context.seed),
            batch_size=patch["batch_size"],
            context=context,
            name="patch",
            weights=balancing(labels, patch["positives"]),
        )
    weights = balancing([int(item.truth["fracture"]) for item in items])
    if tail["steps"]:
        cached = features(network, items, context)
        fit(
            TailModule(
                Tail(network),
                location_weight=location_weight,
                steps=tail["steps"],
                lr=tail["lr"],
                weight_decay=tail["weight_decay"],
            ),
            FeatureDataset(cached, items, context.seed),
            batch_size=tail["batch_size"],
            context=context,
            name="tail",
            weights=weights,
        )
    if whole["steps"]:
        fit(
            RoiModule(network, location_weight=location_weight, steps=whole["steps"], lr=whole["lr"]),
            RoiDataset(items, augmenter),
            batch_size=whole["batch_size"],
            context=context,
            name="whole",
            weights=weights,
        )
    network.eval()


def _shows_line(item: Item) -> bool:
    """Whether an outline of the fracture lies in the ROI: without one its patches would be taught as intact ones."""
    mask = item.mask(LESION)
    return mask is not None and bool(mask.any())


def _translate(x: float, y: float) -> Affine:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=float)

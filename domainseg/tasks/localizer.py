"""Training of the ROI localizer: femoral heads, their diameter, and the proximal femur."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainseg.tasks import ranks
from domainseg.tasks.augment import Augmenter
from domainseg.tasks.fit import FitContext, StepModule, fit
from domainseg.tasks.items import Item, ItemDataset

FEMURS = ("femur_left", "femur_right")


class LocalizerDataset(ItemDataset):
    """Films with heads as points and femora as masks, left and right as in the upright picture.

    truth: heads [2, 3] = x, y, diameter in plane pixels (NaN where the hip is not in the film), known [2] bool. Half of
    the pictures are mirrored, and their sides with them.
    """

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        draw, index = key
        item = self.items[index]
        heads = np.array(item.truth["heads"], dtype=np.float64)
        known = np.array(item.truth["known"], dtype=bool)
        masks = [item.mask(name) for name in FEMURS]
        traced = np.array([mask is not None for mask in masks])
        picture = item.picture()
        planes = [np.zeros(picture.shape, bool) if mask is None else mask for mask in masks]
        rims = heads[:, :2] + np.stack([heads[:, 2] / 2, [0, 0]], axis=1)
        result = self.augmenter(
            picture, masks=planes, points=np.concatenate([heads[:, :2], rims]), epoch=draw, index=index
        )
        picture, femurs = result.image, np.stack(result.masks)
        points = result.points[:2]
        diameters = 2 * np.linalg.norm(result.points[2:] - points, axis=1)
        size = picture.shape[1]
        if np.random.default_rng((self.seed, draw, index, 1)).random() < 0.5:
            picture, femurs = picture[:, ::-1], femurs[::-1, :, ::-1]
            points = points[::-1] * [-1, 1] + [size - 1, 0]
            diameters, known, traced = diameters[::-1], known[::-1], traced[::-1]
        return {
            "picture": torch.from_numpy(np.ascontiguousarray(picture, dtype=np.float32))[None],
            "femur": torch.from_numpy(np.ascontiguousarray(femurs).astype(np.float32)),
            "traced": torch.from_numpy(np.ascontiguousarray(traced)).float(),
            "points": torch.from_numpy(np.ascontiguousarray(points)).float(),
            "diameter": torch.from_numpy(np.ascontiguousarray(diameters / size)).float(),
            "known": torch.from_numpy(np.ascontiguousarray(known)).float(),
        }


class LocalizerModule(StepModule):
    """Penalty-reduced focal loss on head heatmaps (CenterNet, Zhou et al. 2019, arXiv 1904.07850), binary
    cross-entropy on femur masks, absolute error of the log diameter around each head."""

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses: head, femur, diameter and their sum. Unknown hips and untraced femora are masked out."""
        outputs = self.network(batch["picture"])
        height, width = batch["picture"].shape[-2:]
        x, y = batch["points"].unbind(-1)
        # NaN (no such hip) compares false. A head that was moved out of the picture is not there to be found either.
        seen = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
        present = batch["known"].bool() & seen
        if "presence" in outputs:
            return self._regression(outputs, batch, present)
        logits = outputs["head"].float()
        stride = batch["picture"].shape[-1] / logits.shape[-1]
        points = (torch.nan_to_num(batch["points"], nan=-1e4) - (stride - 1) / 2) / stride
        diameter = torch.nan_to_num(batch["diameter"], nan=0.1) * logits.shape[-1]
        rows = torch.arange(logits.shape[-2], device=logits.device).view(1, 1, -1, 1)
        columns = torch.arange(logits.shape[-1], device=logits.device).view(1, 1, 1, -1)
        distance = (columns - points[..., 0, None, None]) ** 2 + (rows - points[..., 1, None, None]) ** 2
        sigma = (0.12 * diameter).clamp(min=1.0)[..., None, None]
        heat = torch.exp(-distance / (2 * sigma**2)) * present[..., None, None]
        top = (heat >= heat.amax(dim=(-2, -1), keepdim=True) - 1e-6) & present[..., None, None]
        probability = logits.sigmoid()
        positive = F.softplus(-logits) * (1 - probability) ** 2 * top
        negative = F.softplus(logits) * probability**2 * (1 - heat) ** 4 * ~top
        known = batch["known"][..., None, None]
        head = ((positive + negative) * known).sum() / ranks.count(present.sum())
        small = F.adaptive_avg_pool2d(batch["femur"], (logits.shape[-2], logits.shape[-1]))
        each = F.binary_cross_entropy_with_logits(outputs["femur"].float(), small, reduction="none").mean((-2, -1))
        femur = (each * batch["traced"]).sum() / ranks.count(batch["traced"].sum())
        near = (distance <= (0.25 * diameter[..., None, None]) ** 2) & present[..., None, None]
        near = near & torch.isfinite(batch["diameter"])[..., None, None]
        target = torch.nan_to_num(batch["diameter"], nan=0.1).clamp(min=1e-3).log()[..., None, None]
        error = (outputs["diameter"].float() - target).abs() * near
        size = error.sum() / ranks.count(near.sum())
        return {"loss": head + femur + size, "head_loss": head, "femur_loss": femur, "diameter_loss": size}

    def _regression(
        self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], present: Tensor
    ) -> dict[str, Tensor]:
        size = batch["picture"].shape[-1]
        each = F.binary_cross_entropy_with_logits(outputs["presence"].float(), present.float(), reduction="none")
        presence = (each * batch["known"]).sum() / ranks.count(batch["known"].sum())
        target = (torch.nan_to_num(batch["points"]) + 0.5) / size
        error = (outputs["center"].float() - target).abs().sum(-1) * present
        center = error.sum() / ranks.count(present.sum())
        measured = present & torch.isfinite(batch["diameter"])
        log = torch.nan_to_num(batch["diameter"], nan=0.1).clamp(min=1e-3).log()
        diameter = ((outputs["diameter"].float() - log).abs() * measured).sum() / ranks.count(measured.sum())
        return {
            "loss": presence + 10 * center + diameter,
            "presence_loss": presence,
            "head_loss": center,
            "diameter_loss": diameter,
        }


def fit_localizer(
    network: nn.Module,
    items: Sequence[Item],
    context: FitContext,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    augment: Mapping[str, Any],
) -> None:
    """Train a localizer network in place."""
    dataset = LocalizerDataset(items, Augmenter(seed=context.seed, **augment), context.seed)
    fit(LocalizerModule(network, steps=steps, lr=lr), dataset, batch_size=batch_size, context=context)

"""Training on one binary label of a picture: metal at a hip, a fracture on a whole film, projections of a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainseg.tasks.augment import Augmenter
from domainseg.tasks.fit import FitContext, StepModule, fit
from domainseg.tasks.items import Item, ItemDataset, balancing


class LabelDataset(ItemDataset):
    """Pictures with one binary label, ``truth["label"]``."""

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        draw, index = key
        item = self.items[index]
        picture = self.augmenter(item.picture(), epoch=draw, index=index).image
        planes = np.ascontiguousarray(np.moveaxis(np.atleast_3d(picture), -1, 0))
        return {"picture": torch.from_numpy(planes), "label": float(item.truth["label"])}


class LabelModule(StepModule):
    """Binary cross-entropy on one named output."""

    def __init__(self, network: nn.Module, *, output: str, steps: int, lr: float) -> None:
        super().__init__(network, steps=steps, lr=lr)
        self.output = output

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss."""
        logits = self.network(batch["picture"])[self.output].float()
        return {"loss": F.binary_cross_entropy_with_logits(logits, batch["label"].float())}


def fit_label(
    network: nn.Module,
    items: Sequence[Item],
    context: FitContext,
    *,
    output: str,
    steps: int,
    batch_size: int,
    lr: float,
    augment: Mapping[str, Any],
) -> None:
    """Train a one-label network in place; positives and negatives are drawn equally often."""
    weights = balancing([int(item.truth["label"]) for item in items])
    dataset = LabelDataset(items, Augmenter(seed=context.seed, **augment))
    module = LabelModule(network, output=output, steps=steps, lr=lr)
    fit(module, dataset, batch_size=batch_size, context=context, weights=weights)

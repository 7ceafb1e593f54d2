"""Training of the view filter: which view is it, and how is it turned."""

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

VIEWS = ("hip_frontal", "hip_other", "other")


class ViewDataset(ItemDataset):
    """Pictures with their view and turn; half of them are turned by a random number of quarter turns.

    truth: view (index into VIEWS), turn (0..3 or -1 where unknown).
    """

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        draw, index = key
        item = self.items[index]
        picture = self.augmenter(item.picture(), epoch=draw, index=index).image
        rng = np.random.default_rng((self.seed, draw, index, 1))
        turns = int(rng.integers(4)) if rng.random() < 0.5 else 0
        turn = int(item.truth["turn"])
        return {
            "picture": torch.from_numpy(np.ascontiguousarray(np.rot90(picture, turns)))[None],
            "view": int(item.truth["view"]),
            "turn": (turn - turns) % 4 if turn >= 0 else -1,
        }


class ViewModule(StepModule):
    """Cross-entropy on the view, and on the turn of frontal films whose turn is known."""

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses: view, turn and their sum."""
        outputs = self.network(batch["picture"])
        view = F.cross_entropy(outputs["view"], batch["view"], label_smoothing=0.02)
        known = torch.where(batch["view"] == 0, batch["turn"], -1)
        turn = F.cross_entropy(outputs["turn"], known, ignore_index=-1, reduction="sum")
        turn = turn / ranks.count((known >= 0).sum())
        return {"loss": view + turn, "view_loss": view, "turn_loss": turn}


def fit_view(
    network: nn.Module,
    items: Sequence[Item],
    context: FitContext,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    augment: Mapping[str, Any],
) -> None:
    """Train a view network in place; the three views are drawn equally often."""
    classes = np.array([int(item.truth["view"]) for item in items])
    counts = np.bincount(classes, minlength=3)
    weights = [1.0 / float(counts[view]) for view in classes]
    dataset = ViewDataset(items, Augmenter(seed=context.seed, **augment), context.seed)
    fit(ViewModule(network, steps=steps, lr=lr), dataset, batch_size=batch_size, context=context, weights=weights)

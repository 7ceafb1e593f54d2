"""Training of the hemorrhage networks on slabs: outlines and types where there are masks, presence everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainseg.imaging.hemorrhage import TYPES
from domainseg.tasks import ranks
from domainseg.tasks.fit import FitContext, StepModule, fit
from domainseg.tasks.hemorrhage_items import Exam, SlabDataset, Windows

NO_TYPE = -1


class DenseModule(StepModule):
    """Outline of any hemorrhage (Dice and focal), its type where known, and presence in the slice.

    Slabs without masks count for presence only. focal: exponent of the focal loss, 0 is plain cross-entropy.
    dice, pixel, type, presence: weights of the parts.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        steps: int,
        lr: float,
        focal: float = 1.0,
        dice: float = 1.0,
        pixel: float = 2.0,
        type: float = 0.5,
        presence: float = 0.5,
    ) -> None:
        super().__init__(network, steps=steps, lr=lr)
        self.focal = focal
        self.parts = {"dice": dice, "pixel": pixel, "type": type, "presence": presence}

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parts and their weighted sum."""
        outputs = self.network(batch["picture"])
        return weighted(
            {
                **outline_losses(outputs["mask"], batch["codes"], batch["outlined"], self.focal),
                "presence": presence_loss(outputs["presence"], batch["presence"]),
            },
            self.parts,
        )


def weighted(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """``loss``, the weighted sum, and each part by its name."""
    loss = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
    return {"loss": loss, **{f"{name}_loss": value for name, value in losses.items()}}


def outline_losses(logits: Tensor, codes: Tensor, outlined: Tensor, focal: float) -> dict[str, Tensor]:
    """Losses of mask logits [B, 6, H, W] against codes [B, H, W], in slabs with masks (outlined [B]).

    dice: 1 - Dice of any hemorrhage over the whole batch. pixel: focal binary cross-entropy of any hemorrhage.
    type: cross-entropy among the types where the type is known, the mean of each type's mean, for a
    subarachnoid bleed has few pixels beside an intraparenchymal one (our choice).
    """
    logits = logits.float()
    known = outlined[:, None, None]
    blood = (codes > 0).float()
    probability = logits[:, 0].sigmoid()
    both = ranks.total((probability * blood * known).sum())
    sizes = ranks.total(((probability + blood) * known).sum())
    each = F.binary_cross_entropy_with_logits(logits[:, 0], blood, reduction="none")
    hard = (probability - blood).abs().detach() ** focal
    pixel = (each * hard * known).sum() / ranks.count(known.sum() * codes[0].numel())
    typed = (codes >= 1) & (codes <= len(TYPES))
    target = torch.where(typed, codes - 1, NO_TYPE)
    wrong = F.cross_entropy(logits[:, 1:], target, ignore_index=NO_TYPE, reduction="none")
    of_type = F.one_hot(target + 1, len(TYPES) + 1)[..., 1:].float()
    counts = of_type.sum((0, 1, 2))
    mean = (wrong[..., None] * of_type).sum((0, 1, 2)) / ranks.count(counts)
    return {"dice": 1 - (2 * both + 1) / (sizes + 1), "pixel": pixel, "type": mean.sum() / len(TYPES)}


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
    augment: Mapping[str, Any],
) -> None:
    """Train a hemorrhage network in place on slabs of exams.

    windows: low and high in HU, as in the stage's preprocessing. positives: share of slabs that show hemorrhage.
    dense: steps, batch_size, lr and the weights of `DenseModule`. augment: see `SlabAugmenter`.
    """
    slices = int(network.channels) // len(windows)  # type: ignore[arg-type]
    dataset = SlabDataset(items, slices=slices, windows=windows, augment=augment, seed=context.seed)
    settings = dict(dense)
    batch_size = int(settings.pop("batch_size"))
    fit(
        DenseModule(network, **settings),
        dataset,
        batch_size=batch_size,
        context=context,
        weights=dataset.weights(positives),
    )

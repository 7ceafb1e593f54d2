"""Training on many labels of a whole film, some of them unknown: the recipes of reproduce-chexnet and of CheXNet."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from domainseg.files import DomainsegError
from domainseg.networks import WholeFilmDenseNet121
from domainseg.tasks import ranks
from domainseg.tasks.augment import Augmenter
from domainseg.tasks.fit import FitContext, StepModule, fit
from domainseg.tasks.items import Item, ItemDataset
from domainseg.tasks.plateau import Plateau

log = logging.getLogger(__name__)

MOMENTUM = 0.9  # of SGD, in reproduce-chexnet
OPTIMIZERS = ("sgd", "adam")

Labels = NDArray[np.float32]


class FindingsDataset(ItemDataset):
    """Pictures with the labels of their findings, NaN where unknown; ``flip``: half of them left to right.

    The flip swaps the sides of the picture. It leaves the answer as it is, since the labels are those of the whole film
    and name no side.
    """

    def __init__(self, items: Sequence[Item], labels: Labels, augmenter: Augmenter, seed: int, flip: bool) -> None:
        super().__init__(items, augmenter, seed)
        self.labels, self.flip = labels, flip

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        draw, index = key
        picture = self.augmenter(self.items[index].picture(), epoch=draw, index=index).image
        if self.flip and np.random.default_rng((self.seed, draw, index, 2)).random() < 0.5:
            picture = picture[:, ::-1]
        planes = torch.from_numpy(np.ascontiguousarray(picture))[None]
        return {"picture": planes, "labels": torch.from_numpy(self.labels[index])}


class FindingsModule(StepModule):
    """Binary cross-entropy of all known labels; SGD with momentum or Adam at a rate that a ``Plateau`` lowers.

    weights: [2, T], of negatives and of positives of each finding.
    """

    network: WholeFilmDenseNet121

    def __init__(
        self, network: nn.Module, weights: Tensor, *, steps: int, lr: float, weight_decay: float, optimizer: str
    ) -> None:
        super().__init__(network, steps=steps, lr=lr, weight_decay=weight_decay)
        self.optimizer = optimizer
        self.register_buffer("weights", weights, persistent=False)

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean over the known labels of the batch."""
        known = ~batch["labels"].isnan()
        return {"loss": self.sums(batch).sum() / ranks.count(known.sum())}

    def sums(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Cross-entropy of each label [B, T], weighted; 0 where unknown."""
        outputs = self.network(batch["picture"])
        logits = torch.stack([outputs[name] for name in self.network.targets], 1)
        labels, known = batch["labels"].nan_to_num(), ~batch["labels"].isnan()
        each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        assert isinstance(self.weights, Tensor)
        return each * torch.where(labels == 1, self.weights[1], self.weights[0]) * known

    def configure_optimizers(self) -> Any:
        """As in the recipes: all parameters alike, no schedule of their own."""
        parameters = self.network.parameters()
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(parameters, lr=self.lr, momentum=MOMENTUM, weight_decay=self.weight_decay)


def labels_of(items: Sequence[Item], targets: Sequence[str]) -> Labels:
    """Labels [items, targets] as 1, 0 or NaN where unknown."""
    rows = [[float(item.truth.get(name, np.nan)) for name in targets] for item in items]
    return np.array(rows, np.float32).reshape(len(items), len(targets))


def taught(items: Sequence[Item], targets: Sequence[str]) -> dict[str, float]:
    """The findings that can be learned from the items, those shown and known to be absent, and their base rates."""
    labels = labels_of(items, targets)
    positive, negative = (labels == 1).sum(0), (labels == 0).sum(0)
    return {name: float(m / (m + n)) for name, m, n in zip(targets, positive, negative, strict=True) if m and n}


def fit_findings(
    network: nn.Module,
    items: Sequence[Item],
    context: FitContext,
    *,
    optimizer: str,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    weighted: bool,
    wait: int,
    patience: int,
    few: Mapping[str, int],
    flip: bool,
    augment: Mapping[str, Any],
) -> None:
    """Train a network of many findings in place; the best weights by the loss on tune (context.watched) are kept.

    epochs: at most; one is as many steps as it takes to see each film once. weighted: a finding's positives weigh
    N / (P + N) and its negatives P / (P + N); afterwards its answers are put back on the scale of its base rate. wait,
    patience: see ``Plateau``; few: those for so many films or fewer. Findings that the items do not teach are masked.
    """
    if optimizer not in OPTIMIZERS:
        raise DomainsegError(f"task.optimizer={optimizer}: known are {' and '.join(OPTIMIZERS)}")
    whole = cast(WholeFilmDenseNet121, network)
    targets, base_rates = whole.targets, taught(items, whole.targets)
    if not base_rates:
        raise DomainsegError("no finding is known to be present in one training film and absent in another")
    weights = torch.ones(2, len(targets))
    if weighted:
        rates = torch.tensor([base_rates.get(name, 0.5) for name in targets])
        weights = torch.stack([rates, 1 - rates])
    every = -(-len(items) // batch_size)
    module = FindingsModule(
        network, weights, steps=epochs * every, lr=lr, weight_decay=weight_decay, optimizer=optimizer
    )
    unknown = np.array([np.nan if name not in base_rates else 0 for name in targets], np.float32)
    still = Augmenter(seed=0, rotate=0, shift=0, scale=0, gamma=0, brightness=0, contrast=0, blur=0, noise=0)
    tune = FindingsDataset(context.watched, labels_of(context.watched, targets) + unknown, still, 0, flip=False)
    if np.isnan(tune.labels).all():
        raise DomainsegError("tune has no readable film with a known label: the rate and the end go by the loss there")
    plateau = Plateau(
        context.folder / "epochs.csv",
        lambda: mean_loss(module, tune, batch_size),
        every=every,
        wait=few["wait"] if len(items) <= few["films"] else wait,
        patience=few["patience"] if len(items) <= few["films"] else patience,
    )
    dataset = FindingsDataset(
        items,
        labels_of(items, targets) + unknown,
        Augmenter(seed=context.seed, **augment),
        context.seed,
        flip,
    )
    fit(module, dataset, batch_size=batch_size, context=context, plateau=plateau)
    if weighted:
        with torch.no_grad():
            whole.last.bias.add_(torch.logit(rates))  # log(P / N): what the weights have taken away


def mean_loss(module: FindingsModule, dataset: FindingsDataset, batch_size: int) -> float:
    """The loss over all known labels of a dataset, shared among the processes; NaN where none is known."""
    total, count = 0.0, 0
    mine = list(ranks.share(range(len(dataset))))
    for start in range(0, len(mine), batch_size):
        samples = [dataset[0, index] for index in mine[start : start + batch_size]]
        batch = {name: torch.stack([sample[name] for sample in samples]).to(module.device) for name in samples[0]}
        total += float(module.sums(batch).sum())
        count += int((~batch["labels"].isnan()).sum())
    parts = ranks.gather((total, count))
    known = sum(number for _, number in parts)
    return sum(value for value, _ in parts) / known if known else float("nan")

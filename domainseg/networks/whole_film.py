"""The model to compare with: a DenseNet-121 on the whole film."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from domainseg.networks.base import Network, in_float32, pool, read_weights


class WholeFilmDenseNet121(Network):
    """torchvision's DenseNet-121 on the whole film at 224 px, as most chest-film models read their films.

    forward(x), x float [B, 1, H, W] in 0..1, multiples of 32: {target: [B]}, the log-odds of `target`. The one channel
    is repeated to three and normalised with ImageNet's mean and standard deviation, as ImageNet weights expect it.

    `weights`: local file with a torchvision densenet121 state_dict (its classifier is left out); null: from scratch.
    """

    input_size = 224
    multiple = 32

    mean: Tensor
    std: Tensor

    def __init__(self, target: str = "fracture", weights: str | Path | None = None) -> None:
        super().__init__()
        from torchvision.models import densenet121  # late: slow to import

        self.target = target
        self.features: nn.Module = densenet121(weights=None).features
        self.classifier = nn.Linear(1024, 1)
        nn.init.zeros_(self.classifier.bias)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1))
        if weights is not None:
            self._load(weights)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.prepare(x)  # for its checks; this network has its own centring
        features = self.features((x - self.mean) / self.std).relu()
        return {self.target: in_float32(self.classifier, pool(features))[:, 0]}

    def _load(self, path: str | Path) -> None:
        # Older files number the layers inside a dense layer ("norm.1"), today's module does not ("norm1").
        state = {
            re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", name).removeprefix("features."): value
            for name, value in read_weights(path).items()
            if not name.startswith("classifier.")
        }
        try:
            self.features.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{path} does not fit a DenseNet-121: {error}") from error

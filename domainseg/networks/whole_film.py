"""DenseNet-121 on the whole film: for findings on chest films, and for the hip cascade to be compared with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from domainseg.networks.base import Network, WeightsError, in_float32, pool, read_weights


class WholeFilmDenseNet121(Network):
    """torchvision's DenseNet-121 on the whole film at 224 px, as most chest-film models read their films.

    forward(x), x float [B, 1, H, W] in 0..1, multiples of 32, gives for each of ``targets``:
      "<target>" [B]: its log-odds;
      "map_<target>" [B, H/32, W/32]: its class activation map, the classifier's answer to each cell of the last feature
        map by itself. The log-odds are the mean of the map.
    The one channel is repeated to three and normalised with ImageNet's mean and standard deviation, as ImageNet weights
    expect it.

    `bottleneck`: features between the 1,024 of the last map and the answers, 15 in Zech et al. 2018 (a linear layer
    before the classifier, without an activation between: maps are those of both layers composed); null: none.
    `weights`: local file with a torchvision densenet121 state_dict (its classifier is left out); null: from scratch.
    """

    input_size = 224
    multiple = 32

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        targets: Sequence[str] = ("fracture",),
        bottleneck: int | None = None,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        from torchvision.models import densenet121  # late: slow to import

        self.targets = tuple(targets)
        self.features: nn.Module = densenet121(weights=None).features
        last = nn.Linear(1024 if bottleneck is None else bottleneck, len(self.targets))
        nn.init.zeros_(last.bias)
        self.classifier: nn.Module = last
        if bottleneck is not None:
            self.classifier = nn.Sequential(nn.Linear(1024, bottleneck), last)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1))
        if weights is not None:
            self._load(weights)

    @property
    def last(self) -> nn.Linear:
        """The layer whose rows answer for the targets."""
        layer = self.classifier[-1] if isinstance(self.classifier, nn.Sequential) else self.classifier
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.prepare(x)  # for its checks; this network has its own centring
        features = self.features((x - self.mean) / self.std).relu()
        logits = in_float32(self.classifier, pool(features))
        maps = in_float32(self.classifier, features.permute(0, 2, 3, 1))
        return {
            **{name: logits[:, k] for k, name in enumerate(self.targets)},
            **{f"map_{name}": maps[..., k] for k, name in enumerate(self.targets)},
        }

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
            raise WeightsError(f"{path} does not fit a DenseNet-121: {error}") from error

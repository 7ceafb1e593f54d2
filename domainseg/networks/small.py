"""Small classifiers: the view filter, the implant filter and the head filter."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from domainseg.networks.base import Network, in_float32, kaiming, pool, pools


class Trunk(nn.Sequential):
    """Plain CNN: a strided 5x5 stem, then for each further width two 3x3 convolutions, with 2x2 max pools between.

    [B, channels, H, W] -> [B, widths[-1], H / 2**len(widths), W / 2**len(widths)].
    """

    def __init__(self, widths: Sequence[int], channels: int = 1) -> None:
        layers: list[nn.Module] = [*_unit(channels, widths[0], 5, 2), nn.MaxPool2d(2)]
        for i, (before, width) in enumerate(pairwise(widths)):
            if i:
                layers.append(nn.MaxPool2d(2))
            layers += [*_unit(before, width, 3, 1), *_unit(width, width, 3, 1)]
        super().__init__(*layers)


class ViewNet(Network):
    """View of a film and the quarter turns that bring it upright, from a reduced film of about 192 px.

    forward(x), x float [B, 1, H, W] in 0..1, multiples of 32: "view" [B, 3] logits of hip_frontal, hip_other, other;
    "turn" [B, 4] logits of k, where np.rot90(pixels, k) is upright.
    """

    input_size = 192
    multiple = 32

    def __init__(self, widths: Sequence[int] = (16, 32, 48, 64, 96)) -> None:
        super().__init__()
        self.multiple = 2 ** len(widths)
        self.trunk = Trunk(widths)
        self.view = nn.Linear(widths[-1], 3)
        self.turn = nn.Linear(widths[-1], 4)
        kaiming(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = pool(self.trunk(self.prepare(x)))
        return {"view": in_float32(self.view, features), "turn": in_float32(self.turn, features)}


class ImplantNet(Network):
    """Metal in a ROI of 256 px or not.

    forward(x), x float [B, 1, H, W] in 0..1, multiples of 32: "implant" [B], log-odds of metal. Average and maximum
    over positions are both read: one screw fills a small part of the ROI.
    """

    input_size = 256
    multiple = 32

    def __init__(self, widths: Sequence[int] = (16, 32, 48, 64, 96)) -> None:
        super().__init__()
        self.multiple = 2 ** len(widths)
        self.trunk = Trunk(widths)
        self.implant = nn.Linear(2 * widths[-1], 1)
        kaiming(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"implant": in_float32(self.implant, pools(self.trunk(self.prepare(x))))[:, 0]}


class HeadNet(Network):
    """A head CT that can be read for hemorrhage or not, from six projections of the volume.

    forward(x), x float [B, 6, H, W] in 0..1, multiples of 32 (96 by design; channels as `cascade.volumes.projections`
    gives them): "head" [B], log-odds of a head.
    """

    channels = 6
    input_size = 96

    def __init__(self, widths: Sequence[int] = (16, 32, 48, 64, 96)) -> None:
        super().__init__()
        self.multiple = 2 ** len(widths)
        self.trunk = Trunk(widths, self.channels)
        self.head = nn.Linear(2 * widths[-1], 1)
        kaiming(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"head": in_float32(self.head, pools(self.trunk(self.prepare(x))))[:, 0]}


def _unit(channels: int, width: int, kernel: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, width, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]

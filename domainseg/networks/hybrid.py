"""The hybrid 3D/2D feature pyramid of Chang et al. 2018 (AJNR 39:1609, figure 2), from a slab to its middle slice.

From the figure's caption: the contracting arm is all 3D and mixes plain 3x3 with bottleneck 1x1-3x3-1x1 modules; in
plane it is subsampled by 1x2x2 strides, along z by 2x1x1 convolutions without padding; each level is projected to one
slice and 128 channels; the expanding arm is 2D and adds these projections; batch norm and ReLU throughout. How many
modules of which width there are was not found in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from domainseg.networks.slices import SliceConv, apart, by_slice

STRIDES = (4, 8, 16, 32)  # of the pyramid's levels


class HybridPyramid(nn.Module):
    """Slab [B, windows * slices, H, W] -> pyramid [B, channels, H / s, W / s] for s in STRIDES, and the deepest level.

    widths: of the contracting arm at strides 2, 4, 8, 16 and 32. modules: bottlenecks a level.
    """

    def __init__(self, slices: int, windows: int, widths: Sequence[int], modules: int, channels: int) -> None:
        super().__init__()
        self.slices, self.windows = slices, windows
        self.stem = unit(slices, windows, widths[0], size=5, stride=2)
        self.levels, self.shrinks, self.laterals = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for before, width in pairwise(widths):
            self.shrinks.append(
                unit(slices, before, before, depth=2, size=1, valid=True) if slices > 1 else nn.Identity()
            )
            slices = max(1, slices - 1)
            self.levels.append(
                nn.Sequential(
                    unit(slices, before, width, depth=3 if slices > 1 else 1, stride=2),
                    *[Bottleneck(slices, width) for _ in range(modules)],
                )
            )
            self.laterals.append(SliceConv(slices, width, channels, slices, 1, valid=True, bias=True))
        self.deepest = slices
        self.smooth = nn.ModuleList(unit(1, channels, channels) for _ in STRIDES)

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The pyramid from fine to coarse, and the contracting arm's last level [B, C, S, h, w]."""
        x = self.stem(by_slice(x, self.windows, self.slices))
        sides: list[Tensor] = []
        for shrink, level, lateral in zip(self.shrinks, self.levels, self.laterals, strict=True):
            x = level(shrink(x))
            sides.append(lateral(x))
        pyramid = [sides[-1]]
        for side in reversed(sides[:-1]):
            pyramid.insert(0, side + F.interpolate(pyramid[0], scale_factor=2.0, mode="nearest"))
        smoothed = [smooth(level) for smooth, level in zip(self.smooth, pyramid, strict=True)]
        return smoothed, apart(x, self.deepest).transpose(1, 2)


class Bottleneck(nn.Module):
    """1x1 to half the width, 3x3 (3x3x3 where there are several slices), 1x1 back, added to what came in."""

    def __init__(self, slices: int, width: int) -> None:
        super().__init__()
        half = width // 2
        self.squeeze = unit(slices, width, half, size=1)
        self.look = unit(slices, half, half, depth=3 if slices > 1 else 1)
        self.widen = nn.Sequential(SliceConv(slices, half, width, size=1), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.widen(self.look(self.squeeze(x))))


def unit(
    slices: int, channels: int, width: int, *, depth: int = 1, size: int = 3, stride: int = 1, valid: bool = False
) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        SliceConv(slices, channels, width, depth, size, stride=stride, valid=valid),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )

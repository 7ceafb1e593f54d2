"""Convolutions over stacks of few slices, computed in two dimensions.

A 3D kernel that does not stride along z is a 2D kernel that sees neighbouring slices as more channels: the same sums.
So computed they are several times faster on CPUs, in torch and in ONNX Runtime; and torch 2.14's own 3D convolutions in
bfloat16 end the process in their backward pass on processors with AMX.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SliceConv(nn.Conv2d):
    """Conv3d of [B, C, S, H, W] with kernel (depth, size, size) and stride (1, stride, stride).

    In plane it pads by half the kernel. Along z it pads likewise, or, with ``valid``, not at all: S shrinks by
    depth - 1. The weight is [width, depth * C, size, size], slice by slice.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        depth: int = 1,
        size: int = 3,
        *,
        stride: int = 1,
        valid: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__(depth * channels, width, size, stride=stride, padding=size // 2, bias=bias)
        self.depth, self.around = depth, 0 if valid else depth // 2

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        if self.depth > 1:
            if self.around:
                blank = torch.zeros_like(x[:, : self.around])
                x = torch.cat([blank, x, blank], 1)
            slices = x.shape[1] - self.depth + 1
            x = torch.cat([x[:, k : k + slices] for k in range(self.depth)], 2)
        return stacked(super().forward(x.flatten(0, 1)), x.shape[1])


class SliceUp(nn.ConvTranspose2d):
    """ConvTranspose3d of [B, C, S, H, W] with kernel and stride (1, 2, 2)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, 2, stride=2, bias=False)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return stacked(super().forward(x.transpose(1, 2).flatten(0, 1)), x.shape[2])


def stacked(x: Tensor, slices: int) -> Tensor:
    """[B * S, C, H, W] -> [B, C, S, H, W]."""
    return x.unflatten(0, (-1, slices)).transpose(1, 2)


def in_slices(module: nn.Module) -> None:
    """Replace the 3D convolutions inside ``module`` by those of this file, with new weights."""
    for name, layer in module.named_children():
        if isinstance(layer, nn.Conv3d):
            depth, size, _ = layer.kernel_size
            stride = layer.stride[1]
            setattr(module, name, SliceConv(layer.in_channels, layer.out_channels, depth, size, stride=stride))
        elif isinstance(layer, nn.ConvTranspose3d):
            setattr(module, name, SliceUp(layer.in_channels, layer.out_channels))
        else:
            in_slices(layer)

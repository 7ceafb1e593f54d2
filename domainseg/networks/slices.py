"""Convolutions over stacks of few slices, computed in two dimensions.

A 3D kernel that does not stride along z is a 2D kernel that sees neighbouring slices as more channels: the same sums.
So computed they are several times faster on CPUs, in torch and in ONNX Runtime; and torch 2.14's own 3D convolutions in
bfloat16 end the process in their backward pass on processors with AMX. Slices lie in the batch: [B * S, C, H, W].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SliceConv(nn.Conv2d):
    """Conv3d with kernel (depth, size, size) and stride (1, stride, stride), on [B * slices, C, H, W].

    In plane it pads by half the kernel. Along z it pads likewise, or, with ``valid``, not at all: ``slices`` shrinks
    by depth - 1. The weight is [width, depth * C, size, size], slice by slice.
    """

    def __init__(
        self,
        slices: int,
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
        self.slices, self.depth, self.around = slices, depth, 0 if valid else depth // 2

    def forward(self, x: Tensor) -> Tensor:
        if self.depth > 1:
            pixels_first = x.is_contiguous(memory_format=torch.channels_last)
            along = 4 if pixels_first else 2  # where the channels lie: joined there, nothing is laid out anew
            stack = apart(x, self.slices)
            if pixels_first:
                stack = stack.permute(0, 1, 3, 4, 2)
            if self.around:
                blank = torch.zeros_like(stack[:, : self.around])
                stack = torch.cat([blank, stack, blank], 1)
            left = stack.shape[1] - self.depth + 1
            x = torch.cat([stack[:, k : k + left] for k in range(self.depth)], along).flatten(0, 1)
            if pixels_first:
                x = x.permute(0, 3, 1, 2)
        return super().forward(x)


def apart(x: Tensor, slices: int) -> Tensor:
    """[B * S, C, H, W] -> [B, S, C, H, W]."""
    return x.reshape(-1, slices, *x.shape[1:])


def by_slice(x: Tensor, windows: int, slices: int) -> Tensor:
    """A slab as networks get it, [B, windows * S, H, W] window by window -> [B * S, windows, H, W]."""
    return x.reshape(-1, windows, slices, *x.shape[2:]).transpose(1, 2).flatten(0, 1)


def in_slices(module: nn.Module, slices: int) -> None:
    """Replace the 3D layers inside ``module`` by those that compute the same on [B * S, C, H, W], with new weights.

    Known are convolutions, transposed ones with kernel (1, n, n), and batch norms; none may stride along z.
    """
    for name, layer in module.named_children():
        if isinstance(layer, nn.Conv3d):
            depth, size, _ = layer.kernel_size
            stride = layer.stride[1]
            setattr(module, name, SliceConv(slices, layer.in_channels, layer.out_channels, depth, size, stride=stride))
        elif isinstance(layer, nn.ConvTranspose3d):
            size, stride = layer.kernel_size[1], layer.stride[1]
            up = nn.ConvTranspose2d(layer.in_channels, layer.out_channels, size, stride=stride, bias=False)
            setattr(module, name, up)
        elif isinstance(layer, nn.BatchNorm3d):
            setattr(module, name, nn.BatchNorm2d(layer.num_features))
        else:
            in_slices(layer, slices)

"""Outlines and types of hemorrhage from slabs of head CT: a U-Net with slices as channels, and one in 3D."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from domainseg.imaging.hemorrhage import TYPES
from domainseg.networks.base import Network, in_float32, kaiming, pools
from domainseg.networks.slices import apart, by_slice, in_slices

OUTPUTS = 1 + len(TYPES)  # any hemorrhage, then the types
RARE = -4.0  # first logit of any hemorrhage at a pixel: one in fifty


class UNet(Network):
    """U-Net (MONAI's DynUNet, plain blocks with batch norm) on slabs of slices, learned under deep supervision.

    forward(x), x float [B, windows * slices, H, W] in 0..1, window by window, multiples of 2 ** (levels - 1); of the
    middle slice:
      "mask" [B, 6, H, W] logits: any hemorrhage (sigmoid), then the types (softmax among themselves, given hemorrhage);
      "presence" [B, 6] logits of any hemorrhage and of each type in the slice (sigmoid each);
      in training also "mask_2" and "mask_4", the mask at strides 2 and 4.

    `widths`: of the levels, from full resolution down, each at half the one's before; at least 4. The first level is
    at full resolution, narrow as it is, for the sake of thin bleeds under the skull.
    """

    input_size = 160

    def __init__(self, slices: int = 5, windows: int = 3, widths: Sequence[int] = (16, 32, 64, 128, 192, 256)) -> None:
        super().__init__()
        if len(widths) < 4:
            raise ValueError(f"UNet: widths={list(widths)}: at least 4.")
        levels = len(widths)
        net = _dynunet(2, slices * windows, widths, [3] * levels, [1] + [2] * (levels - 1))
        self.channels, self.multiple = slices * windows, 2 ** (levels - 1)
        self.down = nn.ModuleList([net.input_block, *net.downsamples, net.bottleneck])
        self.up: nn.ModuleList = net.upsamples
        self.mask = nn.Conv2d(widths[0], OUTPUTS, 3, padding=1)
        self.coarse = nn.ModuleList(nn.Conv2d(width, OUTPUTS, 1) for width in widths[1:3])
        self.presence = nn.Linear(2 * widths[-1], OUTPUTS)
        kaiming(self)
        for head in (self.mask, *self.coarse):
            start(head)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.prepare(x)
        levels: list[Tensor] = []
        for block in self.down:
            x = block(x)
            levels.append(x)
        outputs = {"presence": in_float32(self.presence, pools(levels.pop()))}
        for block in self.up:
            x = block(x, levels.pop())
            if self.training and 1 <= len(levels) <= len(self.coarse):
                outputs[f"mask_{2 ** len(levels)}"] = in_float32(self.coarse[len(levels) - 1], x)
        return {"mask": in_float32(self.mask, x), **outputs}


class UNet3d(Network):
    """3D U-Net (MONAI's DynUNet) on slabs whose slices lie several pixels apart.

    Input and outputs are those of `UNet`. Kernels and strides are anisotropic: strides halve the slices' plane only;
    the upper three levels convolve inside slices (1 x 3 x 3), the lower ones across them (3 x 3 x 3). The first level
    has half the input's side. What the expanding arm's upper two levels would make of the other slices never meets the
    middle one, so it is not computed.

    `widths`: of the levels, at least 4; H and W must be multiples of 2 ** levels.
    """

    input_size = 160

    def __init__(self, slices: int = 5, windows: int = 3, widths: Sequence[int] = (16, 32, 64, 96, 128)) -> None:
        super().__init__()
        if len(widths) < 4 or slices % 2 == 0:
            raise ValueError(
                f"UNet3d: widths={list(widths)}, slices={slices}: at least 4 widths, and a number of slices with a "
                "middle."
            )
        flat, across, half, levels = [1, 3, 3], [3, 3, 3], [1, 2, 2], len(widths)
        net = _dynunet(3, windows, widths, [flat] * 3 + [across] * (levels - 3), [half] * levels)
        self.channels, self.slices, self.windows = slices * windows, slices, windows
        self.multiple = 2**levels
        self.down = nn.ModuleList([net.input_block, *net.downsamples, net.bottleneck])
        self.up: nn.ModuleList = net.upsamples
        in_slices(self, slices)
        self.mask = nn.Conv2d(widths[0], OUTPUTS, 3, padding=1)
        self.presence = nn.Linear(2 * widths[-1], OUTPUTS)
        kaiming(self)
        start(self.mask)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.prepare(x)
        x = by_slice(x, self.windows, self.slices)
        levels: list[Tensor] = []
        for block in self.down:
            x = block(x)
            levels.append(x)
        presence = in_float32(self.presence, pools(apart(x, self.slices).transpose(1, 2)))
        for block, level in zip(self.up, range(len(self.up) - 1, -1, -1), strict=True):
            if level == 1:
                x = self._middle(x)
            x = block(x, self._middle(levels[level]) if level < 2 else levels[level])
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear")
        return {"mask": in_float32(self.mask, x), "presence": presence}

    def _middle(self, x: Tensor) -> Tensor:
        """The middle slice of each slab."""
        return apart(x, self.slices)[:, self.slices // 2]


def _dynunet(dimensions: int, channels: int, widths: Sequence[int], kernels: list[Any], strides: list[Any]) -> Any:
    """MONAI's DynUNet of plain blocks with batch norm, of which our networks take the levels."""
    # MONAI looks for Optuna, a part of which logs that it is there.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from monai.networks.nets.dynunet import DynUNet  # late: slow to import

    return DynUNet(
        spatial_dims=dimensions,
        in_channels=channels,
        out_channels=OUTPUTS,
        kernel_size=kernels,
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=list(widths),
        norm_name="BATCH",
        act_name=("relu", {"inplace": True}),
    )


def start(mask: nn.Module) -> None:
    """First weights of a mask head: hardly any pixel shows hemorrhage, and all types are as likely."""
    assert isinstance(mask, nn.Conv2d)
    assert mask.bias is not None
    nn.init.normal_(mask.weight, std=0.01)
    mask.bias.data[0] = RARE

"""Outlines and types of hemorrhage from slabs of head CT: a U-Net with slices as channels, and one in 3D."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from domainseg.imaging.hemorrhage import TYPES
from domainseg.networks.base import Network, in_float32, kaiming, pools
from domainseg.networks.localizer import load_encoder
from domainseg.networks.slices import apart, by_slice, in_slices

OUTPUTS = 1 + len(TYPES)  # any hemorrhage, then the types
RARE = -4.0  # first logit of any hemorrhage at a pixel: one in fifty


class UNet(Network):
    """U-Net (segmentation-models-pytorch) with a ResNet-18 encoder and a light decoder, on slabs of slices.

    forward(x), x float [B, windows * slices, H, W] in 0..1, window by window, multiples of 32; of the middle slice:
      "mask" [B, 6, H, W] logits: any hemorrhage (sigmoid), then the types (softmax among themselves, given hemorrhage);
      "presence" [B, 6] logits of any hemorrhage and of each type in the slice (sigmoid each).

    `decoder`: five widths from stride 16 to 1. `weights`: local file with a ResNet-18 state_dict, whose stem for 3
    channels is summed and shared by ours; null: from scratch.
    """

    input_size = 160
    multiple = 32

    def __init__(
        self,
        slices: int = 5,
        windows: int = 3,
        decoder: Sequence[int] = (128, 64, 32, 24, 16),
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        import segmentation_models_pytorch as smp  # late: it pulls in timm and torchvision

        self.channels = slices * windows
        net = smp.Unet(
            "resnet18", encoder_weights=None, in_channels=self.channels, classes=1, decoder_channels=list(decoder)
        )
        self.encoder: nn.Module = net.encoder
        self.decoder: nn.Module = net.decoder
        self.mask = nn.Conv2d(decoder[-1], OUTPUTS, 3, padding=1)
        self.presence = nn.Linear(2 * 512, OUTPUTS)
        kaiming(self)
        start(self.mask)
        if weights is not None:
            load_encoder(self.encoder, weights)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.encoder(self.prepare(x))
        return {
            "mask": in_float32(self.mask, self.decoder(features)),
            "presence": in_float32(self.presence, pools(features[-1])),
        }


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
        from monai.networks.nets.dynunet import DynUNet  # late: slow to import

        flat, across, half, levels = [1, 3, 3], [3, 3, 3], [1, 2, 2], len(widths)
        net = DynUNet(
            spatial_dims=3,
            in_channels=windows,
            out_channels=OUTPUTS,
            kernel_size=[flat] * 3 + [across] * (levels - 3),
            strides=[half] * levels,
            upsample_kernel_size=[half] * (levels - 1),
            filters=list(widths),
            norm_name="BATCH",
            act_name=("relu", {"inplace": True}),
        )
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


def start(mask: nn.Conv2d) -> None:
    """First weights of a mask head: hardly any pixel shows hemorrhage, and all types are as likely."""
    nn.init.normal_(mask.weight, std=0.01)
    assert mask.bias is not None
    mask.bias.data[0] = RARE

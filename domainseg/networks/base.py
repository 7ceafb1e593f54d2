"""What every network shares: one input, named outputs, and an error that names the nearest size that fits."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from domainseg.files import DomainsegError


class InputSizeError(DomainsegError, ValueError):
    """The picture's size does not fit the network; the message names the nearest size that does."""


class WeightsError(DomainsegError, ValueError):
    """A file of weights that is not there, is none, or does not fit the network."""


class Network(nn.Module):
    """A network of the cascade: `forward(x)` takes float [B, channels, H, W] in 0..1 and returns named logits.

    Outputs are float32 whatever the precision inside (also under autocast). Centring of grey levels is part of the
    network, so that whoever runs it, here or from its ONNX file, hands over the same numbers.

    `channels`: planes of a picture; `multiple`: H and W must each be a whole multiple of this; `input_size`: the size
    it was designed for.
    """

    channels: int = 1
    multiple: int = 1
    input_size: int = 256
    centre: ClassVar[float] = 0.5
    scale: ClassVar[float] = 0.25

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def prepare(self, x: Tensor, multiple: int | None = None) -> Tensor:
        """Checks shape and size and centres the grey levels. Raises InputSizeError."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise InputSizeError(
                f"{type(self).__name__}: expected a tensor [batch, {self.channels}, height, width], got {list(x.shape)}"
            )
        if not torch.compiler.is_exporting():
            check_size(type(self).__name__, x.shape[-2], x.shape[-1], multiple or self.multiple)
        return (x - self.centre) / self.scale


def check_size(name: str, height: int, width: int, multiple: int) -> None:
    """Raises InputSizeError unless height and width are positive multiples of `multiple`."""

    def nearest(side: int) -> int:
        return max(1, (side + multiple // 2) // multiple) * multiple

    if height % multiple or width % multiple or not height or not width:
        raise InputSizeError(
            f"{name}: an input of {height} x {width} pixels does not fit: height and width must be multiples of "
            f"{multiple}. Nearest size that fits: {nearest(height)} x {nearest(width)}."
        )


def count_parameters(module: nn.Module) -> int:
    """Number of trainable and frozen parameters (buffers, such as running statistics, are not parameters)."""
    return sum(p.numel() for p in module.parameters())


def in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """Runs a (small) last layer in float32 also under autocast: bf16 logits have ties that a ROC curve shows."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return _tensor(layer(x.float()))
    return _tensor(layer(x))


def pool(x: Tensor) -> Tensor:
    """Global average over positions, summed in float32: [B, C, H, W] -> [B, C]."""
    return x.float().mean((2, 3))


def pools(x: Tensor) -> Tensor:
    """Average and maximum over positions, side by side: [B, C, ...] -> [B, 2 C]. The maximum keeps what is small."""
    x = x.float()
    positions = tuple(range(2, x.ndim))
    return torch.cat([x.mean(positions), x.amax(positions)], 1)


def kaiming(module: nn.Module, slope: float = 0.0) -> None:
    """He initialisation of all convolutions for (leaky) ReLU; linear layers get a small normal and zero bias."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(layer.weight, a=slope, nonlinearity="leaky_relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """State dict of tensors from a local file (nothing is ever downloaded). Raises WeightsError when it is none."""
    if not Path(path).is_file():
        raise WeightsError(
            f"weights file not found: {path}. Give a local state_dict file, or null to start from scratch."
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} is not a state_dict (a mapping of names to tensors).")
    return state


def _tensor(x: object) -> Tensor:
    assert isinstance(x, Tensor)
    return x

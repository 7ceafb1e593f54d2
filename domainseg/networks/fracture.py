"""The fracture network: a DenseNet with bottleneck and compression for ROIs of 1024 x 1024 pixels.

A reconstruction, not Gale's table. Gale et al. (2017) give the family (DenseNet, leaky ReLU, bottleneck, compression),
172 layers, 1,434,176 parameters, 1024 x 1024 input and two losses, but not the block sizes. The defaults here are the
most regular network that fits all of these numbers at once: one channel, a 5x5 stride-2 stem of 24 channels with max
pool, blocks of 6-8-10-14-18-18-8 layers, growth 12, bottleneck 48, compression 0.5, 2 + 3 outputs. Many others fit too.
The map heads are ours: 1x1 convolutions at strides 8, 16 and 32, counted apart (`map_parameters`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from domainseg.networks.base import Network, check_size, count_parameters, in_float32, kaiming, pool

MAP_STRIDES = (8, 16, 32)
"""Strides of the map heads: after blocks 2, 3 and 4."""
MAP_BIAS = -2.0
"""First bias of the map heads (probability 0.12): nearly all positions are negative."""


class FractureDenseNet(Network):
    """Fracture, its location and a map of where it is, from one ROI.

    forward(x), x float [B, 1, H, W] in 0..1 with H and W multiples of 256 (1024 by design):
      "fracture" [B]: log-odds of a fracture, the difference of the two outputs of the two-class head;
      "location" [B, 3]: logits of none, intra-capsular, extra-capsular (softmax);
      "map" [B, 3, H/32, W/32]: logits of any, intra-capsular, extra-capsular fracture line here (sigmoid each).

    A reconstruction, not Gale's table (see the module). Without its map heads: 172 convolution and linear layers,
    1,434,176 parameters.

    Parameters: `growth`, `blocks` (at least 5), `stem`, `bottleneck` (x growth), `compression`, `slope` (leaky ReLU)
    for sweeps. Batch norm throughout: its statistics come from large batches (of patches, of cached features), and
    `freeze_norm` holds them while whole ROIs are trained at the small batches that 1024 px allow.
    `checkpoint`: recompute the concat bottlenecks in the backward pass (in the first four blocks) instead
    of keeping them (less memory).
    """

    input_size = 1024

    def __init__(
        self,
        growth: int = 12,
        blocks: Sequence[int] = (6, 8, 10, 14, 18, 18, 8),
        stem: int = 24,
        bottleneck: int = 4,
        compression: float = 0.5,
        slope: float = 0.01,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if len(blocks) < 5:
            raise ValueError(
                f"FractureDenseNet: blocks={list(blocks)}: at least 5 are needed, the map is read after the 4th."
            )
        self.multiple = 2 ** (len(blocks) + 1)
        self.norm_frozen = False
        self.stem = nn.Sequential(
            nn.Conv2d(1, stem, 5, stride=2, padding=2, bias=False),
            BatchNorm(stem),
            nn.LeakyReLU(slope, inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.blocks = nn.ModuleList()
        self.ends = nn.ModuleList()  # norm + activation after each block
        self.steps = nn.ModuleList()  # 1x1 convolution + pooling from one block to the next
        self.maps = nn.ModuleDict()
        channels = stem
        for i, layers in enumerate(blocks):
            self.blocks.append(DenseBlock(channels, layers, growth, bottleneck * growth, slope, checkpoint and i < 4))
            channels += layers * growth
            self.ends.append(nn.Sequential(BatchNorm(channels), nn.LeakyReLU(slope, inplace=True)))
            stride = 4 * 2**i
            if stride in MAP_STRIDES:
                self.maps[str(stride)] = nn.Conv2d(channels, 3, 1)
            if i + 1 < len(blocks):
                narrow = int(channels * compression)
                self.steps.append(nn.Sequential(nn.Conv2d(channels, narrow, 1, bias=False), nn.AvgPool2d(2)))
                channels = narrow
        self.classifier = nn.Linear(channels, 5)  # 2 outputs fracture or not, 3 outputs location
        kaiming(self, slope)
        for head in self.maps.values():
            assert isinstance(head, nn.Conv2d)
            assert head.bias is not None
            nn.init.normal_(head.weight, std=0.01)
            nn.init.constant_(head.bias, MAP_BIAS)

    @property
    def map_parameters(self) -> int:
        """Parameters of the map heads, which are no part of the reconstruction's 1,434,176."""
        return count_parameters(self.maps)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self._front(self.prepare(x))
        return {**self.tail(features), "map": self.map(features)}

    def front(self, x: Tensor) -> Tensor:
        """x [B, 1, H, W], multiples of 32 -> what map head and tail read: [B, 264, H/32, W/32].

        It ends with block 4's norm and activation, so that a frozen front is frozen whole and its output can be cached.
        """
        return self._front(self.prepare(x, 32))

    def tail(self, features: Tensor) -> dict[str, Tensor]:
        """Output of `front` -> {"fracture": [B], "location": [B, 3]}."""
        if not torch.compiler.is_exporting():
            name = f"{type(self).__name__}.tail (features)"
            check_size(name, features.shape[-2], features.shape[-1], self.multiple // 32)
        x = self.steps[3](features)
        for i in range(4, len(self.blocks)):
            x = self._block(x, i)
            if i < len(self.steps):
                x = self.steps[i](x)
        logits = in_float32(self.classifier, pool(x))
        return {"fracture": logits[:, 1] - logits[:, 0], "location": logits[:, 2:]}

    def map(self, features: Tensor) -> Tensor:
        """Output of `front` -> map logits [B, 3, H/32, W/32] (any, intra-capsular, extra-capsular)."""
        return in_float32(self.maps["32"], features)

    def dense(self, x: Tensor) -> dict[int, Tensor]:
        """Maps at all strides, for training on patches: {8: [B, 3, H/8, W/8], 16: ..., 32: ...}; multiples of 32."""
        maps: dict[int, Tensor] = {}
        self._front(self.prepare(x, 32), maps)
        return maps

    def freeze_norm(self, frozen: bool = True) -> FractureDenseNet:
        """Holds the running statistics of all batch norms and normalises with them, in train mode too.

        For training at batches too small for statistics of their own. Lasts over train() until freeze_norm(False).
        """
        self.norm_frozen = frozen
        return self.train(self.training)

    def train(self, mode: bool = True) -> FractureDenseNet:
        super().train(mode)
        if self.norm_frozen:
            for layer in self.modules():
                if isinstance(layer, (nn.BatchNorm2d, nn.SyncBatchNorm)):
                    layer.eval()
        return self

    def _front(self, x: Tensor, maps: dict[int, Tensor] | None = None) -> Tensor:
        x = self.stem(x)
        for i in range(4):
            x = self._block(x, i)
            stride = 4 * 2**i
            if maps is not None and stride in MAP_STRIDES:
                maps[stride] = in_float32(self.maps[str(stride)], x)
            if i < 3:
                x = self.steps[i](x)
        return x

    def _block(self, x: Tensor, i: int) -> Tensor:
        out: Tensor = self.ends[i](self.blocks[i](x))
        return out


class DenseBlock(nn.Module):
    """`layers` dense layers, each reading all before it: [B, C, h, w] -> [B, C + layers * growth, h, w]."""

    def __init__(self, channels: int, layers: int, growth: int, width: int, slope: float, checkpoint: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DenseLayer(channels + i * growth, growth, width, slope, checkpoint) for i in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return torch.cat(features, 1)


class DenseLayer(nn.Module):
    """Norm, activation, 1x1 to `width` channels; norm, activation, 3x3 to `growth` channels."""

    def __init__(self, channels: int, growth: int, width: int, slope: float, checkpoint: bool) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.norm1 = BatchNorm(channels)
        self.act1 = nn.LeakyReLU(slope, inplace=True)
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.norm2 = BatchNorm(width)
        self.act2 = nn.LeakyReLU(slope, inplace=True)
        self.conv2 = nn.Conv2d(width, growth, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        if self.checkpoint and self.training and torch.is_grad_enabled():
            x = checkpoint(
                self._squeeze, *features, use_reentrant=False, preserve_rng_state=False, context_fn=self._contexts
            )
        else:
            x = self._squeeze(*features)
        out: Tensor = self.conv2(self.act2(self.norm2(x)))
        return out

    def _squeeze(self, *features: Tensor) -> Tensor:
        out: Tensor = self.conv1(self.act1(self.norm1(torch.cat(features, 1))))
        return out

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), held(self.norm1)


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose running statistics can stand still during a forward pass in train mode.

    Checkpointing runs the layer a second time in the backward pass. The plain layer would update its statistics twice:
    the loss stays the same and evaluation does not.
    """

    held = False

    def forward(self, x: Tensor) -> Tensor:
        if not (self.held and self.training):
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        mean, var = self.running_mean.clone(), self.running_var.clone()
        return F.batch_norm(x, mean, var, self.weight, self.bias, True, 0.0, self.eps)


@contextmanager
def held(layer: nn.Module) -> Iterator[None]:
    """Inside, `layer` (if it is a batch norm of ours, or one over several processes) keeps its running statistics."""
    if isinstance(layer, nn.SyncBatchNorm):
        momentum, layer.momentum = layer.momentum, 0.0
        try:
            yield
        finally:
            layer.momentum = momentum
        return
    if not isinstance(layer, BatchNorm):
        yield
        return
    layer.held = True
    try:
        yield
    finally:
        layer.held = False

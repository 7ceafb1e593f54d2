"""A torch network as a stage sees it: a function from arrays to named arrays."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


class TorchNetwork:
    """Runs a network in eval mode: float32 [B, 1, H, W] in 0..1 to named float32 arrays with leading B."""

    def __init__(self, network: nn.Module, *, accelerator: str = "cpu") -> None:
        self.device = torch.device("cuda" if accelerator == "gpu" else "cpu")
        self.module = network.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, pictures: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Network outputs for a batch."""
        self.module.eval().to(self.device)
        batch = torch.from_numpy(np.ascontiguousarray(pictures)).to(self.device)
        outputs = self.module(batch.contiguous(memory_format=torch.channels_last))
        return {name: value.float().cpu().numpy() for name, value in outputs.items()}

"""A head CT of 40 slices through the hemorrhage stage on one thread: both runtimes against torch eager fp32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from bench.inference import delivered
from bench.measure import Options, Section, Target, interleave, speed_rows
from bench.models import settings_of, untrained
from domainseg.cascade.operations import picture_shape
from domainseg.training.stages import module_of

BASELINE = "torch eager fp32"
TARGETS = {"ONNX Runtime fp32": Target(1 / 0.75), "OpenVINO bf16": Target(1 / 0.4)}
SLICES = 40


def measure(options: Options) -> Section:
    """A row for each path: one network answers for all slices of an exam."""
    torch.set_num_threads(1)
    stage = untrained("hemorrhage", settings_of("hemorrhage")["stage"]["hemorrhage"])
    channels, height, width = picture_shape(stage.preprocessing)
    slices = SLICES // 4 if options.short else SLICES
    slabs = np.random.default_rng(0).random((slices, channels, height, width), dtype=np.float32)
    network = module_of(stage).eval().to(memory_format=torch.contiguous_format)

    @torch.inference_mode()
    def eager() -> object:
        return [network(torch.from_numpy(slab[None])) for slab in slabs]

    ways: dict[str, Callable[[], object]] = {BASELINE: eager}
    ways |= delivered(stage, network, slabs)
    seconds = interleave(ways, options.rounds, warm=1)
    about = f"{slices} slabs of {channels} x {height} x {width}, {type(network).__name__}, untrained, one thread."
    return Section(about, speed_rows(seconds, BASELINE, TARGETS))

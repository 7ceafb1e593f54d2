"""The fracture network on one film, one thread: torch, ONNX Runtime and OpenVINO against torch eager fp32."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench.machine import has_bf16, matrix_rates
from bench.measure import Options, Section, Target, interleave, speed_rows
from bench.models import cascade, weights
from domainseg.cascade.stages import Stage
from domainseg.training.onnx_model import opened, to_onnx
from domainseg.training.stages import module_of

BASELINE = "torch eager fp32"
TARGETS = {"ONNX Runtime fp32": Target(1.7), "OpenVINO bf16": Target(4)}


def measure(options: Options) -> Section:
    """A row for each path; the notes say which share of the machine's matrix-product rate it reaches."""
    torch.set_num_threads(1)
    size = max(256, options.size // 2) if options.short else options.size
    stage = cascade(options)[-1]
    network = copy.deepcopy(module_of(stage)).eval().to(memory_format=torch.contiguous_format)
    x = torch.rand(1, 1, size, size)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    x_last = x.contiguous(memory_format=torch.channels_last)
    ways = {
        BASELINE: torch_way(network, x, bf16=False),
        "torch channels_last": torch_way(last, x_last, bf16=False),
        "torch channels_last bf16": torch_way(last, x_last, bf16=True),
    }
    ways |= delivered(stage, network, x.numpy())
    rates = matrix_rates()
    seconds = interleave(ways, options.rounds, warm=2)
    work = operations(network, x)
    notes = {
        name: f"{work / statistics.median(own) / rates['bf16' if 'bf16' in name else 'fp32']:.0%} of the matrix rate"
        for name, own in seconds.items()
    }
    about = (
        f"{size} x {size} pixels, one thread, weights {weights(options)}, {work / 1e9:.2f} GFLOP. "
        f"This machine's matrix products: {rates['fp32'] / 1e9:.0f} GFLOP/s in fp32, {rates['bf16'] / 1e9:.0f} in bf16."
    )
    return Section(about, speed_rows(seconds, BASELINE, TARGETS, notes))


def delivered(stage: Stage, network: nn.Module, pictures: NDArray[np.float32]) -> dict[str, Callable[[], object]]:
    """The stage's network on one thread as a bundle runs it; OpenVINO in bf16 where the processor has it."""
    model, ways = to_onnx(network, pictures.shape[-1]), {}
    for name, backend, precision in (
        ("ONNX Runtime fp32", "onnxruntime", "fp32"),
        ("OpenVINO fp32", "openvino", "fp32"),
        ("OpenVINO bf16", "openvino", "bf16"),
    ):
        if precision == "bf16" and not has_bf16():
            continue
        (run,) = opened([stage], {stage.name: model}, backend=backend, precision=precision, threads=1)
        ways[name] = partial(run.network, pictures)
    return ways


def torch_way(network: nn.Module, x: torch.Tensor, *, bf16: bool) -> Callable[[], object]:
    """One forward pass in eval mode."""

    @torch.inference_mode()
    def run() -> object:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            return network(x)

    return run


def operations(network: nn.Module, x: torch.Tensor) -> int:
    """Floating-point operations of one forward pass in convolutions and products, each product and sum counted."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    return counter.get_total_flops()

"""The fracture network on a GPU: answers and training in bf16, memory, distance from the floor, and all GPUs (NCCL)."""

from __future__ import annotations

import json
import os
import socket
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from bench.inference import operations, torch_way
from bench.machine import matrix_rates
from bench.measure import Options, Row, Section, Skipped, duration, interleave, ratio_row, speed_rows
from domainseg.networks import FractureDenseNet

BASELINE, BATCH, STEPS = "fp32", 16, 5


def measure(options: Options) -> Section:
    """Rows for inference and its distance from the floor, training, the memory of both, and DDP."""
    if not torch.cuda.is_available():
        raise Skipped("no GPU here")
    device = torch.device("cuda")
    network = FractureDenseNet().eval().to(device, memory_format=torch.channels_last)
    x = torch.rand(BATCH, 1, options.size, options.size, device=device).contiguous(memory_format=torch.channels_last)
    ways = {BASELINE: synced(torch_way(network, x, bf16=False)), "bf16": synced(torch_way(network, x, bf16=True))}
    seconds = interleave(ways, options.rounds, warm=3)
    notes = {name: f"{BATCH / statistics.median(values):.0f} films a second" for name, values in seconds.items()}
    rows = [*speed_rows(seconds, BASELINE, notes=notes), floor_row(network, x, seconds["bf16"])]
    rows.append(memory_row("bf16", ways))
    rows += training_rows(options, device)
    rows.append(ddp_row(torch.cuda.device_count(), options))
    return Section(f"{torch.cuda.get_device_name()}, batches of {BATCH}, {options.size} x {options.size} pixels.", rows)


def floor_row(network: nn.Module, x: torch.Tensor, seconds: list[float]) -> Row:
    """Time against the longer of two floors: operations at the rate of matrix products, bytes at the rate of a copy."""
    by_operations = operations(network, x) / matrix_rates(side=8192, device="cuda")["bf16"]
    large = torch.empty(1 << 30, dtype=torch.uint8, device=x.device)
    copy = statistics.median(interleave({"copy": synced(large.clone)}, 5)["copy"])
    by_bytes = layer_bytes(network, x[:1]) * len(x) / (2 * large.numel() / copy)
    note = f"floor by operations {duration(by_operations)}, by bytes {duration(by_bytes)}"
    return ratio_row(
        "bf16: time", "the higher floor", seconds, [max(by_operations, by_bytes)] * len(seconds), note=note
    )


def layer_bytes(network: nn.Module, x: torch.Tensor) -> int:
    """Bytes in bf16 when each layer reads its input and writes its output once, and nothing is fused."""
    total = 0

    def count(_: nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        nonlocal total
        total += 2 * (sum(each.numel() for each in given) + out.numel())

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        with torch.inference_mode():
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return total


def synced(way: Callable[[], object]) -> Callable[[], None]:
    """The way, until the GPU is done."""

    def run() -> None:
        way()
        torch.cuda.synchronize()

    return run


def peak(way: Callable[[], object]) -> float:
    """Most GPU memory while it runs, in MB."""
    torch.cuda.reset_peak_memory_stats()
    way()
    return torch.cuda.max_memory_allocated() / 2**20


def memory_row(what: str, ways: dict[str, Callable[[], None]]) -> Row:
    """Peak memory in bf16 against fp32."""
    peaks = {name: peak(way) for name, way in ways.items()}
    return ratio_row(
        f"{what}: peak memory", BASELINE, [peaks["bf16"]], [peaks[BASELINE]], note=f"{peaks['bf16']:.0f} MB"
    )


def training_rows(options: Options, device: torch.device) -> list[Row]:
    """Training steps on whole ROIs: bf16, and bf16 with checkpointed activations, against fp32."""
    ways = {
        BASELINE: synced(step_of(FractureDenseNet(), options.size, device, bf16=False)),
        "bf16": synced(step_of(FractureDenseNet(), options.size, device, bf16=True)),
        "bf16 + checkpoint": synced(step_of(FractureDenseNet(checkpoint=True), options.size, device, bf16=True)),
    }
    seconds = interleave(ways, options.rounds, warm=2)
    rows = []
    for name in list(ways)[1:]:
        note = f"{BATCH / statistics.median(seconds[name]):.1f} films a second"
        rows.append(ratio_row(f"training, {name}: speed", BASELINE, seconds[BASELINE], seconds[name], note=note))
        rows.append(memory_row(f"training, {name}", {BASELINE: ways[BASELINE], "bf16": ways[name]}))
    return rows


def step_of(network: nn.Module, size: int, device: torch.device, *, bf16: bool) -> Callable[[], object]:
    """A training step of a batch of ROIs: forward, backward, AdamW."""
    network = network.to(device, memory_format=torch.channels_last)
    if torch.distributed.is_initialized():
        network = nn.parallel.DistributedDataParallel(network, device_ids=[device.index], find_unused_parameters=True)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    x = torch.rand(BATCH, 1, size, size, device=device).contiguous(memory_format=torch.channels_last)

    def run() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            out = network(x)
        optimizer.zero_grad()
        torch.stack([value.float().square().mean() for value in out.values()]).sum().backward()
        optimizer.step()

    return run


def ddp_row(world: int, options: Options) -> Row:
    """Training films a second, a process and a batch of its own for each GPU, over NCCL, against one without."""
    device = torch.device("cuda", 0)
    alone = timed(synced(step_of(FractureDenseNet(), options.size, device, bf16=True)))
    torch.cuda.empty_cache()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = options.scratch / "ddp.json"
    torch.multiprocessing.spawn(_train, (world, options.size, port, str(result)), nprocs=world)
    together = json.loads(result.read_text())
    note = f"{world * BATCH / statistics.median(together):.1f} films a second"
    faster = [world * value for value in alone]  # each step of `world` processes is `world` steps of one
    return ratio_row(f"DDP over NCCL, GPUs: {world}: films a second", "one process", faster, together, note=note)


def timed(way: Callable[[], None]) -> list[float]:
    """Seconds of each of STEPS calls after the first."""
    return interleave({"step": way}, STEPS)["step"]


def _train(rank: int, world: int, size: int, port: int, result: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl", rank=rank, world_size=world)
    seconds = timed(synced(step_of(FractureDenseNet(), size, device, bf16=True)))
    if rank == 0:
        Path(result).write_text(json.dumps(seconds))
    torch.distributed.destroy_process_group()

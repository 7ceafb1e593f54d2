"""The fracture network on a GPU: films a second in bf16, memory, distance from the floor, and training on all GPUs."""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from bench.inference import operations, torch_way
from bench.machine import matrix_rates
from bench.measure import Options, Row, Section, Skipped, duration, interleave, ratio_row, speed_rows
from domainseg.networks import FractureDenseNet

BASELINE, BATCH, STEPS = "fp32", 16, 5


def measure(options: Options) -> Section:
    """Rows for inference, its distance from the floor, memory, and DDP."""
    if not torch.cuda.is_available():
        raise Skipped("no GPU here")
    device = torch.device("cuda")
    network = FractureDenseNet().eval().to(device, memory_format=torch.channels_last)
    x = torch.rand(BATCH, 1, options.size, options.size, device=device).contiguous(memory_format=torch.channels_last)
    ways = {BASELINE: synced(torch_way(network, x, bf16=False)), "bf16": synced(torch_way(network, x, bf16=True))}
    seconds = interleave(ways, options.rounds, warm=3)
    notes = {name: f"{BATCH / statistics.median(values):.0f} films a second" for name, values in seconds.items()}
    rows = [*speed_rows(seconds, BASELINE, notes=notes), floor_row(network, x, seconds["bf16"])]
    peaks = {name: peak(way) for name, way in ways.items()}
    rows.append(
        ratio_row("bf16: peak memory", BASELINE, [peaks["bf16"]], [peaks[BASELINE]], note=f"{peaks['bf16']:.0f} MB")
    )
    if torch.cuda.device_count() > 1:
        rows.append(ddp_row(torch.cuda.device_count(), options, "cuda"))
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


def ddp_row(world: int, options: Options, kind: str) -> Row:
    """Training films a second of ``world`` processes against one, the same batch in each."""
    seconds: dict[int, list[float]] = {1: [], world: []}
    for _ in range(min(options.rounds, 3)):
        for count in seconds:
            seconds[count].append(train_on(count, options.size, kind, options.scratch))
    note = f"{world / statistics.median(seconds[world]):.1f} films a second"
    faster = [world * value for value in seconds[1]]  # each step of `world` processes is `world` steps of one
    return ratio_row(f"DDP on {world}: films a second", "one process", faster, seconds[world], note=note)


def train_on(world: int, size: int, kind: str, scratch: Path) -> float:
    """Median seconds of a training step of one film a process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = scratch / "ddp.txt"
    torch.multiprocessing.spawn(_train, (world, size, kind, port, str(result)), nprocs=world)
    return float(result.read_text())


def _train(rank: int, world: int, size: int, kind: str, port: int, result: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("nccl" if kind == "cuda" else "gloo", rank=rank, world_size=world)
    torch.set_num_threads(1)
    device = torch.device(kind, rank) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(device)
    network = FractureDenseNet().to(device, memory_format=torch.channels_last)
    network = nn.parallel.DistributedDataParallel(
        network, device_ids=[rank] if kind == "cuda" else None, find_unused_parameters=True
    )
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    x, seconds = torch.rand(1, 1, size, size, device=device), []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        with torch.autocast(kind, torch.bfloat16) if kind == "cuda" else nullcontext():
            out = network(x)
        optimizer.zero_grad()
        torch.stack([value.float().square().mean() for value in out.values()]).sum().backward()
        optimizer.step()
        if kind == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    if rank == 0:
        Path(result).write_text(str(statistics.median(seconds[1:])))
    torch.distributed.destroy_process_group()

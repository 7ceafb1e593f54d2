"""One training step of the fracture network: speed and peak memory of each precision and of checkpointing.

Every cell runs in a process of its own, the cells in turn, so that a busy moment hits all of them; memory is the peak
of resident memory above what the imports take.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from bench.machine import resident
from bench.measure import Options, Row, Section, Target, duration, ratio_row
from domainseg.bundle.workers import peak_bytes
from domainseg.networks import FractureDenseNet

CELLS: dict[str, dict[str, bool]] = {
    "fp32": {},
    "channels_last": {"last": True},
    "bf16 + channels_last": {"last": True, "bf16": True},
    "bf16 + channels_last + checkpoint": {"last": True, "bf16": True, "checkpoint": True},
}
BASELINE, BEST = "fp32", "bf16 + channels_last + checkpoint"
SPEED, MEMORY = Target(1.3), Target(0.5, most=True)
STEPS = 3


def measure(options: Options) -> Section:
    """Speed and memory rows of each cell against plain fp32."""
    size = options.size * 3 // 4 if options.short else options.size
    names = [BASELINE, BEST] if options.short else list(CELLS)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(min(options.rounds, 2 if options.short else 3)):
        for name in names:
            command = [sys.executable, "-m", "bench.training", name, str(size)]
            out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
            runs[name].append(json.loads(out.stdout.splitlines()[-1]))
    about = f"{size} x {size} pixels, batch 1, AdamW, one thread, {STEPS} steps a round."
    return Section(about, [row for name in names if name != BASELINE for row in rows(runs, name)])


def rows(runs: dict[str, list[dict[str, float]]], name: str) -> list[Row]:
    """How many times as fast as the baseline, and at which share of its memory."""
    own, plain = runs[name], runs[BASELINE]
    seconds, peaks = [run["seconds"] for run in own], [run["peak"] for run in own]
    targets = (SPEED, MEMORY) if name == BEST else (None, None)
    return [
        ratio_row(
            f"{name}: speed", BASELINE, [run["seconds"] for run in plain], seconds, targets[0],
            f"{duration(statistics.median(seconds))} a step",
        ),
        ratio_row(
            f"{name}: peak memory", BASELINE, peaks, [run["peak"] for run in plain], targets[1],
            f"{statistics.median(peaks):.0f} MB",
        ),
    ]  # fmt: skip


def cell(size: int, last: bool = False, bf16: bool = False, checkpoint: bool = False) -> dict[str, float]:
    """Median seconds of a training step, and MB above the imports, of one cell in this process."""
    torch.set_num_threads(1)  # more of them, on a machine that others use too, wait for each other
    torch.manual_seed(0)
    before = resident()
    net, x = FractureDenseNet(checkpoint=checkpoint), torch.rand(1, 1, size, size)
    if last:
        net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4)
    # One fracture in the batch, intra-capsular; loss over both heads and the map, as in training.
    fracture, location = torch.ones(1), torch.ones(1, dtype=torch.long)
    seconds: list[float] = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            out: dict[str, Any] = net(x)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(out["fracture"], fracture)
        loss = loss + torch.nn.functional.cross_entropy(out["location"], location) + out["map"].sigmoid().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[1:]), "peak": peak_bytes() / 2**20 - before}


if __name__ == "__main__":
    print(json.dumps(cell(int(sys.argv[2]), **CELLS[sys.argv[1]])))

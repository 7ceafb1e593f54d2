"""Step time and peak memory of the fracture network: plain fp32, bf16 + channels_last, and with checkpointing.

    python tools/bench/network.py [--size 1024] [--batch 1] [--threads N] [--rounds 3] [--steps 3] [--output DIR]

Prints a Markdown table and writes DIR/network.json (default outputs/bench). Every cell runs in a process of its own,
once a round and the cells in turn, so that a busy moment of the machine hits all of them; times are medians, memory is
the peak of resident memory above what the imports take. Exit code 1 if no setting reaches both targets.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CELLS = {
    "fp32": {"bf16": False, "checkpoint": False},
    "bf16 + channels_last": {"bf16": True, "checkpoint": False},
    "bf16 + channels_last + checkpoint": {"bf16": True, "checkpoint": True},
}
SPEED, MEMORY = 1.4, 0.5
"""Targets against plain fp32: at least this step speed and at most this memory."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="side of the square input in pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3, help="times that each cell is run")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a round, after one that is not timed")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "bench")
    parser.add_argument("--cell", choices=list(CELLS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        print(json.dumps(measure(args.cell, args.size, args.batch, args.threads, args.steps)))
        return 0

    runs: dict[str, list[dict[str, list[float]]]] = {name: [] for name in CELLS}
    for _ in range(args.rounds):
        for name in CELLS:
            command = [sys.executable, __file__, "--cell", name]
            for key in ("size", "batch", "threads", "steps"):
                command += [f"--{key}", str(getattr(args, key))]
            out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
            runs[name].append(json.loads(out.stdout.splitlines()[-1]))
    result = {"machine": machine(args.threads), "size": args.size, "batch": args.batch, "cells": summarise(runs)}
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "network.json").write_text(json.dumps(result, indent=2) + "\n")
    print(markdown(result))
    reached = any(c["speed"] >= SPEED and c["memory"] <= MEMORY for c in result["cells"].values())
    verdict = "reached" if reached else "MISSED"
    print(f"\nTarget, at least {SPEED} x the speed and at most {MEMORY} x the memory: {verdict}")
    return 0 if reached else 1


def measure(name: str, size: int, batch: int, threads: int, steps: int) -> dict[str, list[float]]:
    """Seconds of each training step and inference, and MB above the imports, of one cell in this process."""
    import torch

    sys.path.insert(0, str(ROOT))
    from domainseg.networks import FractureDenseNet

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    bf16, checkpoint = CELLS[name]["bf16"], CELLS[name]["checkpoint"]
    before = resident()
    net = FractureDenseNet(checkpoint=checkpoint)
    x = torch.rand(batch, 1, size, size)
    if bf16:
        net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4)
    # One fracture in the batch, intra-capsular; loss over both heads and the map, as in training.
    fracture, location = torch.ones(batch), torch.ones(batch, dtype=torch.long)
    training: list[float] = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            out = net(x)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(out["fracture"], fracture)
        loss = loss + torch.nn.functional.cross_entropy(out["location"], location) + out["map"].sigmoid().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        training.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    net.eval()
    inference: list[float] = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
        for _ in range(steps + 1):
            start = time.perf_counter()
            net(x)
            inference.append(time.perf_counter() - start)
    return {"training": training[1:], "inference": inference[1:], "peak": [peak - before]}


def summarise(runs: dict[str, list[dict[str, list[float]]]]) -> dict[str, dict[str, float]]:
    """Medians over all rounds, and their ratios to the first cell."""
    medians = {
        name: {key: statistics.median(v for run in rounds for v in run[key]) for key in rounds[0]}
        for name, rounds in runs.items()
    }
    plain = medians["fp32"]
    return {
        name: {
            "step_s": cell["training"],
            "inference_s": cell["inference"],
            "peak_mb": cell["peak"],
            "speed": plain["training"] / cell["training"],
            "inference_speed": plain["inference"] / cell["inference"],
            "memory": cell["peak"] / plain["peak"],
        }
        for name, cell in medians.items()
    }


def resident() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def machine(threads: int) -> dict[str, str | int]:
    """What the figures were measured on."""
    from importlib.metadata import version

    info = Path("/proc/cpuinfo").read_text()
    cpu = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), "?")
    flags = set(next((line for line in info.splitlines() if line.startswith("flags")), "").split())
    return {
        "cpu": cpu,
        "cores": os.cpu_count() or 0,
        "threads": threads,
        "bf16": ", ".join(sorted(flags & {"avx512_bf16", "amx_bf16"})) or "emulated",
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def markdown(result: dict[str, object]) -> str:
    """The result as a Markdown table."""
    cells, info = result["cells"], result["machine"]
    assert isinstance(cells, dict)
    assert isinstance(info, dict)
    lines = [
        f"Fracture network, {result['size']} px, batch {result['batch']}. "
        + ", ".join(f"{k} {v}" for k, v in info.items()),
        "",
        "| setting | step (s) | speed | peak memory (MB) | memory | inference (s) | speed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, c in cells.items():
        lines.append(
            f"| {name} | {c['step_s']:.2f} | {c['speed']:.2f} x | {c['peak_mb']:.0f} | {c['memory']:.2f} x "
            f"| {c['inference_s']:.3f} | {c['inference_speed']:.2f} x |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

"""How much faster the decoded cache is than reading the same arrays from 16-bit PNG files.

    python tools/bench/cache.py [--size 1024] [--count 24] [--rounds 5] [--output DIR]

Prints a Markdown table and writes DIR/cache.json (default outputs/bench). The arrays are simulated 12-bit radiographs:
smooth anatomy with noise. The baseline is cv2.imread of PNG files that cv2.imwrite made; pydicom's and pillow's readers
are slower. Both sides deliver every pixel once: the memory map is copied into memory. Baseline and cache take turns in
one process, once a round; the ratio is that of the medians. Files are in the page cache on both sides. "first open"
is the first time that a process sees an entry, with the SHA-256 of its content. Exit code 1 below the target.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from domainseg.data.cache import Cache, cache_key

ROOT = Path(__file__).resolve().parents[2]
TARGET = 15.0
"""Least ratio of the times, PNG over cache."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="side of the square arrays in pixels")
    parser.add_argument("--count", type=int, default=24, help="arrays")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "bench")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        cells = measure(Path(name), args.size, args.count, args.rounds)
    ratio = cells["16-bit PNG"] / cells["cache"]
    result = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "size": args.size,
        "milliseconds": cells,
        "ratio": ratio,
        "target": TARGET,
    }
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "cache.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"{args.count} arrays of {args.size} x {args.size} uint16 on {result['machine']}, one thread\n")
    print("| read from | ms an array | against PNG |\n|---|---|---|")
    for cell, value in cells.items():
        print(f"| {cell} | {value:.2f} | {cells['16-bit PNG'] / value:.1f}x |")
    print(f"\ncache: {ratio:.1f}x, target {TARGET:.0f}x: {'reached' if ratio >= TARGET else 'missed'}")
    return 0 if ratio >= TARGET else 1


def measure(folder: Path, size: int, count: int, rounds: int) -> dict[str, float]:
    arrays = [radiograph(number, size) for number in range(count)]
    paths = [folder / f"{number}.png" for number in range(count)]
    keys = [cache_key(str(n), reader="bench", lut_policy="none", operations=[]) for n in range(count)]
    cache = Cache(folder / "cache", 10**12)
    for array, path, key in zip(arrays, paths, keys, strict=True):
        cv2.imwrite(str(path), array)
        cache.get(key, lambda array=array: (array, {}))

    def png(number: int) -> np.ndarray:
        return cv2.imread(str(paths[number]), cv2.IMREAD_UNCHANGED)

    def cached(number: int) -> np.ndarray:
        return np.array(cache.get(keys[number], absent)[0])

    def first(number: int) -> np.ndarray:
        return np.array(Cache(folder / "cache", 10**12).get(keys[number], absent)[0])

    ways: dict[str, Callable[[int], np.ndarray]] = {"16-bit PNG": png, "cache, first open": first, "cache": cached}
    for read in ways.values():
        assert all(np.array_equal(read(number), array) for number, array in enumerate(arrays))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, read in ways.items():
            start = time.perf_counter()
            for number in range(count):
                read(number)
            times[name].append((time.perf_counter() - start) / count * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def absent() -> tuple[np.ndarray, dict[str, object]]:
    raise AssertionError("the entry is not in the cache")


def radiograph(seed: int, size: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.random((24, 24), dtype=np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth * 3000 + rng.normal(500, 20, (size, size)), 0, 4095).astype(np.uint16)


if __name__ == "__main__":
    sys.exit(main())

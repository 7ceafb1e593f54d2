"""Reading decoded films: the cache against 16-bit PNG files of the same arrays.

The arrays are simulated 12-bit radiographs: smooth anatomy with noise. Both sides deliver every pixel once: the memory
map is copied into memory. Files are in the page cache on both sides. "first open" is the first time that a process
sees an entry, with the SHA-256 of its content.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.measure import Options, Section, Target, interleave, speed_rows
from domainseg.data.cache import Cache, cache_key

BASELINE = "16-bit PNG (cv2)"
TARGETS = {"cache": Target(15)}
COUNT = 12
Array = NDArray[np.uint16]


def measure(options: Options) -> Section:
    """Rows of the cache against PNG, for ``COUNT`` arrays a round."""
    cv2.setNumThreads(1)
    folder = options.scratch / "reading"
    folder.mkdir(exist_ok=True)
    arrays = [radiograph(number, options.size) for number in range(COUNT)]
    paths = [folder / f"{number}.png" for number in range(COUNT)]
    keys = [cache_key(str(n), reader="bench", lut_policy="none", operations=[]) for n in range(COUNT)]
    cache = Cache(folder / "cache", 10**12)
    for array, path, key in zip(arrays, paths, keys, strict=True):
        cv2.imwrite(str(path), array)
        cache.get(key, partial(made, array))

    def png(number: int) -> Any:
        return cv2.imread(str(paths[number]), cv2.IMREAD_UNCHANGED)

    def first(number: int) -> Array:
        return np.array(Cache(folder / "cache", 10**12).get(keys[number], absent)[0])

    def cached(number: int) -> Array:
        return np.array(cache.get(keys[number], absent)[0])

    ways = {BASELINE: png, "cache, first open": first, "cache": cached}
    for read in ways.values():
        if not all(np.array_equal(read(number), array) for number, array in enumerate(arrays)):
            raise AssertionError("what was read is not what was written")
    seconds = interleave({name: partial(all_of, read) for name, read in ways.items()}, options.rounds)
    each = {name: [value / COUNT for value in values] for name, values in seconds.items()}
    about = f"{COUNT} arrays of {options.size} x {options.size} uint16, one thread."
    return Section(about, speed_rows(each, BASELINE, TARGETS))


def all_of(read: Callable[[int], Any]) -> None:
    """Read each array once."""
    for number in range(COUNT):
        read(number)


def made(array: Array) -> tuple[Array, dict[str, object]]:
    """What the cache stores."""
    return array, {}


def absent() -> tuple[Array, dict[str, object]]:
    """Called when an entry is missing, which it must not be."""
    raise AssertionError("the entry is not in the cache")


def radiograph(seed: int, size: int) -> Array:
    """Smooth shapes with noise, 12 bit."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.random((24, 24), dtype=np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth * 3000 + rng.normal(500, 20, (size, size)), 0, 4095).astype(np.uint16)

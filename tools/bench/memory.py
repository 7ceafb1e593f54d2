"""Whether memory grows from film to film: resident memory after each film, and its slope by Theil and Sen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy.stats import theilslopes

from bench.machine import resident
from bench.measure import Options, Row, Section, Target
from bench.models import bundle, films, weights
from domainseg.bundle.load import load_bundle

LIMIT, SHORT_LIMIT = 1.0, 256.0  # KB a film


def measure(options: Options) -> Section:
    """One row: the slope in KB a film, in a process that does nothing else."""
    paths = films(options)
    command = [sys.executable, "-m", "bench.memory", str(bundle(options)[0]), str(paths[0].parent)]
    command.append(str(options.slope_films))
    out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    about = (
        f"{options.slope_films} films ({len(paths)} simulated ones, again and again) through load_bundle().predict() "
        f"with ONNX Runtime on all cores, weights {weights(options)}, after {warm_up(options.slope_films)} films "
        "to warm up. Resident memory is read between films, garbage is not collected first. In place of "
        "quartiles Theil's interval, 95 %."
    )
    return Section(about, [row(json.loads(out.stdout.splitlines()[-1]), options.short)])


def row(memory: list[float], short: bool) -> Row:
    """The slope of resident memory in MB after each film.

    The short form has too few films to tell 1 KB a film from how the allocator comes to rest; it finds what keeps a
    picture, and nothing less.
    """
    limit = SHORT_LIMIT if short else LIMIT
    slope, _, low, high = (float(1024 * value / limit) for value in theilslopes(memory, np.arange(len(memory)), 0.95))
    note = f"{memory[0]:.0f} MB after warm-up, {np.median(memory[-len(memory) // 4 :]):.0f} MB in the last quarter"
    return Row("growth", f"{limit:g} KB a film", slope, low, high, len(memory), Target(1, most=True), note)


def warm_up(count: int) -> int:
    """Films before the first that counts."""
    return max(10, count // 5)


def after_each(folder: Path, images: Path, count: int) -> list[float]:
    """Resident memory in MB after each film."""
    loaded = load_bundle(folder)  # on all cores: 1,000 films take minutes
    paths = sorted(images.glob("*.dcm"))
    memory = []
    for k in range(warm_up(count) + count):
        loaded.predict(paths[k % len(paths)])
        memory.append(resident())
    return memory[warm_up(count) :]


if __name__ == "__main__":
    print(json.dumps(after_each(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))

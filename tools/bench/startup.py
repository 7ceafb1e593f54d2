"""From process start to the first answer: --help of each command, and the first prediction of a bundle."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from shutil import rmtree

from bench.measure import Options, Section, Target, interleave, ratio_row, speed_rows
from bench.models import bundle, films

BASELINE = "python -c 'import torch'"
API = "import sys, domainseg; domainseg.load_bundle(sys.argv[1]).predict(sys.argv[2])"
LIMIT = 2.0  # seconds to the first prediction: a limit for a named machine, which the short form does not hold


def measure(options: Options) -> Section:
    """Rows against the time that importing torch takes alone, and the first prediction against its limit."""
    folder, film = bundle(options)[0], films(options)[0]
    output = options.scratch / "predicted"
    predict = ["-m", "domainseg.predict", f"bundle={folder}", f"input={film}", f"output={output}"]
    ways = {BASELINE: partial(start, "-c", "import torch")}
    ways |= {f"{name} --help": partial(start, "-m", f"domainseg.{name}", "--help") for name in options.commands}
    first = {"load_bundle().predict(film)": partial(start, "-c", API, str(folder), str(film))}
    first["predict bundle= input=film"] = partial(anew, output, predict)
    seconds = interleave(ways | first, min(options.rounds, 3))
    rows = speed_rows(seconds, BASELINE)
    if not options.short:
        limit = [LIMIT] * len(seconds[BASELINE])
        rows += [ratio_row(name, f"{LIMIT:g} s", seconds[name], limit, Target(1, most=True)) for name in first]
    return Section("Whole processes, with files in the page cache.", rows)


def start(*arguments: str) -> None:
    """A Python process from its start to its end, with as many threads as it likes."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment)


def anew(output: Path, arguments: list[str]) -> None:
    """The predict command into a folder that is not there."""
    rmtree(output, ignore_errors=True)
    start(*arguments)

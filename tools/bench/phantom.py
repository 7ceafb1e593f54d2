"""Simulated films a second, with one process and with as many as cores."""

from __future__ import annotations

import os
import statistics
from functools import partial
from shutil import rmtree

from bench.measure import Options, Section, interleave, speed_rows
from domainseg.phantom.simulate import simulate

BASELINE = "one process"


def measure(options: Options) -> Section:
    """A row for each number of processes; the notes say how many films a second that is."""
    count, cores = min(options.films, 24), os.cpu_count() or 1

    def films(workers: int) -> None:
        folder = options.scratch / "phantom"
        rmtree(folder, ignore_errors=True)
        simulate({"n": count, "seed": 1, "workers": workers}, folder)

    ways = {BASELINE: partial(films, 1)} | ({f"{cores} processes": partial(films, cores)} if cores > 1 else {})
    seconds = interleave(ways, 1 if options.short else 2, warm=0)
    notes = {name: f"{count / statistics.median(values):.2f} films a second" for name, values in seconds.items()}
    return Section(f"{count} films with masks, as DICOM files.", speed_rows(seconds, BASELINE, notes=notes))

"""Simulated head CT with known truth: data=phantom_head, the default of the hemorrhage pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainseg.data.manifest import Manifest
from domainseg.data.sources import simulated
from domainseg.phantom.simulate import version_of


def load(
    n: int,
    seed: int,
    root: Path | str | None = None,
    workers: int | None = None,
    kind: str = "head",
    **settings: Any,
) -> Manifest:
    """The exams of a simulation: made now, or reused when they have been made with the same settings.

    n: exams. seed: of the simulation. root: the folder for the exams; by default
    outputs/data/phantom_head-<8 digits of the hash of all settings and of the phantom's version>.
    workers: processes that simulate, by default as many as cores; the exams do not depend on it.
    settings: further settings of the simulation (conf/phantom/head.yaml lists them).
    Raises ManifestError when ``root`` holds something else, and what the simulation raises at wrong settings.
    """
    wanted = {"n": n, "seed": seed, **settings}
    return simulated.load(kind, version_of("head", settings.get("base")), wanted, root, workers, "exams")

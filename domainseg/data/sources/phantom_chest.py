"""Simulated chest films with known truth: data=phantom_chest, the default of the chest pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainseg import phantom
from domainseg.data.manifest import Manifest
from domainseg.data.sources import simulated


def load(
    n: int,
    seed: int,
    root: Path | str | None = None,
    workers: int | None = None,
    kind: str = "chest",
    **settings: Any,
) -> Manifest:
    """The films of a simulation: made now, or reused when they have been made with the same settings.

    n: films. seed: of the simulation. root: the folder for the films; by default
    outputs/data/phantom_chest-<8 digits of the hash of all settings and of the phantom's version>.
    workers: processes that simulate, by default as many as cores; the films do not depend on it.
    settings: further settings of the simulation (conf/phantom/chest.yaml lists them).
    Raises ManifestError when ``root`` holds something else, and what the simulation raises at wrong settings.
    """
    wanted = {"n": n, "seed": seed, **settings}
    return simulated.load(kind, phantom.VERSIONS["chest"], wanted, root, workers, "films")

"""What a run depended on: versions, hardware, data and seed; and whether a resumed run still has them."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from domainseg.cascade import volumes
from domainseg.cascade.operations import FRAMES, OPERATIONS
from domainseg.data.manifest import Manifest
from domainseg.files import read_json, write_json
from domainseg.imaging.film import READER_VERSION
from domainseg.imaging.volume import VOLUME_READER_VERSION
from domainseg.training.stages import RunError

log = logging.getLogger(__name__)

PACKAGES = (
    "domainseg", "torch", "torchvision", "pytorch-lightning", "segmentation-models-pytorch", "monai", "albumentations",
    "opencv-python-headless", "pydicom", "numpy", "scipy", "pandas", "scikit-learn",
)  # fmt: skip

PICTURES = "pictures"  # the key of what stages see of a film: another version, other pixels
# Of the trainer's settings, those that change the sums.
ARITHMETIC = ("accelerator", "devices", "nodes", "sync_batchnorm", "precision")


def environment(cfg: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    """Versions, processor, threads, seed, and the hash and size of the manifest and of each split."""
    splits = {}
    for name in ("train", "tune", "test"):
        part = manifest.split(name)
        if len(part):
            splits[name] = {"films": len(part), "sha256": part.hash()}
    return {
        "versions": versions_of(PACKAGES),
        PICTURES: {
            "reader": READER_VERSION,
            "volume_reader": VOLUME_READER_VERSION,
            **{name: frame.version for name, frame in FRAMES.items()},
            **{name: number for name, (number, _) in (OPERATIONS | volumes.OPERATIONS).items()},
        },
        "trainer": {name: cfg["trainer"].get(name) for name in ARITHMETIC},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "seed": cfg["seed"],
        "manifest": {"name": manifest.name, "films": len(manifest), "sha256": manifest.hash()},
        "splits": splits,
    }


def write_environment(cfg: Mapping[str, Any], manifest: Manifest, output: Path, **more: Any) -> None:
    """Write environment.json; a resumed run keeps the one that it began with and adds what is different now.

    Raises RunError when the reader or a preprocessing operation has another version than at the beginning: stages
    trained before and after would see different pictures. Any other difference (of a package, the processor, threads,
    devices, precision) is a warning by name: the run goes on, but not bit by bit as it would have.
    """
    file = output / "environment.json"
    now = environment(cfg, manifest) | more
    if not (cfg["resume"] and file.is_file()):
        write_json(file, now)
        return
    before = read_json(file)
    changes = {name: [old, new] for name, old, new in _differences(before, now)}
    if changed := [name for name in changes if name.startswith(f"{PICTURES}.")]:
        name = changed[0]
        old, new = changes[name]
        raise RunError(
            f"resume=true: {name.partition('.')[2]} has version {new}, the run began with {old}: its stages would see "
            f"different pictures. Go on with domainseg {before['versions']['domainseg']}, or start a new run"
        )
    for name, (old, new) in changes.items():
        log.warning("resumed with %s %s instead of %s: results may differ from an uninterrupted run's", name, new, old)
    write_json(file, before | {"resumed": [*before.get("resumed", []), changes]})


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for group in ("versions", PICTURES, "trainer"):
        then = before.get(group, {})
        for name, value in now[group].items():
            if name in then and then[name] != value:  # what an earlier version did not know, its runs do not use
                yield f"{group}.{name}", then[name], value
    for name in ("python", "processor", "threads", "gpu"):
        if before.get(name) != now[name]:
            yield name, before.get(name), now[name]


def versions_of(packages: Iterable[str]) -> dict[str, str | None]:
    """Installed versions by name of package, None where it is not installed."""
    return {name: _version(name) for name in packages}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()

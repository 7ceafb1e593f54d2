"""What a run depended on: versions, hardware, data and seed."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from domainseg.data.manifest import Manifest

PACKAGES = (
    "domainseg", "torch", "torchvision", "pytorch-lightning", "segmentation-models-pytorch", "monai", "albumentations",
    "opencv-python-headless", "pydicom", "numpy", "scipy", "pandas", "scikit-learn",
)  # fmt: skip


def environment(cfg: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    """Versions, processor, threads, seed, and the hash and size of the manifest and of each split."""
    splits = {}
    for name in ("train", "tune", "test"):
        part = manifest.split(name)
        if len(part):
            splits[name] = {"films": len(part), "sha256": part.hash()}
    return {
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "seed": cfg["seed"],
        "manifest": {"name": manifest.name, "films": len(manifest), "sha256": manifest.hash()},
        "splits": splits,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()

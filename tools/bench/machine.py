"""What the figures were measured on: processor, memory, versions, load, and the rate of matrix products."""

from __future__ import annotations

import os
import platform
import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "domainseg", "torch", "onnxruntime", "openvino", "onnx", "numpy", "scipy", "opencv-python-headless", "pydicom",
    "pandas", "scikit-learn",
)  # fmt: skip
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def machine() -> dict[str, Any]:
    """Processor, its flags, cores, memory, GPU, system, versions and the load at the start."""
    import torch

    info = _fields("/proc/cpuinfo")
    kilobytes = _fields("/proc/meminfo").get("MemTotal", "0 kB").split()[0]
    return {
        "processor": info.get("model name", platform.processor()),
        "flags": [flag for flag in FLAGS if flag in info.get("flags", "").split()],
        "cores": os.cpu_count(),
        "memory_gb": round(int(kilobytes) / 2**20, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def has_bf16() -> bool:
    """Whether the processor computes in bf16."""
    return bool({"avx512_bf16", "amx_bf16"} & set(_fields("/proc/cpuinfo").get("flags", "").split()))


def matrix_rates(rounds: int = 5, side: int = 2048, device: str = "cpu") -> dict[str, float]:
    """Floating-point operations a second of torch's matrix product, in fp32 and bf16, at torch's present threads."""
    import torch

    rates = {}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        square = torch.rand(side, side, device=device).to(kind)
        seconds = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            square @ square
            if device != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        rates[name] = 2 * side**3 / statistics.median(seconds[1:])
    return rates


def resident() -> float:
    """Resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _fields(path: str) -> dict[str, str]:
    """The first value of each ``name : value`` line of a file of /proc; nothing where there is none."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

"""Same seed, same machine, same weights bit for bit: twice the same, and with 0 or 2 loader workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from domainseg.networks import FractureDenseNet, ImplantNet, LocalizerRegression, ViewNet
from domainseg.tasks.fit import FitContext
from domainseg.tasks.fracture import LESION, fit_fracture
from domainseg.tasks.items import Item
from domainseg.tasks.label import fit_label
from domainseg.tasks.localizer import FEMURS, fit_localizer
from domainseg.tasks.view import fit_view

AUGMENT = {"rotate": 12, "shift": 0.1, "scale": 0.1, "gamma": 0.3, "brightness": 0.1, "contrast": 0.2, "blur": 1.0}


def items(size: int = 64, count: int = 6) -> list[Item]:
    """Pictures of noise with the truth of every task."""
    found = []
    for k in range(count):
        rng = np.random.default_rng(k)
        planes = np.stack([rng.integers(0, 65536, (size, size)), *(np.zeros((3, size, size), int))]).astype(np.uint16)
        planes[1:, 20:30, 20 + k : 40] = 65535
        truth: dict[str, Any] = {"view": k % 3, "turn": k % 4, "label": k % 2, "fracture": k % 2, "location": k % 2}
        truth |= {"heads": [[20.0, 30.0, 9.0], [44.0, 31.0, 9.0]], "known": [True, True]}
        masks = (LESION, *FEMURS)
        found.append(Item(f"film {k}", "hip_left", lambda planes=planes: planes, np.eye(3), truth, masks))  # type: ignore[misc]
    return found


def view(context: FitContext) -> nn.Module:
    network = ViewNet(widths=[4, 8])
    fit_view(network, items(), context, steps=4, batch_size=4, lr=1e-2, augment=AUGMENT)
    return network


def label(context: FitContext) -> nn.Module:
    network = ImplantNet(widths=[4, 8])
    fit_label(network, items(), context, output="implant", steps=4, batch_size=4, lr=1e-2, augment=AUGMENT)
    return network


def localizer(context: FitContext) -> nn.Module:
    network = LocalizerRegression(size=64, weights=None)
    fit_localizer(network, items(), context, steps=2, batch_size=3, lr=1e-3, augment=AUGMENT)
    return network


def fracture(context: FitContext) -> nn.Module:
    network = FractureDenseNet(growth=4, blocks=[1, 1, 1, 2, 2, 1, 1])
    fit_fracture(
        network,
        items(256),
        context,
        location_weight=0.5,
        patch={"steps": 3, "batch_size": 2, "lr": 1e-3, "size": 64, "positives": 0.5},
        tail={"steps": 3, "batch_size": 4, "lr": 1e-3, "weight_decay": 0.05},
        whole={"steps": 2, "batch_size": 2, "lr": 1e-4},
        augment=AUGMENT,
    )
    return network


@pytest.mark.parametrize("task", [view, label, localizer, fracture])
def test_workers_and_repetition_change_nothing(task: Callable[[FitContext], nn.Module], tmp_path: Path) -> None:
    weights = []
    for name, workers in (("none", 0), ("again", 0), ("two", 2)):
        torch.manual_seed(7)  # of the untrained weights
        network = task(FitContext(tmp_path / name, seed=5, workers=workers, precision="bf16-mixed", progress=False))
        weights.append(network.state_dict())
    for other in weights[1:]:
        assert all(torch.equal(value, other[name]) for name, value in weights[0].items())

"""A toy cascade: films whose answers can be read off their grey levels, networks that do so, and a fit that counts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from domainseg.data.manifest import Manifest, build_manifest

SHAPE = (240, 320)
BACKGROUND, LINE, HEAD, METAL = 80, 10, 204, 255  # of 255; the networks tell them apart
DIAMETER = 20.0
HEADS = {"hip_left": (90.0, 80.0), "hip_right": (230.0, 84.0)}


class Toy(nn.Module):
    """A network with one weight that only a fit changes, and that does not change what it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(1))
        self.register_buffer("shift", torch.zeros(1))


class View(Toy):
    """Frontal when a head is to be seen; always upright."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        seen = ((x > 0.7) & (x < 0.9)).flatten(1).float().mean(1) > 1e-3
        frontal = torch.where(seen, 6.0, -6.0)
        zero = torch.zeros_like(frontal)
        return {"view": torch.stack([frontal, zero, zero - 2], 1), "turn": torch.stack([zero + 5, zero, zero, zero], 1)}


class Heads(Toy):
    """The middle of the head's grey level in each half of the picture, ``shift`` input pixels too far right."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        size = x.shape[-1]
        lit = ((x > 0.7) & (x < 0.9)).float()[:, 0]
        columns = torch.arange(size).float()
        halves = torch.stack([lit * (columns < size / 2), lit * (columns >= size / 2)], 1)
        area = halves.sum((2, 3))
        across = (halves.sum(2) * columns).sum(2) / area.clamp(min=1) + self.shift
        down = (halves.sum(3) * columns).sum(2) / area.clamp(min=1)
        diameter = (4 * area.clamp(min=1) / np.pi).sqrt() / size
        center = (torch.stack([across, down], 2) + 0.5) / size
        return {"presence": torch.where(area > 20, 9.0, -9.0), "center": center, "diameter": diameter.log()}


class Metal(Toy):
    """Whether something is as bright as metal."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"implant": 60 * (x.flatten(1).amax(1) - 0.93)}


class Line(Toy):
    """How much is as dark as a fracture line."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        dark = (x < 0.15).float()
        share = 1000 * (dark.flatten(1).mean(1) - 0.005)
        zero = torch.zeros_like(share)
        heat = nn.functional.max_pool2d(dark, 16).repeat(1, 3, 1, 1)
        return {"fracture": share, "location": torch.stack([-share, zero, zero + 1], 1), "map": heat}


CALLS: list[tuple[str, list[str]]] = []


def fit(network: Toy, items: Sequence[Any], context: Any, **settings: Any) -> None:
    """Adds one to the weight and notes the folder and the images; a localizer fitted on fold k errs its own way."""
    name = context.folder.name
    CALLS.append((name, [item.image for item in items]))
    with torch.no_grad():
        network.weight += 1
        if name.startswith("cross_fit_"):
            network.shift += {"0": 1.0, "1": -1.0}[name[-1]]


@pytest.fixture
def calls() -> Iterator[list[tuple[str, list[str]]]]:
    """What was fitted so far in this test: (folder's name, images)."""
    CALLS.clear()
    module = ModuleType("toy_networks")
    vars(module).update(View=View, Heads=Heads, Metal=Metal, Line=Line, fit=fit)
    sys.modules["toy_networks"] = module
    yield CALLS
    del sys.modules["toy_networks"]


def draw(fractures: Sequence[str], metal: Sequence[str], frontal: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A film, and a mask of each fracture line."""
    film = np.full(SHAPE, BACKGROUND, np.uint8)
    masks = {}
    ys, xs = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for part, (x, y) in HEADS.items():
        if not frontal:
            continue
        film[np.hypot(xs - x, ys - y) < DIAMETER / 2] = HEAD
        lateral = -1 if part == "hip_left" else 1
        if part in fractures:
            masks[part] = (abs(xs - (x + 14 * lateral)) < 10) & (abs(ys - (y + 22)) < 2)
            film[masks[part]] = LINE
        if part in metal:
            film[(abs(xs - (x + 14 * lateral)) < 4) & (abs(ys - (y + 34)) < 4)] = METAL
    return film, masks


@pytest.fixture(scope="session")
def toy_films(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """22 films of 11 patients: 12 train, 6 tune, 4 test; every third hip broken, some with metal, some no hip."""
    root = tmp_path_factory.mktemp("toys")
    images, targets = [], []
    for k in range(22):
        image = f"f{k:02}"
        frontal, turn = k % 7 != 6, int(k == 4)
        fractures = [part for j, part in enumerate(HEADS) if (2 * k + j) % 3 == 0]
        metal = [part for j, part in enumerate(HEADS) if (2 * k + j) % 8 == 7]
        film, masks = draw(fractures, metal, frontal)
        cv2.imwrite(str(root / f"{image}.png"), np.rot90(film, -turn))
        split = "train" if k < 12 else "tune" if k < 18 else "test"
        images.append({"image": image, "path": f"{image}.png", "patient": f"p{k // 2}", "site": "A", "split": split})
        view = {"label_view_filter": int(frontal), "label_view": "hip_frontal" if frontal else "other"}
        targets.append({"image": image, "part": "whole", "label_turn": turn, **view})
        for part, (x, y) in HEADS.items():
            if not frontal:
                continue
            row = {"image": image, "part": part, "label_localizer": 1, "diameter": DIAMETER}
            row["x"], row["y"] = (x, y) if not turn else (SHAPE[0] - 1 - y, x)
            row |= {"label_implant_filter": int(part in metal), "label_fracture": int(part in fractures)}
            row["label_location"] = "extra" if part in fractures else "none"
            if part in masks:
                row["mask"] = f"{image}_{part}.png"
                cv2.imwrite(str(root / row["mask"]), np.rot90(masks[part], -turn).astype(np.uint8) * 255)
            targets.append(row)
    return build_manifest(pd.DataFrame(images, dtype=object), pd.DataFrame(targets, dtype=object), root, "toys")


def _stage(decision: str, network: str, size: int, rule: str, **more: Any) -> dict[str, Any]:
    return {
        "decision": {"_target_": f"domainseg.cascade.stages.{decision}"},
        "network": {"_target_": f"toy_networks.{network}"},
        "preprocessing": [{"op": "fit", "size": size}],
        "rule": rule,
        "task": {"_target_": "toy_networks.fit"},
        **more,
    }


@pytest.fixture
def toy_cfg(tmp_path: Path, calls: list[Any]) -> dict[str, Any]:
    """The resolved configuration of a cascade of toys."""
    return {
        "output": str(tmp_path),
        "pipeline": "toys",
        "stages": ["view_filter", "localizer", "implant_filter", "fracture"],
        "target": "fracture",
        "rois": "jittered",
        "stage": {
            "view_filter": _stage("ViewFilter", "View", 160, "keep_0.99"),
            "localizer": _stage("Localizer", "Heads", 160, "keep_0.99"),
            "implant_filter": _stage("ImplantFilter", "Metal", 64, "catch_0.99"),
            "fracture": _stage("FractureDetector", "Line", 128, "sensitivity_0.95", variants=2),
        },
        "seed": 0,
        "only": None,
        "init_from": None,
        "export": False,
        "refit": False,
        "baselines": {},
        "cache": {"folder": str(tmp_path / "cache"), "max_gb": 1},
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "nodes": 1,
            "sync_batchnorm": False,
            "loggers": [],
            "precision": "fp32",
            "threads": None,
            "workers": 0,
            "checkpoint_every": 100,
        },
    }

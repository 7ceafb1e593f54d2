"""A toy cascade: films whose answers can be read off their grey levels; toy_networks.py holds networks that do so."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from domainseg.data.manifest import Manifest, build_manifest

SHAPE = (240, 320)
BACKGROUND, LINE, HEAD, METAL = 80, 10, 204, 255  # of 255; the networks tell them apart
DIAMETER = 20.0
HEADS = {"hip_left": (90.0, 80.0), "hip_right": (230.0, 84.0)}


@pytest.fixture
def calls() -> Iterator[list[tuple[str, list[str]]]]:
    """What was fitted so far in this test: (folder's name, images)."""
    spec = spec_from_file_location("toy_networks", Path(__file__).parent / "toy_networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["toy_networks"] = module
    yield module.CALLS
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

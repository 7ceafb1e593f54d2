"""The toy bundle of tests/bundle for tests of probes, and films with two hips for it."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import onnx
import pandas as pd
from onnx import helper, numpy_helper

SHAPE = (160, 160)
LEFT = (slice(20, 110), slice(0, 78))  # where the toys look for the hip at the picture's left
RIGHT = (slice(20, 110), slice(82, 160))


def toys() -> ModuleType:
    """tests/bundle/conftest.py as a module."""
    if "toys_of_bundle" not in sys.modules:
        spec = spec_from_file_location("toys_of_bundle", Path(__file__).parents[1] / "bundle" / "conftest.py")
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        sys.modules["toys_of_bundle"] = module
        spec.loader.exec_module(module)
    return sys.modules["toys_of_bundle"]


def write(folder: Path, *, edges: bool = False) -> Path:
    """A bundle whose fracture network goes by the ROI's mean, or by how much it changes from pixel to pixel."""
    models = toys().models()
    if edges:
        models["fracture"] = _edges(models["fracture"])
    toys().write_bundle(folder, toys().RECORD, models, toys().DOCUMENTS)
    return folder


def _edges(model: bytes) -> bytes:
    graph = onnx.load_from_string(model)
    kernel = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], np.float32).reshape(1, 1, 3, 3)
    graph.graph.initializer.append(numpy_helper.from_array(4 * kernel, "laplace"))
    graph.graph.node[0].input[0] = "edges"
    graph.graph.node.insert(0, helper.make_node("Abs", ["laplaced"], ["edges"]))
    graph.graph.node.insert(0, helper.make_node("Conv", ["image", "laplace"], ["laplaced"], pads=[1, 1, 1, 1]))
    return graph.SerializeToString()


def films(folder: Path, pixels: dict[str, np.ndarray], labels: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Write films (uint8) and their manifest, the labels of both hips by image; returns the settings of ``data=``."""
    rows = []
    folder.mkdir(exist_ok=True)
    for image, grey in pixels.items():
        cv2.imwrite(str(folder / f"{image}.png"), grey)
        for part, label in zip(("hip_left", "hip_right"), labels[image], strict=True):
            known = {"label_localizer": 1, "label_fracture": label}
            rows.append({"image": image, "path": f"{image}.png", "patient": image, "part": part, **known})
    pd.DataFrame(rows).to_csv(folder / "films.csv", index=False)
    return {"_target_": "domainseg.data.sources.manifest.load", "path": str(folder / "films.csv")}


def cfg(bundle: Path | None, data: dict[str, Any] | None) -> dict[str, Any]:
    """The settings of the command."""
    return {
        "bundle": bundle and str(bundle),
        "data": data,
        "predictions": None,
        "columns": {},
        "target": None,
        "seed": 0,
        "resamples": 50,
    }

"""A bundle of four networks of a few weights, made with onnx by hand, and films that pass through them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from domainseg.bundle.write import write_bundle
from domainseg.imaging.film import READER_VERSION

# Answers: bias + weight * mean of the picture. Every film is frontal and upright, has two hips and no metal.
VIEW_BIAS, VIEW_WEIGHT = [4.0, -4.0, -4.0], [2.0, 1.0, 0.0]
TURN_BIAS = [5.0, 0.0, 0.0, 0.0]
FRACTURE_BIAS, FRACTURE_WEIGHT = -3.0, 6.0
MAP_WEIGHTS = (1.0, 0.5, -0.5)
SIZE = 64
FROZEN = {"threshold": 0.5, "slope": 1.0, "intercept": 0.0, "rule": "none chosen", "provisional": True}

# One line of an output: its name, its shape without the batch, its bias and its weights of the mean.
Head = tuple[str, Sequence[int], Sequence[float], Sequence[float]]
HEADS: dict[str, list[Head]] = {
    "view_filter": [("view", [3], VIEW_BIAS, VIEW_WEIGHT), ("turn", [4], TURN_BIAS, [0.0] * 4)],
    "localizer": [
        ("presence", [2], [4.0, 4.0], [1.0, 1.0]),
        ("center", [2, 2], [0.3, 0.4, 0.7, 0.4], [0.02, 0.0, 0.0, 0.01]),
        ("diameter", [2], [-2.0, -2.1], [0.1, 0.1]),
    ],
    "implant_filter": [("implant", [], [-4.0], [0.5])],
    "fracture": [("fracture", [], [FRACTURE_BIAS], [FRACTURE_WEIGHT]), ("location", [3], [1.0, 0.0, 0.2], [0.0] * 3)],
}
KINDS = {"view_filter": "view_filter", "localizer": "localizer", "implant_filter": "implant_filter"} | {
    "fracture": "fracture_detector"
}


def network(heads: Sequence[Head], *, mapped: bool = False, batch: str | int = "batch") -> onnx.ModelProto:
    """A network that answers with linear functions of the picture's mean; with ``mapped`` also a map of cell means."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["mean"]),
    ]
    weights, outputs = [], []
    for name, shape, bias, weight in heads:
        weights += [
            numpy_helper.from_array(np.array([weight], np.float32), f"{name}_weight"),
            numpy_helper.from_array(np.array(bias, np.float32), f"{name}_bias"),
            numpy_helper.from_array(np.array([-1, *shape], np.int64), f"{name}_shape"),
        ]
        nodes += [
            helper.make_node("Gemm", ["mean", f"{name}_weight", f"{name}_bias"], [f"{name}_flat"]),
            helper.make_node("Reshape", [f"{name}_flat", f"{name}_shape"], [name]),
        ]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape]))
    if mapped:
        kernel = np.array(MAP_WEIGHTS, np.float32).reshape(3, 1, 1, 1)
        weights.append(numpy_helper.from_array(kernel, "map_kernel"))
        nodes += [
            helper.make_node("AveragePool", ["image"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Conv", ["cells", "map_kernel"], ["map"]),
        ]
        outputs.append(helper.make_tensor_value_info("map", TensorProto.FLOAT, [batch, 3, SIZE // 8, SIZE // 8]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 1, SIZE, SIZE])
    graph = helper.make_graph(nodes, "toy", [image], outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def models() -> dict[str, bytes]:
    """ONNX bytes of the four networks."""
    return {name: network(heads, mapped=name == "fracture").SerializeToString() for name, heads in HEADS.items()}


def stage_record(name: str) -> dict[str, Any]:
    outputs = {output: list(shape) for output, shape, _, _ in HEADS[name]}
    if name == "fracture":
        outputs["map"] = [3, SIZE // 8, SIZE // 8]
    return {
        "name": name,
        "file": f"stages/{name}.onnx",
        "batch": "dynamic",
        "decision": {"kind": KINDS[name], "version": 1},
        "preprocessing": [{"op": "fit", "size": SIZE, "version": 1}],
        "outputs": outputs,
        "frozen": dict(FROZEN),
        "bf16": None,
    }


RECORD: dict[str, Any] = {
    "schema": 1,
    "pipeline": "toys",
    "target": "fracture",
    "created": "2026-01-01T00:00:00+00:00",
    "versions": {"domainseg": "0"},
    "reader": READER_VERSION,
    "stages": [stage_record(name) for name in HEADS],
    "labels": {},
    "data": {"films": 3},
    "envelope": {},
    "parity": {},
}
DOCUMENTS = {
    "MODEL_CARD.md": "# Toys\n",
    "metrics.json": '{"test": {"fracture": {"auc": {"value": 0.9, "low": 0.8, "high": 0.95, "n": 7}}}}\n',
}


@pytest.fixture
def record() -> dict[str, Any]:
    """bundle.json of the toys, to be changed at will."""
    return deepcopy(RECORD)


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., str]:
    """Write a bundle of toys: make_bundle(folder, record=..., models=..., documents=...) -> its SHA-256."""

    def make(folder: Path, **changed: Any) -> str:
        parts = {"record": RECORD, "models": models(), "documents": DOCUMENTS} | changed
        return write_bundle(folder, parts["record"], parts["models"], parts["documents"])

    return make


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., str]) -> Path:
    """A bundle that tests only read."""
    folder = tmp_path_factory.mktemp("bundle") / "toys"
    make_bundle(folder)
    return folder


@pytest.fixture
def own(tmp_path: Path, make_bundle: Callable[..., str]) -> Path:
    """A bundle that a test may spoil."""
    make_bundle(tmp_path / "own")
    return tmp_path / "own"


def resum(folder: Path) -> None:
    """Write SHA256SUMS anew: what somebody does who changes a bundle on purpose."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.fixture
def change_record(own: Path) -> Callable[[Callable[[dict[str, Any]], Any]], Path]:
    """Change bundle.json of one's own bundle by a function, with the checksums written anew; returns the folder."""

    def change(edit: Callable[[dict[str, Any]], Any]) -> Path:
        content = json.loads((own / "bundle.json").read_text())
        edit(content)
        (own / "bundle.json").write_text(json.dumps(content))
        resum(own)
        return own

    return change


def dicom_film(pixels: np.ndarray) -> Dataset:
    """A DX film of 16-bit pixels, 0.2 mm apart."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.ImagerPixelSpacing = [0.2, 0.2]
    dataset.PixelData = pixels.astype("<u2").tobytes()
    return dataset


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six films in a folder, PNG and DICOM, of different sizes and brightness, and a file that is none."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "ward").mkdir()
    for k in range(6):
        rng = np.random.default_rng(k)
        pixels = rng.integers(0, 300 + 600 * k, (80 + 10 * k, 100)).astype(np.uint16)
        if k % 2:
            cv2.imwrite(str(folder / f"film{k}.png"), (pixels >> 4).astype(np.uint8))
        else:
            dicom_film(pixels).save_as(folder / "ward" / f"film{k}.dcm", enforce_file_format=True)
    (folder / "broken.dcm").write_bytes(b"not a film")
    return folder

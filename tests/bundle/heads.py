"""A bundle of the head cascade with networks of a few weights, and small heads that pass through them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from domainseg.bundle.write import write_bundle
from domainseg.imaging.volume import VOLUME_READER_VERSION

from .conftest import FROZEN

SIDE, SLICES = 48, 3  # of a slab
VIEW = 32  # of a projection
CT = "1.2.840.10008.5.1.4.1.1.2"
BLEED, CENTRE = 65, (12, 30, 24)  # HU; z, y, x
SHAPE, SPACING = (24, 48, 48), (3.0, 3.0, 5.0)
WINDOWS = ((0, 80), (-20, 200), (-200, 1000))
# Called is what is bright in the brain window and not in that for bone, on the mean of 3 x 3 pixels of its slice.
BRAIN, BONE, BIAS = 40.0, -60.0, -12.0
TYPE = 2  # epidural, wherever it lies


def head_networks() -> dict[str, bytes]:
    """ONNX bytes: a filter that wants bone in the projections, a detector of what is as dense as blood."""
    bone = numpy_helper.from_array(np.array([[0, 20.0, 0, 0, 0, 0]], np.float32), "weight")
    bias = numpy_helper.from_array(np.array([-2.0], np.float32), "bias")
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["mean"]),
        helper.make_node("Gemm", ["mean", "weight", "bias"], ["head"], transB=1),
    ]
    kernel = np.zeros((6, SLICES * len(WINDOWS), 3, 3), np.float32)
    middle = SLICES // 2
    kernel[0, middle], kernel[0, 2 * SLICES + middle] = BRAIN / 9, BONE / 9
    offset = np.array([BIAS, *(3.0 * (k == TYPE) for k in range(5))], np.float32)
    dense = [
        helper.make_node("Conv", ["image", "kernel", "offset"], ["mask"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalMaxPool", ["mask"], ["highest"]),
        helper.make_node("Flatten", ["highest"], ["presence"]),
    ]
    return {
        "head_filter": _model(nodes, [bone, bias], (6, VIEW), {"head": [1]}),
        "hemorrhage": _model(
            dense,
            [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(offset, "offset")],
            (SLICES * len(WINDOWS), SIDE),
            {"mask": [6, SIDE, SIDE], "presence": [6]},
        ),
    }


# What a detector of one box, and a padded one, answers: the lower half of the picture's middle is epidural.
BOXES = {
    "boxes": np.array([[20, 24, 28, 34], [0, 0, 0, 0]], np.float32),
    "scores": np.array([0.95, 0], np.float32),
    "labels": np.array([3, 1], np.float32),
    "types": np.array([[0, 0, 5, 0, 0], [0, 0, 0, 0, 0]], np.float32),
    "masks": np.full((2, 4, 4), 5, np.float32),
}


def detector_network() -> bytes:
    """ONNX bytes, with a batch of one: BOXES, whatever it sees."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("ReduceMin", ["pooled"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "nothing"], ["zero"]),
    ]
    weights = [numpy_helper.from_array(np.array(0, np.float32), "nothing")]
    for name, values in BOXES.items():
        weights.append(numpy_helper.from_array(values[None], f"{name}_values"))
        nodes.append(helper.make_node("Add", [f"{name}_values", "zero"], [name]))
    shapes = {name: list(values.shape) for name, values in BOXES.items()}
    return _model(nodes, weights, (SLICES * len(WINDOWS), SIDE), shapes, batch=1)


def _model(
    nodes: list[Any],
    weights: list[Any],
    takes: tuple[int, int],
    gives: dict[str, list[int]],
    batch: str | int = "batch",
) -> bytes:
    channels, side = takes
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, channels, side, side])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape]) for name, shape in gives.items()]
    graph = helper.make_graph(nodes, "toy", [image], outputs, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    content: bytes = made.SerializeToString()
    return content


def head_record() -> dict[str, Any]:
    """bundle.json of the two."""
    slabs = {"op": "slabs", "size": SIDE, "slices": SLICES, "thickness": 5, "version": 1}
    windows = [{"op": "window", "low": low, "high": high, "version": 1} for low, high in WINDOWS]
    common = {"batch": "dynamic", "frozen": dict(FROZEN), "bf16": None}
    return {
        "schema": 1,
        "pipeline": "toy_heads",
        "target": "hemorrhage",
        "created": "2026-01-01T00:00:00+00:00",
        "versions": {"exported": {"domainseg": "0", "onnx": "1"}},
        "reader": VOLUME_READER_VERSION,
        "stages": [
            {
                **common,
                "name": "head_filter",
                "file": "stages/head_filter.onnx",
                "decision": {"kind": "head_filter", "version": 1},
                "preprocessing": [{"op": "projections", "size": VIEW, "version": 1}],
                "outputs": {"head": [1]},
            },
            {
                **common,
                "frozen": {**FROZEN, "threshold": 0.9},
                "name": "hemorrhage",
                "file": "stages/hemorrhage.onnx",
                "decision": {"kind": "hemorrhage_detector", "version": 1, "smallest": 8.0, "threshold_epidural": 0.25},
                "preprocessing": [slabs, *windows],
                "outputs": {"mask": [6, SIDE, SIDE], "presence": [6]},
            },
        ],
        "labels": {},
        "data": {"films": 3},
        "envelope": {},
        "parity": {},
    }


def make_head_bundle(folder: Path, detector: bytes | None = None, **changed: Any) -> str:
    """Write the bundle, with another detector or a changed record; returns its SHA-256."""
    models = head_networks() | ({} if detector is None else {"hemorrhage": detector})
    documents = {"MODEL_CARD.md": "# Toy heads\n", "metrics.json": "{}\n"}
    return write_bundle(folder, head_record() | changed, models, documents)


def head(radius: float = 3.0, *, skull: int = 800) -> NDArray[np.int16]:
    """HU [z, y, x] of an ellipsoid of brain in a skull, and a ball of blood of ``radius`` voxels in it (0: none)."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    away = np.sqrt(((z - 8) / 14) ** 2 + ((y - 24) / 20) ** 2 + ((x - 24) / 17) ** 2)
    voxels = np.where(away < 0.85, 35, np.where(away < 1, skull, -1000))
    if radius:
        k, j, i = CENTRE
        voxels[((z - k) * 1.5) ** 2 + (y - j) ** 2 + (x - i) ** 2 <= radius**2] = BLEED
    return voxels.astype(np.int16)


def save_nifti(voxels: NDArray[np.int16], path: Path) -> None:
    """RAS on disk: x and y turned against the LPS of ``voxels``."""
    affine = np.diag([*SPACING, 1.0])
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels[:, ::-1, ::-1].transpose(2, 1, 0), affine), path)


def save_dicom(voxels: NDArray[np.int16], folder: Path, **tags: str) -> None:
    """One file a slice, with a name and a number of a patient in the headers."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, plane in enumerate(voxels):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = CT
        root = f"1.2.826.0.1.3680043.8.498.{int(hashlib.sha256(folder.name.encode()).hexdigest()[:7], 16)}"
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{root}.3.{k + 1}"
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = f"{root}.1", f"{root}.2", f"{root}.4"
        one.PatientName, one.PatientID, one.PatientBirthDate = "Planted^Erika", "MRN-4711", "19420101"
        one.PatientSex, one.StudyID, one.AccessionNumber, one.StudyDate, one.StudyTime = (
            "",
            "",
            "ACC-99",
            "20240102",
            "",
        )
        one.SeriesDescription, one.ReferringPhysicianName = "for Planted Erika", "Planted^Doctor"
        one.SeriesNumber, one.InstanceNumber = 2, k + 1
        one.Modality, one.Manufacturer, one.ImageType = "CT", "Acme", ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.BodyPartExamined, one.ConvolutionKernel, one.KVP = "HEAD", "H31s", "120"
        one.Rows, one.Columns = plane.shape
        one.PixelSpacing, one.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        one.ImagePositionPatient = [-96.0, -96.0, 30 + SPACING[2] * k]
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
        one.PixelData = (plane + 1024).astype("<u2").tobytes()
        for tag, value in tags.items():
            setattr(one, tag, value)
        one.save_as(folder / f"IM{k:04}", enforce_file_format=True)


def save_pictures(voxels: NDArray[np.int16], folder: Path) -> None:
    """8-bit pictures of the brain window, from below."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, plane in enumerate(voxels):
        cv2.imwrite(str(folder / f"{k + 1}.png"), np.clip((plane + 20) / 120 * 255, 0, 255).astype(np.uint8))

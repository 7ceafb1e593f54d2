"""The detector as an ONNX file: a plain graph of fixed shapes that answers as torch does, however much is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from domainseg.bundle.graph import inspect_graph
from domainseg.bundle.runtime import BundleNetwork, open_network
from domainseg.networks import MaskRoiCnn
from domainseg.training.onnx_model import OnnxModel, to_onnx

SIZE, DETECTIONS = 64, 6
PICTURE = torch.rand(1, 6, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


def network(bias: float) -> MaskRoiCnn:
    """A small detector whose boxes score around ``bias`` (a logit)."""
    torch.manual_seed(0)
    net = MaskRoiCnn(
        slices=3, windows=2, widths=(8, 8, 16, 16, 16), modules=1, channels=16, hidden=32, mask_width=8, before=32,
        proposals=24, detections=DETECTIONS,
    ).train()  # fmt: skip
    with torch.no_grad():
        for _ in range(5):
            net.pyramid(torch.randn(4, 6, SIZE, SIZE))
        for layer, factor in ((net.roi.refine, 20), (net.roi.score, 10), (net.rpn.head.bbox_pred, 20)):
            layer.weight *= factor
        net.roi.score.bias.copy_(torch.tensor([0.0, bias]))
    return net.eval()


def opened(model: OnnxModel, backend: str) -> BundleNetwork:
    graph = inspect_graph(model.data, "hemorrhage.onnx")  # refuses control flow
    assert not {"If", "Loop", "Scan"} & set(graph.operators)
    assert graph.inputs == {"image": (1, 6, SIZE, SIZE)}
    assert graph.outputs == {name: (1, *shape) for name, shape in model.outputs.items()}
    return open_network(model.data, {"name": "hemorrhage", "outputs": model.outputs}, None, backend=backend, threads=1)


@pytest.fixture(scope="module")
def exported() -> list[tuple[MaskRoiCnn, OnnxModel]]:
    """Detectors that find nothing, three boxes in ``PICTURE``, and more than are given."""
    with torch.no_grad():
        strengths = network(0.0)(PICTURE)["scores"][0].logit()
    some = float(torch.tensor(0.01).logit() - strengths[2:4].mean())
    return [(net, to_onnx(net, SIZE)) for net in map(network, (-9.0, some, 5.0))]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_exported_detector_finds_the_boxes_that_torch_finds(
    exported: list[tuple[MaskRoiCnn, OnnxModel]], backend: str
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    counts = []
    for net, model in exported:
        run = opened(model, backend)
        for picture in (torch.zeros_like(PICTURE), PICTURE):
            with torch.no_grad():
                want = {name: value.numpy() for name, value in net(picture).items()}
            got = run(picture.numpy())
            for name, tolerance in (("boxes", 0.05), ("scores", 1e-4), ("masks", 1e-3), ("types", 1e-3)):
                np.testing.assert_allclose(got[name], want[name], rtol=0, atol=tolerance, err_msg=name)
            np.testing.assert_array_equal(got["labels"], want["labels"])
        counts.append(int((got["scores"] > 0).sum()))
    assert counts == [0, 3, DETECTIONS]


def test_what_is_not_there_is_all_zero() -> None:
    with torch.no_grad():
        found = network(-9.0)(torch.rand(2, 6, SIZE, SIZE))
    assert all(not found[name].any() for name in ("boxes", "scores", "labels", "types", "masks"))
    assert found["presence"].any()


def test_the_same_weights_are_the_same_bytes(exported: list[tuple[MaskRoiCnn, OnnxModel]]) -> None:
    assert to_onnx(network(-9.0), SIZE).data == exported[0][1].data

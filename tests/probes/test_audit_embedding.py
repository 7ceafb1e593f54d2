"""The embedding is what the last linear layer reads: tried on a small graph with known weights."""

from __future__ import annotations

import numpy as np
import pytest

from domainseg.bundle.schema import BundleError
from domainseg.probes.embedding import layer_input, tapped

onnx = pytest.importorskip("onnx")


def model(linear: bool = True) -> bytes:
    """x [1, 1, 2, 2] -> doubled and flattened, the embedding -> a linear layer -> sigmoid, the score."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("Add", ["x", "x"], ["twice"]), helper.make_node("Flatten", ["twice"], ["flat"])]
    if linear:
        nodes.append(helper.make_node("Gemm", ["flat", "weight"], ["logit"]))
    nodes.append(helper.make_node("Sigmoid", ["logit" if linear else "flat"], ["score"]))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", kind, [1, 1, 2, 2])],
        [helper.make_tensor_value_info("score", kind, [1, 1 if linear else 4])],
        [helper.make_tensor("weight", kind, [4, 1], [1.0, 2.0, 3.0, 4.0])] if linear else [],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 9
    return bytes(made.SerializeToString())


def test_embedding_is_the_input_of_the_last_layer() -> None:
    picture = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    assert tapped(model(), "score", threads=1)(picture).tolist() == [0.0, 2.0, 4.0, 6.0]
    assert tapped(model(), "other", threads=1)(picture).tolist() == [0.0, 2.0, 4.0, 6.0]


def test_a_graph_without_such_a_layer_is_told() -> None:
    with pytest.raises(BundleError, match="no layer"):
        layer_input(onnx.load_from_string(model(linear=False)).graph, "score")

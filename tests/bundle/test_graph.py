"""The walk over ONNX bytes sees what the onnx package sees, and refuses what a bundle must not hold."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from domainseg.bundle.graph import inspect_graph, weights
from domainseg.bundle.schema import BundleError
from domainseg.networks import LocalizerUNet

from .conftest import HEADS, models, network


def assert_agrees(data: bytes) -> None:
    """Hold the walk against onnx's own reading."""
    found, model = inspect_graph(data, "x.onnx"), onnx.load_from_string(data)

    def shapes(infos: list[onnx.ValueInfoProto]) -> dict[str, tuple[int | None, ...]]:
        sides = {info.name: info.type.tensor_type.shape.dim for info in infos}
        return {
            name: tuple(side.dim_value if side.HasField("dim_value") else None for side in dims)
            for name, dims in sides.items()
        }

    assert found.inputs == shapes(list(model.graph.input))
    assert found.outputs == shapes(list(model.graph.output))
    assert found.operators == Counter(node.op_type for node in model.graph.node)
    assert found.parameters == sum(math.prod(tensor.dims) for tensor in model.graph.initializer)
    assert found.opset == model.opset_import[0].version
    floats = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
    read = weights(data)
    assert read.keys() == floats.keys()
    for name, values in floats.items():
        np.testing.assert_array_equal(read[name], values.ravel())


@pytest.mark.parametrize("name", HEADS)
def test_sees_what_onnx_sees_in_networks_made_by_hand(name: str) -> None:
    assert_agrees(models()[name])


@pytest.mark.slow
def test_sees_what_onnx_sees_in_a_network_that_torch_exported(tmp_path: Path) -> None:
    """The localizer has what the others lack: Resize by shapes that are computed in the graph."""
    torch.onnx.export(
        LocalizerUNet().eval(),
        (torch.rand(2, 1, 64, 64),),
        tmp_path / "x.onnx",
        input_names=["image"],
        output_names=["head", "femur", "diameter"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    data = (tmp_path / "x.onnx").read_bytes()
    assert_agrees(data)
    assert inspect_graph(data, "x").batch_name == "batch"
    assert inspect_graph(data, "x").inputs == {"image": (None, 1, 64, 64)}


def test_numbers_may_stand_in_typed_fields() -> None:
    model = network(HEADS["view_filter"])
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        field = tensor.float_data if tensor.data_type == TensorProto.FLOAT else tensor.int64_data
        field.extend(values.ravel().tolist())
        tensor.ClearField("raw_data")
    assert_agrees(model.SerializeToString())


Edit = Callable[[onnx.ModelProto], object]


def add_node(kind: str, **attributes: object) -> Edit:
    domain = str(attributes.pop("domain", ""))
    return lambda m: m.graph.node.append(helper.make_node(kind, ["mean"], ["y"], domain=domain, **attributes))


def add_shape(values: list[int]) -> Edit:
    return lambda m: m.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), "sizes"))


def edit_weight(**fields: object) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        for name, value in fields.items():
            if isinstance(value, list):
                tensor.ClearField(name)
                getattr(tensor, name).extend(value)
            else:
                setattr(tensor, name, value)

    return edit


def keep_outside(model: onnx.ModelProto) -> None:
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "../../etc/passwd")


def branch(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["mean"], ["y"], then_branch=inner, else_branch=inner))


def enlarge(model: onnx.ModelProto) -> None:
    scales = numpy_helper.from_array(np.array([1, 1, 1000, 1000], np.float32), "scales")
    model.graph.initializer.append(scales)
    model.graph.node.append(helper.make_node("Resize", ["image", "", "scales"], ["y"]))


def constant(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.array([10**5, 10**5], np.int64))
    model.graph.node.append(helper.make_node("Constant", [], ["sizes"], value=tensor))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (keep_outside, "another file"),
        (edit_weight(data_location=TensorProto.EXTERNAL), "another file"),
        (lambda m: m.opset_import.append(helper.make_opsetid("com.evil", 1)), "operators of 'com.evil'"),
        (add_node("Py", domain="ai.onnx.contrib"), "operator Py of 'ai.onnx.contrib'"),
        (branch, "control flow"),
        (lambda m: m.functions.add(name="f"), "no plain ONNX"),
        (lambda m: m.training_info.add(), "no plain ONNX"),
        (lambda m: m.graph.sparse_initializer.add(), "sparse weights"),
        (edit_weight(dims=[10**6, 10**6]), "declares a tensor of 1000000000000 values"),
        (edit_weight(dims=[-1, 3]), "unusable type or shape"),
        (edit_weight(dims=[3, 3]), "not the 9 values that it declares"),
        (edit_weight(dims=[]), "not the 1 values that it declares"),
        (edit_weight(data_type=TensorProto.STRING), "unusable type"),
        (edit_weight(raw_data=b""), "not the 3 values"),
        (edit_weight(float_data=[1.0]), "not the 3 values"),
        (add_shape([100_000, 100_000]), "asks for a tensor of 10000000000 values"),
        (constant, "asks for a tensor of 10000000000 values"),
        (add_node("Transpose", perm=[100_000, 100_000]), "asks for a tensor"),
        (enlarge, "enlarges a picture"),
        (lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", TensorProto.INT8), "not float32"),
        (lambda m: m.graph.output[0].type.sequence_type.SetInParent(), "no tensor"),
        (
            lambda m: setattr(m.graph.output[0].type.tensor_type.shape.dim[1], "dim_value", 10**10),
            "declares 'view' with",
        ),
        (lambda m: setattr(m.graph.output[0].type.tensor_type.shape.dim[1], "dim_value", -5), "negative"),
        (lambda m: m.ClearField("graph"), "holds no graph"),
        (lambda m: m.ClearField("opset_import"), "holds no graph"),
    ],
)
def test_what_a_bundle_must_not_hold_is_refused(edit: Edit, message: str) -> None:
    model = network(HEADS["view_filter"])
    edit(model)
    with pytest.raises(BundleError, match=rf"x\.onnx: .*{message}"):
        inspect_graph(model.SerializeToString(), "x.onnx")


def test_a_second_graph_is_refused() -> None:
    """Protobuf would merge the two; another reader might take the first or the last."""
    data = network(HEADS["view_filter"]).SerializeToString()
    with pytest.raises(BundleError, match="two graphs"):
        inspect_graph(data + data, "x.onnx")


def test_an_attribute_may_not_hide_weights_in_a_list() -> None:
    model = network(HEADS["view_filter"])
    tensor = numpy_helper.from_array(np.zeros(3, np.float32))
    attribute = AttributeProto(name="x", type=AttributeProto.TENSORS, tensors=[tensor])
    model.graph.node[0].attribute.append(attribute)
    with pytest.raises(BundleError, match="unknown form"):
        inspect_graph(model.SerializeToString(), "x.onnx")


def test_damage_of_any_kind_is_a_bundle_error_or_harmless() -> None:
    """Cut anywhere, with any byte changed: nothing else comes out, and nothing hangs."""
    data = models()["view_filter"]
    rng = np.random.default_rng(0)
    refused = 0
    for k in range(3000):
        changed = bytearray(data[: rng.integers(len(data))] if k % 3 == 0 else data)
        if k % 3 and changed:
            for place in rng.integers(len(changed), size=k % 3):
                changed[place] = rng.integers(256)
        try:
            inspect_graph(bytes(changed), "x.onnx")
        except BundleError:
            refused += 1
    assert refused > 1500


@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"\xff" * 100, b"\x80\x04\x95K\x00", b"ORTM" * 10, b"PK\x03\x04"])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        inspect_graph(data, "x.onnx")

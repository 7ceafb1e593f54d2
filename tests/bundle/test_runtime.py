"""Each runtime answers as the network's arithmetic says, one picture at a time, and only what it was asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from domainseg.bundle.graph import inspect_graph
from domainseg.bundle.runtime import BACKENDS, BundleNetwork, open_network
from domainseg.bundle.schema import BundleError

from .conftest import FRACTURE_BIAS, FRACTURE_WEIGHT, HEADS, MAP_WEIGHTS, SIZE, models, network, stage_record

PICTURES = np.random.default_rng(1).random((3, 1, SIZE, SIZE), dtype=np.float32)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", ["batch", 1])
@pytest.mark.parametrize("threads", [1, None])
def test_answers_are_those_of_the_arithmetic(backend: str, batch: str | int, threads: int | None) -> None:
    model = network(HEADS["fracture"], mapped=True, batch=batch).SerializeToString()
    name = batch if isinstance(batch, str) else None
    run = open_network(model, stage_record("fracture"), name, backend=backend, threads=threads)
    found = run(PICTURES)
    assert {key: value.shape for key, value in found.items()} == {
        "fracture": (3,),
        "location": (3, 3),
        "map": (3, 3, 8, 8),
    }
    mean = PICTURES.mean(axis=(1, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(found["fracture"], FRACTURE_BIAS + FRACTURE_WEIGHT * mean, atol=1e-5)
    cells = PICTURES.reshape(3, 1, 8, 8, 8, 8).mean(axis=(3, 5), dtype=np.float64)
    np.testing.assert_allclose(found["map"], cells * np.reshape(MAP_WEIGHTS, (1, 3, 1, 1)), atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_picture_is_answered_the_same_in_any_company(backend: str) -> None:
    run = open_network(models()["fracture"], stage_record("fracture"), "batch", backend=backend, threads=1)
    together = run(PICTURES)
    for k in range(3):
        alone = run(PICTURES[k : k + 1])
        assert all(np.array_equal(alone[name][0], together[name][k]) for name in alone)


@pytest.mark.parametrize("backend", BACKENDS)
def test_earlier_answers_stay_as_they_were(backend: str) -> None:
    """A runtime may use its memory again; an answer once given must not change."""
    run = open_network(models()["fracture"], stage_record("fracture"), "batch", backend=backend, threads=1)
    first = run(PICTURES[:1])
    kept = first["map"].copy()
    run(PICTURES[1:2])
    np.testing.assert_array_equal(first["map"], kept)


SIGNALLED = """
import gc, os, signal, sys, threading
from pathlib import Path
from domainseg.bundle.runtime import open_network
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
stage = {"name": "x", "outputs": {"fracture": []}}
run = open_network(Path(sys.argv[1]).read_bytes(), stage, "batch", backend="openvino")
networks = [run]
del run
thread = threading.Thread(target=lambda: (networks.clear(), gc.collect()))
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_a_signal_after_openvino_was_let_go_ends_no_process(tmp_path: Path) -> None:
    """As at the end of a data worker of a fit, in a process whose networks another thread has collected."""
    pytest.importorskip("openvino")
    (tmp_path / "network.onnx").write_bytes(network(HEADS["fracture"]).SerializeToString())
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, tmp_path / "network.onnx"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


def convolutions() -> bytes:
    """Layers enough that bfloat16 (8 bits of precision) is far from float32."""
    rng, nodes, weights, last = np.random.default_rng(0), [], [], "image"
    for k in range(4):
        kernel = rng.normal(0, 0.3, (16, 1 if k == 0 else 16, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{k}"))
        nodes.append(helper.make_node("Conv", [last, f"w{k}"], [f"x{k}"], pads=[1, 1, 1, 1]))
        last = f"x{k}"
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, SIZE, SIZE])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["batch", 16, SIZE, SIZE])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


DEEP: dict[str, Any] = {"name": "deep", "outputs": {"x3": [16, SIZE, SIZE]}}


def test_fp32_is_fp32_in_openvino_too() -> None:
    wanted = open_network(convolutions(), DEEP, "batch", threads=1)(PICTURES)["x3"]
    found = open_network(convolutions(), DEEP, "batch", backend="openvino", threads=1)(PICTURES)["x3"]
    np.testing.assert_allclose(found, wanted, atol=1e-5 * float(np.abs(wanted).max()))


def test_openvino_is_told_the_precision_whatever_the_processor_prefers(monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")
    told: list[Any] = []
    real = openvino.Core.compile_model

    def spy(core: Any, model: Any, device: str, settings: dict[str, Any]) -> Any:
        told.append(settings["INFERENCE_PRECISION_HINT"])
        return real(core, model, device, settings)

    monkeypatch.setattr(openvino.Core, "compile_model", spy)
    open_network(convolutions(), DEEP, "batch", backend="openvino")
    assert told == ["f32"]


def test_bf16_is_bf16_or_refused_by_name() -> None:
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(BundleError, match="this processor has no bf16"):
            open_network(convolutions(), DEEP, "batch", backend="openvino", precision="bf16")
        pytest.skip("this processor has no bf16, and it was said so")
    wanted = open_network(convolutions(), DEEP, "batch")(PICTURES)["x3"]
    found = open_network(convolutions(), DEEP, "batch", backend="openvino", precision="bf16")(PICTURES)["x3"]
    largest = float(np.abs(wanted).max())
    assert 1e-4 * largest < float(np.abs(found - wanted).max()) < 0.1 * largest


def test_openvino_tells_nobody_that_it_is_used() -> None:
    """Its telemetry sends an event on import, from a thread: this may be a machine beside a PACS."""
    pytest.importorskip("openvino")
    code = (
        "import sys, threading; from domainseg.bundle import runtime; runtime._core(); "
        "print(sorted(n for n in sys.modules if n.startswith('openvino_telemetry.')), threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] 1"


def test_a_processor_without_bf16_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32"])
    with pytest.raises(BundleError, match="this processor has no bf16"):
        open_network(convolutions(), DEEP, "batch", backend="openvino", precision="bf16")


def test_an_answer_of_another_shape_is_refused() -> None:
    entry = stage_record("fracture")
    entry["outputs"]["map"] = [3, 4, 4]
    with pytest.raises(BundleError, match=r"stage fracture: output map is float32 \[1, 3, 8, 8\]"):
        open_network(models()["fracture"], entry, "batch")(PICTURES)
    with pytest.raises(BundleError, match="float64"):
        BundleNetwork("x", {"y": ()}, lambda _: [np.zeros(1)])(PICTURES)  # type: ignore[list-item]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_runtime_refuses_is_a_bundle_error(backend: str) -> None:
    model = onnx.load_from_string(models()["view_filter"])
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(BundleError, match=f"stage view_filter: {backend} refuses its network"):
        open_network(model.SerializeToString(), stage_record("view_filter"), "batch", backend=backend)


def test_threads_are_at_least_one() -> None:
    with pytest.raises(BundleError, match="threads=0"):
        open_network(models()["view_filter"], stage_record("view_filter"), "batch", threads=0)


def bomb() -> bytes:
    """A few hundred bytes that ask for 2^34 numbers: the sizes are computed, no reader of the file sees them."""
    nodes = [
        helper.make_node("Mul", ["side", "side"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "flat"], ["mean"]),
        helper.make_node("Add", ["mean", "zero"], ["implant"]),
    ]
    sizes = [numpy_helper.from_array(np.array([1 << 17], np.int64), "side")]
    sizes.append(numpy_helper.from_array(np.array([-1], np.int64), "flat"))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, SIZE, SIZE])
    answer = helper.make_tensor_value_info("implant", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(nodes, "bomb", [image], [answer], sizes)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def test_memory_that_a_network_takes_is_bounded() -> None:
    inspect_graph(bomb(), "bomb")  # nothing to be seen from outside
    run = open_network(bomb(), stage_record("implant_filter"), "batch", threads=1)
    with pytest.raises(Exception, match="memory"):
        run(PICTURES[:1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_answer_that_is_no_number_is_no_answer(backend: str) -> None:
    model = network([("implant", [], [float("nan")], [0.5])]).SerializeToString()
    run = open_network(model, stage_record("implant_filter"), "batch", backend=backend, threads=1)
    with pytest.raises(FloatingPointError, match="stage implant_filter: output implant is not finite"):
        run(PICTURES[:1])

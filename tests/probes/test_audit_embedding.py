"""The embedding is what the last linear layer reads: tried on a small graph with known weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from domainseg.bundle.schema import BundleError
from domainseg.probes import audit
from domainseg.probes.embedding import layer_input, tapped
from domainseg.probes.material import Material

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


def test_of_many_films_some_are_read_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def embeddings(bundle: Path, files: dict[str, Path]) -> dict[tuple[str, str], np.ndarray]:
        asked.extend(files)
        return {(name, ""): np.array([float(name)], np.float32) for name in files}

    monkeypatch.setattr("domainseg.probes.embedding.embeddings", embeddings)
    monkeypatch.setattr(audit, "EMBEDDED", 4)
    table = pd.DataFrame({"image": [str(k // 2) for k in range(20)], "part": ["hip_left", "hip_right"] * 10})
    given = Material(table, "t", scored=True, files={str(k): Path(str(k)) for k in range(12)}, bundle=Path("b"))
    said: list[str] = []
    features, rows = audit._embedding(given, table, said, seed=3)["embedding"]
    assert len(set(asked)) == 4
    assert set(asked) <= {str(k) for k in range(10)}  # films that are not audited are not read
    assert features[:, 0].tolist() == [float(table["image"][row]) for row in rows]
    assert len(rows) == 8
    assert said == ["The embedding was read of 4 films, drawn from 10."]


def test_a_graph_without_such_a_layer_is_told() -> None:
    with pytest.raises(BundleError, match="no layer"):
        layer_input(onnx.load_from_string(model(linear=False)).graph, "score")

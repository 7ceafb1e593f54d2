"""What a bundle's last network holds of a case just before its answer: the input of the layer that gives the score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.bundle.load import load_bundle
from domainseg.bundle.schema import BundleError
from domainseg.bundle.verify import verify_bundle
from domainseg.cascade.cascade import Cascade, read_ahead
from domainseg.cascade.case import Case
from domainseg.cascade.operations import preprocess
from domainseg.cascade.reads import reading_of
from domainseg.imaging import ImageReadError

Vector = NDArray[np.float32]
_LAYERS = ("Gemm", "MatMul", "Conv")


def embeddings(bundle: Path, files: Mapping[str, Path], threads: int | None = None) -> dict[tuple[str, str], Vector]:
    """(image, part) -> features [m] of every case that reaches the last stage. The part is "" where none was named.

    Raises BundleError when the network's graph shows no such layer, ModuleNotFoundError without the package onnx.
    """
    loaded, verified = load_bundle(bundle, threads=threads), verify_bundle(bundle)
    last = loaded.stages[-1]
    network = tapped(verified.models[last.name], last.decision.target, threads)
    reading = reading_of(loaded.stages)
    found = {}
    for image, film in read_ahead(files.items(), reading=reading):
        if isinstance(film, ImageReadError):
            continue
        case = Case.of(image, film)
        before = Cascade(loaded.stages[:-1]).run(case) if len(loaded.stages) > 1 else [case]
        for going in before:
            if isinstance(going, Case):
                pictures = preprocess(going, last.preprocessing).pictures
                answers = np.stack([network(np.ascontiguousarray(picture[None])) for picture in pictures])
                found[image, going.part] = answers.mean(axis=0)
    return found


def tapped(model: bytes, output: str, threads: int | None = None) -> Callable[[NDArray[np.float32]], Vector]:
    """A function from one picture [1, C, H, W] to the features before the layer that ``output`` comes from."""
    import onnx
    import onnxruntime

    graph: Any = onnx.load_from_string(model)
    outputs = [each.name for each in graph.graph.output]
    name = layer_input(graph.graph, output if output in outputs else outputs[0])
    graph.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (entry,) = (each.name for each in session.get_inputs())

    def run(picture: NDArray[np.float32]) -> Vector:
        (features,) = session.run([name], {entry: picture})
        values = np.asarray(features, dtype=np.float32)[0]
        return np.asarray(values.reshape(len(values), -1).mean(axis=1) if values.ndim > 1 else values)

    return run


def layer_input(graph: Any, output: str) -> str:
    """The input of the last linear or convolution layer on the way to ``output``, found by going backwards."""
    made_by = {name: node for node in graph.node for name in node.output}
    waiting, seen = [output], set()
    while waiting:
        name = waiting.pop(0)
        node = made_by.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type in _LAYERS:
            return str(node.input[0])
        waiting.extend(node.input)
    raise BundleError(
        f"no layer of {', '.join(_LAYERS)} leads to the output {output}, so there is no embedding to read"
    )

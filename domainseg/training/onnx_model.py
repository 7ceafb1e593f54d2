"""A torch network as an ONNX file: weights inside, batch dynamic or 1, the same bytes for the same weights."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from domainseg.bundle.graph import inspect_graph
from domainseg.bundle.runtime import open_network
from domainseg.bundle.schema import stage_file
from domainseg.cascade.stages import Stage
from domainseg.files import DomainsegError

INPUT = "image"
BATCH = "batch"  # name of the dynamic side
_OURS = "output of the network: "
_TRACED = 2  # pictures in the example that the network is traced with
_TRACED_OPSET = 18  # of the older exporter


class ExportError(DomainsegError):
    """A network or run that cannot be exported; the message says which, why and what to do."""


@dataclass(frozen=True)
class OnnxModel:
    """data: the file's bytes; outputs: name -> shape without the batch; batch: "dynamic" or 1."""

    data: bytes
    outputs: dict[str, tuple[int, ...]]
    batch: str | int


def to_onnx(network: nn.Module, size: int) -> OnnxModel:
    """Export a network for pictures float32 [B, channels, size, size]. Raises ExportError.

    A network says by its attribute ``channels`` how many planes a picture has (1 where it says nothing), by ``batch``
    how many pictures it takes at a time: "dynamic" (default) or 1, and by ``exporter`` how: "export" (default), or
    "trace" where operators have no other way to ONNX (torchvision's).
    """
    network = copy.deepcopy(network).cpu().eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
    batch: str | int = getattr(network, "batch", "dynamic")
    shape = (int(getattr(network, "channels", 1)), size, size)
    example = torch.rand(1 if batch == 1 else _TRACED, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = {name: tuple(value.shape[1:]) for name, value in network(example).items()}
    try:
        if getattr(network, "exporter", "export") == "trace":
            model = _trace_by_running(network, example, outputs)
        elif batch == 1:
            model = _trace(network, example, list(outputs), symbolic=False)
        else:
            # With a symbolic batch the tracer reasons about shapes for most of its time (19 s against 8 s for the
            # fracture network). So it sees a fixed one, and the side is opened afterwards; where an operator holds
            # the number of pictures (a reshape), the file does not run at another one, and is traced again.
            model = _trace(network, example, list(outputs), symbolic=False)
            _open_batch(model)
            if not _runs(model, (_TRACED + 1, *shape)):
                model = _trace(network, example, list(outputs), symbolic=True)
    except Exception as error:  # the exporter's own errors have no common base
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"{type(network).__name__}: does not export to ONNX ({reason})") from error
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    return OnnxModel(model.SerializeToString(deterministic=True), outputs, batch)


def opened(stages: Sequence[Stage], models: Mapping[str, OnnxModel], **how: Any) -> list[Stage]:
    """The stages with networks as a bundle runs them; models: by stage; ``how``: backend, precision, threads."""
    found = []
    for stage in stages:
        model = models[stage.name]
        graph = inspect_graph(model.data, stage_file(stage.name))
        entry = {"name": stage.name, "outputs": model.outputs}
        found.append(replace(stage, network=open_network(model.data, entry, graph.batch_name, **how)))
    return found


def opset_of(data: bytes) -> int:
    """Version of ONNX's own operators that a file needs."""
    return int(max(entry.version for entry in onnx.load_from_string(data).opset_import if not entry.domain))


def _trace(network: nn.Module, example: torch.Tensor, outputs: list[str], *, symbolic: bool) -> onnx.ModelProto:
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            (example,),
            input_names=[INPUT],
            output_names=[f"{_OURS}{name}" for name in outputs],
            dynamic_shapes=({0: torch.export.Dim(BATCH)},) if symbolic else None,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _name_outputs(model, outputs)
    return model


def _trace_by_running(
    network: nn.Module, example: torch.Tensor, outputs: Mapping[str, tuple[int, ...]]
) -> onnx.ModelProto:
    """By torch's older exporter, which records what a run does: one batch size, and no branch that depends on data."""
    stream = BytesIO()
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            network,
            (example,),
            stream,  # type: ignore[arg-type]
            input_names=[INPUT],
            output_names=[f"{_OURS}{name}" for name in outputs],
            opset_version=_TRACED_OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(stream.getvalue())
    _name_outputs(model, list(outputs))
    for value in model.graph.output:  # it loses sides behind operators whose answer varies in number
        sides = value.type.tensor_type.shape.dim
        del sides[:]
        for side in (1, *outputs[value.name]):
            sides.add().dim_value = side
    return model


def _name_outputs(model: onnx.ModelProto, outputs: list[str]) -> None:
    """Give the outputs their names; the exporter gives a value inside the same name when an operator is called so."""
    names = {name: f"inner_{name}" for name in outputs} | {f"{_OURS}{name}": name for name in outputs}
    graph = model.graph
    for value in (*graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]


def _open_batch(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    del model.graph.value_info[:]  # they name the traced number of pictures


def _runs(model: onnx.ModelProto, shape: tuple[int, ...]) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a refusal is an answer here
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        answers = session.run(None, {INPUT: np.zeros(shape, np.float32)})
    except Exception:  # of the runtime: classes without a common base
        return False
    return all(np.shape(answer)[:1] == shape[:1] for answer in answers)


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes beside the network: source lines and the paths of the machine that it ran on."""
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del noted.metadata_props[:]
        noted.ClearField("doc_string")


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's remarks are about its own workings; what it gets wrong, the parity check finds."""
    chatty = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in chatty]
    try:
        for logger in chatty:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(chatty, before, strict=True):
            logger.setLevel(level)

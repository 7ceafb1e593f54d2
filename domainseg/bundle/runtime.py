"""Networks of a bundle as stages see them: ONNX Runtime or OpenVINO behind a function from arrays to named arrays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.bundle.schema import BundleError

BACKENDS = ("onnxruntime", "openvino")
PRECISIONS = ("fp32", "bf16")
MAX_MEMORY = 4 << 30  # bytes that ONNX Runtime may take for the networks of a process (the cascade takes 0.3 GB)
Array = NDArray[np.float32]


class BundleNetwork:
    """float32 [N, C, H, W] in 0..1 to the outputs that the bundle declares, float32 with leading N.

    Pictures go through one at a time, whatever batch the stage allows: on a CPU two at once are no faster (measured on
    the fracture network), take twice the memory, and an answer would depend on what else was in the film.
    """

    def __init__(self, name: str, outputs: Mapping[str, tuple[int, ...]], run: Callable[[Array], list[Array]]) -> None:
        self._name = name
        self._outputs = dict(outputs)
        self._run = run

    def __call__(self, pictures: Array) -> dict[str, Array]:
        """Outputs by name. Raises BundleError when the network answers otherwise than declared.

        Raises FloatingPointError for an answer that is not finite: compared with a threshold it would pass for a no.
        """
        found: dict[str, list[Array]] = {name: [] for name in self._outputs}
        for picture in pictures[:, None]:
            answers = self._run(np.ascontiguousarray(picture, dtype=np.float32))
            for (name, shape), answer in zip(self._outputs.items(), answers, strict=True):
                if answer.shape != (1, *shape) or answer.dtype != np.float32:
                    raise BundleError(
                        f"stage {self._name}: output {name} is {answer.dtype} {list(answer.shape)}, the bundle "
                        f"declares float32 {[1, *shape]}"
                    )
                if not np.isfinite(answer).all():
                    raise FloatingPointError(f"stage {self._name}: output {name} is not finite")
                found[name].append(answer)
        return {name: np.concatenate(answers) for name, answers in found.items()}


def open_network(
    model: bytes,
    stage: Mapping[str, Any],
    batch_name: str | None,
    *,
    backend: str = "onnxruntime",
    precision: str = "fp32",
    threads: int | None = None,
) -> BundleNetwork:
    """The network of a stage from verified bytes. Raises BundleError when it cannot be run so.

    stage: its entry in bundle.json. backend, precision: of BACKENDS and PRECISIONS; bf16 needs OpenVINO and a
    processor that has it. threads: compute threads, None for all cores.
    """
    if threads is not None and threads < 1:
        raise BundleError(f"threads={threads}: at least 1, or null for all cores")
    outputs = {name: tuple(shape) for name, shape in stage["outputs"].items()}
    opener = _openvino if backend == "openvino" else _onnxruntime
    try:
        run = opener(model, list(outputs), batch_name, precision, threads)
    except (BundleError, ModuleNotFoundError, KeyboardInterrupt):
        raise
    except Exception as error:  # each runtime has exceptions of its own, without a common base
        reason = str(error).strip().partition("\n")[0]
        raise BundleError(f"stage {stage['name']}: {backend} refuses its network: {reason}") from None
    return BundleNetwork(str(stage["name"]), outputs, run)


def _onnxruntime(
    model: bytes, outputs: list[str], batch_name: str | None, precision: str, threads: int | None
) -> Callable[[Array], list[Array]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait sleep: each stage has a pool of its own, and workers share the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only: they come back as exceptions as well
    if batch_name is not None:
        options.add_free_dimension_override_by_name(batch_name, 1)  # lets it plan its memory once
    # Bytes are taken for what they were checked as, never for the runtime's own format.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.use_env_allocators", "1")
    _bound_memory()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (name,) = (each.name for each in session.get_inputs())

    def run(picture: Array) -> list[Array]:
        return list(session.run(outputs, {name: picture}))

    return run


@cache
def _bound_memory() -> None:
    """A few operators can ask for any amount of memory, with sizes that are computed in the graph: let them fail."""
    import onnxruntime

    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    default = -1
    arena = onnxruntime.OrtArenaCfg(MAX_MEMORY, default, default, default)
    onnxruntime.create_and_register_allocator(place, arena)


@cache
def _core() -> Any:
    """OpenVINO, once a process and until its end.

    On processors with AMX its first use gives the thread a stack for signals, and its end takes that away: from another
    thread (wherever garbage is collected) only the memory goes, and the next signal of any kind ends the process.
    Importing it tells Intel by the network, from a thread of its own, unless its telemetry is not there to be found.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()


def _openvino(
    model: bytes, outputs: list[str], batch_name: str | None, precision: str, threads: int | None
) -> Callable[[Array], list[Array]]:
    core = _core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise BundleError("precision=bf16: this processor has no bf16; use precision=fp32")
    graph = core.read_model(model=model, weights=b"")
    shape = graph.input(0).partial_shape
    graph.reshape([1, *(shape[side] for side in range(1, 4))])
    settings: dict[str, Any] = {
        # Said in both cases: on processors with AMX, OpenVINO takes bf16 of its own accord.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "NUM_STREAMS": 1,
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(graph, "CPU", settings)
    request = compiled.create_infer_request()
    places = [compiled.output(name) for name in outputs]

    one = Lock()

    def run(picture: Array) -> list[Array]:
        with one:  # threads of a service share the request: none may read what another's picture gave
            request.infer([picture])
            return [np.array(request.get_tensor(place).data) for place in places]

    return run

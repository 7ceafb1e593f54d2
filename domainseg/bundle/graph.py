"""Look into an ONNX file before a runtime does: a walk over its protobuf bytes, without the onnx package.

A network of a bundle is a plain graph: operators of ONNX's own domain, weights inside the file, no control flow, no
functions, stated sizes in reason. Everything else (weights in other files, operators that load code, tensors that claim
more than they hold or are stated to be huge) is refused. Sizes that operators compute are not known here: against those
stands the bound on the runtime's memory (``domainseg.bundle.runtime``). Field numbers are those of onnx.proto (IR
version 3 and later).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from domainseg.bundle.schema import BundleError

MAX_ELEMENTS = 1 << 28  # of one declared tensor
MAX_SHAPE_PRODUCT = 1 << 28  # of the whole numbers that a graph gives to operators as sizes
MAX_SCALE = 1 << 10  # enlargement of an area by one operator
MAX_NODES = 1 << 16

_FLOAT = 1
_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}  # by TensorProto.DataType
_SMALL = 16  # a list of whole numbers no longer than this may be a shape
_FROM_DATA = frozenset(("Resize", "Upsample"))
Shape = tuple[int | None, ...]
Field = tuple[int, int, int | memoryview]


@dataclass
class Graph:
    """What an ONNX file says of itself: shapes of inputs and outputs (None where dynamic), operators, parameters."""

    inputs: dict[str, Shape] = field(default_factory=dict)
    outputs: dict[str, Shape] = field(default_factory=dict)
    operators: Counter[str] = field(default_factory=Counter)
    parameters: int = 0
    opset: int = 0
    batch_name: str | None = None


def inspect_graph(data: bytes, where: str) -> Graph:
    """The graph of an ONNX file. Raises BundleError, with ``where`` in front, for what a bundle may not hold."""
    try:
        return _model(memoryview(data))
    except _Refused as refused:
        raise BundleError(f"{where}: {refused}") from None


def weights(data: bytes) -> dict[str, NDArray[np.float32]]:
    """The float32 weights, by name, of a file that ``inspect_graph`` has let through."""
    found = {}
    for number, _, value in _fields(memoryview(data)):
        if number != 7:
            continue
        for part, _, tensor in _fields(_view(value)):
            if part == 5:
                fields = [(n, v) for n, _, v in _fields(_view(tensor))]
                kind = next((v for n, v in fields if n == 2), None)
                raw = next((_view(v) for n, v in fields if n in (4, 9)), None)
                if kind == _FLOAT and raw is not None:
                    name = next((_text(v) for n, v in fields if n == 8), "")
                    found[name] = np.frombuffer(raw, dtype="<f4")
    return found


class _Refused(Exception):
    """Why; the caller says which file."""


def _model(view: memoryview) -> Graph:
    graph = Graph()
    body: memoryview | None = None
    for number, wire, value in _fields(view):
        if number == 7 and wire == 2 and body is None:
            body = _view(value)
        elif number == 8:
            domain, version = _opset(_view(value))
            if domain not in ("", "ai.onnx"):
                raise _Refused(f"needs operators of {domain!r}: only ONNX's own are allowed")
            graph.opset = max(graph.opset, version)
        elif number not in (1, 2, 3, 4, 5, 6, 14):
            raise _Refused("is no plain ONNX network (functions, training information, two graphs, or no ONNX at all)")
    if body is None or not graph.opset:
        raise _Refused("is no ONNX network: it holds no graph")
    _graph(body, graph)
    return graph


def _graph(view: memoryview, graph: Graph) -> None:
    integers: dict[str, list[int]] = {}
    scales: dict[str, list[float]] = {}
    sized: list[str] = []
    for number, _, value in _fields(view):
        if number == 1:
            sized += _node(_view(value), graph, integers, scales)
            if graph.operators.total() > MAX_NODES:
                raise _Refused(f"has more than {MAX_NODES} operators")
        elif number == 5:
            graph.parameters += _tensor(_view(value), integers, scales)[1]
        elif number in (11, 12, 13):
            name, shape, batch = _value_info(_view(value), plain=number != 13)
            if number == 11:
                graph.inputs[name], graph.batch_name = shape, batch
            elif number == 12:
                graph.outputs[name] = shape
        elif number not in (2, 10, 14, 16):
            raise _Refused("holds sparse weights or something unknown")
    for name, values in integers.items():
        sizes = [value for value in values if 1 < value < (1 << 31) - 1]  # Slice says "to the end" by the largest
        if math.prod(sizes) > MAX_SHAPE_PRODUCT:
            raise _Refused(f"asks for a tensor of {math.prod(sizes)} values (by {name!r})")
    for name in sized:
        if math.prod(abs(value) for value in scales.get(name, [])) > MAX_SCALE:
            raise _Refused(f"enlarges a picture beyond reason (by {name!r})")
    for name in graph.inputs.keys() & integers.keys():
        raise _Refused(f"lets weights be replaced from outside ({name!r})")


def _node(view: memoryview, graph: Graph, integers: dict[str, list[int]], scales: dict[str, list[float]]) -> list[str]:
    """Count an operator; returns the names of its inputs when it makes larger pictures of smaller ones."""
    inputs, outputs, kind, domain = [], [], "", ""
    attributes = []
    for number, _, value in _fields(view):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            kind = _text(value)
        elif number == 5:
            attributes.append(_view(value))
        elif number == 7:
            domain = _text(value)
        elif number not in (3, 6, 8, 9, 10):
            raise _Refused("holds an operator with an unknown part")
    if domain not in ("", "ai.onnx"):
        raise _Refused(f"holds the operator {kind} of {domain!r}: only ONNX's own are allowed")
    graph.operators[kind] += 1
    for attribute in attributes:
        _attribute(attribute, outputs[0] if outputs else kind, integers, scales)
    return inputs if kind in _FROM_DATA else []


def _attribute(view: memoryview, owner: str, integers: dict[str, list[int]], scales: dict[str, list[float]]) -> None:
    numbers: list[int] = []
    for number, wire, value in _fields(view):
        if number == 5:
            name, _ = _tensor(_view(value), integers, scales)
            for known in (integers, scales):
                if name in known:
                    known[owner] = known.pop(name)  # type: ignore[assignment]
        elif number == 8:
            numbers += _varints(value) if wire == 2 else [_signed(_int(value))]
        elif number not in (1, 2, 3, 4, 7, 9, 13, 20, 21):
            raise _Refused("holds a graph inside an operator (control flow), or weights in an unknown form")
    if 0 < len(numbers) <= _SMALL:
        integers[f"{owner} attribute {len(integers)}"] = numbers


def _tensor(view: memoryview, integers: dict[str, list[int]], scales: dict[str, list[float]]) -> tuple[str, int]:
    """Name and number of values; small lists of whole numbers and of fractions are noted by name."""
    dims: list[int] = []
    kind, name, held = 0, "", 0
    raw: memoryview | None = None
    typed: list[int] = []
    floats: list[float] = []
    for number, wire, value in _fields(view):
        if number == 1:
            dims += _varints(value) if wire == 2 else [_signed(_int(value))]
        elif number == 2:
            kind = _int(value)
        elif number == 4:
            part = _view(value)
            held += len(part) // 4
            if len(part) <= 4 * _SMALL:
                floats += part.cast("f") if len(part) % 4 == 0 else []
        elif number in (5, 7, 11):
            if wire == 2 and len(_view(value)) > 10 * MAX_NODES:
                raise _Refused("holds many whole numbers in an unusual form")
            found = _varints(value) if wire == 2 else [_signed(_int(value))]
            held += len(found)
            typed += found
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _view(value)
        elif number == 10:
            held += len(_view(value)) // 8
        elif number == 13 or (number == 14 and value != 0):
            raise _Refused("keeps weights in another file: they must be inside")
        elif number not in (12, 14, 16):
            raise _Refused("holds a tensor in an unknown form")
    if kind not in _BYTES or any(side < 0 for side in dims):
        raise _Refused(f"holds a tensor of an unusable type or shape ({kind}, {dims[:8]})")
    count = math.prod(dims)
    if count > MAX_ELEMENTS:
        raise _Refused(f"declares a tensor of {count} values, at most {MAX_ELEMENTS} are possible")
    if (len(raw) if raw is not None else held * _BYTES[kind]) != count * _BYTES[kind] or (raw is not None and held):
        raise _Refused(f"holds a tensor whose data are not the {count} values that it declares")
    if 0 < count <= _SMALL and len(dims) <= 1:
        if kind in (6, 7):
            if raw is not None:
                typed = list(raw.cast("i") if kind == 6 else raw.cast("q"))
            integers[name] = typed
        elif kind == _FLOAT:
            scales[name] = list(raw.cast("f")) if raw is not None else floats
    return name, count


def _value_info(view: memoryview, *, plain: bool) -> tuple[str, Shape, str | None]:
    """Name, shape and the name of a dynamic first side of an input, an output (``plain``: float32) or a value."""
    name, kind = "", -1
    shape: list[int | None] = []
    batch: str | None = None
    for number, _, value in _fields(view):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for sort, _, inner in _fields(_view(value)):
                if sort == 6:
                    continue
                if sort != 1:
                    raise _Refused(f"{name!r} is no tensor")
                for part, _, what in _fields(_view(inner)):
                    if part == 1:
                        kind = _int(what)
                    elif part == 2:
                        shape, batch = _sides(_view(what))
    if plain and kind != _FLOAT:
        raise _Refused(f"{name!r} is not float32")
    if math.prod(side for side in shape if side is not None) > MAX_ELEMENTS:
        raise _Refused(f"declares {name!r} with {shape}, at most {MAX_ELEMENTS} values are possible")
    return name, tuple(shape), batch


def _sides(view: memoryview) -> tuple[list[int | None], str | None]:
    sides: list[int | None] = []
    names: list[str | None] = []
    for number, _, value in _fields(view):
        if number != 1:
            continue
        side: int | None = None
        name: str | None = None
        for sort, _, inner in _fields(_view(value)):
            if sort == 1:
                side = _signed(_int(inner))
            elif sort == 2:
                name = _text(inner)
        if side is not None and side < 0:
            raise _Refused("declares a tensor with a negative side")
        sides.append(side)
        names.append(name)
    return sides, names[0] if names else None


def _opset(view: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, _, value in _fields(view):
        if number == 1:
            domain = _text(value)
        elif number == 2:
            version = _int(value)
    return domain, version


# ---------------------------------------------------------------- the wire format of protobuf


def _fields(view: memoryview) -> Iterator[Field]:
    """(number, wire type, value) of each field: a whole number, or the bytes of what has a length."""
    position, end = 0, len(view)
    while position < end:
        tag, position = _varint(view, position)
        number, wire = tag >> 3, tag & 7
        value: int | memoryview
        if wire == 0:
            value, position = _varint(view, position)
        elif wire == 2:
            length, position = _varint(view, position)
            value, position = view[position : position + length], position + length
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
            value, position = view[position : position + length], position + length
        else:
            raise _Refused("is no ONNX file, or damaged")
        if position > end or number == 0:
            raise _Refused("is no ONNX file, or cut off")
        yield number, wire, value


def _varint(view: Sequence[int], position: int) -> tuple[int, int]:
    result = shift = 0
    while position < len(view) and shift < 70:
        byte = view[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
    raise _Refused("is no ONNX file, or cut off")


def _varints(value: int | memoryview) -> list[int]:
    view = _view(value)
    found, position = [], 0
    while position < len(view):
        number, position = _varint(view, position)
        found.append(_signed(number))
    return found


def _signed(number: int) -> int:
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >= 1 << 63 else number


def _int(value: int | memoryview) -> int:
    if isinstance(value, int):
        return value
    raise _Refused("is no ONNX file, or damaged")


def _view(value: int | memoryview) -> memoryview:
    if isinstance(value, memoryview):
        return value
    raise _Refused("is no ONNX file, or damaged")


def _text(value: int | memoryview) -> str:
    try:
        return bytes(_view(value)).decode()
    except UnicodeDecodeError:
        raise _Refused("is no ONNX file, or damaged") from None

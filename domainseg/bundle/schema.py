"""What bundle.json says, checked: a damaged or foreign record is refused with the place and the reason."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from domainseg.cascade.decisions import DECISIONS
from domainseg.cascade.operations import FRAMES, PreprocessingError, picture_shape, versioned
from domainseg.cascade.reads import reading_for
from domainseg.files import DomainsegError

SCHEMA = 1
RECORD = "bundle.json"
SUMS = "SHA256SUMS"
MODEL_CARD = "MODEL_CARD.md"
METRICS = "metrics.json"

MAX_JSON_BYTES = 32 << 20
MAX_JSON_DEPTH = 24
MAX_STAGES = 32
MAX_SIDE = 8192  # pixels of a network's input
MAX_CHANNELS = 256  # of a network's input
MAX_OUTPUT = 1 << 26  # values of one output of one picture

OLDER = "Use the domainseg that it was made with, or train and export again"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_FROZEN = {"threshold": float, "slope": float, "intercept": float, "rule": str, "provisional": bool}
_OVERRIDE: dict[str, type] = dict.fromkeys(("target", "rule", "by", "made", "base"), str)
_OVERRIDE |= {"was": float, "threshold": float, "n_positive": float, "n_negative": float, "provisional": bool}

# Schema version -> function that turns a record of that version into one of the next. Versions below 1 were never
# released; a record newer than this program is refused by name.
MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


class BundleError(DomainsegError):
    """A bundle that cannot be used: damaged, tampered with, of another version, or asked for what it cannot do."""


def parse_json(data: bytes, where: str) -> Any:
    """JSON of bounded size and depth, in UTF-8, without NaN, infinite numbers and repeated keys. Raises BundleError."""
    if len(data) > MAX_JSON_BYTES:
        raise BundleError(f"{where}: {len(data)} bytes, at most {MAX_JSON_BYTES} are read")
    try:
        text = data.decode()
        # Before parsing: brackets inside strings count too, which no record of ours has that many of.
        depth = deepest = 0
        for bracket in re.finditer(r"[\[{}\]]", text):
            depth += 1 if bracket[0] in "[{" else -1
            deepest = max(deepest, depth)
        if deepest > MAX_JSON_DEPTH:
            raise BundleError(f"{where}: nested more than {MAX_JSON_DEPTH} deep")
        return json.loads(text, object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite, parse_int=_small)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: is not valid JSON ({error})") from None


def check_record(data: bytes) -> dict[str, Any]:
    """bundle.json, migrated to this program's schema and checked. Raises BundleError that names the field."""
    record = _mapping(parse_json(data, RECORD), "its content")
    found = record.get("schema")
    if not isinstance(found, int) or isinstance(found, bool):
        raise BundleError(f"{RECORD}: schema: a whole number is needed, found {found!r}")
    while record["schema"] in MIGRATIONS:
        record = MIGRATIONS[record["schema"]](record)
    if record["schema"] != SCHEMA:
        advice = "update domainseg" if found > SCHEMA else "export it again"
        raise BundleError(f"{RECORD}: schema {found} cannot be read, this program reads {SCHEMA}: {advice}")
    for key in ("pipeline", "target", "reader"):
        _typed(record, key, str, key)
    for key in ("versions", "labels", "data", "envelope", "parity"):
        _mapping(record.get(key), key)
    stages = _typed(record, "stages", list, "stages")
    if not 1 <= len(stages) <= MAX_STAGES:
        raise BundleError(f"{RECORD}: stages: {len(stages)} of them, 1 to {MAX_STAGES} are possible")
    for number, stage in enumerate(stages):
        _check_stage(_mapping(stage, f"stages[{number}]"), f"stages[{number}]")
    names = [stage["name"] for stage in stages]
    if len(set(names)) < len(names):
        raise BundleError(f"{RECORD}: stages: two have the same name")
    _check_reader(record)
    return record


def reads_of(record: Mapping[str, Any]) -> str:
    """What the cascade of a checked record reads: film or volume."""
    return str(DECISIONS[record["stages"][0]["decision"]["kind"]].reads)


def _check_reader(record: Mapping[str, Any]) -> None:
    """All stages are of films or all of volumes, and this program reads them as the record's makers did."""
    reads = reads_of(record)
    for stage in record["stages"]:
        kind, op = stage["decision"]["kind"], stage["preprocessing"][0]["op"]
        for what, found in ((kind, DECISIONS[kind].reads), (op, FRAMES[op].reads)):
            if found != reads:
                raise BundleError(f"{RECORD}: stages.{stage['name']}: {what} is for a {found}, the first for a {reads}")
    version = reading_for(DECISIONS[record["stages"][0]["decision"]["kind"]]).version
    if record["reader"] != version:
        raise BundleError(
            f"{RECORD}: reader: made for version {record['reader']} of the {reads} reader, this program has "
            f"{version}: its {reads}s would look different. {OLDER}"
        )


def stage_file(name: str) -> str:
    """Where a stage's network lies in the bundle."""
    return f"stages/{name}.onnx"


def _check_stage(stage: Mapping[str, Any], where: str) -> None:
    name = _typed(stage, "name", str, f"{where}.name")
    if not _NAME.fullmatch(name):
        raise BundleError(f"{RECORD}: {where}.name: {name[:80]!r} is no stage name")
    where = f"stages.{name}"
    if stage.get("file") != stage_file(name):
        raise BundleError(f"{RECORD}: {where}.file: must be {stage_file(name)}")
    if stage.get("batch") != "dynamic" and not (stage.get("batch") == 1 and stage.get("batch") is not True):
        raise BundleError(f"{RECORD}: {where}.batch: must be dynamic or 1, found {stage.get('batch')!r}")
    decision = _mapping(stage.get("decision"), f"{where}.decision")
    if decision.get("kind") not in DECISIONS:
        raise BundleError(
            f"{RECORD}: {where}.decision.kind: unknown {decision.get('kind')!r}; known: {', '.join(DECISIONS)}"
        )
    if decision.get("version") != (version := DECISIONS[decision["kind"]].version):
        raise BundleError(
            f"{RECORD}: {where}.decision: {decision['kind']} of version {decision.get('version')}, this program has "
            f"version {version}: it would decide otherwise. {OLDER}"
        )
    for key, value in decision.items():
        if key == "target" and not hasattr(DECISIONS[decision["kind"]], "target"):  # it does not bring its own
            if not _NAME.fullmatch(_typed(decision, key, str, f"{where}.decision.{key}")):
                raise BundleError(f"{RECORD}: {where}.decision.{key}: {value[:80]!r} is no target's name")
        elif key == "numbers":
            _check_numbers(_mapping(value, f"{where}.decision.{key}"), f"{where}.decision.{key}")
        elif key != "kind" and not _is_number(value):
            raise BundleError(f"{RECORD}: {where}.decision.{key}: must be a number")
    _check_preprocessing(stage, where)
    _check_outputs(_mapping(stage.get("outputs"), f"{where}.outputs"), f"{where}.outputs")
    frozen = _mapping(stage.get("frozen"), f"{where}.frozen")
    for key, kind in _FROZEN.items():
        _typed(frozen, key, kind, f"{where}.frozen.{key}")
    if not 0 <= frozen["threshold"] <= 1:
        raise BundleError(f"{RECORD}: {where}.frozen.threshold: {frozen['threshold']:g} is no probability")
    if unknown := sorted(set(frozen) - set(_FROZEN)):
        raise BundleError(f"{RECORD}: {where}.frozen: unknown {unknown[0]!r}")
    if stage.get("bf16") is not None:
        _mapping(stage["bf16"], f"{where}.bf16")
    for entry in _typed(stage, "overrides", list, f"{where}.overrides") if "overrides" in stage else []:
        _check_override(_mapping(entry, f"{where}.overrides"), f"{where}.overrides")


def _check_numbers(numbers: Mapping[str, Any], where: str) -> None:
    """Numbers by name, of each target that a decision answers for."""
    for target, own in numbers.items():
        if not _NAME.fullmatch(target):
            raise BundleError(f"{RECORD}: {where}: {target[:80]!r} is no target's name")
        for key, value in _mapping(own, f"{where}.{target}").items():
            if not _is_number(value) or (key == "threshold" and not 0 <= value <= 1):
                raise BundleError(f"{RECORD}: {where}.{target}.{key[:80]}: must be a number, a threshold from 0 to 1")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_override(entry: Mapping[str, Any], where: str) -> None:
    """A threshold that was set anew after export, see domainseg/bundle/override.py."""
    for key, kind in _OVERRIDE.items():
        _typed(entry, key, kind, f"{where}.{key}")
    for key in ("was", "threshold"):
        if not 0 <= entry[key] <= 1:
            raise BundleError(f"{RECORD}: {where}.{key}: {entry[key]:g} is no probability")


def _check_preprocessing(stage: Mapping[str, Any], where: str) -> None:
    operations = _typed(stage, "preprocessing", list, f"{where}.preprocessing")
    for operation in operations:
        settings = _mapping(operation, f"{where}.preprocessing")
        for key, value in settings.items():
            if key != "op" and not _is_number(value):
                raise BundleError(f"{RECORD}: {where}.preprocessing: {key} must be a number")
    try:
        known = versioned(operations)
    except PreprocessingError as error:
        raise BundleError(f"{RECORD}: {where}: {error}") from None
    for here, there in zip(known, operations, strict=True):
        if there.get("version") != here["version"]:
            raise BundleError(
                f"{RECORD}: {where}.preprocessing: {there['op']} of version {there.get('version')}, this program has "
                f"version {here['version']}: the network would see other pictures. {OLDER}"
            )
    first = operations[0]
    if not isinstance(first["size"], int) or not 1 <= first["size"] <= MAX_SIDE:
        raise BundleError(f"{RECORD}: {where}.preprocessing: size must be a whole number of 1 to {MAX_SIDE} pixels")
    if not isinstance(slices := first.get("slices", 1), int) or not slices >= 1:
        raise BundleError(f"{RECORD}: {where}.preprocessing: slices must be a whole number of 1 or more")
    if not first.get("thickness", 1) > 0:
        raise BundleError(f"{RECORD}: {where}.preprocessing: thickness must be above 0 mm")
    for each in operations[1:]:
        if each["op"] == "window" and not each.get("low", math.inf) < each.get("high", -math.inf):
            raise BundleError(f"{RECORD}: {where}.preprocessing: a window needs low and high, low below high")
    if not 1 <= (channels := picture_shape(operations)[0]) <= MAX_CHANNELS:
        raise BundleError(
            f"{RECORD}: {where}.preprocessing: makes {channels} channels, 1 to {MAX_CHANNELS} are possible"
        )


def _check_outputs(outputs: Mapping[str, Any], where: str) -> None:
    if not outputs:
        raise BundleError(f"{RECORD}: {where}: none named")
    for name, shape in outputs.items():
        if not isinstance(shape, list) or not all(isinstance(side, int) and side >= 1 for side in shape):
            raise BundleError(f"{RECORD}: {where}.{name}: must be a list of whole numbers, without the batch")
        count = 1
        for side in shape:
            count *= side
        if len(shape) > 4 or count > MAX_OUTPUT:
            raise BundleError(f"{RECORD}: {where}.{name}: {shape} is larger than any output of a network here")


def _typed(holder: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    value = holder.get(key)
    number = kind is float and isinstance(value, int) and not isinstance(value, bool)
    if not number and (not isinstance(value, kind) or (kind is not bool and isinstance(value, bool))):
        kinds = {str: "text", float: "a number", list: "a list", bool: "true or false"}
        raise BundleError(f"{RECORD}: {where}: {kinds[kind]} is needed, found {type(value).__name__}")
    return value


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BundleError(f"{RECORD}: {where}: a mapping is needed, found {type(value).__name__}")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return result


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _finite(digits: str) -> float:
    """1e400 is JSON, and infinite in Python."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is larger than any number here")
    return number


def _small(digits: str) -> int:
    number = int(digits)
    if abs(number) >= 1 << 63:
        raise ValueError(f"{digits[:20]}... is larger than any whole number here")
    return number

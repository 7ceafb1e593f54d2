"""Read a bundle's files and hold them against SHA256SUMS: what was hashed is what is used, nothing is opened twice."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainseg.bundle.graph import Graph, inspect_graph
from domainseg.bundle.kinds import bundle_of, is_run
from domainseg.bundle.schema import (
    MAX_JSON_BYTES,
    MAX_STAGES,
    METRICS,
    MODEL_CARD,
    RECORD,
    SUMS,
    BundleError,
    check_record,
    parse_json,
)
from domainseg.cascade.operations import picture_shape

MAX_MODEL_BYTES = 1 << 30
MAX_BYTES = 1 << 31  # of the whole bundle

_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_][A-Za-z0-9_./-]*)")
_PLAIN = {RECORD, METRICS, MODEL_CARD}


@dataclass(frozen=True)
class Verified:
    """A bundle whose every byte was checked: its record, the bytes and graph of each stage, documents, its SHA-256."""

    record: dict[str, Any]
    models: dict[str, bytes]
    graphs: dict[str, Graph]
    documents: dict[str, bytes]
    sha256: str


def verify_bundle(folder: Path) -> Verified:
    """Read and check a bundle. Raises BundleError for whatever is missing, extra, changed, or not fit for one.

    Checksums find damage, not forgery: who can write all files can write SHA256SUMS. So the content is checked as
    well: names and kinds of files from a closed list, no links, sizes, plain networks (``inspect_graph``), the schema.
    """
    files, sha256 = read_files(folder)
    record = check_record(files.pop(RECORD))
    metrics = parse_json(files[METRICS], METRICS)
    if not isinstance(metrics, dict):
        raise BundleError(f"{METRICS}: a mapping is needed")
    _check_text(files[MODEL_CARD], MODEL_CARD)
    models, graphs = {}, {}
    for stage in record["stages"]:
        name = stage["file"]
        if name not in files:
            raise BundleError(f"{folder}: {name} is missing")
        models[stage["name"]] = files.pop(name)
        graphs[stage["name"]] = inspect_graph(models[stage["name"]], name)
        _check_graph(graphs[stage["name"]], stage)
    if extra := sorted(set(files) - _PLAIN):
        raise BundleError(f"{folder}: {extra[0]} belongs to no stage")
    return Verified(record, models, graphs, files, sha256)


def read_files(folder: Path) -> tuple[dict[str, bytes], str]:
    """The bytes of all files but SHA256SUMS, each read once and hashed, and the SHA-256 of SHA256SUMS.

    Raises BundleError.
    """
    if not folder.is_dir():
        raise BundleError(f"{folder}: is no bundle: {'not a folder' if folder.exists() else 'it does not exist'}")
    if is_run(folder):
        raise BundleError(f"{folder}: {bundle_of(folder)}")
    there = set(_walk(folder))
    for name in (SUMS, RECORD, METRICS, MODEL_CARD):
        if name not in there:
            raise BundleError(f"{folder}: {name} is missing: no bundle, or not a whole one")
    data = _read(folder, SUMS, 1 << 16)
    wanted = _parse(data, folder)
    if missing := sorted(wanted.keys() - there):
        raise BundleError(f"{folder}: {missing[0]} is listed in {SUMS} and missing")
    if extra := sorted(there - wanted.keys() - {SUMS}):
        raise BundleError(f"{folder}: {extra[0]} is not listed in {SUMS}")
    files: dict[str, bytes] = {}
    for name, digest in wanted.items():
        limit = MAX_MODEL_BYTES if name.endswith(".onnx") else MAX_JSON_BYTES
        files[name] = _read(folder, name, min(limit, MAX_BYTES - sum(len(data) for data in files.values())))
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise BundleError(f"{folder}: {name} is damaged: its SHA-256 is not the one in {SUMS}")
    return files, hashlib.sha256(data).hexdigest()


def _walk(folder: Path) -> Iterator[str]:
    """Names of all files, relative; raises BundleError for links, other folders and names that no bundle has."""
    for path in sorted(folder.iterdir()):
        if path.name == "stages" and path.is_dir() and not path.is_symlink():
            inner = sorted(path.iterdir())
            if len(inner) > MAX_STAGES:
                raise BundleError(f"{folder}: stages/ holds {len(inner)} files, at most {MAX_STAGES} are possible")
            for file in inner:
                _check_file(file, folder, allowed=file.name == f"{file.stem}.onnx")
                yield f"stages/{file.name}"
        else:
            _check_file(path, folder, allowed=path.name in {*_PLAIN, SUMS})
            yield path.name


def _check_file(path: Path, folder: Path, *, allowed: bool) -> None:
    name = path.relative_to(folder)
    if path.is_symlink():
        raise BundleError(f"{folder}: {name} is a link: a bundle holds plain files only")
    if not stat.S_ISREG(path.lstat().st_mode):
        raise BundleError(f"{folder}: {name} is no plain file")
    if not allowed:
        raise BundleError(f"{folder}: {name} has no place in a bundle")


def _parse(data: bytes, folder: Path) -> dict[str, str]:
    """SHA256SUMS: name -> digest; strictly as sha256sum writes it."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise BundleError(f"{folder}: {SUMS} is damaged: not plain text") from None
    if not text.endswith("\n"):
        raise BundleError(f"{folder}: {SUMS} is cut off")
    wanted: dict[str, str] = {}
    for number, line in enumerate(text[:-1].split("\n"), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise BundleError(f"{folder}: {SUMS}, line {number}: is not 64 hex digits, two blanks and a file's name")
        digest, name = match.groups()
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise BundleError(f"{folder}: {SUMS}, line {number}: {name} leads out of the bundle")
        if name in wanted or name == SUMS:
            raise BundleError(f"{folder}: {SUMS}, line {number}: {name} must not stand there")
        wanted[name] = digest
    return wanted


def _read(folder: Path, name: str, limit: int) -> bytes:
    try:
        # Looked at before, but it may have been changed since: no link is followed, no pipe is waited for.
        handle = os.open(folder / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        what = "is a link" if error.errno == errno.ELOOP else f"cannot be opened: {error.strerror}"
        raise BundleError(f"{folder}: {name} {what}") from None
    with open(handle, "rb") as stream:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode):
            raise BundleError(f"{folder}: {name} is no plain file")
        if state.st_size > limit:
            raise BundleError(f"{folder}: {name} is larger than {limit} bytes")
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise BundleError(f"{folder}: {name} is larger than {limit} bytes")
    return data


def _check_text(data: bytes, name: str) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise BundleError(f"{name}: is not text") from None
    if any(ord(letter) < 32 and letter not in "\n\t\r" for letter in text):
        raise BundleError(f"{name}: is not plain text")


def _check_graph(graph: Graph, stage: dict[str, Any]) -> None:
    """The network takes the picture that preprocessing makes and gives the outputs that the record declares."""
    where = f"{RECORD}: stages.{stage['name']}"
    shape = picture_shape(stage["preprocessing"])
    first = None if stage["batch"] == "dynamic" else 1
    takes = list(graph.inputs.values())
    if len(takes) != 1 or takes[0] not in {(first, *shape), (None, shape[0], None, None)}:
        raise BundleError(f"{where}: the network takes {takes}, its preprocessing makes {[first, *shape]}")
    for name, shape in stage["outputs"].items():
        found = graph.outputs.get(name)
        wanted = (first, *shape)
        if found is None or len(found) != len(wanted) or not all(map(_fits, found, wanted)):
            raise BundleError(f"{where}.outputs.{name}: {list(wanted)} is declared, the network has {found}")


def _fits(found: int | None, wanted: int | None) -> bool:
    return found is None or found == wanted

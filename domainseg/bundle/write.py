"""Write a bundle: into a folder beside, flushed to disk, then put in its place in one step."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domainseg.bundle.schema import METRICS, MODEL_CARD, RECORD, SUMS, BundleError, check_record, stage_file


def write_bundle(
    folder: Path, record: Mapping[str, Any], models: Mapping[str, bytes], documents: Mapping[str, str]
) -> str:
    """Write a bundle to ``folder``; returns its SHA-256, that of the bytes of SHA256SUMS.

    record: bundle.json (it is checked as on load). models: stage name -> ONNX bytes with the weights inside, for each
    stage of the record. documents: file name -> text, MODEL_CARD.md and metrics.json.
    A bundle that is there already is replaced; a kill at any moment leaves the old one or the new one. Raises
    BundleError for a record that is not valid and for a folder that holds something else.
    """
    files = {RECORD: (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()}
    checked = check_record(files[RECORD])
    names = [stage["name"] for stage in checked["stages"]]
    if set(names) != set(models):
        raise BundleError(f"the record names the stages {', '.join(names)}, networks are given for {', '.join(models)}")
    if set(documents) != {MODEL_CARD, METRICS}:
        raise BundleError(f"a bundle holds {MODEL_CARD} and {METRICS}, given: {', '.join(documents)}")
    files |= {stage_file(name): models[name] for name in names}
    files |= {name: text.encode() for name, text in documents.items()}
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items())]
    files[SUMS] = "".join(lines).encode()
    folder = Path(os.path.abspath(folder))
    check_place(folder)
    _remove_leftovers(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=_prefix(folder), dir=folder.parent))
    try:
        for name, data in files.items():
            _write(temporary / name, data)
        temporary.chmod(0o755)
        for place in (temporary / "stages", temporary):
            _flush(place)
        _put(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return hashlib.sha256(files[SUMS]).hexdigest()


def check_place(folder: Path) -> None:
    """Raise BundleError for a folder that ``write_bundle`` would not replace: it holds what is no bundle."""
    if not folder.exists():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise BundleError(f"{folder}: is no folder; name another place for the bundle")
    there = {entry.name for entry in folder.iterdir()}
    if there and not ({SUMS, RECORD} <= there <= {SUMS, RECORD, MODEL_CARD, METRICS, "stages"}):
        raise BundleError(f"{folder}: holds something else than a bundle; name an empty or a new folder")


def _prefix(folder: Path) -> str:
    return f".{folder.name}.writing."


def _remove_leftovers(folder: Path) -> None:
    """What a killed write left beside."""
    if folder.parent.is_dir():
        for entry in folder.parent.iterdir():
            if entry.name.startswith(_prefix(folder)):
                shutil.rmtree(entry, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with open(path, "xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _put(temporary: Path, folder: Path) -> None:
    """Give the written folder its name; what had it before lies at ``temporary`` afterwards, if at all."""
    try:
        os.rename(temporary, folder)  # nothing there, or an empty folder
    except OSError:
        if not _exchange(temporary, folder):
            # Two steps where the system knows no exchange: the old bundle is beside while the new one takes its place.
            before = Path(tempfile.mkdtemp(prefix=_prefix(folder), dir=folder.parent))
            os.rename(folder, before)
            os.rename(temporary, folder)
            shutil.rmtree(before, ignore_errors=True)
    _flush(folder.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step (Linux, renameat2 with RENAME_EXCHANGE); False where that is not to be had."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    at_current_folder, exchange = -100, 2
    return bool(rename(at_current_folder, os.fsencode(one), at_current_folder, os.fsencode(other), exchange) == 0)

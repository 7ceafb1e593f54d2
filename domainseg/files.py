"""Hashing and atomic writing: every file that domainseg writes is written beside its place and renamed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_PARTIAL = ".partial-"  # in the name of every file that is not finished
_NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of this user is used up",
    errno.EFBIG: "the file is larger than the file system or `ulimit -f` allows",
}


class DomainsegError(Exception):
    """An error for people: what is wrong, where, and what to do. Commands print it as one line and exit with 1."""


class DiskFullError(DomainsegError):
    """There is no room for a file; what was there before is whole."""


class DamagedError(DomainsegError):
    """A file that is not what was written."""


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes as 64 hex digits, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of a JSON-serialisable value in canonical form (sorted keys, no blanks)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it replaces ``path``, on an error it is removed.

    The file is flushed to disk before the rename, so that a crash leaves the old file or the new one, never half.
    What a killed process leaves behind is removed by ``remove_partial``. Raises DiskFullError when there is no room.
    """
    path = Path(path)
    with _room_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{path.stem[:40]}{_PARTIAL}"
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
        temporary = Path(name)
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held as long as this process lives
            os.fchmod(handle, 0o666 & ~_umask())
            yield temporary
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)


def remove_partial(folder: Path) -> int:
    """Remove what killed processes left half written in ``folder`` and below; returns how many files that were.

    A file that a living process is writing is locked by it and stays.
    """
    removed = 0
    for path in folder.rglob(f".*{_PARTIAL}*"):
        try:
            with open(path, "rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                removed += 1
        except OSError:  # locked, a folder, or finished meanwhile
            continue
    return removed


def write_bytes(path: Path | str, data: bytes | memoryview) -> None:
    """Write ``data`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def no_room(path: Path | str, error: OSError) -> DiskFullError | None:
    """The error for people when ``error`` says that there is no room for ``path``, else None."""
    try:
        found = os.statvfs(next(parent for parent in Path(path).absolute().parents if parent.exists()))
        free = found.f_bavail * found.f_frsize
    except OSError:
        free = None
    full = error.errno in _NO_ROOM or (error.errno is None and free is not None and free < 2**20)  # numpy names none
    if not full:
        return None
    reason = _NO_ROOM.get(error.errno or errno.ENOSPC, _NO_ROOM[errno.ENOSPC])
    left = "" if free is None else f" ({free / 1e6:,.1f} MB free)"
    return DiskFullError(
        f"{path}: not written, {reason}{left}. What was written before is whole: make room and run it again "
        "(train: resume=true output=DIR goes on where it stopped)"
    )


@contextmanager
def _room_for(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if (told := no_room(path, error)) is not None:
            raise told from error
        raise


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinity become null: JSON has neither."""
    write_bytes(path, _text(_finite(value)).encode())


def read_json(path: Path | str) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text())


def write_sealed(path: Path | str, record: Mapping[str, Any]) -> None:
    """Write a record as JSON with a digest of its own in it, so that ``read_sealed`` finds any changed byte."""
    body = {"schema": 1, **_finite(record)}
    write_bytes(path, _text({**body, "digest": hash_json(body)}).encode())


def read_sealed(path: Path | str) -> dict[str, Any]:
    """Read what ``write_sealed`` wrote. Raises DamagedError when a byte of it was changed, FileNotFoundError.

    A record without schema and digest was written before records had them, and is taken as it is.
    """
    text = Path(path).read_bytes()
    try:
        record = json.loads(text)
    except ValueError as error:
        raise DamagedError(f"{path}: damaged (no JSON)") from error
    if not isinstance(record, dict):
        raise DamagedError(f"{path}: damaged (no record)")
    if "schema" not in record and "digest" not in record:
        return record
    body = {key: value for key, value in record.items() if key != "digest"}
    try:  # the bytes too: a blank may have become a line break; 1e905 is infinite and has no digest
        whole = record.get("digest") == hash_json(body) and text == _text(record).encode()
    except ValueError:
        whole = False
    if not whole:
        raise DamagedError(f"{path}: damaged or changed by hand, its digest is not its own")
    return body


def _text(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not (float("-inf") < value < float("inf")):
        return None
    return value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

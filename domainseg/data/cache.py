"""A cache of decoded arrays: uint16 files that are mapped, not read, shared by runs and processes."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.files import DamagedError, atomic_path, hash_json, read_sealed, remove_partial, sha256_file, write_sealed

log = logging.getLogger(__name__)

Build = Callable[[], tuple[NDArray[np.uint16], dict[str, Any]]]


class Cache:
    """Arrays by key, as <folder>/<first two digits>/<hash of the key>.npy with a .json beside it.

    The .json holds the key, the SHA-256 of the .npy, what ``build`` gave with the array (a crop's affine) and a digest
    of itself. An entry is verified once per process, when it is first opened: damage that happens after that, while
    the process runs, is not seen. A damaged entry is built anew and the log says so. Files are written beside their
    place and renamed, so that processes may share a folder: at worst two build the same entry.
    folder: created when needed. max_bytes: above it the entries that were first opened longest ago are removed.
    """

    def __init__(self, folder: Path | str, max_bytes: int) -> None:
        self.folder = Path(folder)
        self.max_bytes = int(max_bytes)
        self.built = 0
        self.reused = 0
        self._extras: dict[str, dict[str, Any]] = {}  # of the entries that this process has verified
        self._bytes: int | None = None
        self._too_small = False

    def get(self, key: Mapping[str, Any], build: Build) -> tuple[NDArray[np.uint16], dict[str, Any]]:
        """The array (read-only memory map) and the extras of a key; ``build`` makes both when they are not there.

        key: everything that the array depends on, as JSON values; see ``cache_key``. What ``build`` raises passes
        through and nothing is kept.
        """
        name = hash_json(dict(key))
        path = self.folder / name[:2] / f"{name}.npy"
        seen = name in self._extras
        found = self._open(path, name)
        if found is not None:
            self.reused += not seen
            return found
        array, extras = build()
        if array.dtype != np.uint16:
            raise TypeError(f"the cache holds uint16 arrays, not {array.dtype}")
        extras = json.loads(json.dumps(extras, allow_nan=False))  # the same types, built or reused
        self._write(path, dict(key), array, extras)
        self.built += 1
        self._extras[name] = extras
        try:
            return np.load(path, mmap_mode="r"), dict(extras)
        except FileNotFoundError:  # another process needed the room already
            array.setflags(write=False)
            return array, dict(extras)

    def summary(self) -> str:
        """One line for the log."""
        return f"cache {self.folder}: {self.built} arrays built, {self.reused} reused"

    def _open(self, path: Path, name: str) -> tuple[NDArray[np.uint16], dict[str, Any]] | None:
        try:
            if name not in self._extras:
                record = read_sealed(path.with_suffix(".json"))
                if sha256_file(path) != record["sha256"]:
                    raise ValueError("its checksum is wrong")
                self._extras[name] = dict(record["extras"])
                os.utime(path)
            return np.load(path, mmap_mode="r"), dict(self._extras[name])
        except FileNotFoundError:
            self._extras.pop(name, None)
            return None
        except (DamagedError, OSError, ValueError, KeyError, TypeError, EOFError) as error:
            log.warning("cache: entry %s is damaged (%s) and is built anew", name[:12], error)
            self._extras.pop(name, None)
            return None

    def _write(self, path: Path, key: dict[str, Any], array: NDArray[np.uint16], extras: dict[str, Any]) -> None:
        with atomic_path(path) as temporary:
            with open(temporary, "wb") as stream:
                np.save(stream, np.ascontiguousarray(array))
            # The record comes first: whoever meets it without its array, or with a damaged one, builds anew.
            record = {"sha256": sha256_file(temporary), "extras": extras, "key": key}
            write_sealed(path.with_suffix(".json"), record)
        if self._bytes is None:
            remove_partial(self.folder)
        if self._bytes is None or self.built % 64 == 0:  # other processes write here too
            self._bytes = self._size()
        else:
            self._bytes += array.nbytes
        if self._bytes > self.max_bytes:
            self._trim(keep=path)

    def _size(self) -> int:
        return sum(size for _, size, _ in self._entries())

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        for path in self.folder.glob("??/[!.]*.npy"):  # .xyz.npy is another process's, not yet renamed
            try:
                found = path.stat()
            except FileNotFoundError:  # another process trimmed it
                continue
            yield found.st_mtime, found.st_size, path

    def _trim(self, keep: Path) -> None:
        """Remove the entries that were opened longest ago until nine tenths of the allowed size are left."""
        with self._locked():
            entries = sorted(self._entries())
            total = sum(size for _, size, _ in entries)
            removed = own = 0
            for _, size, path in entries:
                if total <= 0.9 * self.max_bytes:
                    break
                if path == keep:
                    continue
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink(missing_ok=True)  # a map that is open keeps its bytes until it is closed
                own += self._extras.pop(path.stem, None) is not None
                total -= size
                removed += 1
            self._bytes = total
        log.info("cache %s: %d arrays removed, %d MB allowed", self.folder, removed, self.max_bytes // 10**6)
        if own and not self._too_small:
            self._too_small = True
            log.warning("cache %s is too small for this run, arrays are built again and again", self.folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def cache_key(
    source_sha256: str,
    *,
    reader: str,
    lut_policy: str,
    operations: list[dict[str, Any]],
    affine: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Everything that a decoded array depends on, as the key of Cache.get.

    source_sha256: of the file. reader: version of the reader. lut_policy: how grey values were made. operations: the
    named operations with their versions and parameters, in order. affine: 3x3, of the crop, when it is known before.
    """
    return {
        "source": source_sha256,
        "reader": reader,
        "lut": lut_policy,
        "operations": operations,
        "affine": None if affine is None else np.asarray(affine, dtype=float).round(6).tolist(),
    }

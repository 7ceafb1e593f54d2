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

from domainseg.files import atomic_path, hash_json, read_json, sha256_file, write_json

log = logging.getLogger(__name__)

Build = Callable[[], tuple[NDArray[np.uint16], dict[str, Any]]]


class Cache:
    """Arrays by key, as <folder>/<first two digits>/<hash of the key>.npy with a .json beside it.

    The .json holds the key, the SHA-256 of the .npy and what ``build`` gave with the array (a crop's affine). An
    entry is verified when a process first opens it; a damaged one is built anew and the log says so. Files are
    written beside their place and renamed, so that processes may share a folder: at worst two build the same entry.
    folder: created when needed. max_bytes: above it the entries that were opened longest ago are removed.
    """

    def __init__(self, folder: Path | str, max_bytes: int) -> None:
        self.folder = Path(folder)
        self.max_bytes = int(max_bytes)
        self._verified: set[str] = set()
        self._bytes: int | None = None
        self.built = 0
        self.reused = 0

    def get(self, key: Mapping[str, Any], build: Build) -> tuple[NDArray[np.uint16], dict[str, Any]]:
        """The array (read-only memory map) and the extras of a key; ``build`` makes both when they are not there.

        key: everything that the array depends on, as JSON values; see ``cache_key``.
        """
        name = hash_json(dict(key))
        path = self.folder / name[:2] / f"{name}.npy"
        found = self._open(path, name)
        if found is not None:
            self.reused += 1
            return found
        array, extras = build()
        if array.dtype != np.uint16:
            raise TypeError(f"the cache holds uint16 arrays, not {array.dtype}")
        self._write(path, dict(key), array, extras)
        self.built += 1
        self._verified.add(name)
        return np.load(path, mmap_mode="r"), json.loads(json.dumps(extras))

    def summary(self) -> str:
        """One line for the log."""
        return f"cache {self.folder}: {self.built} built, {self.reused} reused"

    def _open(self, path: Path, name: str) -> tuple[NDArray[np.uint16], dict[str, Any]] | None:
        try:
            record = read_json(path.with_suffix(".json"))
            if name not in self._verified:
                if sha256_file(path) != record["sha256"]:
                    raise ValueError("its checksum is wrong")
                self._verified.add(name)
                os.utime(path)
            array = np.load(path, mmap_mode="r")
            return array, record["extras"]
        except FileNotFoundError:
            self._verified.discard(name)
            return None
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            log.warning("cache: entry %s is damaged (%s), built anew", name[:12], error)
            self._verified.discard(name)
            return None

    def _write(self, path: Path, key: dict[str, Any], array: NDArray[np.uint16], extras: dict[str, Any]) -> None:
        # both files change under the lock: readers that meet an old .json with a new .npy see a wrong sum and build
        with atomic_path(path) as temporary:
            with open(temporary, "wb") as stream:
                np.save(stream, np.ascontiguousarray(array))
            digest = sha256_file(temporary)
            with self._locked():
                write_json(path.with_suffix(".json"), {"sha256": digest, "extras": extras, "key": key})
        self._bytes = (self._size() if self._bytes is None else self._bytes) + path.stat().st_size
        if self._bytes > self.max_bytes:
            self._trim(keep=path)

    def _size(self) -> int:
        return sum(size for _, size, _ in self._entries())

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        for path in self.folder.glob("??/*.npy"):
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
            removed = 0
            for _, size, path in entries:
                if total <= 0.9 * self.max_bytes:
                    break
                if path == keep:
                    continue
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink(missing_ok=True)  # a map that is open keeps its bytes until it is closed
                self._verified.discard(path.stem)
                total -= size
                removed += 1
            self._bytes = total
        if removed:
            log.info("cache %s: %d entries removed to stay under %d MB", self.folder, removed, self.max_bytes // 10**6)

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

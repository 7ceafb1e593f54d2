"""The journal of a prediction: what is done survives whatever stops the rest."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from domainseg.bundle.schema import BundleError

log = logging.getLogger(__name__)

VERSION = 1
FLUSH_SECONDS = 1.0  # what a power failure may cost; a killed process loses nothing

_SUM = b', "sum": '  # in front of the checksum of what stands before it in the line

Row = dict[str, Any]


class Journal:
    """One JSON line a film with its checksum, behind a header line that says what predicts and what is predicted.

    A line cut off by a kill is dropped. Raises BundleError for a journal of another prediction, for a damaged one, and
    while another process writes it.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.done: set[str] = set()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a+b")  # noqa: SIM115
        try:
            self._lock()
            self._begin({"journal": VERSION, **header})
        except BaseException:
            self._file.close()
            raise
        self._flushed = time.monotonic()

    def add(self, image: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Note that a film is done."""
        self._write({"image": image, "rows": rows})
        self.done.add(image)

    def rows(self) -> Iterator[tuple[str, list[Row]]]:
        """(image, rows) of each film done, in the order in which they were."""
        self._file.flush()
        with open(self.path, "rb") as stream:
            stream.readline()
            for line in stream:
                entry = json.loads(line)
                yield entry["image"], entry["rows"]

    def close(self) -> None:
        """Flush to disk and let go of the file."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def remove(self) -> None:
        """Close and delete: the table is written."""
        self.close()
        self.path.unlink()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BundleError(f"{self.path}: another process is predicting into this folder") from None
        except OSError as error:
            log.warning("%s: no locks here (%s): let one process at a time predict into it", self.path, error.strerror)

    def _begin(self, header: Mapping[str, Any]) -> None:
        """Take up what is there, without a last line that was cut off; begin anew where there is nothing."""
        self._file.seek(0)
        length, first = 0, True
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            entry = self._entry(line, number)
            if first:
                self._compare(entry, header)
                first = False
            else:
                self.done.add(entry["image"])
            length += len(line)
        self._file.truncate(length)
        if first:
            self._write(header)
            os.fsync(self._file.fileno())

    def _entry(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            body, _, rest = line.rpartition(_SUM)
            entry = json.loads(line)
            whole = isinstance(entry, dict) and rest == b"%d}\n" % zlib.crc32(body)
            if whole and entry.keys() >= ({"journal"} if number == 1 else {"image", "rows"}):
                return {key: value for key, value in entry.items() if key != "sum"}
        except ValueError:
            pass
        raise BundleError(f"{self.path}: line {number} is damaged; delete the file to begin anew")

    def _compare(self, found: Mapping[str, Any], header: Mapping[str, Any]) -> None:
        differs = sorted(key for key in found.keys() | header.keys() if found.get(key) != header.get(key))
        if differs:
            raise BundleError(
                f"{self.path}: an unfinished prediction with other {', '.join(differs)} lies there; name another "
                "output folder, or delete the file, and overlays and masks beside it, to begin anew"
            )

    def _write(self, entry: Mapping[str, Any]) -> None:
        body = json.dumps(entry, default=_plain).encode()[:-1]
        self._file.write(b"%b%b%d}\n" % (body, _SUM, zlib.crc32(body)))
        self._file.flush()
        if time.monotonic() - getattr(self, "_flushed", 0.0) > FLUSH_SECONDS:
            os.fsync(self._file.fileno())
            self._flushed = time.monotonic()


def _plain(value: Any) -> Any:
    """Numbers of numpy as Python's: their JSON is read back to the last bit."""
    return value.item()

"""Read the header of every file below a folder once, in several processes, into a journal that survives a kill."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from domainseg.data.tables import ManifestError
from domainseg.imaging.dicom import Refusal, quiet
from domainseg.imaging.header import film_problem, read_values

log = logging.getLogger(__name__)

FORMAT = 1  # raised when a row of the journal changes its meaning
_CHUNK = 64  # files a task
_SYNC = 5.0  # seconds between two writes to disk that are waited for

File = tuple[str, int, int]  # path relative to the folder (with /), bytes, time of the last change in ns


@dataclass(frozen=True)
class Scan:
    """A finished scan. ``rows`` reads the journal again, one row at a time, so memory does not grow with it."""

    folder: Path
    journal: Path
    present: frozenset[int]

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row a file that is there: path, problem ("" = may be a film), values (tag -> text, films only)."""
        with open(self.journal, "rb") as stream:
            next(stream)
            for line in stream:
                row = json.loads(line)
                if _mark((row["path"], row["size"], row["time"])) in self.present:
                    yield row


def scan(folder: Path, journal: Path, tags: Sequence[str], workers: int | None = None) -> Scan:
    """Read the header values ``tags`` of every file below ``folder`` that the journal does not hold yet.

    journal: JSON lines, made with mode 600 (it holds patient data). Written by this process only, in whole lines; a
    half line that a kill left is cut off. A file whose size or time of change differs is read again.
    workers: processes; default as many as cores. Memory does not grow with the number of files but for 8-byte marks.
    Raises ManifestError when the journal belongs to another folder, or a reading process dies.
    """
    if not folder.is_dir():
        raise ManifestError(f"dicom={folder}: no such folder")
    done = _open_journal(journal, folder, tags)
    present = set()
    for file in walk(folder):
        present.add(_mark(file))
    todo = len(present - done)
    log.info("%d files, %d of them read before", len(present), len(present) - todo)
    missing = (file for file in walk(folder) if _mark(file) not in done)
    count = min(workers or os.cpu_count() or 1, 1 + todo // 512)
    columns = (TextColumn("reading headers"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with open(journal, "a", encoding="ascii") as stream, Progress(*columns) as progress:
        task = progress.add_task("headers", total=todo)
        synced = time.monotonic()
        for lines in _read_all(folder, missing, tags, count):
            stream.write("".join(line + "\n" for line in lines))
            stream.flush()
            if time.monotonic() - synced > _SYNC:
                os.fsync(stream.fileno())
                synced = time.monotonic()
            progress.advance(task, len(lines))
        os.fsync(stream.fileno())
    return Scan(folder, journal, frozenset(present))


def walk(folder: Path) -> Iterator[File]:
    """Every file below a folder, in the order of names. Size -1: it cannot be asked, or is a link to a folder, which is
    not entered (it may lead round in circles)."""
    stack = [""]
    while stack:
        below = stack.pop()
        try:
            with os.scandir(folder / below) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            yield below, -1, 0
            continue
        inner = []
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir(follow_symlinks=False):
                inner.append(path)
                continue
            try:
                status = entry.stat()
                if entry.is_dir():
                    yield path, -1, 0
                elif entry.is_file():
                    yield path, status.st_size, status.st_mtime_ns
            except OSError:  # a link to nowhere
                yield path, -1, 0
        stack += reversed(inner)


def read_one(folder: Path, file: File, tags: Sequence[str]) -> dict[str, Any]:
    """The journal's row of one file; nothing but a request to stop gets through."""
    path, size, changed = file
    row: dict[str, Any] = {"path": path, "size": size, "time": changed, "problem": "", "values": {}}
    try:
        path.encode()
    except UnicodeEncodeError:
        row["problem"] = "name_not_unicode"
        return row
    if size < 0 and (folder / path).is_symlink() and (folder / path).is_dir():
        row["problem"] = "linked_folder"
        return row
    try:
        values = read_values(folder / path, tags)
    except Refusal as refusal:
        row["problem"] = str(refusal)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # whatever a damaged header does to the parser; texts of errors can quote it
        row["problem"] = "unreadable"
    else:
        row["problem"] = film_problem(values)
        # Of what is no film only its identity is kept: the fewer names in the journal, the better.
        uid = {"SOPInstanceUID": values["SOPInstanceUID"]} if "SOPInstanceUID" in values else {}
        row["values"] = uid if row["problem"] else values
    return row


def _read_chunk(folder: Path, files: list[File], tags: Sequence[str]) -> list[str]:
    with quiet():
        return [json.dumps(read_one(folder, file, tags), separators=(",", ":")) for file in files]


def _read_all(folder: Path, files: Iterator[File], tags: Sequence[str], workers: int) -> Iterator[list[str]]:
    """The rows in chunks, as they come; never more than a few chunks wait."""
    if workers == 1:
        while chunk := list(islice(files, _CHUNK)):
            yield _read_chunk(folder, chunk, tags)
        return
    context = multiprocessing.get_context("spawn")
    waiting: set[Future[list[str]]] = set()
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_hush) as pool:
        try:
            while True:
                while len(waiting) < 4 * workers and (chunk := list(islice(files, _CHUNK))):
                    waiting.add(pool.submit(_read_chunk, folder, chunk, tags))
                if not waiting:
                    return
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        except BrokenProcessPool:
            raise ManifestError(
                "a process that reads headers died (out of memory, perhaps). Type the same command again, it goes on "
                "where it stopped; workers=1 needs least memory"
            ) from None
        finally:
            for future in waiting:
                future.cancel()


def _hush() -> None:
    warnings.simplefilter("ignore")


def _mark(file: File) -> int:
    """64 bits that stand for a file as it is now."""
    text = f"{file[1]}/{file[2]}/{file[0]}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def _open_journal(journal: Path, folder: Path, tags: Sequence[str]) -> set[int]:
    """Make the journal, or find what it holds; marks of the files that are in it."""
    head = {"format": FORMAT, "dicom": str(folder), "tags": list(tags)}
    done: set[int] = set()
    if journal.is_file():
        with open(journal, "rb+") as stream:
            try:
                found = json.loads(stream.readline())
            except ValueError:
                found = {}
            if found and found.get("dicom") != head["dicom"]:
                raise ManifestError(
                    f"{journal.parent.parent}: holds the manifest of another DICOM folder; name another output. "
                    f"With key={journal.parent / 'patient.key'} (or the one you gave) the names stay the same"
                )
            if found == head:
                end = stream.tell()
                for line in stream:
                    try:
                        row = json.loads(line)
                    except ValueError:
                        break
                    if not line.endswith(b"\n"):
                        break
                    done.add(_mark((row["path"], row["size"], row["time"])))
                    end += len(line)
                stream.truncate(end)
                return done
        log.info("the rules ask for other tags than before: all headers are read again")
        journal.unlink()
    with os.fdopen(os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as stream:
        stream.write(json.dumps(head) + "\n")
    return done

"""Simulate a data set into a folder: films or exams, their masks, the manifest's two tables."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from domainseg.files import DomainsegError, atomic_path, hash_json, read_json, remove_partial, write_json
from domainseg.phantom import film_rows
from domainseg.phantom.chest.settings import ChestSettings
from domainseg.phantom.heads.settings import HeadSettings
from domainseg.phantom.settings import Settings

#: Raised with every change of what a film or an exam looks like: data made by another version is not reused.
VERSIONS = {"pelvis": "9", "head": "6", "chest": "3"}
VERSION = VERSIONS["pelvis"]
AnySettings = Settings | HeadSettings | ChestSettings
_SETTINGS: Mapping[str, type[AnySettings]] = {"pelvis": Settings, "head": HeadSettings, "chest": ChestSettings}

PAINTED = "4"  # likewise, of what is painted into a base


def version_of(kind: str, base: str | None) -> str:
    """The version of what is simulated, or painted into a base."""
    return VERSIONS[kind] if base is None else f"{VERSIONS[kind]} painted {PAINTED}"


_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def simulate(cfg: Mapping[str, Any], output: Path) -> None:
    """Write ``n`` films or exams with truth into ``output``: images/, masks/, images and targets as Parquet and CSV.

    cfg: kind (pelvis, head or chest), n, workers (processes; default as many as cores) and the keys of ``Settings``,
    ``HeadSettings`` or ``ChestSettings``. What is complete in the folder is kept, so an interrupted simulation goes on
    where it stopped; a folder made with other settings is refused. The bytes do not depend on ``workers``.
    """
    chosen = dict(cfg)
    chosen.pop("output", None)
    kind = chosen.pop("kind", "pelvis")
    if kind not in VERSIONS:
        raise DomainsegError(f"phantom.kind must be one of {', '.join(VERSIONS)}, got {kind!r}")
    n = int(chosen.pop("n"))
    workers = int(chosen.pop("workers", None) or os.cpu_count() or 1)
    settings = _SETTINGS[kind].of(chosen)
    if n < 1:
        raise DomainsegError(f"phantom.n must be 1 or more, got {n}")
    output = Path(output)
    version = version_of(kind, getattr(settings, "base", None))
    key = hash_json({"version": version, "settings": settings.plain()})
    record = output / "phantom.json"
    if record.is_file() and read_json(record)["key"] != key:
        raise DomainsegError(f"{output} holds what was simulated with other settings; name an empty folder")
    remove_partial(output)
    write_json(record, {"key": key, "version": version, "settings": settings.plain()})
    jobs = [(index, settings, output, key) for index in range(n)]
    rows: dict[int, dict[str, Any]] = {}
    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(kind, total=n)
        if workers == 1 or n == 1:
            for job in jobs:
                rows[job[0]] = _one(job)
                progress.advance(task)
        else:
            context = multiprocessing.get_context("spawn")
            before = {name: os.environ.get(name) for name in _THREADS}
            os.environ.update(dict.fromkeys(_THREADS, "1"))
            try:
                with ProcessPoolExecutor(min(workers, n), mp_context=context, initializer=_end_with_parent) as pool:
                    futures = {pool.submit(_one, job): job[0] for job in jobs}
                    for future in as_completed(futures):
                        rows[futures[future]] = future.result()
                        progress.advance(task)
            finally:
                for name, value in before.items():
                    if value is None:
                        os.environ.pop(name, None)
                    else:
                        os.environ[name] = value
    ordered = [rows[index] for index in range(n)]
    _table([row["image"] for row in ordered], output / "images")
    _table([target for row in ordered for target in row["targets"]], output / "targets")


def _end_with_parent() -> None:
    """In a worker: end when the process that started it is killed, instead of waiting for work for ever."""

    def watch(parent: Any) -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, args=[multiprocessing.parent_process()], daemon=True).start()


def _table(rows: list[dict[str, Any]], path: Path) -> None:
    frame = pd.DataFrame(rows)
    with atomic_path(path.with_suffix(".parquet")) as temporary:
        frame.to_parquet(temporary, index=False)
    with atomic_path(path.with_suffix(".csv")) as temporary:
        frame.to_csv(temporary, index=False)


def _one(job: tuple[int, AnySettings, Path, str]) -> dict[str, Any]:
    """Write one film or exam, or find it complete; returns its rows of both tables."""
    index, settings, output, key = job
    cv2.setNumThreads(1)
    done = output / "rows" / f"{index:06d}.json"
    if done.is_file():
        found: dict[str, Any] = read_json(done)
        if found["key"] == key and all((output / name).is_file() for name in found["files"]):
            return found
    if isinstance(settings, HeadSettings):
        from domainseg.phantom.heads import files as exam_files  # late: scipy, which --help has no time for

        row = exam_files.write(settings, index, output)
    elif isinstance(settings, ChestSettings):
        from domainseg.phantom.chest import files as chest_files

        row = chest_files.write(settings, index, output)
    else:
        row = film_rows.write(settings, index, output)
    row["key"] = key
    write_json(done, row)
    return row

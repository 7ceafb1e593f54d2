"""Simulate a data set into a folder: films as DICOM, masks as PNG, the manifest's two tables."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from domainseg.files import DomainsegError, atomic_path, hash_json, read_json, remove_partial, write_bytes, write_json
from domainseg.phantom.dicom import station, write_film
from domainseg.phantom.film import SimulatedFilm, film
from domainseg.phantom.settings import Settings

#: Raised with every change of what a film looks like: data made by another version is not reused.
VERSION = "8"

_VIEWS = {"pelvis_ap": "hip_frontal", "hip_ap": "hip_frontal", "hip_lateral": "hip_other", "frog_leg": "hip_other"}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def simulate(cfg: Mapping[str, Any], output: Path) -> None:
    """Write ``n`` films with their truth into ``output``: images/, masks/, images and targets as Parquet and CSV.

    cfg: n, workers (processes; default as many as cores) and the keys of ``Settings``. Films that are complete in the
    folder are kept, so an interrupted simulation goes on where it stopped; a folder made with other settings is
    refused. The bytes do not depend on ``workers``.
    """
    chosen = dict(cfg)
    chosen.pop("output", None)
    n = int(chosen.pop("n"))
    workers = int(chosen.pop("workers", None) or os.cpu_count() or 1)
    settings = Settings.of(chosen)
    if n < 1:
        raise DomainsegError(f"phantom.n must be 1 or more, got {n}")
    output = Path(output)
    key = hash_json({"version": VERSION, "settings": settings.plain()})
    record = output / "phantom.json"
    if record.is_file() and read_json(record)["key"] != key:
        raise DomainsegError(f"{output} holds films of other settings; name an empty folder")
    remove_partial(output)
    write_json(record, {"key": key, "version": VERSION, "settings": settings.plain()})
    jobs = [(index, settings, output, key) for index in range(n)]
    rows: dict[int, dict[str, Any]] = {}
    columns = (TextColumn("simulating films"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("films", total=n)
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


def _one(job: tuple[int, Settings, Path, str]) -> dict[str, Any]:
    """Write one film, or find it complete; returns its rows of both tables."""
    index, settings, output, key = job
    cv2.setNumThreads(1)
    done = output / "rows" / f"{index:06d}.json"
    if done.is_file():
        found: dict[str, Any] = read_json(done)
        if found["key"] == key and all((output / name).is_file() for name in found["files"]):
            return found
    made = film(settings.seed, index, settings)
    row = _rows(made, output)
    row["key"] = key
    write_json(done, row)
    return row


def _rows(made: SimulatedFilm, output: Path) -> dict[str, Any]:
    plan = made.plan
    path = f"images/{plan.image}.dcm"
    write_film(made, output / path)
    files = [path]
    image = {
        "image": plan.image,
        "path": path,
        "patient": plan.patient,
        "group": plan.patient,
        "study": plan.study,
        "series": plan.series,
        "site": plan.site,
        "department": plan.department,
        "scanner": station(made),
        "view": {"pelvis_ap": "AP", "hip_ap": "AP", "hip_lateral": "LL", "frog_leg": "FROG"}.get(plan.view, "OTHER"),
        "projection": plan.view,
        "body_part": plan.part,
        "portable": int(plan.portable),
        "date": plan.date,
        "age": plan.age,
        "sex": plan.sex,
    }
    view = _VIEWS.get(plan.view, "other")
    targets: list[dict[str, Any]] = []
    if view == "hip_frontal":
        shown = {hip.part for hip in made.hips}
        absent = [part for part in ("hip_left", "hip_right") if part not in shown]
        targets += [{"image": plan.image, "part": part, "label_localizer": 0} for part in absent]
    for hip in made.hips:
        row: dict[str, Any] = {
            "image": plan.image,
            "part": hip.part,
            "side": hip.side,
            "label_localizer": 1,
            "label_implant_filter": int(bool(hip.implant)),
            "label_fracture": int(bool(hip.fracture_class)),
            "label_location": hip.location,
            "x": round(hip.x, 2),
            "y": round(hip.y, 2),
            "diameter": round(hip.diameter, 2),
            "femur_mask": f"masks/{plan.image}_{hip.part}_femur.png",
            "implant": hip.implant,
            "fracture_class": hip.fracture_class,
            "fracture_place": hip.place,
            "fracture_width_mm": None if np.isnan(hip.width_mm) else round(hip.width_mm, 3),
            "displacement_mm": None if np.isnan(hip.displacement_mm) else round(hip.displacement_mm, 3),
        }
        _mask(output / row["femur_mask"], hip.femur)
        files.append(row["femur_mask"])
        if hip.line is not None:
            row["mask"] = f"masks/{plan.image}_{hip.part}_fracture.png"
            _mask(output / row["mask"], hip.line)
            files.append(row["mask"])
        targets.append(row)
    whole: dict[str, Any] = {
        "image": plan.image,
        "part": "whole",
        "label_view_filter": int(view == "hip_frontal"),
        "label_view": view,
        "label_turn": plan.turns,
    }
    if made.hips:
        whole["label_fracture"] = int(any(hip.fracture_class for hip in made.hips))
    return {"image": image, "targets": [*targets, whole], "files": files}


def _mask(path: Path, mask: NDArray[np.bool_]) -> None:
    flags = [cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 1]
    write_bytes(path, cv2.imencode(".png", mask.astype(np.uint8) * 255, flags)[1].tobytes())  # imwrite hides errors

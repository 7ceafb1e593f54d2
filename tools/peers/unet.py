"""Our U-Net on slabs, with the pipeline's own training; its schedule ends when the minutes do."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from domainseg.cascade.volumes import windowed
from domainseg.imaging.hemorrhage import TYPES
from domainseg.tasks.fit import FitContext
from domainseg.tasks.hemorrhage import fit_hemorrhage
from domainseg.tasks.hemorrhage_items import HU_ZERO, Exam
from domainseg.training.stages import module_of, new_stage
from peers.cells import steps_in
from peers.exams import Prepared, Sets


def fit(sets: Sets, folder: Path, *, minutes: float, seed: int, python: Path) -> dict[str, Any]:
    """Train; what was done, and a function from an exam to codes [Z, H, W]."""
    torch.set_num_threads(1)
    settings: Any = sets.settings["stage"]
    settings = settings["hemorrhage"]
    task = {key: value for key, value in settings["task"].items() if key != "_target_"}
    task["exams"] = {**task["exams"], "steps": 0}
    precision = str(sets.settings["trainer"]["precision"])  # type: ignore[index]
    items = [_exam(exam) for exam in sets.splits["train"]]

    def train(steps: int, name: str) -> tuple[Any, float]:
        stage = new_stage("hemorrhage", settings, "cpu", seed=seed)
        context = FitContext(folder / name, seed=seed, precision=precision, checkpoint_every=10**6)
        began = time.process_time()
        fit_hemorrhage(module_of(stage), items, context, **{**task, "dense": {**task["dense"], "steps": steps}})
        return stage, time.process_time() - began

    steps = steps_in(minutes, lambda count: train(count, f"trial-{count}")[1])
    stage, seconds = train(steps, "fit")
    windows = settings["preprocessing"][1:]
    slices = int(settings["preprocessing"][0]["slices"])

    def predict(exam: Prepared) -> NDArray[np.uint8]:
        slabs = windowed(exam.load()[0].astype(np.float32), slices, windows)
        mask = np.concatenate([stage.network(slabs[start : start + 8])["mask"] for start in range(0, len(slabs), 8)])
        kind = 1 + np.argmax(mask[:, 1:], axis=1)
        return np.where(mask[:, 0] > 0, kind, 0).astype(np.uint8)

    curve = [(int(row["step"]), float(row["loss"])) for row in _rows(folder / "fit" / "dense.csv")]
    return {"steps": steps, "train_seconds": round(seconds, 1), "curve": curve, "predict": predict}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return [row for row in csv.DictReader(stream) if row.get("loss")]


def _exam(exam: Prepared) -> Exam:
    hu, codes, _ = exam.load()
    planes = np.stack([np.clip(hu.astype(np.int32) + HU_ZERO, 0, 4095).astype(np.uint16), codes.astype(np.uint16)])
    truth = {"hemorrhage": float(codes.any()), **{t: float((codes == k).any()) for k, t in enumerate(TYPES, 1)}}
    slices = np.full((len(codes), 1 + len(TYPES)), np.nan)  # the masks say it
    return Exam(exam.image, "head", lambda: planes, truth, has_mask=True, slices=slices)

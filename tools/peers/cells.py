"""One network trained for a number of minutes: what it outlines on the test exams, and the table of all of them."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench.machine import machine
from numpy.typing import NDArray

from domainseg.cascade.overlap import dice, surface_mm
from domainseg.evaluation import weighted
from domainseg.files import write_json
from domainseg.imaging.hemorrhage import CODES, TYPES
from peers.exams import Prepared, Sets

NAMES = ("hemorrhage", *TYPES)
WARM, TRIAL = 4, 16  # steps of the two trials that tell how long a step takes: the first ones are slower
Predict = Callable[[Prepared], NDArray[np.uint8]]


def train(network: str, sets: Sets, output: Path, *, minutes: float, seed: int, python: Path) -> None:
    """Train a cell unless it has been: its folder holds what the network leaves, its file what was measured."""
    name = f"{network}-{minutes:g}min-seed{seed}"
    file = output / "cells" / f"{name}.json"
    if file.is_file():
        return
    fit = importlib.import_module(f"peers.{network}").fit
    print(f"peers: {name} ...", flush=True)
    about = machine()
    fitted = fit(sets, output / "work" / name, minutes=minutes, seed=seed, python=python)
    began = time.monotonic()
    exams = [score(exam, fitted["predict"]) for exam in sets.splits["test"]]
    record = {key: value for key, value in fitted.items() if key != "predict"}
    write_json(
        file,
        {
            "network": network,
            "minutes": minutes,
            "seed": seed,
            **record,
            "predict_seconds": round(time.monotonic() - began, 1),
            "machine": about,
            "exams": exams,
        },
    )


def steps_in(minutes: float, seconds: Callable[[int], float]) -> int:
    """How many steps fill the minutes, from the seconds that trials of so many steps take."""
    one = (seconds(TRIAL) - seconds(WARM)) / (TRIAL - WARM)
    return max(TRIAL, int(minutes * 60 / one))


def score(exam: Prepared, predict: Predict) -> dict[str, Any]:
    """Dice and surface distance (mm) of an exam by type, where the truth has it: a missed one has Dice 0."""
    _, codes, spacing = exam.load()
    found = predict(exam)
    if found.shape != codes.shape:
        raise ValueError(f"{exam.image}: outlines of {found.shape} for an exam of {codes.shape}")
    affine = np.diag([*spacing, 1.0])
    row: dict[str, Any] = {"image": exam.image, "false_ml": None}
    voxel = float(np.prod(spacing)) / 1000
    if not codes.any():
        row["false_ml"] = float((found > 0).sum() * voxel)
    for name in NAMES:
        truth = codes > 0 if name == "hemorrhage" else codes == CODES[name]
        if truth.any():
            mine = found > 0 if name == "hemorrhage" else found == CODES[name]
            row[f"dice_{name}"] = dice(mine, truth)
            row[f"surface_{name}"] = surface_mm(mine, truth, affine)
    return row


def table(output: Path) -> str:
    """All cells of a folder as Markdown: mean over exams of the mean over seeds, 95 % intervals over exams."""
    cells = [json.loads(path.read_text()) for path in sorted((output / "cells").glob("*.json"))]
    if not cells:
        return f"no cells in {output} yet"
    groups: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["minutes"], cell["network"]), []).append(cell)
    lines = [
        "Dice: mean over the test exams that have the type, a missed one counting 0 (95 % bootstrap interval over",
        "exams; seeds are averaged first). Surface: mean symmetric distance in mm where both outlined something. False",
        "ml: mean outlined in exams without a bleed. Difference: our U-Net minus the other, Dice of any, same exams.",
        "",
        "| network | minutes, of which used | seeds | steps | " + " | ".join(f"Dice {name} (n)" for name in NAMES)
        + " | surface, any | false ml | difference |",
        "|" + "---|" * (len(NAMES) + 7),
    ]  # fmt: skip
    for (minutes, network), members in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1] != "unet")):
        ours = groups.get((minutes, "unet"))
        used = np.mean([member["train_seconds"] for member in members]) / 60
        cell = [
            network,
            f"{minutes:g}, {used:.1f}",
            ", ".join(str(m["seed"]) for m in members),
            _range(members, "steps"),
        ]
        cell += [_mean(_by_exam(members, f"dice_{name}")) for name in NAMES]
        cell += [_mean(_by_exam(members, "surface_hemorrhage")), _mean(_by_exam(members, "false_ml"))]
        cell.append(_mean(_gap(ours, members)) if ours and network != "unet" else "")
        lines.append("| " + " | ".join(cell) + " |")
    return "\n".join(lines)


def _by_exam(cells: Sequence[dict[str, Any]], key: str) -> dict[str, float]:
    """Mean over cells of what each exam has."""
    held: dict[str, list[float]] = {}
    for cell in cells:
        for exam in cell["exams"]:
            value = exam.get(key)
            if value is not None and np.isfinite(value):
                held.setdefault(exam["image"], []).append(float(value))
    return {image: float(np.mean(values)) for image, values in held.items()}


def _gap(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> dict[str, float]:
    a, b = _by_exam(ours, "dice_hemorrhage"), _by_exam(theirs, "dice_hemorrhage")
    return {image: a[image] - b[image] for image in a if image in b}


def _mean(values: dict[str, float]) -> str:
    if not values:
        return "-"
    held = np.array(list(values.values()))
    found = weighted(lambda w: w @ held / w.sum(axis=1), np.array(list(values), dtype=str))
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f}; {found['n']})"


def _range(cells: Sequence[dict[str, Any]], key: str) -> str:
    values = sorted({int(cell[key]) for cell in cells})
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"

"""How far a trained fracture network's logits move between train mode (batch statistics) and eval mode.

Test ROIs of the run go through the network in eval mode, in train mode in batches of the size that 1024 px allow, and
in train mode with the statistics held (freeze_norm), which is how whole ROIs are trained.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from numpy.typing import NDArray

from bench.measure import Options, Row, Section, Skipped, Target, ratio_row
from domainseg.cascade.cascade import Cascade
from domainseg.cascade.case import Case
from domainseg.cascade.operations import preprocess
from domainseg.cascade.stages import Stage
from domainseg.evaluation.roc import auc
from domainseg.imaging import read_film
from domainseg.networks import FractureDenseNet
from domainseg.training.run import load_data
from domainseg.training.stages import load_cascade, module_of

HIPS, BATCH = 64, 2


def measure(options: Options) -> Section:
    """Rows of the change of each ROI's logit against the spread of logits over ROIs."""
    if options.run is None:
        raise Skipped("needs a trained network: --run RUN")
    stages = load_cascade(options.run, "cpu")
    network = module_of(stages[-1])
    assert isinstance(network, FractureDenseNet)
    pictures, labels = rois(options.run, stages, min(HIPS, options.films))
    return Section(
        f"{len(labels)} test ROIs of the run. In place of seconds: the change of a ROI's logit from eval mode.",
        gaps(network, pictures, labels),
    )


def gaps(network: FractureDenseNet, pictures: torch.Tensor, labels: NDArray[np.float64]) -> list[Row]:
    """Rows for ROIs float32 [N, 1, H, W] with fracture labels [N]."""
    modes = {
        f"train mode, batches of {BATCH}": copy.deepcopy(network).train(),
        "train mode, statistics held": copy.deepcopy(network).freeze_norm().train(),
    }
    base = logits(network.eval(), pictures)
    spread = [float(base.std())] * len(base)
    rows = []
    for name, module in modes.items():
        values = logits(module, pictures)
        note = f"AUC {area(labels, values):.3f}, in eval mode {area(labels, base):.3f}"
        target = Target(0.01, most=True) if "held" in name else None
        rows.append(ratio_row(name, "SD of the logit", np.abs(values - base).tolist(), spread, target, note))
    return rows


def area(labels: NDArray[np.float64], values: NDArray[np.float32]) -> float:
    """AUC."""
    return auc(labels, values.astype(np.float64))["value"]


def rois(run: Path, stages: list[Stage], count: int) -> tuple[torch.Tensor, NDArray[np.float64]]:
    """The first test ROIs with a known label that reach the last stage: float32 [N, 1, 1024, 1024] and labels."""
    table = pd.read_parquet(run / "predictions.parquet")
    table = table[(table["split"] == "test") & (table["excluded_by"] == "") & table["label_fracture"].notna()]
    manifest = load_data(yaml.safe_load((run / "config.yaml").read_text()))
    before, last = Cascade(stages[:-1]), stages[-1]
    found, labels = [], []
    for image, rows in table.groupby("image", sort=True):
        cases = {case.part: case for case in before.run(Case.of(str(image), read_film(manifest.path(str(image)))))}
        for part, label in zip(rows["part"], rows["label_fracture"], strict=True):
            case = cases[part]
            assert isinstance(case, Case)
            found.append(preprocess(case, last.preprocessing).pixels)
            labels.append(label)
        if len(found) >= count:
            break
    return torch.from_numpy(np.stack(found))[:, None], np.array(labels, np.float64)


@torch.no_grad()
def logits(network: FractureDenseNet, pictures: torch.Tensor) -> NDArray[np.float32]:
    """Fracture logits, in batches of one size."""
    whole = len(pictures) // BATCH * BATCH
    parts = [network(pictures[k : k + BATCH])["fracture"] for k in range(0, whole, BATCH)]
    rest = [network(pictures[-BATCH:])["fracture"][whole - len(pictures) :]] if whole < len(pictures) else []
    return np.asarray(torch.cat(parts + rest).numpy())

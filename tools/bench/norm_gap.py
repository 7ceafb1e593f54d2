"""How far a trained fracture network's logits move between train mode (batch statistics) and eval mode.

    python tools/bench/norm_gap.py RUN [--hips 64] [--batch 2] [--output DIR]

RUN is a finished run of +pipeline=hip on simulated films. Its test ROIs go through the network in eval mode, in train
mode in batches of the size that 1024 px allow, and in train mode with the statistics held (freeze_norm), which is how
whole ROIs are trained. Prints a Markdown table and writes DIR/norm_gap.json (default outputs/bench).
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from domainseg.cascade.cascade import Cascade
from domainseg.cascade.case import Case
from domainseg.cascade.operations import preprocess
from domainseg.evaluation.roc import auc
from domainseg.files import write_json
from domainseg.imaging import read_film
from domainseg.networks import FractureDenseNet
from domainseg.training.run import load_data
from domainseg.training.stages import load_cascade, module_of


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--hips", type=int, default=64)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("outputs/bench"))
    arguments = parser.parse_args()
    stages = load_cascade(arguments.run, "cpu")
    network = module_of(stages[-1])
    assert isinstance(network, FractureDenseNet)
    pictures, labels = rois(arguments.run, stages, arguments.hips)
    modes = {
        "eval": network.eval(),
        f"train, batches of {arguments.batch}": copy.deepcopy(network).train(),
        "train, statistics held": copy.deepcopy(network).freeze_norm().train(),
    }
    logits = {name: run(module, pictures, arguments.batch) for name, module in modes.items()}
    spread = float(logits["eval"].std())
    rows = []
    for name, values in logits.items():
        gap = float(np.abs(values - logits["eval"]).mean())
        area = auc(labels, values, np.arange(len(labels)).astype(str))["value"]
        rows.append({"mode": name, "mean_gap": gap, "gap_in_sd": gap / spread, "auc": area, "n": len(labels)})
    print("| mode | mean absolute change of the logit | in SD of the logit | AUC | n |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row['mode']} | {row['mean_gap']:.3f} | {row['gap_in_sd']:.3f} | {row['auc']:.3f} | {row['n']} |")
    write_json(arguments.output / "norm_gap.json", rows)


def rois(run: Path, stages: Any, count: int) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
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
    return torch.from_numpy(np.stack(found))[:, None], np.array(labels)


@torch.no_grad()
def run(network: FractureDenseNet, pictures: torch.Tensor, batch: int) -> np.ndarray[Any, Any]:
    """Fracture logits, in batches of one size."""
    whole = len(pictures) // batch * batch
    parts = [network(pictures[k : k + batch])["fracture"] for k in range(0, whole, batch)]
    rest = [network(pictures[-batch:])["fracture"][whole - len(pictures) :]] if whole < len(pictures) else []
    return torch.cat(parts + rest).numpy()


if __name__ == "__main__":
    main()

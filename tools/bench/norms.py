"""How far a trained fracture network's logits move between train mode (batch statistics) and eval mode.

ROIs that the run's cascade cuts from simulated films go through the network in eval mode, in train mode in batches of
the size that 1024 px allow, and in train mode with the statistics held (freeze_norm), as whole ROIs are trained.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray

from bench.measure import Options, Row, Section, Skipped, Target, ratio_row
from bench.models import cascade, films
from domainseg.cascade.cascade import Cascade
from domainseg.cascade.case import Case
from domainseg.cascade.operations import preprocess
from domainseg.imaging import read_film
from domainseg.networks import FractureDenseNet
from domainseg.training.stages import module_of

HIPS, BATCH = 64, 2


def measure(options: Options) -> Section:
    """Rows of the change of each ROI's logit against the spread of logits over ROIs."""
    if options.run is None:
        raise Skipped("needs a trained network: --run RUN")
    stages = cascade(options)
    network = module_of(stages[-1])
    assert isinstance(network, FractureDenseNet)
    before, pictures = Cascade(stages[:-1]), []
    for path in films(options):
        cases = [case for case in before.run(Case.of(path.name, read_film(path))) if isinstance(case, Case)]
        pictures += [preprocess(case, stages[-1].preprocessing).pixels for case in cases]
        if len(pictures) >= min(HIPS, options.films):
            break
    about = f"{len(pictures)} ROIs of simulated films. In place of seconds: how far a ROI's logit moves from eval mode."
    return Section(about, gaps(network, torch.from_numpy(np.stack(pictures))[:, None]))


def gaps(network: FractureDenseNet, pictures: torch.Tensor) -> list[Row]:
    """Rows for ROIs float32 [N, 1, H, W]."""
    modes = {
        f"train mode, batches of {BATCH}": copy.deepcopy(network).train(),
        "train mode, statistics held": copy.deepcopy(network).freeze_norm().train(),
    }
    base = logits(network.eval(), pictures)
    spread = [float(base.std())] * len(base)
    return [
        ratio_row(
            name, "SD of the logit", np.abs(logits(module, pictures) - base).tolist(), spread,
            Target(0.01, most=True) if "held" in name else None,
        )
        for name, module in modes.items()
    ]  # fmt: skip


@torch.no_grad()
def logits(network: FractureDenseNet, pictures: torch.Tensor) -> NDArray[np.float32]:
    """Fracture logits, in batches of one size."""
    whole = len(pictures) // BATCH * BATCH
    parts = [network(pictures[k : k + BATCH])["fracture"] for k in range(0, whole, BATCH)]
    rest = [network(pictures[-BATCH:])["fracture"][whole - len(pictures) :]] if whole < len(pictures) else []
    return np.asarray(torch.cat(parts + rest).numpy())

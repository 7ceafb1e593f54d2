"""A finished run as what the predict command runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from domainseg.bundle.kinds import is_bundle
from domainseg.bundle.model import Model, threads_a_worker
from domainseg.cascade.stages import Stage
from domainseg.files import hash_json, read_json
from domainseg.training.stages import RECORD, RunError, load_cascade


def run_model(cfg: Mapping[str, Any]) -> Model:
    """The model of ``run=``, on torch. Raises RunError for a folder that is no finished run, or damaged."""
    run, accelerator = Path(cfg["run"]), str(cfg["accelerator"])
    if is_bundle(run):
        raise RunError(f"run={run}: is a bundle; give it as bundle={run}")
    stages = load_cascade(run, "cpu")
    records = [read_json(run / "stages" / stage.name / RECORD) for stage in stages]
    return Model(
        load=partial(_load, run, accelerator, threads_a_worker(cfg)),
        stages=stages,
        identity={"run": hash_json(records), "accelerator": accelerator},
    )


def _load(run: Path, accelerator: str, threads: int) -> Sequence[Stage]:
    torch.set_num_threads(threads)
    return load_cascade(run, accelerator)

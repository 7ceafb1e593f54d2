"""Sweeps of runs in two processes: every process of a job gets the job's settings, and nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from domainseg.data.manifest import Manifest
from domainseg.files import read_json
from domainseg.training.run import train

HERE = Path(__file__).parent
LIMIT = 300  # seconds after which a sweep has failed
SWEPT = "stage.fracture.task.weight"


@pytest.fixture
def folder(toy_cfg: dict[str, Any], toy_films: Manifest, tmp_path: Path) -> Path:
    """A folder with the pipeline of toys and the tables of their films."""
    for stage in toy_cfg["stage"].values():
        stage["task"] = {"_target_": "toy_networks.fit_and_note", "weight": 0.0}
    toys = {key: toy_cfg[key] for key in ("pipeline", "stages", "target", "rois", "stage")}
    (tmp_path / "groups/pipeline").mkdir(parents=True)
    defaults = {"defaults": [{"override /data": "manifest"}, "_self_"]}
    text = yaml.safe_dump({**defaults, **toys}, sort_keys=False)
    (tmp_path / "groups/pipeline/toys.yaml").write_text(f"# @package _global_\n{text}")
    toy_films.images.to_csv(tmp_path / "images.csv", index=False)
    toy_films.targets.to_csv(tmp_path / "targets.csv", index=False)
    return tmp_path


def run(folder: Path, films: Manifest, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "domainseg.train", "--config-dir", "groups", "+pipeline=toys", "export=false"]
    command += ["trainer=ddp_cpu", "trainer.threads=1", "trainer.precision=fp32", "trainer.loggers=[]"]
    command += ["data.path=images.csv", "data.targets=targets.csv", f"data.root={films.root}", "cache.folder=cache"]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *argv], cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )


SWEEPERS = {
    "basic": [f"{SWEPT}=0.5,2"],
    "optuna": [f"{SWEPT}=interval(0.1,1.0)", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2"],
}


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT)
@pytest.mark.parametrize("sweeper", SWEEPERS)
def test_every_process_of_a_job_trains_the_job(
    sweeper: str, folder: Path, toy_films: Manifest, toy_cfg: dict[str, Any]
) -> None:
    """With Lightning's own launcher the second process sweeps by itself, and a sweeper proposes it other settings."""
    done = run(folder, toy_films, "-m", "output=a, b=c", *SWEEPERS[sweeper])
    assert done.returncode == 0, done.stderr
    sweep = folder / "a, b=c"
    weights = []
    for job in ("0", "1"):
        notes = [read_json(sweep / job / f"stages/fracture/process_{rank}.json") for rank in (0, 1)]
        assert notes[0] == notes[1]
        assert notes[0]["processes"] == 2
        wanted = yaml.safe_load((sweep / job / "config.yaml").read_text())["stage"]["fracture"]["task"]["weight"]
        assert notes[0]["weight"] == wanted
        weights.append(wanted)
        configs = [process["config_sha256"] for process in read_json(sweep / job / "environment.json")["processes"]]
        assert len(configs) == 2
        assert configs[0] == configs[1]
        assert {"report.html", "metrics.json", "predictions.csv", "train.log"} <= {
            p.name for p in (sweep / job).iterdir()
        }
    assert len(set(weights)) == 2
    if sweeper == "basic":
        assert weights == [0.5, 2]
    summary = read_json(sweep / "sweep.json")
    assert [job["status"] for job in summary["jobs"]] == ["finished", "finished"]
    assert [float(job[SWEPT]) for job in summary["jobs"]] == pytest.approx(weights)
    one_process(sweep / "0", folder / "alone")


def one_process(job: Path, folder: Path) -> None:
    """The table of two processes is that of one: no film twice, none missing, every number the same."""
    cfg = yaml.safe_load((job / "config.yaml").read_text())
    cfg["trainer"] |= {"devices": 1, "accelerator": "cpu"}
    folder.mkdir()
    train({**cfg, "output": str(folder)}, folder)
    tables = [pd.read_csv(run / "predictions.csv").drop(columns=["patient"]) for run in (job, folder)]
    names = [column for column in tables[0] if column not in ("group", "bundle_sha256")]
    pd.testing.assert_frame_equal(tables[0][names], tables[1][names], check_exact=True)
    notes = [json.loads((run / "stages/fracture/process_0.json").read_text()) for run in (job, folder)]
    assert notes[0]["images"] == notes[1]["images"]

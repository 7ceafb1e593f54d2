"""Sweeps of runs in two processes: every process of a job gets the job's settings, and nothing is left behind."""

from __future__ import annotations

import json
import os
import socket
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
    "basic": [f"{SWEPT}=0.5,-1,2"],
    "optuna": [f"{SWEPT}=interval(0.1,1.0)", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2"],
}


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT)
@pytest.mark.parametrize("sweeper", SWEEPERS)
def test_every_process_of_a_job_trains_the_job(
    sweeper: str, folder: Path, toy_films: Manifest, toy_cfg: dict[str, Any]
) -> None:
    """With Lightning's own launcher the second process sweeps by itself, and a sweeper proposes it other settings.

    A job whose second process fails ends, without a hang, and leaves nothing that the next job would meet.
    """
    done = run(folder, toy_films, "-m", "output=a, b=c", *SWEEPERS[sweeper])
    sweep = folder / "a, b=c"
    summary = read_json(sweep / "sweep.json")
    status = {job["job"]: job["status"] for job in summary["jobs"]}
    if sweeper == "basic":
        assert done.returncode == 1
        assert status == {"0": "finished", "1": "failed", "2": "finished"}
        assert "process 1 of the run failed: fracture: no weight of -1" in summary["jobs"][1]["error"]
        assert "job 1: process 1 of the run failed" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert status == {"0": "finished", "1": "finished"}
    finished = [job for job in status if status[job] == "finished"]
    weights = [check_job(sweep / job) for job in finished]
    assert weights == ([0.5, 2] if sweeper == "basic" else sorted(set(weights), key=weights.index))
    assert [float(job[SWEPT]) for job in summary["jobs"] if job["job"] in finished] == pytest.approx(weights)
    if sweeper == "basic":
        one_process(sweep / "2", folder / "alone")


def check_job(job: Path) -> float:
    """Both processes had the settings of the job's config.yaml; the folder is complete. Returns the swept one."""
    notes = [read_json(job / f"stages/fracture/process_{rank}.json") for rank in (0, 1)]
    assert notes[0] == notes[1]
    assert notes[0]["processes"] == 2
    wanted: float = yaml.safe_load((job / "config.yaml").read_text())["stage"]["fracture"]["task"]["weight"]
    assert notes[0]["weight"] == wanted
    one, two = (process["config_sha256"] for process in read_json(job / "environment.json")["processes"])
    assert one == two
    assert {"report.html", "metrics.json", "predictions.csv", "train.log"} <= {path.name for path in job.iterdir()}
    return wanted


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


@pytest.mark.slow
@pytest.mark.timeout(LIMIT)
def test_a_process_ends_with_the_first_one() -> None:
    """The first process is gone (killed, say) before they have met: nothing is left waiting."""
    silent = socket.create_server(("127.0.0.1", 0))  # takes the call, and never answers
    silent.settimeout(LIMIT / 2)
    start = [{"trainer": {"accelerator": "cpu"}}, "nowhere", {**PLACE, "port": silent.getsockname()[1]}]
    command = [sys.executable, "-m", "domainseg.training"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(start).encode() + b"\n")
        process.stdin.flush()
        call, _ = silent.accept()
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(30) == 1
        call.close()
    finally:
        silent.close()
        process.kill()
        process.wait()


PLACE = {"rank": 1, "local_rank": 1, "size": 2, "address": "127.0.0.1"}

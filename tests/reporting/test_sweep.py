"""The summary of a sweep: what is in it, what chooses, and what does not."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from domainseg.files import read_json, write_json
from domainseg.reporting.sweep import write_sweep


def job(folder: Path, number: int, growth: int, status: str, tune: float | None, test: float | None) -> None:
    overrides = ["+pipeline=hip", f"network@stage.fracture.network=net_{growth}", f"lr={growth / 1e4}", "output='x,y'"]
    write_json(folder / str(number) / "job.json", {"overrides": overrides, "status": status, "value": tune})
    (folder / str(number) / "config.yaml").write_text("target: fracture\n")
    if tune is not None:
        record: dict[str, Any] = {"method": "x", "n_clusters": 5, "n": 9}
        metrics = {
            split: {"fracture": {"intention": {"auc": {"value": value, "low": 0.2, "high": 0.9, **record}}}}
            for split, value in (("tune", tune), ("test", test))
        }
        write_json(folder / str(number) / "metrics.json", metrics)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Ten jobs and more; the best on test is not the best on tune, one failed, one is running."""
    (tmp_path / "sweep.yaml").write_text("swept: [network@stage.fracture.network]\narguments: []\n")
    for number in range(9):
        job(tmp_path, number, 8 + number, "finished", 0.5 + number / 100, 0.9 - number / 100)
    job(tmp_path, 9, 30, "failed", None, None)
    job(tmp_path, 10, 40, "running", None, None)
    return tmp_path


def test_tune_chooses_and_test_stands_beside(sweep: Path) -> None:
    write_sweep(sweep)
    record = read_json(sweep / "sweep.json")
    assert record["selection"]["metric"] == "tune.fracture.intention.auc"
    assert record["selection"]["chosen"] == "8"
    assert "tune" in record["selection"]["rule"]
    assert record["swept"] == ["stage.fracture.network", "lr"], "typed, and what else differs"
    assert [entry["job"] for entry in record["jobs"]] == [str(number) for number in range(11)]
    assert (record["jobs"][3]["tune_auc"], record["jobs"][3]["test_auc"]) == (0.53, 0.87)
    assert (record["jobs"][3]["tune_low"], record["jobs"][3]["tune_high"]) == (0.2, 0.9)
    assert [entry["status"] for entry in record["jobs"][8:]] == ["finished", "failed", "running"]
    with open(sweep / "sweep.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[3]["stage.fracture.network"] == "net_11"
    assert float(rows[3]["lr"]) == 0.0011
    assert rows[9]["tune_auc"] == ""


def test_the_figure_names_every_job_and_is_the_same_again(sweep: Path) -> None:
    write_sweep(sweep)
    figure = (sweep / "sweep.svg").read_bytes()
    assert ElementTree.fromstring(figure).tag.endswith("svg")
    write_sweep(sweep)
    assert (sweep / "sweep.svg").read_bytes() == figure
    job(sweep, 10, 40, "finished", 0.99, 0.1)
    write_sweep(sweep)
    assert (sweep / "sweep.svg").read_bytes() != figure
    assert read_json(sweep / "sweep.json")["selection"]["chosen"] == "10"


def test_a_sweep_of_which_nothing_is_finished_has_chosen_nothing(tmp_path: Path) -> None:
    job(tmp_path, 0, 8, "running", None, None)
    assert write_sweep(tmp_path)["selection"]["chosen"] is None
    assert (tmp_path / "sweep.svg").is_file()

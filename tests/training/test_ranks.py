"""Processes that train together do what one does: the same batches, losses, weights and tables; errors end all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from domainseg.networks import FractureDenseNet
from domainseg.networks.fracture import held
from domainseg.tasks import ranks
from domainseg.tasks.distributed import synchronised
from domainseg.tasks.items import StepSampler
from domainseg.training.processes import Place, check_settings, first_host, place_from
from domainseg.training.stages import RunError

HERE = Path(__file__).parent
LIMIT = 240  # seconds after which a test of processes has failed


def processes(size: int, work: str, folder: Path, **settings: Any) -> list[dict[str, Any]]:
    """What each of ``size`` processes of tests/training/together.py found, in their order."""
    store = folder / "store"
    store.unlink(missing_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    commands = [
        [
            sys.executable,
            "-W",
            "error",
            str(HERE / "together.py"),
            work,
            str(rank),
            str(size),
            str(folder),
            json.dumps(settings),
        ]
        for rank in range(size)
    ]
    running = [
        subprocess.Popen(c, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for c in commands
    ]
    try:
        for process in running:
            _, errors = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()
            process.wait()
    return [torch.load(folder / f"{work}_{size}_{rank}.pt", weights_only=True) for rank in range(size)]


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """What one process and two processes found, each fit with the same batch of all together."""
    found = {}
    for size in (1, 2):
        folder = tmp_path_factory.mktemp(f"processes_{size}")
        for result in processes(size, "fits", folder):
            for name, value in result.items():
                found.setdefault((name, size), []).append(value)
    return found


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest difference of two states, of the largest weight."""
    most = max(float(value.abs().max()) for value in one.values())
    return max(float((one[key] - other[key]).abs().max()) for key in one) / most


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT)
@pytest.mark.parametrize("name", ["patch", "localizer", "regression", "view", "dense", "detector"])
def test_two_processes_train_what_one_does(name: str, fits: dict[tuple[str, int], list[Any]]) -> None:
    """Without batch statistics nothing but rounding tells them apart, though the losses count what is in the batch:
    positions of lines, heads, known turns, which the processes' shares hold in different numbers."""
    one, two = fits[name, 1][0], fits[name, 2]
    assert difference(one["state"], one["start"]) > 1e-3, "it learned"
    assert difference(one["state"], two[0]["state"]) < 1e-5
    assert difference(two[0]["state"], two[1]["state"]) == 0


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT)
def test_batch_norm_in_two_processes_differs_by_its_statistics(fits: dict[tuple[str, int], list[Any]]) -> None:
    """Each process normalises by its own half of the batch. What that changes stays below what training changes."""
    one, two = fits["norm", 1][0], fits["norm", 2]
    learned, apart = difference(one["start"], one["state"]), difference(one["state"], two[0]["state"])
    assert 1e-4 < apart < 0.05 < learned  # measured: 0.014 apart, 0.70 learned
    assert difference(two[0]["state"], two[1]["state"]) == 0, "running statistics are the same everywhere"


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT)
def test_rows_and_counts_come_together(fits: dict[tuple[str, int], list[Any]]) -> None:
    for size in (1, 2):
        for found in fits["exchange", size]:
            assert found["in order"] == [f"f{number}.{k}" for number in range(5) for k in range(2)]
            assert found["gathered"] == list(range(size))
            assert found["first"] == "made by 0"
            assert found["counted"] == pytest.approx(sum(range(size)) / size if size > 1 else 1)
            assert found["share"] == list(range(7))[found["rank"] :: size]
    assert not any("RANK" in name or "MASTER" in name for found in fits["exchange", 2] for name in found["variables"])


def test_messages_beside_graphics_cards_wait_as_long_as_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own limit for a further group is half an hour, in which the first process may not be done."""
    made: list[Any] = []
    monkeypatch.setattr("torch.distributed.get_backend", lambda: "nccl")
    monkeypatch.setattr("torch.distributed.new_group", lambda **settings: made.append(settings) or "group")
    monkeypatch.setattr("domainseg.tasks.ranks._GROUPS", {})
    assert [ranks._objects(), ranks._objects()] == ["group", "group"]
    assert made == [{"backend": "gloo", "timeout": ranks.TIMEOUT}]


def test_the_batch_is_that_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(StepSampler(10, steps=3, batch_size=4, seed=5))
    shares = []
    for rank in range(2):
        monkeypatch.setattr("domainseg.tasks.ranks.size", lambda: 2)
        monkeypatch.setattr("domainseg.tasks.ranks.rank", lambda rank=rank: rank)
        shares.append(list(StepSampler(10, steps=3, batch_size=4, seed=5)))
    for batch, one, two in zip(whole, *shares, strict=True):
        assert sorted([*one, *two]) == sorted(batch)
        assert len(one) == len(two) == 2
    with pytest.raises(ValueError, match="batch of 3 does not divide among 2"):
        StepSampler(10, steps=3, batch_size=3, seed=5)


def settings(**trainer: Any) -> dict[str, Any]:
    return {
        "stage": {
            "fracture": {"task": {"patch": {"steps": 5, "batch_size": 6}, "whole": {"steps": 0, "batch_size": 1}}}
        },
        "baselines": {},
        "trainer": {"accelerator": "cpu", "sync_batchnorm": False, "loggers": [], **trainer},
    }


def test_settings_that_processes_cannot_share_are_refused_by_name() -> None:
    check_settings(settings(), 3)
    with pytest.raises(RunError, match=r"^stage\.fracture\.task\.patch\.batch_size=6: .* 4 processes"):
        check_settings(settings(), 4)
    with pytest.raises(RunError, match=r"trainer\.sync_batchnorm=true: .*graphics cards"):
        check_settings(settings(sync_batchnorm=True), 2)


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None),  # inside sbatch, without srun
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, None),
        (
            {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "head", "MASTER_PORT": "29500"},
            Place(3, 1, 4, "head", 29500),
        ),
        (
            {
                "SLURM_STEP_NUM_TASKS": "8",
                "SLURM_PROCID": "5",
                "SLURM_LOCALID": "1",
                "SLURM_JOB_ID": "1234567",
                "SLURM_STEP_NODELIST": "gpu[03-05,09]",
            },
            Place(5, 1, 8, "gpu03", 24567),
        ),
    ],
)
def test_places_are_taken_from_srun_and_torchrun(variables: dict[str, str], place: Place | None) -> None:
    assert place_from(variables) == place


@pytest.mark.parametrize(
    ("hosts", "first"), [("n1", "n1"), ("n1,n2", "n1"), ("n[1-3]", "n1"), ("n[07,09],x", "n07"), ("a,n[1-3]", "a")]
)
def test_the_first_host(hosts: str, first: str) -> None:
    assert first_host(hosts) == first


def test_synchronised_norms_are_put_back_with_what_they_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domainseg.tasks.ranks.size", lambda: 2)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))
    before = network[1][0]
    with synchronised(network, True):
        assert isinstance(network[1][0], nn.SyncBatchNorm)
        with torch.no_grad():
            network[1][0].weight += 1
            network[1][0].running_mean += 3
    assert network[1][0] is before
    assert isinstance(before, nn.BatchNorm2d)
    assert before.weight.tolist() == [2] * 4
    assert before.running_mean.tolist() == [3] * 4


def test_synchronised_norms_stand_still_where_norms_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen norms stay frozen, and the second run of a checkpointed layer leaves the statistics alone."""
    monkeypatch.setattr("domainseg.tasks.ranks.size", lambda: 2)
    network = FractureDenseNet(growth=4, blocks=(1, 1, 1, 1, 1), stem=8, checkpoint=True)
    with synchronised(network, True):
        norms = [layer for layer in network.modules() if isinstance(layer, nn.SyncBatchNorm)]
        assert len(norms) > 5
        with held(norms[0]):
            assert norms[0].momentum == 0
        assert norms[0].momentum == 0.1
        network.freeze_norm().train()
        assert not any(layer.training for layer in norms)

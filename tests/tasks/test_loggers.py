"""Curves reach TensorBoard and MLflow, from the first process only; unknown and missing loggers are named."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn

from domainseg.tasks.fit import FitContext, StepModule, fit
from domainseg.tasks.items import StepDataset
from domainseg.tasks.loggers import LoggerError, check_loggers, loggers


class Numbers(StepDataset):
    """x by index."""

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        return {"x": torch.tensor([key[1] / 8])}


class Square(StepModule):
    """The mean square."""

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": self.network(batch["x"]).square().mean()}


def test_a_fit_reaches_tensorboard(tmp_path: Path) -> None:
    folder = tmp_path / "stages/fracture"
    folder.mkdir(parents=True)
    context = FitContext(folder, progress=False, run=tmp_path, loggers=["tensorboard"])
    fit(Square(nn.Linear(1, 1), steps=20, lr=0.1), Numbers(["f"] * 8), batch_size=4, context=context, name="tail")
    (events,) = (folder / "tensorboard/tail").glob("events.out.tfevents.*")
    written = events.read_bytes()
    assert b"loss" in written
    assert b"batch_size" in (folder / "tensorboard/tail/hparams.yaml").read_bytes()


@pytest.mark.slow
def test_a_fit_reaches_mlflow_in_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "a, run"
    folder = run / "stages/fracture"
    folder.mkdir(parents=True)
    context = FitContext(folder, progress=False, run=run, loggers=["mlflow"])
    fit(Square(nn.Linear(1, 1), steps=20, lr=0.1), Numbers(["f"] * 8), batch_size=4, context=context, name="tail")
    with sqlite3.connect(run / "mlflow.db") as store:
        assert store.execute("select name, status from runs").fetchall() == [("stages/fracture/tail", "FINISHED")]
        assert dict(store.execute("select key, value from params").fetchall())["steps"] == "20"
        assert {step for (step,) in store.execute("select step from metrics where key = 'loss'")} == {9, 19}
    store.close()
    assert not list(tmp_path.glob("mlruns"))


def test_only_the_first_process_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domainseg.tasks.ranks.rank", lambda: 1)
    with loggers(["tensorboard"], tmp_path, tmp_path, "tail", {}) as made:
        assert made == []
    assert list(tmp_path.iterdir()) == []


def test_loggers_are_closed_when_a_fit_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setattr(Logger, "finalize", lambda self, status: ended.append(status))
    monkeypatch.setattr("pytorch_lightning.loggers.TensorBoardLogger.finalize", Logger.finalize)
    with pytest.raises(KeyError), loggers(["tensorboard"], tmp_path, tmp_path, "tail", {}) as made:
        raise KeyError
    assert ended == ["failed"]
    made[0].experiment.close()  # type: ignore[attr-defined]


def test_what_is_unknown_or_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_loggers(["tensorboard", "mlflow"])
    with pytest.raises(LoggerError, match=r"wandb is unknown; there are tensorboard, mlflow"):
        check_loggers(["wandb"])
    monkeypatch.setattr("domainseg.tasks.loggers.find_spec", lambda name: None if name == "mlflow" else object())
    check_loggers(["tensorboard"])
    with pytest.raises(ModuleNotFoundError) as missing:
        check_loggers(["mlflow"])
    assert missing.value.name == "mlflow"

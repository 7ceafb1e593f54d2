"""Fitting goes on where it stopped and takes up what was finished."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from domainseg.tasks.fit import FitContext, StepModule, fit


class Numbers(Dataset[dict[str, Tensor]]):
    """x and 3 x, a function of (draw, index) alone."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __len__(self) -> int:
        return 16

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        draw, index = key
        self.seen.append(draw)
        x = torch.tensor([index / 16, (draw % 7) / 7])
        return {"x": x, "y": 3 * x.sum()[None]}


class Line(StepModule):
    """Least squares."""

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": (self.network(batch["x"]) - batch["y"]).square().mean()}


def module(steps: int = 200) -> Line:
    torch.manual_seed(0)
    network = nn.Linear(2, 1)
    return Line(network, steps=steps, lr=0.3)


def test_a_fit_learns_and_writes_its_curve(tmp_path: Path) -> None:
    line = module()
    fit(line, Numbers(), batch_size=8, context=FitContext(tmp_path, progress=False))
    assert line.network.weight.flatten().tolist() == pytest.approx([3, 3], abs=0.2)
    header, *rows = (tmp_path / "fit.csv").read_text().splitlines()
    assert {"step", "loss"} <= set(header.split(","))
    assert len(rows) == 20


def test_a_finished_fit_is_taken_up_not_repeated(tmp_path: Path) -> None:
    first, again, data = module(), module(), Numbers()
    fit(first, Numbers(), batch_size=8, context=FitContext(tmp_path, progress=False))
    fit(again, data, batch_size=8, context=FitContext(tmp_path, progress=False))
    assert data.seen == []
    assert torch.equal(first.network.weight, again.network.weight)


def test_a_loss_that_is_no_number_stops(tmp_path: Path) -> None:
    class Broken(Line):
        def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"loss": super().loss(batch)["loss"] * float("nan")}

    broken = Broken(nn.Sequential(nn.Linear(2, 1)), steps=3, lr=0.1)
    with pytest.raises(FloatingPointError, match="step 0"):
        fit(broken, Numbers(), batch_size=2, context=FitContext(tmp_path, progress=False))

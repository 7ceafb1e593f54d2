"""Fitting goes on where it stopped and takes up what was finished."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from domainseg.tasks.fit import FitContext, NotFiniteError, StepModule, fit
from domainseg.tasks.items import StepDataset


class Numbers(StepDataset):
    """x and 3 x, a function of (draw, index) alone."""

    def __init__(self) -> None:
        super().__init__([f"film {index:02}" for index in range(16)])
        self.seen: list[int] = []

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


class Killed(Exception):
    """Stands for kill -9: nothing is saved on the way out."""


def dies_at(line: Line, step: int) -> Line:
    """The same module, that dies in the middle of a step."""

    def die(optimizer: object) -> None:
        if line.global_step == step:
            raise Killed

    line.on_before_optimizer_step = die  # type: ignore[method-assign]
    return line


def state(line: Line) -> list[Tensor]:
    return [*line.network.state_dict().values()]


def deep(steps: int = 60) -> Line:
    """A network with running statistics and chance inside."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))
    return Line(network, steps=steps, lr=0.03)


@pytest.mark.parametrize("step", [0, 4, 5, 10, 11, 37, 59])
def test_a_fit_that_died_ends_as_one_that_did_not(tmp_path: Path, step: int) -> None:
    whole, data = deep(), Numbers()
    fit(whole, data, batch_size=4, context=FitContext(tmp_path / "a", progress=False, checkpoint_every=5))
    context = FitContext(tmp_path / "b", progress=False, checkpoint_every=5)
    with pytest.raises(Killed):
        fit(dies_at(deep(), step), Numbers(), batch_size=4, context=context)
    resumed, rest = deep(), Numbers()
    torch.manual_seed(step)  # chance from elsewhere changes nothing
    fit(resumed, rest, batch_size=4, context=context)
    assert rest.seen == data.seen[step // 5 * 5 * 4 :]
    assert all(torch.equal(one, other) for one, other in zip(state(whole), state(resumed), strict=True))


def test_a_loss_that_is_no_number_stops(tmp_path: Path) -> None:
    class Broken(Line):
        def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"loss": super().loss(batch)["loss"] * float("nan")}

    broken = Broken(nn.Sequential(nn.Linear(2, 1)), steps=3, lr=0.1)
    with pytest.raises(NotFiniteError, match="step 0"):
        fit(broken, Numbers(), batch_size=2, context=FitContext(tmp_path, progress=False))

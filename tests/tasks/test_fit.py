"""Fitting goes on where it stopped and takes up what was finished."""

from __future__ import annotations

import errno
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from domainseg.files import DiskFullError
from domainseg.tasks.checkpoints import latest_checkpoint
from domainseg.tasks.fit import FitContext, NotFiniteError, StepModule, fit
from domainseg.tasks.items import StepDataset, StepSampler


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
    assert [row.split(",")[0] for row in rows] == [str(step) for step in range(10, 201, 10)]
    names = [f"fit-{step:07d}.ckpt{end}" for step in (100, 200) for end in ("", ".sha256")]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [*names, "fit.csv"]


def test_a_finished_fit_is_taken_up_not_repeated(tmp_path: Path) -> None:
    first, again, data = module(), module(), Numbers()
    fit(first, Numbers(), batch_size=8, context=FitContext(tmp_path, progress=False))
    fit(again, data, batch_size=8, context=FitContext(tmp_path, progress=False))
    assert data.seen == []
    assert torch.equal(first.network.weight, again.network.weight)


def test_signals_do_what_they_did_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's handlers let a process that was told to end wait for the others, or end as if it had finished."""
    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(name, value)
    seen: set[Any] = set()

    class Looks(Line):
        def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            seen.update(signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1))
            return super().loss(batch)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    looks = Looks(nn.Linear(2, 1), steps=3, lr=0.3)
    fit(looks, Numbers(), batch_size=8, context=FitContext(tmp_path, progress=False))
    assert seen == set(before.values()) == {signal.SIG_DFL}
    assert {number: signal.getsignal(number) for number in before} == before


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
    assert (tmp_path / "b/fit.csv").read_bytes() == (tmp_path / "a/fit.csv").read_bytes()
    assert all(torch.equal(one, other) for one, other in zip(state(whole), state(resumed), strict=True))


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The one before is used, and the end is the same."""
    whole = deep()
    fit(whole, Numbers(), batch_size=4, context=FitContext(tmp_path / "a", progress=False, checkpoint_every=5))
    context = FitContext(tmp_path / "b", progress=False, checkpoint_every=5)
    with pytest.raises(Killed):
        fit(dies_at(deep(), 33), Numbers(), batch_size=4, context=context)
    assert sorted(path.name for path in context.folder.glob("*.ckpt")) == ["fit-0000025.ckpt", "fit-0000030.ckpt"]
    newest = context.folder / "fit-0000030.ckpt"
    newest.write_bytes(newest.read_bytes()[:-9] + b"x" + newest.read_bytes()[-8:])
    resumed = deep()
    with caplog.at_level(logging.INFO, "domainseg"):
        fit(resumed, Numbers(), batch_size=4, context=context)
    assert "fit-0000030.ckpt: damaged" in caplog.text
    assert "goes on at step 25 of 60" in caplog.text
    assert all(torch.equal(one, other) for one, other in zip(state(whole), state(resumed), strict=True))


def test_a_checkpoint_without_its_checksum_was_never_finished(tmp_path: Path) -> None:
    context = FitContext(tmp_path, progress=False, checkpoint_every=5)
    with pytest.raises(Killed):
        fit(dies_at(deep(), 12), Numbers(), batch_size=4, context=context)
    (tmp_path / "fit-0000010.ckpt.sha256").unlink()
    found = latest_checkpoint(tmp_path, "fit")
    assert found is not None
    assert found[1]["global_step"] == 5
    assert not (tmp_path / "fit-0000010.ckpt").exists()


class Poisoned(Numbers):
    """Film 11 has a pixel that is no number."""

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        sample = super().__getitem__(key)
        return {"x": sample["x"] * float("nan"), "y": sample["y"]} if key[1] == 11 else sample


def test_a_poisoned_film_stops_the_fit_before_it_does_harm(tmp_path: Path) -> None:
    """Named with the films of its batch; weights, running statistics and last checkpoint are those before the step."""
    context = FitContext(tmp_path, seed=1, progress=False, checkpoint_every=1)
    module = deep()
    with pytest.raises(NotFiniteError) as raised:
        fit(module, Poisoned(), batch_size=4, context=context)
    batches = list(StepSampler(16, steps=60, batch_size=4, seed=1))
    bad = next(step for step, batch in enumerate(batches) if 11 in [index for _, index in batch])
    assert bad > 0  # or there is no checkpoint to look at
    text = str(raised.value)
    assert f"the loss is not finite at step {bad}" in text
    for index in range(16):
        assert (f"film {index:02}" in text) == (index in [index for _, index in batches[bad]])
    found = latest_checkpoint(tmp_path, "fit")
    assert found is not None
    assert found[1]["global_step"] == bad
    for name, value in module.state_dict().items():
        assert torch.isfinite(value).all(), name
        assert torch.equal(value, found[1]["state_dict"][name]), name


def test_a_gradient_that_is_no_number_stops_too(tmp_path: Path) -> None:
    """The root of zero is zero, its slope is not finite."""

    class Rooted(Line):
        def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            loss = super().loss(batch)["loss"]
            return {"loss": loss + (0 * loss).sqrt() if self.global_step == 2 else loss}

    torch.manual_seed(0)
    module = Rooted(nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), steps=9, lr=0.1)
    context = FitContext(tmp_path, progress=False, checkpoint_every=1)
    with pytest.raises(NotFiniteError, match="a gradient is not finite at step 2"):
        fit(module, Numbers(), batch_size=4, context=context)
    found = latest_checkpoint(tmp_path, "fit")
    assert found is not None
    assert found[1]["global_step"] == 2
    assert all(torch.equal(value, found[1]["state_dict"][name]) for name, value in module.state_dict().items())


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write of the third checkpoint finds no room; with room again the fit goes on and ends as it would have."""
    whole = deep()
    fit(whole, Numbers(), batch_size=4, context=FitContext(tmp_path / "a", progress=False, checkpoint_every=5))
    context = FitContext(tmp_path / "b", progress=False, checkpoint_every=5)
    real = os.fsync

    def full(handle: int) -> None:
        if "fit-0000015" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFullError, match=r"fit-0000015\.ckpt.*disk is full.*MB free"):
            fit(deep(), Numbers(), batch_size=4, context=context)
    assert sorted(path.name for path in context.folder.glob("*ckpt")) == ["fit-0000005.ckpt", "fit-0000010.ckpt"]
    resumed = deep()
    fit(resumed, Numbers(), batch_size=4, context=context)
    assert all(torch.equal(one, other) for one, other in zip(state(whole), state(resumed), strict=True))

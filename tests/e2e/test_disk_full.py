"""A disk that is really full: one line that says so, exit code 1, what was there is whole; with room it goes on."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from domainseg.files import DiskFullError, atomic_path, write_json
from domainseg.tasks.checkpoints import latest_checkpoint
from domainseg.tasks.fit import FitContext, StepModule, fit
from domainseg.tasks.items import StepDataset


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB of its own; skipped where this user may not mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "small", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system; the limit on file sizes is tested all the same")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(folder: Path, leave: int = 0) -> None:
    """Take all but ``leave`` bytes."""
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    (folder / "filler").write_bytes(b"\0" * max(0, free - leave))


def test_every_kind_of_writer_says_so_and_leaves_what_was_there(small: Path) -> None:
    """Python's streams, numpy (whose error has no number), pandas, pyarrow, pictures by OpenCV."""
    from domainseg.reporting.overlays import write_png

    picture = np.random.default_rng(0).integers(0, 255, (400, 400, 3)).astype(np.uint8)
    table = pd.DataFrame(np.random.default_rng(0).random((40000, 2)), columns=["a", "b"])

    def save_array(path: Path) -> None:
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            np.save(stream, picture)

    def save_csv(path: Path) -> None:
        with atomic_path(path) as temporary:
            table.to_csv(temporary)

    def save_parquet(path: Path) -> None:
        with atomic_path(path) as temporary:
            table.to_parquet(temporary)

    writers: dict[str, Callable[[Path], None]] = {
        "a.json": lambda path: write_json(path, list(range(40000))),
        "a.npy": save_array,
        "a.csv": save_csv,
        "a.parquet": save_parquet,
        "a.png": lambda path: write_png(picture, path),
    }
    for name in writers:
        (small / name).write_text("old")
    fill(small, leave=100_000)
    for name, write in writers.items():
        with pytest.raises(DiskFullError, match=rf"{name}: not written, the disk is full \(0\.\d MB free\)"):
            write(small / name)
        assert (small / name).read_text() == "old"
    assert sorted(path.name for path in small.iterdir()) == sorted([*writers, "filler"])


@pytest.mark.slow
def test_a_command_ends_with_one_line_and_goes_on_with_room(small: Path) -> None:
    """Films are simulated until the disk is full; with room the simulation ends as if it had not been interrupted."""

    def simulate(output: Path) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "domainseg.phantom", "pelvis", "n=4", "reduction=8", "workers=1", "seed=3"]
        return subprocess.run(
            [*argv, f"output={output}"], check=False, capture_output=True, text=True, cwd=small.parent
        )

    fill(small, leave=400_000)
    full = simulate(small / "films")
    assert full.returncode == 1
    lines = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "the disk is full" in lines[0]
    assert "Traceback" not in full.stderr
    begun = [path for path in (small / "films").rglob("*") if path.suffix == ".dcm"]
    assert begun  # it came some way
    (small / "filler").unlink()
    assert simulate(small / "films").returncode == 0
    assert simulate(small.parent / "whole").returncode == 0
    there, whole = (
        {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.[dpc][cns][mgv]")}
        for root in (small / "films", small.parent / "whole")
    )
    assert len(whole) > 6
    assert there == whole


class Numbers(StepDataset):
    """Two numbers and their sum."""

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        x = torch.tensor([key[1] / len(self), 0.5])
        return {"x": x, "y": x.sum()[None]}


class Sums(StepModule):
    """Least squares with so many weights that a checkpoint takes a third of a MB."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Linear(2, 6000), nn.Tanh(), nn.Linear(6000, 1)), steps=12, lr=1e-3)

    def loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"loss": (self.network(batch["x"]) - batch["y"]).square().mean()}


def test_a_fit_keeps_its_last_good_checkpoint_and_goes_on_with_room(small: Path, tmp_path: Path) -> None:
    data = Numbers([f"film {k}" for k in range(9)])
    fill(small, leave=900_000)

    def context(folder: Path) -> FitContext:
        return FitContext(folder, progress=False, checkpoint_every=2)

    with pytest.raises(DiskFullError, match=r"fit-0000006\.ckpt: not written, the disk is full"):
        fit(Sums(), data, batch_size=3, context=context(small / "fit"))
    found = latest_checkpoint(small / "fit", "fit")
    assert found is not None
    assert found[1]["global_step"] == 4
    (small / "filler").unlink()
    resumed, whole = Sums(), Sums()
    fit(resumed, data, batch_size=3, context=context(small / "fit"))
    fit(whole, data, batch_size=3, context=context(tmp_path / "whole"))
    states = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_limit_on_file_sizes_says_so(tmp_path: Path) -> None:
    """No rights are needed for this one: the kernel refuses the bytes past the limit."""
    code = "import sys; from domainseg.files import write_json; write_json(sys.argv[1], list(range(100000)))"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.json"],
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert "DiskFullError" in done.stderr
    assert "ulimit -f" in done.stderr
    assert not list(tmp_path.iterdir())

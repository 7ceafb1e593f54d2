"""One of several processes of tests/training/test_ranks.py: `together.py WORK RANK SIZE FOLDER SETTINGS`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from domainseg.networks import FractureDenseNet
from domainseg.tasks import ranks
from domainseg.tasks.fit import FitContext, StepModule, fit
from domainseg.tasks.fracture import PatchModule
from domainseg.tasks.hemorrhage import DenseModule, DetectorModule
from domainseg.tasks.items import StepDataset
from domainseg.tasks.localizer import LocalizerModule
from domainseg.tasks.view import ViewModule
from domainseg.training.gathered import in_order

SIZE = 32
Sample = dict[str, Tensor]


class Samples(StepDataset):
    """Pictures and truths that depend on (draw, index) alone; one in four has much to count, others nothing."""

    def __init__(self, truth: Callable[[np.random.Generator, bool], dict[str, Any]]) -> None:
        super().__init__([f"f{index}" for index in range(12)])
        self.truth = truth

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        rng = np.random.default_rng(key)
        picture = torch.from_numpy(rng.random((1, SIZE, SIZE), np.float32))
        return {"picture": picture, **self.truth(rng, key[0] % 4 == 0)}


def patch(rng: np.random.Generator, rich: bool) -> dict[str, Any]:
    lesion = torch.zeros(1, SIZE, SIZE)
    if rich:
        lesion[:, 8:20, 4:28] = 1
    return {"lesion": lesion, "location": int(rng.integers(-1, 3))}


def heads(rng: np.random.Generator, rich: bool) -> dict[str, Any]:
    return {
        "femur": torch.from_numpy(rng.random((2, SIZE, SIZE), np.float32).round()),
        "traced": torch.tensor([1.0, 1.0] if rich else [0.0, 0.0]),
        "points": torch.from_numpy(rng.uniform(4, 28, (2, 2)).astype(np.float32)),
        "diameter": torch.tensor([0.3, 0.25]),
        "known": torch.tensor([1.0, 1.0] if rich else [1.0, 0.0]),
    }


def view(rng: np.random.Generator, rich: bool) -> dict[str, Any]:
    return {"view": 0 if rich else int(rng.integers(3)), "turn": int(rng.integers(4)) if rich else -1}


def bleeds(rng: np.random.Generator, rich: bool) -> dict[str, Any]:
    codes = torch.zeros(SIZE, SIZE, dtype=torch.long)
    codes[4:8, 2:30] = int(rng.integers(7))
    if rich:
        codes[12:28, 8:24] = 1
    presence = torch.from_numpy(rng.random(6, np.float32).round())
    return {"codes": codes, "outlined": np.float32(rng.random() < 0.7), "presence": presence}


class Small(nn.Module):
    """A convolution or two, with the outputs that a loss asks for; ``idle`` takes no part."""

    def __init__(self, outputs: dict[str, int], maps: bool, norm: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU()
        )
        self.heads = nn.ModuleDict({name: nn.Conv2d(8, width, 1) for name, width in outputs.items()})
        self.idle = nn.Linear(3, 3)
        self.maps = maps

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = {name: head(self.body(x)) for name, head in self.heads.items()}
        return found if self.maps else {name: value.mean((2, 3)) for name, value in found.items()}


class Regression(Small):
    """Presence, centre and diameter of two heads."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = super().forward(x)
        return {**found, "center": found["center"].view(-1, 2, 2)}


class Outlines(nn.Module):
    """Masks and presence; in training a coarser mask beside them, which has weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
        self.mask, self.coarse, self.presence = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 1), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.body(x)
        found = {"mask": self.mask(x), "presence": self.presence(x.mean((2, 3)))}
        return {**found, "mask_4": self.coarse(nn.functional.avg_pool2d(x, 4))} if self.training else found


class Detector(nn.Module):
    """What MaskRoiCnn gives in training, without draws: a mean over boxes and one over slabs, and their numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.presence = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 6)

    def detection_losses(
        self, x: Tensor, targets: list[dict[str, Tensor]], outlined: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        found = self.body(x).relu()
        outputs = {"presence": self.presence(found.mean((2, 3))), "dense": nn.functional.avg_pool2d(found, 4).mean(1)}
        boxes = torch.tensor([len(target["boxes"]) for target in targets]) * outlined
        each = (found.mean((1, 2, 3)) - 0.5) ** 2
        over = {"mask": boxes, "type": boxes, "class": outlined, "box": outlined, "objectness": outlined}
        counts = {name: weight.float().sum() for name, weight in (over | {"anchor": outlined}).items()}
        means = {
            name: (each * weight).sum() / counts[name].clamp(min=1)
            for name, weight in (over | {"anchor": outlined}).items()
        }
        return outputs, means, counts


def lesions(rng: np.random.Generator, rich: bool) -> dict[str, Any]:
    found = bleeds(rng, rich)
    types = torch.tensor([1, 2, 0] if rich else [int(rng.integers(-1, 3)), -1, -1])
    return {**found, "boxes": torch.zeros(3, 4), "types": types, "instances": torch.zeros(SIZE, SIZE)}


def modules() -> dict[str, tuple[StepModule, StepDataset]]:
    steps: dict[str, Any] = {"steps": 6, "lr": 3e-3}
    dense = FractureDenseNet(growth=4, blocks=(1, 1, 1, 1, 1), stem=8).freeze_norm()
    return {
        "patch": (PatchModule(dense, **steps), Samples(patch)),
        "localizer": (LocalizerModule(Small({"head": 2, "femur": 2, "diameter": 2}, True), **steps), Samples(heads)),
        "regression": (
            LocalizerModule(Regression({"presence": 2, "center": 4, "diameter": 2}, False), **steps),
            Samples(heads),
        ),
        "view": (ViewModule(Small({"view": 3, "turn": 4}, False), **steps), Samples(view)),
        "dense": (DenseModule(Outlines(), **steps), Samples(bleeds)),
        "detector": (DetectorModule(Detector(), **steps), Samples(lesions)),  # type: ignore[arg-type]
        "norm": (ViewModule(Small({"view": 3, "turn": 4}, False, norm=True), **steps), Samples(view)),
    }


def state(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items() if value.is_floating_point()}


def fits(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"exchange": exchange()}
    torch.manual_seed(3)
    for name, (module, dataset) in modules().items():
        start = state(module.network)
        context = FitContext(folder / name, devices=ranks.size(), progress=False)
        context.folder.mkdir(exist_ok=True)
        fit(module, dataset, batch_size=6, context=context)
        assert all(p.requires_grad for p in module.network.parameters())
        found[name] = {"start": start, "state": state(module.network)}
    return found


def exchange() -> dict[str, Any]:
    images = [f"f{number}" for number in range(5)]
    mine = [f"{image}.{k}" for image in ranks.share(images) for k in range(2)]
    return {
        "rank": ranks.rank(),
        "in order": in_order(mine, images, lambda row: row.partition(".")[0]),
        "gathered": ranks.gather(ranks.rank()),
        "first": ranks.first(lambda: f"made by {ranks.rank()}"),
        "counted": float(ranks.count(torch.tensor(ranks.rank()))),
        "share": list(ranks.share(range(7))),
        "variables": [name for name in os.environ if name not in VARIABLES],
    }


if __name__ == "__main__":
    work, rank, size, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    VARIABLES = set(os.environ)
    torch.set_num_threads(1)
    if size > 1:
        store = dist.FileStore(str(folder / "store"), size)
        dist.init_process_group("gloo", rank=rank, world_size=size, store=store, timeout=timedelta(minutes=3))
    torch.save(globals()[work](folder), folder / f"{work}_{size}_{rank}.pt")
    if size > 1:
        dist.destroy_process_group()

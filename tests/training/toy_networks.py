"""Networks of toys, and a fit that counts: importable by name, also in further processes of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from domainseg.files import DomainsegError, write_json
from domainseg.tasks import ranks


class Toy(nn.Module):
    """A network with one weight that only a fit changes, and that does not change what it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(1))
        self.register_buffer("shift", torch.zeros(1))


class View(Toy):
    """Frontal when a head is to be seen; always upright."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        seen = ((x > 0.7) & (x < 0.9)).flatten(1).float().mean(1) > 1e-3
        frontal = torch.where(seen, 6.0, -6.0)
        zero = torch.zeros_like(frontal)
        return {"view": torch.stack([frontal, zero, zero - 2], 1), "turn": torch.stack([zero + 5, zero, zero, zero], 1)}


class Heads(Toy):
    """The middle of the head's grey level in each half of the picture, ``shift`` input pixels too far right."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        size = x.shape[-1]
        lit = ((x > 0.7) & (x < 0.9)).float()[:, 0]
        columns = torch.arange(size).float()
        halves = torch.stack([lit * (columns < size / 2), lit * (columns >= size / 2)], 1)
        area = halves.sum((2, 3))
        across = (halves.sum(2) * columns).sum(2) / area.clamp(min=1) + self.shift
        down = (halves.sum(3) * columns).sum(2) / area.clamp(min=1)
        diameter = (4 * area.clamp(min=1) / np.pi).sqrt() / size
        center = (torch.stack([across, down], 2) + 0.5) / size
        return {"presence": torch.where(area > 20, 9.0, -9.0), "center": center, "diameter": diameter.log()}


class Metal(Toy):
    """Whether something is as bright as metal."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"implant": 60 * (x.flatten(1).amax(1) - 0.93)}


class Line(Toy):
    """How much is as dark as a fracture line."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        dark = (x < 0.15).float()
        share = 1000 * (dark.flatten(1).mean(1) - 0.005)
        zero = torch.zeros_like(share)
        heat = nn.functional.max_pool2d(dark, 16).repeat(1, 3, 1, 1)
        return {"fracture": share, "location": torch.stack([-share, zero, zero + 1], 1), "map": heat}


CALLS: list[tuple[str, list[str]]] = []


def fit(network: Toy, items: Sequence[Any], context: Any, **settings: Any) -> None:
    """Adds one to the weight and notes the folder and the images; a localizer fitted on fold k errs its own way."""
    name = context.folder.name
    CALLS.append((name, [item.image for item in items]))
    with torch.no_grad():
        network.weight += 1
        if name.startswith("cross_fit_"):
            network.shift += {"0": 1.0, "1": -1.0}[name[-1]]


def fit_and_note(network: Toy, items: Sequence[Any], context: Any, *, weight: float) -> None:
    """Writes down what this process was given, weight and films; process 1 fails on a negative weight."""
    if weight < 0 and ranks.rank() == 1:
        raise DomainsegError(f"{context.folder.name}: no weight of {weight}")
    ranks.barrier()
    note = {"weight": weight, "images": [item.image for item in items], "processes": ranks.size()}
    write_json(context.folder / f"process_{ranks.rank()}.json", note)

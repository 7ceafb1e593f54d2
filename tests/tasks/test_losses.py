"""Losses: what they reward, and that unknown truth does not count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from domainseg.networks import FractureDenseNet
from domainseg.tasks import fracture
from domainseg.tasks.augment import Augmenter
from domainseg.tasks.fit import FitContext
from domainseg.tasks.fracture import PatchDataset, PatchModule, fit_fracture, head_losses
from domainseg.tasks.items import Item, as_uint16
from domainseg.tasks.localizer import LocalizerDataset, LocalizerModule
from domainseg.tasks.view import ViewDataset, ViewModule

PLAIN = {"rotate": 0, "shift": 0, "scale": 0, "gamma": 0, "brightness": 0, "contrast": 0, "blur": 0, "noise": 0}


class Fixed(nn.Module):
    """A network that answers what it was told."""

    def __init__(self, outputs: dict[str, Tensor]) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.outputs


def item(picture: np.ndarray, truth: dict[str, object], **masks: np.ndarray) -> Item:
    planes = np.stack(
        [as_uint16(picture.astype(np.float32)), *[mask.astype(np.uint16) * 65535 for mask in masks.values()]]
    )
    return Item("a", "", lambda: planes, np.eye(3), truth, tuple(masks))


def test_unknown_locations_do_not_count() -> None:
    outputs = {"fracture": torch.tensor([2.0, -1.0]), "location": torch.tensor([[0.0, 3.0, 0.0], [0.0, 0.0, 9.0]])}
    known = head_losses(outputs, {"fracture": torch.tensor([1.0, 0.0]), "location": torch.tensor([1, -1])}, 0.5)
    alone = -torch.log_softmax(torch.tensor([0.0, 3.0, 0.0]), 0)[1]
    assert known["location_loss"] == pytest.approx(float(alone), rel=1e-5)
    fracture = (np.log1p(np.exp(-2)) + np.log1p(np.exp(-1))) / 2
    assert known["fracture_loss"] == pytest.approx(fracture, rel=1e-5)
    assert known["loss"] == pytest.approx(fracture + 0.5 * float(alone), rel=1e-5)


def test_turned_pictures_carry_their_turn() -> None:
    """Whatever turn the dataset makes, np.rot90 by the given turn brings the picture upright again."""
    picture = np.zeros((32, 32))
    picture[:8, :16] = 1
    dataset = ViewDataset([item(picture, {"view": 0, "turn": 1})], Augmenter(seed=0, **PLAIN), seed=0)
    upright = np.rot90(picture, 1)
    turns = set()
    for draw in range(40):
        sample = dataset[draw, 0]
        turns.add(int(sample["turn"]))
        np.testing.assert_allclose(np.rot90(sample["picture"][0].numpy(), sample["turn"]), upright, atol=1e-4)
    assert turns == {0, 1, 2, 3}


def test_turns_count_for_frontal_films_with_a_known_turn_only() -> None:
    outputs = {"view": torch.zeros(3, 3), "turn": torch.tensor([[5.0, 0, 0, 0], [0, 5.0, 0, 0], [0, 0, 5.0, 0]])}
    module = ViewModule(Fixed(outputs), steps=1, lr=1e-3)
    batch = {"picture": torch.zeros(3, 1, 8, 8), "view": torch.tensor([0, 1, 0]), "turn": torch.tensor([0, 3, -1])}
    assert module.loss(batch)["turn_loss"] == pytest.approx(
        float(-torch.log_softmax(outputs["turn"][0], 0)[0]), rel=1e-5
    )


def test_mirrored_films_swap_their_sides() -> None:
    picture = np.zeros((64, 64))
    picture[20:24, 10:14] = 1  # the head of the hip at the left
    femur = picture > 0
    heads = [[11.5, 21.5, 8.0], [np.nan] * 3]
    one = item(picture, {"heads": heads, "known": [True, False]}, femur_left=femur)
    dataset = LocalizerDataset([one], Augmenter(seed=0, **PLAIN), seed=0)
    seen = set()
    for draw in range(20):
        sample = dataset[draw, 0]
        side = int(torch.isfinite(sample["points"][:, 0]).nonzero()[0])
        seen.add(side)
        x, y = sample["points"][side].round().int().tolist()
        assert sample["picture"][0, y, x] > 0.9
        assert sample["femur"][side, y, x] == 1
        assert sample["traced"].tolist() == [1 - side, side]
        assert sample["known"].tolist() == [1 - side, side]
        assert sample["diameter"][side] == pytest.approx(8 / 64, rel=1e-3)
    assert seen == {0, 1}


def test_localizer_loss_is_lowest_where_the_head_is() -> None:
    """The peak at the right place costs less than beside it; an unknown hip costs nothing."""

    def loss(x: int, y: int, other: float = -8.0) -> float:
        head = torch.full((1, 2, 32, 32), -8.0)
        head[0, 0, y, x] = 6
        head[0, 1] = other
        outputs = {
            "head": head,
            "femur": torch.zeros(1, 2, 32, 32),
            "diameter": torch.full((1, 1, 32, 32), np.log(0.1)),
        }
        batch = {
            "picture": torch.zeros(1, 1, 64, 64),
            "femur": torch.zeros(1, 2, 64, 64),
            "traced": torch.zeros(1, 2),
            "points": torch.tensor([[[20.5, 40.5], [float("nan")] * 2]]),
            "diameter": torch.tensor([[0.1, float("nan")]]),
            "known": torch.tensor([[1.0, 0.0]]),
        }
        return float(LocalizerModule(Fixed(outputs), steps=1, lr=1e-3).loss(batch)["loss"])

    right = loss(10, 20)
    assert right < loss(13, 20)
    assert right < loss(10, 16)
    assert right == pytest.approx(loss(10, 20, other=8.0), rel=1e-5)


def test_a_head_moved_out_of_the_picture_is_an_absent_one() -> None:
    def loss(column: float, present: bool = True) -> float:
        outputs = {
            "head": torch.full((1, 2, 16, 16), -4.0),
            "femur": torch.zeros((1, 2, 16, 16)),
            "diameter": torch.zeros((1, 1, 16, 16)),
        }
        point = [column, 20.0] if present else [float("nan")] * 2
        batch = {
            "picture": torch.zeros((1, 1, 64, 64)),
            "femur": torch.zeros((1, 2, 64, 64)),
            "traced": torch.zeros((1, 2)),
            "points": torch.tensor([[[20.0, 20.0], point]]),
            "diameter": torch.tensor([[0.1, 0.1]]),
            "known": torch.ones((1, 2)),
        }
        return float(LocalizerModule(Fixed(outputs), steps=1, lr=1e-3).loss(batch)["loss"])

    assert loss(200.0) == pytest.approx(loss(0.0, present=False), rel=1e-6)


def roi_item(label: int, location: int) -> Item:
    picture = np.full((512, 512), 0.5)
    lesion = np.zeros((512, 512), bool)
    lesion[256, 200:300] = True
    picture[lesion] = 0
    truth = {"fracture": label, "location": location}
    return item(picture, truth, lesion=lesion) if label else item(np.full((512, 512), 0.5), truth)


def test_patches_show_the_line_under_its_mask() -> None:
    dataset = PatchDataset([roi_item(1, 1), roi_item(0, 0)], Augmenter(seed=0, **PLAIN), size=128, seed=0)
    shown = 0
    for draw in range(20):
        sample = dataset[draw, 0]
        picture, lesion = sample["picture"][0], sample["lesion"][0] > 0
        if lesion.any():
            shown += 1
            assert picture[lesion].mean() < 0.35
            assert picture[~lesion].mean() > 0.48
        assert dataset[draw, 1]["lesion"].sum() == 0
    assert shown > 10


def test_a_fracture_whose_outline_lies_outside_the_roi_gives_no_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its patches would be taught that there is no line, over a real one."""
    seen: list[PatchDataset] = []
    monkeypatch.setattr(fracture, "fit", lambda module, dataset, **settings: seen.append(dataset))
    outside = item(np.full((512, 512), 0.5), {"fracture": 1, "location": 1}, lesion=np.zeros((512, 512), bool))
    rest = {"tail": {"steps": 0}, "whole": {"steps": 0}, "location_weight": 0.5, "augment": PLAIN}
    patch = {"steps": 1, "batch_size": 2, "lr": 1e-3, "size": 64, "positives": 0.5}
    network, context = FractureDenseNet(growth=4, blocks=(1, 1, 1, 1, 1)), FitContext(Path("nowhere"))
    fit_fracture(network, [roi_item(1, 1), outside, roi_item(0, 0)], context, patch=patch, **rest)
    assert [one.truth["fracture"] for one in seen[0].items] == [1, 0]
    fit_fracture(network, [outside, roi_item(0, 0)], context, patch=patch, **rest)
    assert len(seen) == 1, "no outline, no phase"


def test_maps_learn_a_line_from_patches() -> None:
    torch.manual_seed(0)
    network = FractureDenseNet(growth=6, blocks=(2, 2, 2, 2, 1))
    module = PatchModule(network, steps=1, lr=1e-3)
    dataset = PatchDataset([roi_item(1, 2), roi_item(0, 0)], Augmenter(seed=0, **PLAIN), size=128, seed=0)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for step in range(12):
        samples = [dataset[step * 4 + k, k % 2] for k in range(4)]
        batch = {
            "picture": torch.stack([sample["picture"] for sample in samples]),
            "lesion": torch.stack([sample["lesion"] for sample in samples]),
            "location": torch.tensor([sample["location"] for sample in samples]),
        }
        loss = module.loss(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-3:]) < 0.7 * losses[0]

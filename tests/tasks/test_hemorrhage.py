"""Hemorrhage: what samples show, how they are drawn and changed, what the losses count, and that networks learn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from domainseg.cascade.volumes import windowed
from domainseg.imaging.hemorrhage import TYPES
from domainseg.networks import MaskRoiCnn, UNet, UNet3d
from domainseg.tasks.fit import FitContext
from domainseg.tasks.hemorrhage import DenseModule, DetectorModule, ExamModule, fit_hemorrhage
from domainseg.tasks.hemorrhage_items import (
    HU_ZERO,
    Exam,
    LesionDataset,
    SlabAugmenter,
    SlabDataset,
    lesions_of,
    rendered,
    slice_presence,
)

WINDOWS = [{"low": 0, "high": 80}, {"low": -20, "high": 200}]
STILL = {"rotate": 0, "shift": 0, "scale": 0, "flip": 0, "hu_shift": 0, "hu_scale": 0, "noise": 0, "blur": 0}
PLAIN: dict[str, float] = {**STILL, "rendering": 0, "drop": 0}


def volume(seed: int, blood: bool, size: int = 64, depth: int = 6) -> NDArray[np.uint16]:
    """uint16 [2, Z, H, W]: brain at 35 HU with noise; a blood ellipse of type 1 or 2 on three slices."""
    rng = np.random.default_rng(seed)
    voxels = rng.normal(35, 6, (depth, size, size))
    codes = np.zeros((depth, size, size), np.uint8)
    if blood:
        code = 1 + seed % 2
        first = int(rng.integers(depth - 2))
        middle = [int(value) for value in rng.integers(size // 4, 3 * size // 4, 2)]
        axes = (size // 8, size // 8) if code == 1 else (size // 5, size // 20)
        for plane in codes[first : first + 3]:
            cv2.ellipse(plane, middle, axes, 0, 0, 360, code, -1)
        voxels[codes > 0] += 30
    return np.stack([np.clip(voxels + HU_ZERO, 0, 4095), codes]).astype(np.uint16)


def exam(seed: int, blood: bool, **changes: Any) -> Exam:
    """An exam of ``volume``; ``changes`` are fields of Exam."""
    planes = volume(seed, blood)
    unknown = np.full((planes.shape[1], 6), np.nan)
    truth = {"hemorrhage": float(blood), **dict.fromkeys(TYPES, np.nan if blood else 0.0)}
    settings: dict[str, Any] = {"planes": lambda: planes, "truth": truth, "has_mask": True, "slices": unknown}
    return Exam(image=f"exam {seed}", part="head", **{**settings, **changes})


def exams(count: int = 12) -> list[Exam]:
    """Half of them with blood."""
    return [exam(seed, seed % 4 < 2) for seed in range(count)]


def slabs(*items: Exam, augment: Mapping[str, float] = PLAIN, seed: int = 0) -> SlabDataset:
    return SlabDataset(items, slices=3, windows=WINDOWS, augment=augment, seed=seed)


def test_an_unchanged_slab_is_what_the_cascade_shows_the_network() -> None:
    one = exam(0, True)
    hu = one.planes()[0].astype(np.float32) - HU_ZERO
    want = windowed(hu, 3, [{"op": "window", **w} for w in WINDOWS])
    dataset = slabs(one)
    for index in range(len(dataset)):
        sample = dataset[5, index]
        np.testing.assert_allclose(sample["picture"].numpy(), want[index], atol=1e-6)
        np.testing.assert_array_equal(sample["codes"].numpy(), one.planes()[1][index])


def test_a_draw_depends_on_seed_and_key_only() -> None:
    first, second = (slabs(exam(0, True), augment={}, seed=3) for _ in range(2))
    first[0, 1], second[7, 4]
    torch.testing.assert_close(first[2, 3], second[2, 3], rtol=0, atol=0)
    assert not torch.equal(first[2, 3]["picture"], first[3, 3]["picture"])


def test_slices_and_codes_move_together() -> None:
    """A marker at the same place of all slices and of the codes stays at the same place, wherever it goes."""
    stored = np.full((3, 64, 64), HU_ZERO, np.uint16)
    codes = np.zeros((64, 64), np.uint16)
    stored[:, 20:28, 36:48], codes[20:28, 36:48] = HU_ZERO + 80, 2
    change = SlabAugmenter(WINDOWS, **{**PLAIN, "rotate": 30, "shift": 0.1, "scale": 0.2, "flip": 0.5})
    seen = set()
    for draw in range(20):
        picture, moved = change(stored, codes, False, np.random.default_rng(draw))
        assert np.ptp(picture[:3], axis=0).max() == 0
        assert ((picture[0] > 0.5) == (moved == 2)).mean() > 0.99
        seen.add(tuple(np.argwhere(moved).mean(0).round().astype(int)))
    assert len(seen) > 10


def test_a_rendering_keeps_its_window_only_and_draws_show_it() -> None:
    values = np.array([-500.0, -20, 0.1, 35.3, 99.9, 400], np.float32)
    shown = rendered(values)
    assert shown[0] == -20
    assert shown[-1] == pytest.approx(100, abs=1e-4)
    assert abs(shown[1:5] - values[1:5]).max() <= 120 / 255 / 2 + 1e-4
    one = exam(1, True)
    always = slabs(one, augment={**PLAIN, "rendering": 1})[0, 2]["picture"].numpy()
    hu = one.planes()[0].astype(np.float32) - HU_ZERO
    np.testing.assert_allclose(always, windowed(rendered(hu), 3, WINDOWS)[2], atol=1e-6)


def test_the_black_of_a_rendering_stays_black_under_any_exposure() -> None:
    stored = np.full((1, 8, 8), HU_ZERO - 20, np.uint16)
    change = SlabAugmenter(WINDOWS, **{**STILL, "hu_shift": 30, "hu_scale": 0.3, "noise": 8, "rendering": 0, "drop": 0})
    for draw in range(5):
        picture, _ = change(stored, np.zeros((8, 8), np.uint16), True, np.random.default_rng(draw))
        assert not picture.any()


def test_dropped_windows_are_blank_one_at_a_time() -> None:
    dataset = slabs(exam(1, True), augment={**PLAIN, "drop": 1})
    blank = [tuple(not part.any() for part in dataset[draw, 2]["picture"].split(3)) for draw in range(12)]
    assert set(blank) == {(True, False), (False, True)}


def test_what_a_slice_shows() -> None:
    codes = np.zeros((4, 4), int)
    np.testing.assert_array_equal(slice_presence(codes), [0] * 6)
    codes[0, 0] = 2
    np.testing.assert_array_equal(slice_presence(codes), [1, 0, 1, 0, 0, 0])
    codes[0, 1] = 6
    np.testing.assert_array_equal(slice_presence(codes), [1, np.nan, 1, np.nan, np.nan, np.nan])


def test_slices_of_which_nothing_is_known_are_left_out() -> None:
    known = np.full((6, 6), np.nan)
    known[1:3, 0] = [1, 0]
    labelled = exam(0, True, has_mask=False, slices=known)
    negative = exam(2, False, has_mask=False)
    dataset = slabs(labelled, negative)
    assert dataset.places == [(0, 1), (0, 2), *((1, z) for z in range(6))]
    np.testing.assert_array_equal(dataset.blood, [True] + [False] * 7)
    np.testing.assert_array_equal(dataset[0, 0]["presence"], [1] + [np.nan] * 5)
    np.testing.assert_array_equal(dataset[0, 3]["presence"], [0] * 6)
    assert dataset[0, 0]["outlined"] == 0


def test_the_share_of_blood_is_as_asked_and_each_bleed_is_met_as_often() -> None:
    short = exam(0, True)
    long = exam(1, True, planes=lambda: np.ones((2, 6, 64, 64), np.uint16))
    dataset = slabs(short, long, exam(2, False))
    weights = np.array(dataset.weights(0.7))
    number = np.array([place[0] for place in dataset.places])
    assert weights.sum() == pytest.approx(1)
    for which in (0, 1):
        assert weights[dataset.blood & (number == which)].sum() == pytest.approx(0.35)


def test_each_type_is_met_as_often_however_few_exams_show_it() -> None:
    def planes(*codes: int) -> NDArray[np.uint16]:
        return np.tile(np.array(codes, np.uint16)[:, None, None], (2, 1, 8, 8))

    shown = [(0, 1, 1, 1), (0, 0, 1, 0), (0, 1, 0, 0), (0, 3, 0, 3), (0, 6, 0, 0)]
    items = [exam(k, True, planes=lambda codes=codes: planes(*codes)) for k, codes in enumerate(shown)]
    dataset = slabs(*items)
    weights = np.array(dataset.weights(0.9))
    share = dict.fromkeys([0, 1, 3, 6], 0.0)
    for (number, z), weight in zip(dataset.places, weights, strict=True):
        share[shown[number][z]] += weight
    assert share == pytest.approx({0: 0.1, 1: 0.3, 3: 0.3, 6: 0.3})
    number = np.array([place[0] for place in dataset.places])
    assert [weights[dataset.blood & (number == k)].sum() for k in range(3)] == pytest.approx([0.1] * 3)


def test_lesions_are_connected_pixels_of_a_type() -> None:
    codes = np.zeros((32, 32), np.int64)
    codes[2:5, 3:9], codes[5, 9], codes[20:24, 20:22], codes[4, 20], codes[5:9, 3:9] = 1, 1, 6, 3, 2
    boxes, types, instances = lesions_of(codes, min_area=4)
    np.testing.assert_array_equal(types[:4], [2, 1, 0, -1])
    np.testing.assert_array_equal(boxes[:3], [[3, 5, 9, 9], [3, 2, 10, 6], [20, 20, 22, 24]])
    np.testing.assert_array_equal(instances == 2, codes == 1)


class Fixed(nn.Module):
    """A network that answers what it was told."""

    def __init__(self, **outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.outputs


def test_losses_of_outlines_types_and_presence() -> None:
    torch.manual_seed(0)
    mask, presence = torch.randn(2, 6, 4, 4), torch.randn(2, 6)
    codes = torch.zeros(2, 4, 4, dtype=torch.long)
    codes[0, 0, :3], codes[0, 1, 0], codes[1] = 1, 6, 4  # the second has no mask: its codes must not count
    batch = {
        "picture": torch.zeros(2, 1, 4, 4),
        "codes": codes * torch.tensor([1, 0])[:, None, None],
        "outlined": torch.tensor([1.0, 0.0]),
        "presence": torch.tensor([[1.0, 1, 0, 0, 0, 0], [1, *[float("nan")] * 5]]),
    }
    losses = DenseModule(Fixed(mask=mask, presence=presence), steps=1, lr=1, focal=0).loss(batch)
    probability, blood = mask[0, 0].sigmoid(), (codes[0] > 0).float()
    dice = 1 - (2 * (probability * blood).sum() + 1) / (probability.sum() + 4 + 1)
    assert losses["dice_loss"] == pytest.approx(float(dice), rel=1e-5)
    slab = 1 - (2 * (probability * blood).sum() + 10) / (probability.sum() + 4 + 10)
    assert losses["slab_loss"] == pytest.approx(float(slab), rel=1e-5)
    pixel = -(blood * probability.log() + (1 - blood) * (1 - probability).log()).sum() / (4 + 0.002 * 16)
    assert losses["pixel_loss"] == pytest.approx(float(pixel), rel=1e-5)
    typed = -mask[0, 1:].log_softmax(0)[0, 0, :3].mean() / 5
    assert losses["type_loss"] == pytest.approx(float(typed), rel=1e-5)
    drawn = probability * mask[0, 1:].softmax(0)[0] * (codes[0] != 6)  # what is of no known type has no wrong one
    of_type = 1 - (2 * drawn[0, :3].sum() + 1) / (drawn.sum() + 3 + 1)
    assert losses["typed_loss"] == pytest.approx(float(of_type), rel=1e-5)
    known = torch.cat([presence[0], presence[1, :1]])
    wanted = -(known[[0, 1, 6]].sigmoid().log().sum() + (1 - known[2:6].sigmoid()).log().sum()) / 7
    assert losses["presence_loss"] == pytest.approx(float(wanted), rel=1e-5)


def test_a_coarser_mask_counts_by_its_stride_against_every_other_pixel() -> None:
    torch.manual_seed(0)
    fine = {"mask": torch.randn(2, 6, 8, 8), "presence": torch.randn(2, 6)}
    coarse = torch.randn(2, 6, 2, 2)
    codes = torch.randint(0, 6, (2, 8, 8))
    batch = {
        "picture": torch.zeros(2, 1, 8, 8),
        "codes": codes,
        "outlined": torch.ones(2),
        "presence": torch.ones(2, 6),
    }
    every = torch.stack([codes[:, [2, 6]][:, :, column] for column in (2, 6)], 2)  # the middles of 4 x 4 pixels
    parts = {"steps": 1, "lr": 1, "focal": 1.0, "presence": 0.0}
    alone = DenseModule(Fixed(mask=coarse, presence=fine["presence"]), **parts).loss({**batch, "codes": every})["loss"]
    without = DenseModule(Fixed(**fine), **parts).loss(batch)["loss"]
    losses = DenseModule(Fixed(**fine, mask_4=coarse), **parts).loss(batch)
    assert losses["loss"] == pytest.approx(float(without + alone / 4), rel=1e-5)
    assert losses["mask_4_loss"] == pytest.approx(float(alone), rel=1e-5)


def tiny_detector() -> MaskRoiCnn:
    torch.manual_seed(0)
    return MaskRoiCnn(
        slices=3, windows=2, widths=(8, 16, 24, 32, 32), modules=1, channels=32, before=32, proposals=32, hidden=64,
        mask_width=16, detections=4,
    )  # fmt: skip


def test_the_detectors_dense_map_is_held_to_the_share_of_blood_in_its_cells() -> None:
    """Half of the Dice is over the batch and half within each slab that shows blood."""
    dataset = LesionDataset(
        [exam(0, True), exam(1, False)], min_area=4, slices=3, windows=WINDOWS, augment=PLAIN, seed=0
    )
    chosen = [int(np.flatnonzero(dataset.blood)[0]), int(np.flatnonzero(~dataset.blood)[-1])]
    batch = torch.utils.data.default_collate([dataset[0, k] for k in chosen])
    network = tiny_detector()
    seen: list[Tensor] = []
    network.dense.register_forward_hook(lambda module, given, answer: seen.append(answer[:, 0].detach().sigmoid()))
    loss = DetectorModule(network, steps=1, lr=1).loss(batch)["dense_loss"]
    (drawn,) = seen
    side = batch["codes"].shape[-1] // drawn.shape[-1]
    cells = batch["codes"].unflatten(1, (-1, side)).unflatten(3, (-1, side))
    blood = (cells > 0).float().mean((2, 4))
    assert blood[0].sum() > 0 == blood[1].sum()
    dice = 1 - (2 * (drawn * blood).sum() + 1) / ((drawn + blood).sum() + 1)
    slab = 1 - (2 * (drawn[0] * blood[0]).sum() + 2) / ((drawn[0] + blood[0]).sum() + 2)
    each = -(blood * drawn.log() + (1 - blood) * (1 - drawn).log()) * (drawn - blood).abs()
    pixel = each.sum() / (blood.sum() + 0.002 * blood.numel())
    assert float(loss.detach()) == pytest.approx(float((dice + slab) / 2 + pixel), rel=1e-4)


def test_without_masks_only_presence_moves_the_detector_but_all_of_it_has_a_gradient() -> None:
    known = np.full((6, 6), 1.0)
    dataset = LesionDataset(
        [exam(0, True, has_mask=False, slices=known)], min_area=4, slices=3, windows=WINDOWS, augment=PLAIN, seed=0
    )
    batch = torch.utils.data.default_collate([dataset[0, k] for k in range(2)])
    network = tiny_detector()
    losses = DetectorModule(network, steps=1, lr=1).loss(batch)
    assert {name for name, value in losses.items() if value > 0} == {"loss", "presence_loss"}
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert not network.roi.score.weight.grad.any()
    assert network.pyramid.stem[0].weight.grad.any()


def trained(network: nn.Module, folder: Path, **settings: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Answers on exams that it has not seen, after a short fit, and what they show."""
    context = FitContext(folder, precision="bf16-mixed", progress=False)
    both = {"dense": settings, "detector": {**settings, "min_area": 4}, "exams": {"steps": 0}}
    fit_hemorrhage(network, exams(), context, windows=WINDOWS, positives=0.7, augment={}, **both)
    unseen = LesionDataset(
        [exam(seed, seed % 4 < 2) for seed in range(100, 108)],
        min_area=4,
        slices=3,
        windows=WINDOWS,
        augment=PLAIN,
        seed=0,
    )
    batch = torch.utils.data.default_collate([unseen[0, k] for k in range(len(unseen))])
    with torch.no_grad():
        return network(batch["picture"]), batch


@pytest.mark.parametrize("make", [UNet, UNet3d])
def test_a_dense_network_learns_to_outline(tmp_path: Path, make: type[UNet] | type[UNet3d]) -> None:
    torch.manual_seed(0)
    network = make(slices=3, windows=2, widths=(8, 8, 16, 16))
    answers, truth = trained(network, tmp_path, steps=25, batch_size=8, lr=1e-2)
    found, blood = answers["mask"][:, 0] > 0, truth["codes"] > 0
    assert 2 * (found & blood).sum() / (found.sum() + blood.sum()) > 0.8


def test_labels_of_whole_exams_train_presence_by_the_slab_that_shows_most() -> None:
    logits = torch.tensor([[0.0], [2.0], [-1.0], [-3.0]]).repeat(1, 6)  # two slabs of two exams
    truth = torch.tensor([[1.0, 1, *[float("nan")] * 4], [0.0] * 6])
    batch = {"pictures": torch.zeros(2, 2, 1, 4, 4), "truth": truth}
    loss = ExamModule(Fixed(presence=logits), steps=1, lr=1).loss(batch)["loss"]
    assert loss == pytest.approx((2 * np.log1p(np.exp(-2)) + 6 * np.log1p(np.exp(-1))) / 8, rel=1e-5)


def test_labels_of_whole_exams_alone_are_enough_to_train_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = UNet3d(slices=3, windows=2, widths=(4, 8, 8, 8))
    before = [parameter.clone() for parameter in network.presence.parameters()]
    weak = [exam(seed, True, has_mask=False) for seed in range(2)]
    fit_hemorrhage(
        network,
        weak,
        FitContext(tmp_path, progress=False),
        windows=WINDOWS,
        positives=0.5,
        dense={},
        detector={},
        exams={"steps": 2, "batch_size": 2, "lr": 1e-2, "slabs": 3},
        augment={},
    )
    assert (tmp_path / "exams.csv").is_file()
    assert all(not torch.equal(*pair) for pair in zip(before, network.presence.parameters(), strict=True))


def test_the_detector_learns_to_find_and_to_tell_apart(tmp_path: Path) -> None:
    answers, truth = trained(tiny_detector(), tmp_path, steps=40, batch_size=8, lr=4e-3)
    blood = truth["types"][:, 0] > 0
    scores = answers["scores"][:, 0]
    assert (scores[blood][:, None] > scores[~blood]).float().mean() > 0.9
    first, want = answers["boxes"][blood, 0], truth["boxes"][blood, 0]
    assert ((first - want).abs().amax(1) < 12).float().mean() > 0.8

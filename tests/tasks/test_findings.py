"""Many labels of a film: unknown ones count nothing, the recipe is reproduce-chexnet's, a killed fit ends alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss
from torch import Tensor, nn

from domainseg.files import DomainsegError
from domainseg.tasks.augment import Augmenter
from domainseg.tasks.findings import FindingsDataset, FindingsModule, fit_findings, labels_of, mean_loss, taught
from domainseg.tasks.fit import FitContext, StepModule, fit
from domainseg.tasks.items import Item, StepSampler, as_uint16
from domainseg.tasks.plateau import Plateau

PLAIN = {"rotate": 0, "shift": 0, "scale": 0, "gamma": 0, "brightness": 0, "contrast": 0, "blur": 0, "noise": 0}
TARGETS = ("mass", "edema", "hernia")
NAN = float("nan")


class Linear(nn.Module):
    """A linear answer for each finding to the picture's pixels."""

    targets = TARGETS

    def __init__(self, pixels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(pixels, len(TARGETS))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.last(x.flatten(1))
        return {name: logits[:, k] for k, name in enumerate(TARGETS)}


def film(image: str, *labels: float, picture: np.ndarray | None = None) -> Item:
    planes = as_uint16(np.zeros((2, 2), np.float32) if picture is None else picture.astype(np.float32))[None]
    return Item(image, "", lambda: planes, np.eye(3), dict(zip(TARGETS, labels, strict=True)))


def films(count: int = 23, seed: int = 1) -> list[Item]:
    """Films whose first pixel tells of the mass and whose second tells of the edema; some labels unknown."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        picture = rng.random((2, 2))
        labels = [float(picture[0, 0] > 0.5), float(picture[0, 1] > 0.6), 0.0]
        if k % 5 == 0:
            labels[k % 2] = NAN
        made.append(film(f"f{k}", *labels, picture=picture))
    return made


def test_only_known_labels_count() -> None:
    network = Linear()
    labels = np.array([[1, 0, NAN], [NAN, 1, NAN], [0, NAN, 1]], np.float32)
    pictures = torch.rand(3, 1, 2, 2)
    module = FindingsModule(network, torch.ones(2, 3), steps=1, lr=0.1, weight_decay=0, optimizer="sgd")
    with torch.no_grad():
        loss = module.loss({"picture": pictures, "labels": torch.from_numpy(labels)})["loss"]
        p = torch.stack(list(network(pictures).values()), 1).sigmoid().numpy()
    known = ~np.isnan(labels)
    assert float(loss) == pytest.approx(log_loss(labels[known], p[known].astype(float)), rel=1e-5)
    assert known.sum() == 5


def test_what_no_film_teaches_is_left_out() -> None:
    items = [film("a", 1, NAN, 0), film("b", 0, 1, 0), film("c", 0, 1, NAN), film("d", NAN, NAN, 0)]
    assert taught(items, TARGETS) == {"mass": pytest.approx(1 / 3)}  # of edema no film without, of hernia none with it
    assert labels_of(items, ("hernia", "fibrosis")).tolist()[0] == [0, pytest.approx(NAN, nan_ok=True)]


def test_half_of_the_films_are_shown_left_to_right_by_seed_draw_and_index_only() -> None:
    picture = np.array([[0.0, 1.0], [0.25, 0.5]])
    items = [film("a", 1, 0, 0, picture=picture)] * 2

    def shown(seed: int, flip: bool = True) -> list[np.ndarray[Any, Any]]:
        dataset = FindingsDataset(items, labels_of(items, TARGETS), Augmenter(seed=0, **PLAIN), seed, flip)
        return [dataset[draw, draw % 2]["picture"][0].numpy() for draw in range(200)]

    flipped = [bool(np.allclose(seen, picture[:, ::-1], atol=1e-4)) for seen in shown(3)]
    assert all(flip or np.allclose(seen, picture, atol=1e-4) for flip, seen in zip(flipped, shown(3), strict=True))
    assert 70 < sum(flipped) < 130
    assert [bool(np.allclose(seen, picture[:, ::-1], atol=1e-4)) for seen in shown(3)] == flipped
    assert [bool(np.allclose(seen, picture[:, ::-1], atol=1e-4)) for seen in shown(4)] != flipped
    assert all(np.allclose(seen, picture, atol=1e-4) for seen in shown(3, flip=False))


def recipe(**changes: Any) -> dict[str, Any]:
    few = {"films": 0, "wait": 1, "patience": 1}
    settings = {"optimizer": "sgd", "epochs": 12, "batch_size": 4, "lr": 0.5, "weight_decay": 1e-4, "weighted": False}
    return settings | {"wait": 1, "patience": 3, "few": few, "flip": False, "augment": PLAIN} | changes


def reference(items: list[Item], tune: list[Item], cfg: dict[str, Any]) -> tuple[list[float], nn.Module]:
    """The training loop of jrzech/reproduce-chexnet, on the batches that the sampler gives."""
    network = Linear()
    x = torch.stack([torch.from_numpy(item.picture())[None] for item in items])
    y = torch.from_numpy(labels_of(items, TARGETS))[:, :2]
    x_tune = torch.stack([torch.from_numpy(item.picture())[None] for item in tune])
    y_tune = torch.from_numpy(labels_of(tune, TARGETS))[:, :2]

    def loss_of(pictures: Tensor, labels: Tensor) -> Tensor:
        logits = torch.stack(list(network(pictures).values()), 1)[:, :2]
        known = ~labels.isnan()
        return F.binary_cross_entropy_with_logits(logits[known], labels[known])

    every = -(-len(items) // cfg["batch_size"])
    sampler = StepSampler(len(items), steps=cfg["epochs"] * every, batch_size=cfg["batch_size"], seed=0)
    rate, best, best_epoch, losses = cfg["lr"], float("inf"), 0, []
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=cfg["weight_decay"])
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    for epoch in range(1, cfg["epochs"] + 1):
        for step in range((epoch - 1) * every, epoch * every):
            index = [k for _, k in sampler.batch(step)]
            optimizer.zero_grad()
            loss_of(x[index], y[index]).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 3.0)
            optimizer.step()
        with torch.no_grad():
            losses.append(float(loss_of(x_tune, y_tune)))
        if losses[-1] < best:
            best, best_epoch = losses[-1], epoch
            kept = {name: value.clone() for name, value in network.state_dict().items()}
        elif epoch - best_epoch >= cfg["patience"]:
            break
        elif epoch - best_epoch >= cfg["wait"]:
            rate /= 10
            optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=cfg["weight_decay"])
    network.load_state_dict(kept)
    return losses, network


@pytest.mark.parametrize("changes", [{}, {"lr": 8.0}, {"lr": 8.0, "wait": 2}])
def test_it_trains_as_reproduce_chexnet_does(changes: dict[str, Any], tmp_path: Path) -> None:
    items, tune, cfg = films(), films(9, seed=2), recipe(**changes)
    network = Linear()
    fit_findings(network, items, FitContext(tmp_path, progress=False, watched=tune), **cfg)
    losses, wanted = reference(items, tune, cfg)
    rows = [line.split(",") for line in (tmp_path / "epochs.csv").read_text().splitlines()[1:]]
    assert [float(row[2]) for row in rows] == pytest.approx(losses, rel=1e-5)
    for (name, got), want in zip(network.state_dict().items(), wanted.state_dict().values(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5, msg=name)
    if changes:
        assert len(losses) < cfg["epochs"], "nothing ended early: the comparison says little"


def test_weighted_answers_are_put_back_on_the_base_rate(tmp_path: Path) -> None:
    """Blank pictures: all that can be learned is how frequent a finding is."""
    items = [film(f"f{k}", float(k % 10 == 0), float(k % 3 == 0), 0.0) for k in range(60)]
    for weighted in (False, True):
        network, context = Linear(), FitContext(tmp_path / str(weighted), progress=False, watched=items)
        cfg = recipe(optimizer="adam", lr=0.1, weight_decay=0, epochs=30, batch_size=60, weighted=weighted, patience=30)
        fit_findings(network, items, context, **{**cfg, "wait": 30})
        with torch.no_grad():
            p = torch.stack(list(network(torch.zeros(1, 1, 2, 2)).values()), 1).sigmoid()[0]
        assert p[:2].tolist() == pytest.approx([0.1, 1 / 3], abs=0.02), weighted


def test_few_films_have_a_schedule_of_their_own(tmp_path: Path) -> None:
    items, cfg = films(), recipe(lr=8.0, few={"films": 23, "wait": 99, "patience": 99})
    fit_findings(Linear(), items, FitContext(tmp_path, progress=False, watched=films(9, seed=2)), **cfg)
    rows = [line.split(",") for line in (tmp_path / "epochs.csv").read_text().splitlines()[1:]]
    assert len(rows) == 12
    assert {row[3] for row in rows} == {"8.0"}


@pytest.mark.parametrize(
    ("items", "tune", "changes", "said"),
    [
        (films(), films(9), {"optimizer": "lion"}, "optimizer=lion: known are sgd and adam"),
        ([film("a", NAN, 1, 0)], films(9), {}, "no finding is known to be present"),
        (films(), [], {}, "tune has no readable film"),
        (films(), [film("a", NAN, NAN, 0)], {}, "tune has no readable film"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    items: list[Item], tune: list[Item], changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DomainsegError, match=said):
        fit_findings(Linear(), items, FitContext(tmp_path, progress=False, watched=tune), **recipe(**changes))


def test_loss_on_tune_is_the_mean_over_known_labels_whatever_the_batch() -> None:
    items = films(9, seed=2)
    module = FindingsModule(Linear(), torch.ones(2, 3), steps=1, lr=0.1, weight_decay=0, optimizer="sgd")
    dataset = FindingsDataset(items, labels_of(items, TARGETS), Augmenter(seed=0, **PLAIN), 0, flip=False)
    with torch.no_grad():
        losses = [mean_loss(module, dataset, size) for size in (1, 4, 9)]
    assert losses == pytest.approx([losses[0]] * 3)


class Killed(Exception):
    """Stands for kill -9: nothing is saved on the way out."""


def test_a_killed_fit_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed inside an epoch, at its end, after the rate has fallen, and when all but the stage was done."""
    items, tune, cfg = films(), films(9, seed=2), recipe(lr=8.0, flip=True)
    whole = Linear()
    fit_findings(whole, items, FitContext(tmp_path / "a", progress=False, checkpoint_every=3, watched=tune), **cfg)
    last = (tmp_path / "a/fit.csv").read_text().splitlines()[-1].split(",")[0]
    assert int(last) < 72, "it ended early"
    context = FitContext(tmp_path / "b", progress=False, checkpoint_every=3, watched=tune)
    for step in (0, 4, 6, 7, 13, 18, 19, int(last) - 1):

        def die(module: StepModule, optimizer: Any, at: int = step) -> None:
            if module.global_step == at:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(FindingsModule, "on_before_optimizer_step", die)
            with pytest.raises(Killed):
                fit_findings(Linear(), items, context, **cfg)
    for again in ("goes on", "was finished"):
        network = Linear()
        fit_findings(network, items, context, **cfg)
        for name, value in whole.state_dict().items():
            assert torch.equal(network.state_dict()[name], value), (again, name)
    for file in ("fit.csv", "epochs.csv"):
        assert (tmp_path / "b" / file).read_bytes() == (tmp_path / "a" / file).read_bytes()


def test_best_weights_come_back_with_running_statistics(tmp_path: Path) -> None:
    """A scripted loss on tune: the second epoch is the best, the fit ends two later."""
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 3))
    seen: list[dict[str, Tensor]] = []
    losses = iter([0.5, 0.4, 0.45, 0.41, 0.1])

    def loss() -> float:
        assert not network.training
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return next(losses)

    class Any3(FindingsModule):
        def loss(self, batch: Any) -> dict[str, Tensor]:
            return {"loss": self.network(batch["picture"]).square().mean()}

    dataset = FindingsDataset(films(), labels_of(films(), TARGETS), Augmenter(seed=0, **PLAIN), 0, flip=False)
    module = Any3(network, torch.ones(2, 3), steps=50, lr=0.1, weight_decay=0, optimizer="sgd")
    plateau = Plateau(tmp_path / "epochs.csv", loss, every=5, wait=1, patience=2)
    fit(module, dataset, batch_size=4, context=FitContext(tmp_path, progress=False), plateau=plateau)
    assert len(seen) == 4
    assert all(torch.equal(value, seen[1][name]) for name, value in network.state_dict().items())
    assert not torch.equal(seen[3]["0.running_mean"], seen[1]["0.running_mean"])
    rates = [float(line.split(",")[3]) for line in (tmp_path / "epochs.csv").read_text().splitlines()[1:]]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.01])

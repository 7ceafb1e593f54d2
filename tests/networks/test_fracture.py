"""The fracture network against its stated numbers, and its training settings against the plain network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from domainseg.networks import FractureDenseNet, InputSizeError
from domainseg.networks.base import count_parameters


def mode_gap(net: FractureDenseNet, x: Tensor) -> float:
    """Largest difference in any logit between train and eval mode on the same pictures; leaves it as it was."""
    twin = copy.deepcopy(net)
    with torch.no_grad():
        learning, working = twin.train()(x), twin.eval()(x)
    return max(float((learning[name] - working[name]).abs().max()) for name in working)


def running(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.named_buffers()}


def step(net: FractureDenseNet, x: Tensor) -> dict[str, Tensor]:
    """One training step; returns the gradients."""
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    out = net(x)
    (out["fracture"].square().mean() + out["location"].square().mean() + out["map"].square().mean()).backward()
    grads = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    optimizer.step()
    return grads


def test_parameters_and_layers_of_the_reconstruction() -> None:
    net = FractureDenseNet()
    assert count_parameters(net) - net.map_parameters == 1_434_176
    layers = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len([name for name in layers if not name.startswith("maps.")]) == 172
    # 1x1 convolutions with bias to 3 channels from 144, 192 and 264 channels (widths of blocks 2, 3, 4).
    assert net.map_parameters == 3 * (144 + 192 + 264) + 3 * 3


def test_last_level_at_1024_pixels_is_4_by_4_and_the_map_32_by_32() -> None:
    net = FractureDenseNet(blocks=(1,) * 7).eval()
    seen: list[tuple[int, ...]] = []
    net.blocks[-1].register_forward_hook(lambda module, args, out: seen.append(tuple(out.shape[-2:])))
    with torch.no_grad():
        out = net(torch.rand(1, 1, 1024, 1024))
    assert seen == [(4, 4)]
    assert out["map"].shape == (1, 3, 32, 32)


def test_forward_is_tail_and_map_of_front_and_dense_agrees_at_stride_32() -> None:
    net = FractureDenseNet(blocks=(1, 2, 1, 2, 1, 1, 1)).eval()
    x = torch.rand(2, 1, 256, 256)
    with torch.no_grad():
        out, features, maps = net(x), net.front(x), net.dense(x)
        tail = net.tail(features)
    assert torch.equal(out["fracture"], tail["fracture"])
    assert torch.equal(out["location"], tail["location"])
    assert torch.equal(out["map"], net.map(features))
    assert torch.equal(out["map"], maps[32])
    assert {s: tuple(m.shape) for s, m in maps.items()} == {8: (2, 3, 32, 32), 16: (2, 3, 16, 16), 32: (2, 3, 8, 8)}


def test_fracture_is_the_log_odds_of_the_two_class_head() -> None:
    net = FractureDenseNet(blocks=(1,) * 5).eval()
    seen: list[Tensor] = []
    net.classifier.register_forward_hook(lambda module, args, out: seen.append(out))
    with torch.no_grad():
        out = net(torch.rand(3, 1, 64, 64))
    probability = seen[0][:, :2].softmax(1)[:, 1]
    torch.testing.assert_close(out["fracture"].sigmoid(), probability)


def test_patches_of_160_pixels_have_dense_maps_but_are_no_roi() -> None:
    net = FractureDenseNet(blocks=(1,) * 7)
    assert net.dense(torch.rand(1, 1, 160, 160))[32].shape == (1, 3, 5, 5)
    with pytest.raises(InputSizeError, match=r"multiples of 256.* 256 x 256"):
        net(torch.rand(1, 1, 160, 160))
    with pytest.raises(InputSizeError, match=r"multiples of 32.* 160 x 192"):
        net.dense(torch.rand(1, 1, 161, 200))
    with pytest.raises(InputSizeError, match="multiples of 8"):
        net.tail(net.front(torch.rand(1, 1, 160, 160)))


def test_too_few_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 5"):
        FractureDenseNet(blocks=(6, 12, 24, 16))


def test_checkpointing_changes_neither_gradients_nor_statistics_nor_eval() -> None:
    torch.manual_seed(0)
    plain = FractureDenseNet(blocks=(2, 2, 2, 2, 2))
    saving = FractureDenseNet(blocks=(2, 2, 2, 2, 2), checkpoint=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.rand(2, 1, 128, 128)
    before = running(plain)
    want, got = step(plain, x), step(saving, x)
    assert want.keys() == got.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-4, atol=1e-6, msg=name)
    after = running(plain)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    for name, value in running(saving).items():
        torch.testing.assert_close(value, after[name], rtol=1e-5, atol=1e-6, msg=name)
    with torch.no_grad():
        there, here = plain.eval()(x), saving.eval()(x)
    for name in there:
        torch.testing.assert_close(here[name], there[name], rtol=1e-4, atol=1e-5)


def test_frozen_norm_holds_statistics_and_closes_the_gap_between_train_and_eval() -> None:
    torch.manual_seed(0)
    net = FractureDenseNet(blocks=(2,) * 7)
    for _ in range(3):
        step(net, torch.rand(2, 1, 512, 512))
    x = torch.rand(1, 1, 512, 512)
    assert mode_gap(net, x) > 1e-4
    net.freeze_norm()
    assert mode_gap(net, x) == 0
    before = running(net)
    net.train()
    grads = step(net, x)
    assert all(torch.equal(before[name], value) for name, value in running(net).items())
    assert "blocks.0.layers.0.norm1.weight" in grads, "the affine part goes on learning"
    net.freeze_norm(False)
    step(net, x)
    assert any(not torch.equal(before[name], value) for name, value in running(net).items())

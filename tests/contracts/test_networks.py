"""One contract that every network keeps: shapes, types, sizes, saving, gradients, bf16, export."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from domainseg.networks import (
    BoxesAndOutlines,
    FractureDenseNet,
    HeadNet,
    ImplantNet,
    InputSizeError,
    LocalizerRegression,
    LocalizerUNet,
    MaskRoiCnn,
    Network,
    UNet,
    UNet3d,
    ViewNet,
    WholeFilmDenseNet121,
)

THIN = (1, 1, 1, 1, 1, 1, 1)


def settle(net: Network, size: int) -> Network:
    """Gives an untrained network running statistics and head weights of a trained one's order, then eval mode."""
    torch.manual_seed(1)
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
    net.train()
    with torch.no_grad():
        for _ in range(5):
            net(torch.rand(4, net.channels, size, size))
    return net.eval()


class NetworkContract:
    """Subclasses say how to build a quick network, at which size, and what it answers to a batch of `b` pictures."""

    channels: ClassVar[int] = 1
    size: ClassVar[int] = 64
    wide: ClassVar[int] = 96
    """Width of a picture that is not square; equal to `size` where only squares fit."""
    tolerance: ClassVar[float] = 1e-4

    def build(self) -> Network:
        raise NotImplementedError

    def shapes(self, b: int, h: int, w: int) -> dict[str, tuple[int, ...]]:
        raise NotImplementedError

    def loss(self, net: Network, x: Tensor) -> Tensor:
        return torch.stack([out.square().mean() for out in net(x).values()]).sum()

    @pytest.fixture
    def net(self) -> Network:
        torch.manual_seed(0)
        return self.build()

    def picture(self, batch: int = 2) -> Tensor:
        shape = (batch, self.channels, self.size, self.size)
        return torch.rand(shape, generator=torch.Generator().manual_seed(7))

    def test_named_float32_outputs_of_the_promised_shapes(self, net: Network) -> None:
        net.eval()
        with torch.no_grad():
            for batch, width in [(1, self.size), (2, self.size), (2, self.wide)]:
                out = net(torch.rand(batch, self.channels, self.size, width))
                assert {k: tuple(v.shape) for k, v in out.items()} == self.shapes(batch, self.size, width)
                assert all(v.dtype == torch.float32 and v.isfinite().all() for v in out.values())

    def test_a_size_that_does_not_fit_is_refused_with_the_nearest_that_does(self, net: Network) -> None:
        with pytest.raises(InputSizeError, match=f"{self.size} x {self.size}"):
            net(torch.rand(1, self.channels, self.size + 1, self.size - 1))

    def test_other_channels_are_refused(self, net: Network) -> None:
        with pytest.raises(InputSizeError, match=f"{self.channels}, height, width"):
            net(torch.rand(1, self.channels + 2, self.size, self.size))

    def test_eval_answers_each_picture_by_itself(self, net: Network) -> None:
        settle(net, self.size)
        x = self.picture(3)
        with torch.no_grad():
            whole, alone = net(x), net(x[1:2])
        for name, out in alone.items():
            torch.testing.assert_close(out, whole[name][1:2], rtol=1e-4, atol=1e-4)

    def test_saved_weights_give_the_same_answers(self, net: Network, tmp_path: Path) -> None:
        settle(net, self.size)
        torch.save(net.state_dict(), tmp_path / "net.pt")
        torch.manual_seed(99)
        other = self.build().eval()
        other.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
        with torch.no_grad():
            want, got = net(self.picture()), other(self.picture())
        assert all(torch.equal(want[name], got[name]) for name in want)

    def test_gradient_reaches_every_parameter(self, net: Network) -> None:
        net.train()
        self.loss(net, self.picture()).backward()
        silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert silent == []

    def test_bf16_channels_last_is_finite_and_near_float32(self, net: Network) -> None:
        settle(net, self.size)
        x = self.picture()
        with torch.no_grad():
            plain = net(x)
            fast = net.to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                out = fast(x.contiguous(memory_format=torch.channels_last))
        for name, want in plain.items():
            assert out[name].dtype == torch.float32
            assert (out[name] - want).abs().max() < 0.1 * (1 + want.abs().max())

    def test_bf16_training_step_is_finite(self, net: Network) -> None:
        net.train()
        with torch.autocast("cpu", torch.bfloat16):
            loss = self.loss(net, self.picture())
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())

    def test_onnx_gives_the_same_answers_at_another_batch_size(self, net: Network, tmp_path: Path) -> None:
        assert_onnx_parity(settle(net, self.size), self.size, tmp_path / "net.onnx", self.tolerance)


def assert_onnx_parity(net: Network, size: int, path: Path, tolerance: float) -> None:
    x = torch.rand(2, net.channels, size, size)
    with torch.no_grad():
        names = list(net(x))
    torch.onnx.export(
        net,
        (x,),
        path,
        input_names=["image"],
        output_names=names,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    y = torch.rand(3, net.channels, size, size)
    with torch.no_grad():
        want = net(y)
    spread = 0.0
    for name, got in zip(names, session.run(names, {"image": y.numpy()}), strict=True):
        np.testing.assert_allclose(got, want[name].numpy(), rtol=0, atol=tolerance, err_msg=name)
        spread = max(spread, float(np.ptp(got)))
    assert spread > 100 * tolerance, "answers too alike for the comparison to mean anything"


class TestViewNet(NetworkContract):
    def build(self) -> Network:
        return ViewNet()

    def shapes(self, b: int, h: int, w: int) -> dict[str, tuple[int, ...]]:
        return {"view": (b, 3), "turn": (b, 4)}


class TestImplantNet(NetworkContract):
    def build(self) -> Network:
        return ImplantNet()

    def shapes(self, b: int, h: int, w: int) -> dict[str, tuple[int, ...]]:
        return {"implant": (b,)}


class TestHeadNet(NetworkContract):
    channels = 6

    def build(self) -> Network:
        return HeadNet()

    def shapes(self, b: int, h: int, w: int) -> dict[str, tuple[int, ...]]:
        return {"head": (b,)}

    # The export is that of the implant network.
    test_onnx_gives_the_same_answers_at_another_batch_size = None  # type: ignore[assignment]


class TestUNet(NetworkContract):
    channels = 6
    tolerance = 1e-3

    def build(self) -> Network:
        return UNet(slices=3, windows=2, widths=(8, 8, 16, 16, 16))

    def shapes(self, b: int, h: int, w: int) -> dict[str, tuple[int, ...]]:
        return {"mask": (b, 6, h, w), "presence": (b, 6)}


class TestUNet3d(TestUNet):
    def build(self) -> Network:
        return UNet3d(slices=3, windows=2, widths=(4, 8, 8, 8))


class TestMaskRoiCnn(NetworkContract):
    channels = 6

    def build(self) -> Network:
        return MaskRoiCnn(
            slices=3,
            windows=2,
            widths=(4, 8, 8, 8, 8),
            modules=1,
            channels=16,
            before=8,
            proposals=16,
            hidden=16,
            mask_width=8,
            detections=4,
        )

    def shapes(self, b: int, h: int, w: int) -> dict[str, tuple[int, ...]]:
        found = {"boxes": (b, 4, 4), "scores": (b, 4), "labels": (b, 4), "types": (b, 4, 5), "masks": (b, 4, 56, 56)}
        return {**found, "presence": (b, 6)}

    def loss(self, net: Network, x: Tensor) -> Tensor:
        assert isinstance(net, MaskRoiCnn)
        masks = torch.zeros(1, self.size, self.size, dtype=torch.uint8)
        masks[0, 10:20, 30:50] = 1
        one = torch.ones(1, dtype=torch.long)
        target = {"boxes": torch.tensor([[30.0, 10, 50, 20]]), "labels": one, "types": one, "masks": masks}
        outputs, losses, _ = net.detection_losses(x, [target] * len(x), torch.ones(len(x), dtype=torch.bool))
        return torch.stack([*losses.values(), *(out.square().mean() for out in outputs.values())]).sum()

    # Which boxes are given, and in what order, jumps with the smallest change.
    test_bf16_channels_last_is_finite_and_near_float32 = None  # type: ignore[assignment]

    # It exports in its own way, see tests/training/test_onnx_model.py.
    test_onnx_gives_the_same_answers_at_another_batch_size = None  # type: ignore[assignment]


class TestBoxesAndOutlines(TestMaskRoiCnn):
    def build(self) -> Network:
        detector = super().build()
        assert isinstance(detector, MaskRoiCnn)
        return BoxesAndOutlines(detector, UNet3d(slices=3, windows=2, widths=(4, 8, 8, 8)), slices=3, windows=2)

    def shapes(self, b: int, h: int, w: int) -> dict[str, tuple[int, ...]]:
        return {**super().shapes(b, h, w), "mask": (b, 6, h, w)}

    # Its parts are trained one after the other, each as by itself.
    test_gradient_reaches_every_parameter = None  # type: ignore[assignment]
    test_bf16_training_step_is_finite = None  # type: ignore[assignment]


class TestLocalizerUNet(NetworkContract):
    tolerance = 1e-3

    def build(self) -> Network:
        return LocalizerUNet()

    def shapes(self, b: int, h: int, w: int) -> dict[str, tuple[int, ...]]:
        return {"head": (b, 2, h // 4, w // 4), "femur": (b, 2, h // 4, w // 4), "diameter": (b, 1, h // 4, w // 4)}


class TestLocalizerUNetStride2(TestLocalizerUNet):
    def build(self) -> Network:
        return LocalizerUNet(stride=2)

    def shapes(self, b: int, h: int, w: int) -> dict[str, tuple[int, ...]]:
        return {"head": (b, 2, h // 2, w // 2), "femur": (b, 2, h // 2, w // 2), "diameter": (b, 1, h // 2, w // 2)}

    # The export is that of stride 4 with one block more.
    test_onnx_gives_the_same_answers_at_another_batch_size = None  # type: ignore[assignment]


class TestLocalizerRegression(NetworkContract):
    wide = 64

    def build(self) -> Network:
        return LocalizerRegression(size=64)

    def shapes(self, b: int, h: int, w: int) -> dict[str, tuple[int, ...]]:
        return {"presence": (b, 2), "center": (b, 2, 2), "diameter": (b, 2)}


class FractureContract(NetworkContract):
    size = 256
    wide = 512

    def shapes(self, b: int, h: int, w: int) -> dict[str, tuple[int, ...]]:
        return {"fracture": (b,), "location": (b, 3), "map": (b, 3, h // 32, w // 32)}

    def loss(self, net: Network, x: Tensor) -> Tensor:
        assert isinstance(net, FractureDenseNet)
        outputs = [*net(x).values(), *net.dense(x).values()]
        return torch.stack([out.square().mean() for out in outputs]).sum()


class TestFractureDenseNet(FractureContract):
    def build(self) -> Network:
        return FractureDenseNet(blocks=THIN)


class TestFractureDenseNetCheckpointed(FractureContract):
    size = 64
    wide = 128

    def build(self) -> Network:
        return FractureDenseNet(blocks=(1, 2, 1, 2, 1), checkpoint=True)


class TestFractureDenseNetBatchNorm(FractureContract):
    size = 64
    wide = 128

    def build(self) -> Network:
        return FractureDenseNet(blocks=(1, 1, 1, 1, 1))


class TestWholeFilm(NetworkContract):
    def build(self) -> Network:
        return WholeFilmDenseNet121()

    def shapes(self, b: int, h: int, w: int) -> dict[str, tuple[int, ...]]:
        return {"fracture": (b,), "map_fracture": (b, h // 32, w // 32)}

    @pytest.mark.slow
    def test_onnx_gives_the_same_answers_at_another_batch_size(self, net: Network, tmp_path: Path) -> None:
        assert_onnx_parity(settle(net, self.size), self.size, tmp_path / "net.onnx", self.tolerance)


class TestWholeFilmWithBottleneck(TestWholeFilm):
    """Several findings, through the 15 features of Zech et al. 2018."""

    def build(self) -> Network:
        return WholeFilmDenseNet121(["pneumonia", "mass"], bottleneck=15)

    def shapes(self, b: int, h: int, w: int) -> dict[str, tuple[int, ...]]:
        cells = (b, h // 32, w // 32)
        return {"pneumonia": (b,), "mass": (b,), "map_pneumonia": cells, "map_mass": cells}

    # One layer more than without.
    test_eval_answers_each_picture_by_itself = None  # type: ignore[assignment]
    test_saved_weights_give_the_same_answers = None  # type: ignore[assignment]
    test_bf16_channels_last_is_finite_and_near_float32 = None  # type: ignore[assignment]
    test_bf16_training_step_is_finite = None  # type: ignore[assignment]
    test_onnx_gives_the_same_answers_at_another_batch_size = None  # type: ignore[assignment]


@pytest.mark.slow
def test_the_fracture_network_at_its_full_depth_exports(tmp_path: Path) -> None:
    assert_onnx_parity(settle(FractureDenseNet(), 256), 256, tmp_path / "net.onnx", 1e-4)

"""Finding the femoral heads on a reduced film: by segmentation (U-Net), or by regression of the centres as in Gale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from domainseg.networks.base import InputSizeError, Network, in_float32, kaiming, read_weights


class LocalizerUNet(Network):
    """U-Net (segmentation-models-pytorch) with a ResNet-18 encoder and a light decoder that stops at `stride`.

    forward(x), x float [B, 1, H, W] in 0..1, multiples of 32, h = H / stride:
      "head" [B, 2, h, w]: logits of a heatmap of the femoral head's centre, channel 0 the hip at the picture's left,
        1 at its right (sigmoid each);
      "femur" [B, 2, h, w]: mask logits of the proximal femur, same channels;
      "diameter" [B, 1, h, w]: natural log of (head diameter / input width), to be read at the head's centre.
    A map position (i, j) is the centre of the input square of stride x stride pixels at (stride * i, stride * j).

    `stride`: 2, 4 or 8. `decoder`: widths from stride 16 downwards, one more than needed is ignored.
    `weights`: local file with a ResNet-18 state_dict, 3-channel ones are summed to one channel; null: from scratch.
    """

    input_size = 320
    multiple = 32

    def __init__(
        self, stride: int = 4, decoder: Sequence[int] = (128, 64, 32, 24), weights: str | Path | None = None
    ) -> None:
        super().__init__()
        kept = {8: 2, 4: 3, 2: 4}.get(stride)
        if kept is None or len(decoder) < kept:
            raise ValueError(
                f"LocalizerUNet: stride={stride}, decoder={list(decoder)}: stride is 2, 4 or 8, "
                "with at least 4, 3 or 2 widths."
            )
        import segmentation_models_pytorch as smp  # late: it pulls in timm and torchvision

        widths = [*decoder[:kept], *[8] * (5 - kept)]
        net = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=1, decoder_channels=widths)
        self.stride = stride
        self.encoder: nn.Module = net.encoder
        self.decoder: nn.Module = net.decoder
        self.decoder.blocks = net.decoder.blocks[:kept]
        self.heads = nn.Conv2d(widths[kept - 1], 5, 3, padding=1)
        kaiming(self)
        assert self.heads.bias is not None
        nn.init.normal_(self.heads.weight, std=0.01)
        # A head is one place among thousands, a femur a tenth of the film, a head a tenth as wide as the film.
        self.heads.bias.data.copy_(self.heads.bias.new_tensor([-4.0, -4.0, -2.0, -2.0, -2.3]))
        if weights is not None:
            load_encoder(self.encoder, weights)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out = in_float32(self.heads, self.decoder(self.encoder(self.prepare(x))))
        return {"head": out[:, :2], "femur": out[:, 2:4], "diameter": out[:, 4:]}


class LocalizerRegression(Network):
    """Direct regression of presence, centre and diameter for both hips, the alternative as in Gale et al. (2017).

    forward(x), x float [B, 1, size, size] in 0..1 (a fixed size: places come from a flattened grid):
      "presence" [B, 2] logits of: the hip at the picture's left (right) is in the film;
      "center" [B, 2, 2]: (x, y) of the head in 0..1 of the input frame from edge to edge, (pixel + 0.5) / size;
      "diameter" [B, 2]: natural log of (head diameter / input width).
    """

    multiple = 32

    def __init__(self, size: int = 320, width: int = 32, weights: str | Path | None = None) -> None:
        super().__init__()
        if size % 32:
            raise ValueError(f"LocalizerRegression: size={size} must be a multiple of 32.")
        from segmentation_models_pytorch.encoders import get_encoder

        self.input_size = size
        self.encoder: nn.Module = get_encoder("resnet18", in_channels=1, weights=None)
        self.places = nn.Sequential(nn.Conv2d(512, width, 1), nn.ReLU(inplace=True), nn.Flatten())
        self.heads = nn.Sequential(nn.Linear(width * (size // 32) ** 2, 128), nn.ReLU(inplace=True), nn.Linear(128, 8))
        kaiming(self)
        if weights is not None:
            load_encoder(self.encoder, weights)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        size = self.input_size
        if tuple(x.shape[-2:]) != (size, size):
            raise InputSizeError(
                f"LocalizerRegression: an input of {x.shape[-2]} x {x.shape[-1]} pixels does not fit: "
                f"it was built for {size} x {size}."
            )
        out = in_float32(self.heads, self.places(self.encoder(self.prepare(x))[-1]))
        return {"presence": out[:, :2], "center": out[:, 2:6].sigmoid().reshape(-1, 2, 2), "diameter": out[:, 6:] - 2.3}


def load_encoder(encoder: nn.Module, path: str | Path) -> None:
    """Loads a ResNet state_dict from a local file; a stem for 3 channels is summed to 1, and shared by several."""
    state = read_weights(path)
    stem, wanted = state.get("conv1.weight"), encoder.state_dict()["conv1.weight"].shape[1]
    if stem is not None and stem.shape[1] == 3 != wanted:
        state["conv1.weight"] = stem.sum(1, keepdim=True).repeat(1, wanted, 1, 1) / wanted
    try:
        encoder.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit a ResNet-18 encoder: {error}") from error

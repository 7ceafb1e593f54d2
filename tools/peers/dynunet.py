"""MONAI's DynUNet in two dimensions, with MONAI's own transforms, loss and recipe of its segmentation tutorials.

One slice in the pipeline's windows, with a bleed as often as without; flips, turns, intensity; Dice with
cross-entropy under deep supervision; AdamW with a cosine that ends with the minutes; bfloat16.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from domainseg.cascade.volumes import windowed
from domainseg.imaging.hemorrhage import TYPES
from peers.cells import steps_in
from peers.exams import Prepared, Sets

BATCH, RATE = 8, 1e-3
WIDTHS = (32, 64, 128, 256, 320, 320)


def fit(sets: Sets, folder: Path, *, minutes: float, seed: int, python: Path) -> dict[str, Any]:
    """Train; what was done, and a function from an exam to codes [Z, H, W]."""
    from monai.losses import DeepSupervisionLoss, DiceCELoss
    from monai.networks.nets.dynunet import DynUNet
    from monai.transforms import (
        Compose,
        RandAffined,
        RandFlipd,
        RandGaussianNoised,
        RandScaleIntensityd,
        RandShiftIntensityd,
    )
    from monai.utils import set_determinism

    torch.set_num_threads(1)
    set_determinism(seed)
    windows: Any = sets.settings["stage"]
    windows = windows["hemorrhage"]["preprocessing"][1:]
    keys = ["picture", "codes"]
    change = Compose(
        [
            RandFlipd(keys, prob=0.5, spatial_axis=1),
            RandAffined(
                keys,
                prob=0.8,
                rotate_range=0.26,
                scale_range=0.12,
                translate_range=12,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            RandScaleIntensityd("picture", factors=0.1, prob=0.5),
            RandShiftIntensityd("picture", offsets=0.05, prob=0.5),
            RandGaussianNoised("picture", prob=0.3, std=0.03),
        ]
    ).set_random_state(seed)
    slices = [(exam, z) for exam in sets.splits["train"] for z in range(len(exam.load()[1]))]
    blood = np.array([bool(plane.any()) for exam in sets.splits["train"] for plane in exam.load()[1]])
    held = {exam.image: exam.load() for exam in sets.splits["train"]}
    rng = np.random.default_rng(seed)
    chosen = [np.flatnonzero(blood), np.flatnonzero(~blood)]

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        pictures, codes = [], []
        for k in range(BATCH):
            exam, z = slices[int(rng.choice(chosen[k % 2] if len(chosen[k % 2]) else np.arange(len(slices))))]
            hu, labels, _ = held[exam.image]
            one = change(
                {"picture": windowed(hu[z : z + 1].astype(np.float32), 1, windows)[0], "codes": labels[z][None]}
            )
            pictures.append(torch.as_tensor(one["picture"]))
            codes.append(torch.as_tensor(one["codes"]))
        return torch.stack(pictures).float(), torch.stack(codes).long()

    def made() -> DynUNet:
        torch.manual_seed(seed)
        return DynUNet(
            spatial_dims=2,
            in_channels=len(windows),
            out_channels=1 + len(TYPES),
            kernel_size=[3] * len(WIDTHS),
            strides=[1] + [2] * (len(WIDTHS) - 1),
            upsample_kernel_size=[2] * (len(WIDTHS) - 1),
            filters=list(WIDTHS),
            deep_supervision=True,
            deep_supr_num=2,
        ).to(memory_format=torch.channels_last)

    def train(network: DynUNet, steps: int) -> list[tuple[int, float]]:
        loss_of = DeepSupervisionLoss(DiceCELoss(to_onehot_y=True, softmax=True))
        optimiser = torch.optim.AdamW(network.parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        curve = []
        network.train()
        for step in range(steps):
            pictures, codes = batch()
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16):
                out = network(pictures.contiguous(memory_format=torch.channels_last))
            loss = loss_of(list(out.float().unbind(1)), codes)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
            optimiser.step()
            schedule.step()
            if step % 10 == 9:
                curve.append((step + 1, float(loss.detach())))
        return curve

    def seconds(count: int) -> float:
        began = time.process_time()
        train(made(), count)
        return time.process_time() - began

    steps = steps_in(minutes, seconds)
    network = made()
    began = time.process_time()
    curve = train(network, steps)
    used = time.process_time() - began
    network.eval()

    @torch.inference_mode()
    def predict(exam: Prepared) -> NDArray[np.uint8]:
        pictures = torch.from_numpy(windowed(exam.load()[0].astype(np.float32), 1, windows))
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):  # as it was trained
            found = [network(part).argmax(1) for part in pictures.split(8)]
        return torch.cat(found).numpy().astype(np.uint8)

    return {"steps": steps, "train_seconds": round(used, 1), "curve": curve, "predict": predict}

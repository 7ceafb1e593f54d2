"""Fit a network for a number of steps with Lightning."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from domainseg.tasks.items import StepSampler


@dataclass(frozen=True)
class FitContext:
    """Where and how a stage is fitted: its folder, the seed, and the Lightning trainer's settings."""

    folder: Path
    seed: int = 0
    accelerator: str = "cpu"
    devices: int = 1
    precision: str = "32-true"
    workers: int = 0
    progress: bool = True


class StepModule(pl.LightningModule):
    """A network, AdamW, and a schedule that warms up, stays, and falls along a cosine to zero over ``steps``.

    Subclasses give ``loss(batch) -> dict``: the key ``loss`` is minimised, all are logged.
    """

    def __init__(self, network: nn.Module, *, steps: int, lr: float, weight_decay: float = 1e-2) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.steps, self.lr, self.weight_decay = steps, lr, weight_decay

    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Named losses of a batch."""
        raise NotImplementedError

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Lightning's hook: the loss of one batch, logged."""
        losses = self.loss(batch)
        if not torch.isfinite(losses["loss"]):
            raise FloatingPointError(f"loss is not finite at step {self.global_step}")
        self.log_dict({name: value.detach() for name, value in losses.items()}, prog_bar=True)
        return losses["loss"]

    def configure_optimizers(self) -> Any:
        """AdamW without decay on biases and norms."""
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.lr, total_steps=max(self.steps, 2), pct_start=0.15, div_factor=10
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(
    module: StepModule,
    dataset: Dataset[Any],
    *,
    batch_size: int,
    context: FitContext,
    name: str = "fit",
    weights: Sequence[float] | None = None,
) -> None:
    """Train ``module`` in place for ``module.steps`` steps on ``dataset``, whose keys are (draw, index).

    Writes <folder>/<name>.csv (the curves) and <folder>/<name>.ckpt, from which an interrupted fit goes on and a
    finished one is taken up; whoever saves the stage removes it.
    """
    checkpoint = context.folder / f"{name}.ckpt"
    resume = checkpoint.exists()
    start = 0
    if resume:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        start = int(saved["global_step"])
        if start >= module.steps:  # this part was finished; the stage was not
            module.load_state_dict(saved["state_dict"])
            module.network.eval()
            return
    sampler = StepSampler(
        len(dataset),  # type: ignore[arg-type]
        steps=module.steps,
        batch_size=batch_size,
        seed=context.seed,
        weights=weights,
        start=start,
    )
    loader = DataLoader(
        dataset, batch_sampler=sampler, num_workers=context.workers, persistent_workers=context.workers > 0
    )
    logger = CSVLogger(save_dir=context.folder, name="", version=f"{name}_log", flush_logs_every_n_steps=50)
    keep = ModelCheckpoint(
        dirpath=context.folder,
        filename=name,
        every_n_train_steps=max(100, module.steps // 5),
        save_top_k=1,
        enable_version_counter=False,
    )
    with _quiet():
        trainer = pl.Trainer(
            accelerator=context.accelerator,
            devices=context.devices,
            precision=context.precision,  # type: ignore[arg-type]
            max_steps=module.steps,
            logger=logger,
            callbacks=[keep, RichProgressBar()] if context.progress else [keep],
            enable_progress_bar=context.progress,
            enable_model_summary=False,
            gradient_clip_val=3.0,
            log_every_n_steps=10,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
        module.network.train()
        trainer.fit(module, loader, ckpt_path=str(checkpoint) if resume else None, weights_only=True)
        trainer.save_checkpoint(checkpoint, weights_only=False)
    module.network.eval()
    curves = Path(logger.log_dir) / "metrics.csv"
    if curves.exists():
        os.replace(curves, context.folder / f"{name}.csv")


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's tips and its remarks on choices that are ours: no validation loop, a folder that holds files."""
    names = ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda")
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    try:
        for logger, _ in before:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning", append=True)
            for text in (
                ".*does not have many workers",
                ".*exists and is not empty",
                ".*smaller than the logging",
                ".*LeafSpec",
            ):
                warnings.filterwarnings("ignore", message=text)
            yield
    finally:
        for logger, level in before:
            logger.setLevel(level)

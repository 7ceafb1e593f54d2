"""The bar of a fit: its steps, the time left, the loss."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.progress import Progress, TextColumn

EVERY = 10  # steps from one loss shown to the next


class Steps(Callback):
    """Shows how far a fit is; Lightning's own bar counts epochs, of which a fit by steps has none."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook: show the bar, at the step that is gone on with."""
        self._bar = Progress(*Progress.get_default_columns(), TextColumn("{task.fields[loss]}"))
        self._task = self._bar.add_task(self.name, total=trainer.max_steps, completed=trainer.global_step, loss="")
        self._bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook, after the optimiser's step."""
        step = trainer.global_step
        self._bar.update(self._task, completed=step)
        if step % EVERY == 0 or step == trainer.max_steps:
            self._bar.update(self._task, loss=f"loss {float(outputs['loss']):.3f}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook: the bar stays as it is."""
        self._bar.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Lightning's hook: give the terminal back."""
        if hasattr(self, "_bar"):
            self._bar.stop()

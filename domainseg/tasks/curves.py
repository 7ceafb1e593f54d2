"""The curves of a fit, <phase>.csv: a row every few steps; checkpoints hold them, so that a resumed fit has all."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from domainseg.files import write_bytes
from domainseg.tasks import ranks


class Curves(Callback):
    """Notes the logged losses every ``every`` steps and after the last, which writes the file, as a checkpoint does."""

    def __init__(self, path: Path, every: int = 10) -> None:
        self.path, self.every = path, every
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook, after the optimiser's step."""
        step = trainer.global_step
        if step % self.every == 0 or step == trainer.max_steps or trainer.should_stop:
            losses = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self.rows.append({"step": step, **losses})
        if step == trainer.max_steps or trainer.should_stop:
            self._write()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lightning's hook: who watches the fit sees the curves up to here."""
        self._write()

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])

    def _write(self) -> None:
        if not self.rows or not ranks.is_first():
            return
        text = io.StringIO()
        table = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        write_bytes(self.path, text.getvalue().encode())

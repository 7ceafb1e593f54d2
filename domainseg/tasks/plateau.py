"""A schedule that goes by the loss on tune: a tenth of the rate and a new optimiser, the end, the best weights.

What it does is decided by the loss at the end of an epoch and by what it has kept, and a checkpoint holds that: a fit
that was killed ends as one that was not.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn

from domainseg.files import write_bytes
from domainseg.tasks import ranks

log = logging.getLogger(__name__)

FALL = 0.1  # of the learning rate, in CheXNet and all that follow it
COLUMNS = ("step", "epoch", "tune_loss", "lr")


class Plateau(Callback):
    """After every epoch of ``every`` steps the loss on tune decides.

    loss(): of the network as it is, on tune. wait: epochs without a lower loss after which the rate falls to a tenth
    and the optimiser begins anew (its momentum is forgotten); one more such epoch and it falls again. patience: epochs
    after the best one with which the fit ends. Writes ``path``, a row an epoch. The best weights come back by
    ``restore``. jrzech/reproduce-chexnet: wait 1, patience 3.
    """

    def __init__(self, path: Path, loss: Callable[[], float], *, every: int, wait: int, patience: int) -> None:
        self.path, self.loss, self.every, self.wait, self.patience = path, loss, every, wait, patience
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, torch.Tensor] = {}
        self.best_epoch, self.best_loss, self.over = 0, float("inf"), False

    @property
    def state_key(self) -> str:
        """Under which a checkpoint holds it."""
        return type(self).__name__

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook, after the optimiser's step."""
        step = trainer.global_step
        if step % self.every and step != trainer.max_steps:
            return
        network: nn.Module = pl_module.network  # type: ignore[assignment]
        network.eval()
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            loss = self.loss()
        network.train()
        epoch, rate = len(self.rows) + 1, float(trainer.optimizers[0].param_groups[0]["lr"])
        self.rows.append({"step": step, "epoch": epoch, "tune_loss": loss, "lr": rate})
        said = "the best so far"
        if loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, epoch
            self.best = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
        else:
            since = epoch - self.best_epoch
            said = f"{since} after the best"
            if since >= self.patience:
                self.over = trainer.should_stop = True
            elif since >= self.wait:
                _begin_anew(trainer.optimizers[0])
                said += f"; the rate falls to {rate * FALL:.2g}, the optimiser begins anew"
        log.info("%s: epoch %d, loss on tune %.4f, %s", self.path.parent.name, epoch, loss, said)
        self._write()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "rows": self.rows,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "over": self.over,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what a checkpoint holds."""
        for name, value in state_dict.items():
            setattr(self, name, value)

    def ended(self, checkpoint: Mapping[str, Any]) -> bool:
        """Whether the fit of a checkpoint was ended before its last step."""
        return bool(checkpoint["callbacks"][self.state_key]["over"])

    def restore(self, network: nn.Module, checkpoint: Mapping[str, Any] | None = None) -> None:
        """Give the network its best weights, those of a checkpoint where one is given."""
        if checkpoint is not None:
            self.load_state_dict(checkpoint["callbacks"][self.state_key])
        if self.best:
            network.load_state_dict(self.best)
            said = "%s: weights of epoch %d are kept, loss on tune %.4f"
            log.info(said, self.path.parent.name, self.best_epoch, self.best_loss)

    def _write(self) -> None:
        if not ranks.is_first():
            return
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        write_bytes(self.path, text.getvalue().encode())


def _begin_anew(optimizer: torch.optim.Optimizer) -> None:
    """A tenth of the rate, and nothing remembered: what an optimiser made now would be."""
    for group in optimizer.param_groups:
        group["lr"] *= FALL
    optimizer.state.clear()

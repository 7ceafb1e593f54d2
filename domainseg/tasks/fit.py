"""Fit a network for a number of steps with Lightning.

What a step does depends on the weights before it, the seed and the step's number only, so that a fit that was killed
and goes on from a checkpoint ends with the same weights, bit by bit, as one that was not.
"""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from domainseg.files import DomainsegError
from domainseg.tasks import ranks
from domainseg.tasks.checkpoints import Checkpoints, SafeCheckpointIO, latest_checkpoint
from domainseg.tasks.curves import Curves
from domainseg.tasks.distributed import Joined, all_trained, synchronised
from domainseg.tasks.items import StepDataset, StepSampler
from domainseg.tasks.loggers import loggers
from domainseg.tasks.plateau import Plateau
from domainseg.tasks.progress import Steps

log = logging.getLogger(__name__)


class NotFiniteError(DomainsegError):
    """A loss or a gradient is NaN or infinite; the message names step and films."""


@dataclass(frozen=True)
class FitContext:
    """Where and how a stage is fitted: its folder, the seed, and the Lightning trainer's settings.

    run: the run's folder, for what is logged of all its fits; None is ``folder``. loggers: see tasks/loggers.py.
    devices: processes on this machine; nodes: machines. sync_batchnorm: batch norm over the samples of all processes.
    checkpoint_every: optimiser steps from one checkpoint to the next; a killed fit loses no more than these.
    watched: samples of tune, for schedules that go by the loss there; nothing is learned from them.
    """

    folder: Path
    seed: int = 0
    accelerator: str = "cpu"
    devices: int = 1
    nodes: int = 1
    sync_batchnorm: bool = False
    precision: str = "32-true"
    workers: int = 0
    checkpoint_every: int = 100
    progress: bool = True
    run: Path | None = None
    loggers: Sequence[str] = ()
    watched: Sequence[Any] = ()


class StepModule(pl.LightningModule):
    """A network, AdamW, and a schedule that warms up, stays, and falls along a cosine to zero over ``steps``.

    Subclasses give ``loss(batch) -> dict``: the key ``loss`` is minimised, all are logged.
    """

    def __init__(self, network: nn.Module, *, steps: int, lr: float, weight_decay: float = 1e-2) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.steps, self.lr, self.weight_decay = steps, lr, weight_decay
        # Set by ``fit``: the seed, what messages call this fit, and the films of a step.
        self.seed, self.name = 0, type(self).__name__
        self.films_of: Callable[[int], Sequence[str]] = lambda step: []
        self._held: list[Tensor] = []

    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Named losses of a batch."""
        raise NotImplementedError

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Lightning's hook: what is random inside the network depends on seed and step; buffers are kept to go back."""
        torch.manual_seed(int(np.random.SeedSequence((self.seed, self.global_step)).generate_state(1)[0]))
        self._held = [buffer.clone() for buffer in self.network.buffers()]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Lightning's hook: the loss of one batch, logged. Raises NotFiniteError."""
        losses = self.loss(batch)
        if not torch.isfinite(losses["loss"]):
            self._stop("the loss")
        named = {name: value.detach() for name, value in losses.items()}
        self.log_dict(named, prog_bar=True, sync_dist=ranks.size() > 1)
        return losses["loss"]

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Lightning's hook between the backward pass and the optimiser's step. Raises NotFiniteError."""
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val or float("inf"))
        if not torch.isfinite(norm):
            self._stop("a gradient")

    def _stop(self, what: str) -> NoReturn:
        """Give up before the weights change; what the forward pass left in the norms' statistics is taken back."""
        for buffer, before in zip(self.network.buffers(), self._held, strict=True):
            buffer.copy_(before)
        films = ", ".join(sorted(set(self.films_of(self.global_step))))
        raise NotFiniteError(
            f"{self.name}: {what} is not finite at step {self.global_step}, weights are left as they were before it. "
            f"Films of the batch: {films}. Look at these films and their labels; if they are in order, lower the "
            "stage's lr"
        )

    def configure_optimizers(self) -> Any:
        """AdamW without decay on biases and norms."""
        # Those that stand still in this phase have no gradient and are passed over, in one process and in several.
        parameters = list(self.network.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.lr, total_steps=max(self.steps, 2), pct_start=0.15, div_factor=10
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class EndsAtOnce(pl.Callback):
    """SIGTERM does in a fit what it does elsewhere: it ends the process, which no file minds.

    Lightning's handler ends a run of one process with code 0, as if it had been finished, and lets several processes
    wait for each other for ever, since it exchanges something with the others in the middle of whatever they exchange.
    """

    def __init__(self) -> None:
        self.before = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's hook, after it has put its handlers in place; it puts back those of before by itself."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.before)


def fit(
    module: StepModule,
    dataset: StepDataset,
    *,
    batch_size: int,
    context: FitContext,
    name: str = "fit",
    weights: Sequence[float] | None = None,
    plateau: Plateau | None = None,
) -> None:
    """Train ``module`` in place for ``module.steps`` steps on ``dataset``, whose keys are (draw, index).

    plateau: ends the fit before its last step, and gives the network its best weights back.

    Writes <folder>/<name>.csv (the curves) and <folder>/<name>-<step>.ckpt, from which an interrupted fit goes on and
    a finished one is taken up; whoever saves the stage removes them. Raises NotFiniteError, DiskFullError.
    """
    checkpoint = ranks.first(lambda: latest_checkpoint(context.folder, name))
    start = 0
    if checkpoint is not None:
        path, saved = checkpoint
        start = int(saved["global_step"])
        log.info("%s/%s goes on at step %d of %d (%s)", context.folder.name, name, start, module.steps, path.name)
        over = plateau is not None and plateau.ended(saved)
        if start >= module.steps or over:  # this part was finished; the stage was not
            module.load_state_dict(saved["state_dict"])
            if plateau is not None:
                plateau.restore(module.network, saved)
            module.network.eval()
            return
    sampler = StepSampler(
        len(dataset),
        steps=module.steps,
        batch_size=batch_size,
        seed=context.seed,
        weights=weights,
        start=start,
    )
    module.seed, module.name = context.seed, f"{context.folder.name}/{name}"
    module.films_of = lambda step: [dataset.images[index] for _, index in sampler.batch(step)]
    loader = DataLoader(
        dataset, batch_sampler=sampler, num_workers=context.workers, persistent_workers=context.workers > 0
    )
    callbacks: list[pl.Callback] = [] if plateau is None else [plateau]  # what is saved comes before what saves it
    callbacks.append(Curves(context.folder / f"{name}.csv"))
    callbacks += [Checkpoints(context.folder, name, context.checkpoint_every), EndsAtOnce()]
    if context.progress and ranks.is_first():
        callbacks.append(Steps(f"{context.folder.name}: {name}"))
    # A debugging aid that comes with deterministic algorithms and costs a twentieth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    settings: dict[str, Any] = {
        "steps": module.steps,
        "lr": module.lr,
        "weight_decay": module.weight_decay,
        "batch_size": batch_size,
    }
    settings |= {"seed": context.seed, "precision": context.precision, "processes": ranks.size()}
    with (
        _quiet(),
        all_trained(module, loader),
        synchronised(module.network, context.sync_batchnorm),
        loggers(context.loggers, context.run or context.folder, context.folder, name, settings) as logs,
    ):
        trainer = pl.Trainer(
            accelerator=context.accelerator,
            devices=context.devices,
            num_nodes=context.nodes,
            strategy=DDPStrategy() if ranks.size() > 1 else "auto",
            precision=context.precision,  # type: ignore[arg-type]
            max_steps=module.steps,
            logger=logs,
            callbacks=callbacks,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=3.0,
            log_every_n_steps=10,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            deterministic="warn",  # warns by name of what has no deterministic form on a graphics card
            plugins=[SafeCheckpointIO(), Joined(context.devices)],
        )
        module.network.train()
        trainer.fit(module, loader, ckpt_path=None if checkpoint is None else str(path), weights_only=True)
    if plateau is not None:
        plateau.restore(module.network)
    ranks.same_buffers(module.network)
    module.network.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's tips and its remarks on choices that are ours, such as no validation loop."""
    names = ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda")
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    try:
        for logger, _ in before:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning", append=True)
            warnings.filterwarnings("ignore", module="mlflow|sqlalchemy|alembic", append=True)
            for text in (
                ".*does not have many workers",
                ".*LeafSpec",
                ".*in eval mode at the start of training",  # norms that are held
                ".*``noload`` loader strategy",  # between mlflow and sqlalchemy
                ".*your dataloader is not resumable",  # the sampler is: it begins at the step that the fit goes on with
            ):
                warnings.filterwarnings("ignore", message=text)
            yield
    finally:
        for logger, level in before:
            logger.setLevel(level)

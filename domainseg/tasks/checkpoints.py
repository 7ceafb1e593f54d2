"""Checkpoints of a fit: <phase>-<step>.ckpt with its SHA-256 beside; the newest two stay, a damaged one is passed over.

A checkpoint counts from the moment its .sha256 is there, which is written after it. Only tensors and plain values are
ever read (weights_only=True).
"""

from __future__ import annotations

import hashlib
import logging
from io import BytesIO
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.io import CheckpointIO

from domainseg.files import DamagedError, sha256_file, write_bytes

log = logging.getLogger(__name__)

KEEP = 2  # the newest, and the one before in case it is damaged


def checkpoint_path(folder: Path, phase: str, step: int) -> Path:
    """Where the checkpoint after ``step`` steps lies."""
    return folder / f"{phase}-{step:07d}.ckpt"


def latest_checkpoint(folder: Path, phase: str) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint of a phase and what it holds; damaged ones are told in the log and removed."""
    for path in _there(folder, phase):
        if not _digest(path).is_file():  # killed between the two files
            _remove(path)
            continue
        try:
            return path, read_checkpoint(path)
        except DamagedError as error:
            log.warning("%s; it is removed, the one before is used", error)
            _remove(path)
    return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds. Raises DamagedError when it is not what was written."""
    data = path.read_bytes()
    expected = f"{hashlib.sha256(data).hexdigest()}  {path.name}\n"
    if not _digest(path).is_file() or _digest(path).read_bytes() != expected.encode():
        raise DamagedError(f"{path}: damaged, its checksum is not the one beside it")
    loaded: dict[str, Any] = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    return loaded


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a folder: its stage is saved."""
    for path in [*folder.glob("*.ckpt"), *folder.glob("*.ckpt.sha256")]:
        path.unlink(missing_ok=True)


class SafeCheckpointIO(CheckpointIO):
    """Lightning's way to the disk: through a file beside, renamed when whole, with a checksum, the one before kept."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write, verify, then remove all but the newest KEEP of this phase. Raises DiskFullError, DamagedError."""
        path = Path(path)
        stream = BytesIO()
        torch.save(checkpoint, stream)
        data = stream.getbuffer()
        digest = hashlib.sha256(data).hexdigest()
        write_bytes(path, data)
        if sha256_file(path) != digest:
            raise DamagedError(f"{path}: reads differently from what was written; is the disk failing?")
        write_bytes(_digest(path), f"{digest}  {path.name}\n".encode())
        for older in _there(path.parent, path.stem.rpartition("-")[0])[KEEP:]:
            _remove(older)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read and verify. Raises DamagedError."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove one."""
        _remove(Path(path))


class Checkpoints(Callback):
    """Saves every ``every`` optimiser steps and after the last one, also of a fit that is ended early."""

    def __init__(self, folder: Path, phase: str, every: int) -> None:
        self.folder, self.phase, self.every = folder, phase, every

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook, after the optimiser's step."""
        step = trainer.global_step
        if step % self.every == 0 or step == trainer.max_steps or trainer.should_stop:
            trainer.save_checkpoint(checkpoint_path(self.folder, self.phase, step), weights_only=False)


def _there(folder: Path, phase: str) -> list[Path]:
    """The checkpoints of a phase, newest first."""
    return sorted(folder.glob(f"{phase}-{'[0-9]' * 7}.ckpt"), reverse=True)


def _digest(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _remove(path: Path) -> None:
    _digest(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)

"""Where the curves of a fit go beside <phase>.csv: TensorBoard in the run folder, MLflow for those who use it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger

from domainseg.files import DomainsegError
from domainseg.tasks import ranks

LOGGERS = ("tensorboard", "mlflow")


class LoggerError(DomainsegError):
    """A logger that nobody knows."""


def check_loggers(names: Sequence[str]) -> None:
    """Raise LoggerError for unknown names and ModuleNotFoundError for one whose package is not installed."""
    if unknown := [name for name in names if name not in LOGGERS]:
        raise LoggerError(f"trainer.loggers: {unknown[0]} is unknown; there are {', '.join(LOGGERS)}")
    for name, module in (("tensorboard", "tensorboard"), ("mlflow", "mlflow"), ("mlflow", "sqlalchemy")):
        if name in names and find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


@contextmanager
def loggers(
    names: Sequence[str], run: Path, folder: Path, phase: str, settings: Mapping[str, Any]
) -> Iterator[list[Logger]]:
    """Lightning's loggers of one fit, closed at the end of the block; none but in the first process.

    tensorboard: <folder>/tensorboard/<phase> (`tensorboard --logdir RUN` finds all of a
    run). mlflow: the store that MLFLOW_TRACKING_URI names, otherwise <run>/mlflow.db; its experiment is the run, its
    run is the stage and phase. settings: plain values, written down by each.
    """
    made: list[Logger] = []
    stage = folder.relative_to(run).as_posix() if folder.is_relative_to(run) else folder.name
    for name in names if ranks.is_first() else ():
        if name == "tensorboard":
            made.append(
                TensorBoardLogger(folder, name="tensorboard", version=phase, default_hp_metric=False, max_queue=1000)
            )
        else:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # what is trained here is nobody else's business
            for package in ("mlflow", "alembic", "pytorch_lightning.loggers.mlflow"):
                logging.getLogger(package).setLevel(logging.WARNING + 1)
            store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.absolute() / 'mlflow.db'}"
            artifacts = None if "MLFLOW_TRACKING_URI" in os.environ else (run.absolute() / "mlflow").as_uri()
            made.append(MLFlowLogger(run.name, f"{stage}/{phase}", store, artifact_location=artifacts))
    for logger in made:
        logger.log_hyperparams({"stage": stage, "phase": phase, **settings})
    status = "failed"
    try:
        yield made
        status = "success"
    finally:
        for logger in made:
            logger.finalize(status)

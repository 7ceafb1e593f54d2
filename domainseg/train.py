"""Train the stages of a pipeline in order, choose thresholds on tune, test, and write a run folder with a report.

  python -m domainseg.train +pipeline=NAME [key=value ...]

Examples:
  python -m domainseg.train +pipeline=hip
  python -m domainseg.train +pipeline=hip data=manifest data.path=films.csv data.targets=targets.csv output=runs/mine
  python -m domainseg.train resume=true output=runs/mine
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainseg.config import launch


def train(cfg: dict[str, Any], output: Path) -> float:
    """Train, test and report; returns tune.<the pipeline's main target>.intention.auc."""
    from domainseg.training.run import train

    return train(cfg, output)


def summary(sweep: Path) -> None:
    """Refresh the table and the figure of a sweep."""
    from domainseg.reporting.sweep import write_sweep

    write_sweep(sweep)


if __name__ == "__main__":
    launch(train, "train", summary=summary)

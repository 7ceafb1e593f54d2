"""Measure a prediction table: metrics with 95 % intervals, figures and a report.

  python -m domainseg.evaluate predictions=FILE [key=value ...]

The table comes from domainseg.predict or domainseg.train, or from elsewhere (image, label_<target>, score_<target>).

Examples:
  python -m domainseg.evaluate predictions=runs/mine/predictions.parquet
  python -m domainseg.evaluate predictions=predictions.csv output=evaluation
  python -m domainseg.evaluate predictions=predictions.csv output=evaluation resamples=200 seed=1
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainseg.config import launch


def evaluate(cfg: dict[str, Any], output: Path) -> dict[str, Any]:
    """Evaluate and write metrics.json, figures and report.html; returns the metrics."""
    from domainseg.reporting.evaluate import evaluate_command

    return evaluate_command(cfg, output)


if __name__ == "__main__":
    launch(evaluate, "evaluate")

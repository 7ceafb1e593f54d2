"""Measure a prediction table: metrics with 95 % intervals, figures and a report.

  python -m domainseg.evaluate predictions=FILE [readers=FILE] [prior=[age,sex]] [prevalence=0.02] [key=value ...]
  python -m domainseg.evaluate retest=FILE [key=value ...]

The table comes from domainseg.predict or domainseg.train, or from elsewhere (image, label_<target>, score_<target>).
docs/evaluation.md says what is computed, by which method.

Examples:
  python -m domainseg.evaluate predictions=runs/mine/predictions.parquet
  python -m domainseg.evaluate predictions=predictions.csv readers=readers.csv "prior=[age,sex]" prevalence=0.02
  python -m domainseg.evaluate retest=models.csv output=retest
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainseg.config import launch


def evaluate(cfg: dict[str, Any], output: Path) -> dict[str, Any]:
    """Evaluate and write metrics.json, figures and report.html (retest: retest.html); returns the metrics."""
    from domainseg.reporting.evaluate import evaluate_command, retest_command

    return retest_command(cfg, output) if cfg["retest"] else evaluate_command(cfg, output)


if __name__ == "__main__":
    launch(evaluate, "evaluate")

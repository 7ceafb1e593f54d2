"""Label radiology reports: learn from hand labels and measure that on held-out patients, or by rules alone.

  python -m domainseg.label reports=FILE [labels=FILE] [key=value ...]

Examples:
  python -m domainseg.label reports=reports.csv labels=labels.csv output=labelled
  python -m domainseg.label reports=reports.csv output=labelled
  python -m domainseg.label reports=reports.csv labels=labels.csv 'columns={report: accession, text: body}'
  python -m domainseg.label reports=reports.csv targets=[hemorrhage,subdural] terms=[head] unmentioned=0
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainseg.config import launch


def label(cfg: dict[str, Any], output: Path) -> dict[str, Any]:
    """Label all reports; writes labels.csv, metrics.json, models.json and report.html; returns the metrics."""
    from domainseg.labeling.run import run

    return run(cfg, output)


if __name__ == "__main__":
    launch(label, "label")

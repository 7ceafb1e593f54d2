"""Simulate films or head CT with known truth: DICOM or NIfTI files, masks and a manifest.

  python -m domainseg.phantom NAME [key=value ...]

Examples:
  python -m domainseg.phantom pelvis n=500 output=films
  python -m domainseg.phantom head n=20 output=heads
  python -m domainseg.phantom chest n=500 reduction=3 confounder=severe confounder_by=portable output=chests
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainseg.config import launch


def simulate(cfg: dict[str, Any], output: Path) -> None:
    """Simulate into the folder."""
    from domainseg.phantom import simulate

    simulate(cfg, output)


if __name__ == "__main__":
    launch(simulate, "phantom", word="phantom")

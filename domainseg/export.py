"""Write the bundle of a trained run: ONNX networks, thresholds, preprocessing, model card and a checksum of every file.

  python -m domainseg.export run=DIR output=DIR [key=value ...]

Torch and ONNX Runtime are compared on films of the run; where they differ, nothing is written. `train` ends with it.

Examples:
  python -m domainseg.export run=runs/mine output=bundles/mine
  python -m domainseg.export run=runs/mine output=bundles/mine input=films/
  python -m domainseg.export run=runs/mine output=bundles/mine check=bf16 data=manifest data.path=films.csv
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainseg.config import launch


def export(cfg: dict[str, Any], output: Path) -> None:
    """Export, compare, write."""
    from domainseg.training.export import export

    export(cfg, output)


if __name__ == "__main__":
    launch(export, "export", record=False)

"""Run a trained cascade over films and write the prediction table.

  python -m domainseg.predict run=DIR input=FILE|FOLDER|MANIFEST [key=value ...]

Exit code: 0 all films were read, 3 some could not be read (excluded_by = read), 1 nothing was done.

Examples:
  python -m domainseg.predict run=runs/mine input=film.dcm
  python -m domainseg.predict run=runs/mine input=export/ output=predictions overlays=true
  python -m domainseg.predict run=runs/mine input=films.csv trainer=gpu
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from domainseg.config import launch


def predict(cfg: dict[str, Any], output: Path) -> int:
    """Predict and write the table; returns the exit code."""
    from domainseg.training.predict import predict

    return predict(cfg, output)


if __name__ == "__main__":
    sys.exit(launch(predict, "predict"))

"""Run a bundle, or a trained cascade, over films or exams and write the prediction table.

  python -m domainseg.predict bundle=DIR input=FILE|FOLDER|MANIFEST [key=value ...]
  python -m domainseg.predict run=DIR input=FILE|FOLDER|MANIFEST [key=value ...]

A cascade that reads volumes takes exams: NIfTI files, and folders that hold DICOM files or pictures of slices.
It also writes a table of lesions, and on demand masks. A bundle needs no torch. Typed again with the same output, an
interrupted prediction goes on where it stopped.
Exit code: 0 all was read, 3 some could not be read (excluded_by = read), 1 nothing was done, 2 the command
cannot be used.

Examples:
  python -m domainseg.predict bundle=runs/mine/bundle input=film.dcm
  python -m domainseg.predict bundle=runs/mine/bundle input=export/ output=predictions workers=4 memory_gb=8
  python -m domainseg.predict bundle=runs/head/bundle input=exams/ output=predictions masks=true overlays=true
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from domainseg.config import launch
from domainseg.overrides import UsageError


def predict(cfg: dict[str, Any], output: Path) -> int:
    """Predict and write the table; returns the exit code."""
    if (cfg["bundle"] is None) == (cfg["run"] is None):
        raise UsageError("give one of bundle=DIR (needs no torch) and run=DIR (a finished run of domainseg.train)")
    if cfg["bundle"] is not None and cfg["accelerator"] != "cpu":
        raise UsageError(f"accelerator={cfg['accelerator']}: a bundle runs on the processor; see backend=")
    if cfg["run"] is not None and (cfg["backend"], cfg["precision"]) != ("onnxruntime", "fp32"):
        raise UsageError("backend= and precision= are for bundle=DIR: a run is predicted by torch in fp32")
    for name, kinds in (("workers", int), ("threads", int), ("memory_gb", (int, float))):
        value = cfg[name]
        number = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
        if not number and (value is not None or name == "workers"):
            raise UsageError(f"{name}={value}: must be a {'number' if name == 'memory_gb' else 'whole number'}")
    from domainseg.bundle.model import bundle_model
    from domainseg.bundle.workers import Worker

    first = Worker()  # it starts and loads while this process imports pandas and reads the input
    try:
        if cfg["bundle"] is not None:
            model = bundle_model(cfg)
        else:
            from domainseg.training.predict import run_model

            model = run_model(cfg)
        first.load(model.load)
        from domainseg.bundle.command import predict_command

        return predict_command(model, cfg, output, first)
    finally:
        first.stop()


if __name__ == "__main__":
    sys.exit(launch(predict, "predict"))

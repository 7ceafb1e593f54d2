"""A bundle predicts and is evaluated where nothing of the training side is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pandas as pd
import pytest

from .heads import head, make_head_bundle, save_dicom

TRAINING = {
    *("torch", "functorch", "torchgen", "torchvision", "torchmetrics", "pytorch_lightning", "lightning", "timm"),
    *("lightning_utilities", "lightning_fabric", "monai", "segmentation_models_pytorch", "albumentations", "albucore"),
    *("onnx", "onnxscript", "onnx_ir", "tensorboard"),
}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A Python whose only site folder holds links to what is installed, without the training side."""
    folder = tmp_path_factory.mktemp("site")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        name = entry.name.partition("-")[0].partition(".")[0].lower()
        if entry.suffix != ".pth" and name not in TRAINING:
            (folder / entry.name).symlink_to(entry)
    # -S: no site-packages; -P: not the folder that it is started in.
    code = f"import runpy, sys; sys.path += [{str(ROOT)!r}, {str(folder)!r}]; sys.argv = sys.argv[1:]; "
    return [
        sys.executable,
        "-S",
        "-P",
        "-c",
        code + "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)",
    ]


def run(python: list[str], *argv: str, code: int = 0) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COVERAGE"))}
    done = subprocess.run([*python, *argv], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_environment_has_no_torch(python: list[str]) -> None:
    for name in ("torch", "monai", "pytorch_lightning", "onnx"):
        done = subprocess.run([*python, name], capture_output=True, text=True, check=False)
        assert f"No module named {name}" in done.stderr


@pytest.mark.slow
def test_a_bundle_predicts_dicom_and_is_evaluated(python: list[str], bundle: Path, films: Path, tmp_path: Path) -> None:
    argv = (f"bundle={bundle}", "threads=1", "overlays=true")
    run(python, "domainseg.predict", *argv, f"input={films}/ward", f"output={tmp_path}/out", "workers=2")
    table = pd.read_parquet(tmp_path / "out/predictions.parquet")
    assert table["score_fracture"].notna().sum() == 6
    assert len(list((tmp_path / "out/overlays").iterdir())) == 3
    table["label_fracture"] = [float(k % 2) for k in range(len(table))]
    table.to_csv(tmp_path / "labelled.csv", index=False)
    printed = run(python, "domainseg.evaluate", f"predictions={tmp_path}/labelled.csv", f"output={tmp_path}/measured")
    assert (tmp_path / "measured/report.html").is_file()
    assert "AUC" in printed
    assert "whole" in run(python, "domainseg.bundle", "verify", str(bundle))


@pytest.mark.slow
def test_a_bundle_of_volumes_predicts_and_outlines(python: list[str], tmp_path: Path) -> None:
    make_head_bundle(tmp_path / "b")
    save_dicom(head(), tmp_path / "exam")
    argv = (f"bundle={tmp_path}/b", f"input={tmp_path}/exam", f"output={tmp_path}/out", "threads=1")
    run(python, "domainseg.predict", *argv, "overlays=true", "masks=true", "seg=true")
    assert len(pd.read_parquet(tmp_path / "out/lesions.parquet")) == 1
    assert {file.name for file in (tmp_path / "out/masks").iterdir()} == {"exam.nii.gz", "exam.seg.dcm"}

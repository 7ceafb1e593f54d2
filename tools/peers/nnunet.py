"""nnU-Net 2D in an environment of its own: its plan at batch 2, its trainer, its schedule ended with the minutes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from domainseg.files import DomainsegError, write_json
from domainseg.imaging.hemorrhage import CODES, UNKNOWN
from peers.exams import Prepared, Sets

NAME = "Dataset001_Hemorrhage"
WORKER = Path(__file__).with_name("nnunet_worker.py")


def fit(sets: Sets, folder: Path, *, minutes: float, seed: int, python: Path) -> dict[str, Any]:
    """Train; what was done, and a function from an exam to codes [Z, H, W]. Raises DomainsegError without nnU-Net."""
    if not python.is_file():
        raise DomainsegError(
            f"{python}: no Python with nnU-Net there. python3 -m venv outputs/nnunet && outputs/nnunet/bin/pip install "
            "nnunetv2==2.8.1, or name another with --nnunet"
        )
    base = sets.folder.parent / "nnunet"
    if not (base / "planned").is_file():  # outside the clock, once for all cells
        shutil.rmtree(base, ignore_errors=True)
        _write_raw(sets, base / "raw" / NAME)
        _run(python, "plan", base)
        _write_splits(sets, base / "preprocessed" / NAME / "splits_final.json")
        (base / "planned").touch()
    folder.mkdir(parents=True, exist_ok=True)
    _run(python, "fit", base, str(folder), str(minutes), str(seed))
    found: dict[str, Any] = json.loads((folder / "fitted.json").read_text())

    def predict(exam: Prepared) -> NDArray[np.uint8]:
        drawn = np.asarray(nib.load(folder / "test" / f"{exam.file.stem}.nii.gz").dataobj)  # type: ignore[attr-defined]
        return drawn.T.astype(np.uint8)

    return {**found, "predict": predict}


def _run(python: Path, *words: object) -> None:
    base = Path(str(words[1]))
    environment = os.environ | {
        "nnUNet_raw": str(base / "raw"),
        "nnUNet_preprocessed": str(base / "preprocessed"),
        "nnUNet_results": str(base / "results"),
        "nnUNet_compile": "f",
        "nnUNet_n_proc_DA": str(int(words[0] == "plan")),  # 0: in the process whose time is measured
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("PYTHONPATH", None)
    subprocess.run([str(python), str(WORKER), *map(str, words)], env=environment, check=True)


def _write_raw(sets: Sets, raw: Path) -> None:
    labels = {"background": 0, **CODES}
    train = [*sets.splits["train"], *sets.splits["tune"]]
    for exam in (*train, *sets.splits["test"]):
        hu, codes, spacing = exam.load()
        if (codes == UNKNOWN).any():
            raise DomainsegError(f"{exam.image}: a bleed of unknown type, which nnU-Net has no class for")
        affine = np.diag([*spacing, 1.0])
        part = "Ts" if exam in sets.splits["test"] else "Tr"
        for kind, voxels, name in (("images", hu, f"{exam.file.stem}_0000"), ("labels", codes, exam.file.stem)):
            file = raw / f"{kind}{part}" / f"{name}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(np.ascontiguousarray(voxels.T), affine), file)  # type: ignore[attr-defined]
    about = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": len(train), "file_ending": ".nii.gz"}
    write_json(raw / "dataset.json", about)


def _write_splits(sets: Sets, file: Path) -> None:
    stems = {split: [exam.file.stem for exam in sets.splits[split]] for split in ("train", "tune")}
    write_json(file, [{"train": stems["train"], "val": stems["tune"]}])  # type: ignore[arg-type]

"""What runs in nnU-Net's own environment (see nnunet.py): `plan BASE`, or `fit BASE FOLDER MINUTES SEED`.

Needs the variables nnUNet_raw, nnUNet_preprocessed and nnUNet_results, and nothing of this project.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch

NAME, CONFIGURATION = "Dataset001_Hemorrhage", "2d"
BATCH = 2
STEPS_AN_EPOCH, WARM, TRIAL = 25, 4, 16


def plan() -> None:
    """nnU-Net's fingerprint, its plan (2D, then at batch 2), its preprocessing."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )

    extract_fingerprints([1], num_processes=1)
    identifier = plan_experiments([1])
    identifier = identifier if isinstance(identifier, str) else "nnUNetPlans"
    preprocess([1], identifier, configurations=(CONFIGURATION,), num_processes=(1,))
    file = _preprocessed() / f"{identifier}.json"
    plans = json.loads(file.read_text())
    plans["configurations"][CONFIGURATION]["batch_size"] = BATCH
    file.write_text(json.dumps(plans, indent=1))


def fit(folder: Path, minutes: float, seed: int) -> None:
    """nnU-Net's trainer with as many epochs of STEPS_AN_EPOCH steps as the minutes hold, then the test exams."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # nnU-Net draws from it
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    trials = []
    for steps in (WARM, TRIAL):  # the first steps are slower
        trial = _trainer(folder / f"trial-{steps}", epochs=1, steps=steps)
        began = time.process_time()
        trial.run_training()
        trials.append(time.process_time() - began)
    seconds = (trials[1] - trials[0]) / (TRIAL - WARM)
    epochs = max(1, int(minutes * 60 / seconds / STEPS_AN_EPOCH))
    torch.manual_seed(seed)
    trainer = _trainer(folder / "fit", epochs=epochs, steps=STEPS_AN_EPOCH)
    began = time.process_time()
    trainer.run_training()
    seconds = time.process_time() - began
    losses = trainer.logger.local_logger.my_fantastic_logging["train_losses"]
    _predict(folder)
    record = {
        "steps": epochs * STEPS_AN_EPOCH,
        "train_seconds": round(seconds, 1),
        "curve": [((k + 1) * STEPS_AN_EPOCH, float(loss)) for k, loss in enumerate(losses)],
        "about": f"plan 2d, batch {BATCH}, {epochs} epochs of {STEPS_AN_EPOCH} steps, no mirroring at test time",
    }
    (folder / "fitted.json").write_text(json.dumps(record))


def _trainer(folder: Path, epochs: int, steps: int):  # a class of nnU-Net's
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans = json.loads((_preprocessed() / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    about = json.loads((_preprocessed() / "dataset.json").read_text())
    trainer = nnUNetTrainer(plans, CONFIGURATION, 0, about, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = epochs, steps, 1
    trainer.save_every = 10**6
    trainer.output_folder = str(folder)
    trainer.output_folder_base = str(folder.parent)
    folder.mkdir(parents=True, exist_ok=True)
    trainer.log_file = str(folder / "training.log")
    trainer.initialize()
    return trainer


def _predict(folder: Path) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
    )
    model = folder / "model"
    (model / "fold_0").mkdir(parents=True, exist_ok=True)
    for name in ("nnUNetPlans.json", "dataset.json"):
        text = (_preprocessed() / name).read_text()
        (model / name.replace("nnUNetPlans", "plans")).write_text(text)
    weights = folder / "fit" / "checkpoint_final.pth"
    (model / "fold_0" / weights.name).write_bytes(weights.read_bytes())
    predictor.initialize_from_trained_model_folder(str(model), use_folds=(0,), checkpoint_name=weights.name)
    raw = _preprocessed().parents[1] / "raw" / NAME / "imagesTs"
    files = [[str(file)] for file in sorted(raw.glob("*_0000.nii.gz"))]
    out = folder / "test"
    out.mkdir(exist_ok=True)
    named = [str(out / Path(file[0]).name.removesuffix("_0000.nii.gz")) for file in files]
    predictor.predict_from_files_sequential(files, named, save_probabilities=False, overwrite=True)


def _preprocessed() -> Path:
    from nnunetv2.paths import nnUNet_preprocessed

    return Path(nnUNet_preprocessed) / NAME


if __name__ == "__main__":
    if sys.argv[1] == "plan":
        plan()
    else:
        fit(Path(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))

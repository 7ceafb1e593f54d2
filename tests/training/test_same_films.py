"""A run never meets films that its finished stages have learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from domainseg.data.manifest import Manifest, build_manifest
from domainseg.data.splits import write_splits
from domainseg.files import write_json
from domainseg.training.run import check_same_films
from domainseg.training.stages import RunError


def films(*splits: str) -> Manifest:
    names = [f"film_{k}" for k in range(len(splits))]
    images = pd.DataFrame({"image": names, "patient": names, "split": list(splits)}, dtype=object)
    return build_manifest(images, pd.DataFrame({"image": [], "part": []}, dtype=object), ".", "made")


def settings(start: Path | None = None, *, resume: bool = False, path: str = "films.csv") -> dict[str, Any]:
    return {"resume": resume, "init_from": None if start is None else str(start), "data": {"path": path}}


def write_run(folder: Path, manifest: Manifest) -> Path:
    write_splits(manifest, folder / "splits.csv")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings()))
    write_json(folder / "environment.json", {"manifest": {"sha256": manifest.hash()}})
    return folder


def test_weights_that_saw_the_test_films_are_refused(tmp_path: Path) -> None:
    start = write_run(tmp_path / "old", films("train", "tune", "test"))
    check_same_films(settings(start), films("train", "tune", "test"), tmp_path / "new")
    check_same_films(settings(start, path="others.csv"), films("test", "train", "tune"), tmp_path / "new")
    with pytest.raises(RunError, match=r"learned from 2 films that are tested here, first film_0"):
        check_same_films(settings(start), films("test", "test", "train"), tmp_path / "new")


def test_folds_test_every_film(tmp_path: Path) -> None:
    start = write_run(tmp_path / "old", films("train", "tune", "test"))
    folds = films("", "", "").with_images(fold=["0", "1", "2"])
    with pytest.raises(RunError, match="film_0"):
        check_same_films(settings(start), folds, tmp_path / "new")


def test_a_resumed_run_keeps_its_films(tmp_path: Path) -> None:
    output = write_run(tmp_path / "run", films("train", "tune", "test"))
    check_same_films(settings(resume=True), films("train", "tune", "test"), output)
    with pytest.raises(RunError, match="start a new run"):
        check_same_films(settings(resume=True), films("train", "test", "tune"), output)

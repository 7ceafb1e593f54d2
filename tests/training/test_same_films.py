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


def settings(start: Path | None = None, *, resume: bool = False, **data: Any) -> dict[str, Any]:
    data = {"_target_": "domainseg.data.sources.manifest.load", "path": "films.csv", "targets": "old.csv", **data}
    return {"resume": resume, "init_from": None if start is None else str(start), "data": data}


def write_run(folder: Path, manifest: Manifest) -> Path:
    write_splits(manifest, folder / "splits.csv")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings()))
    write_json(folder / "environment.json", {"manifest": {"sha256": manifest.hash()}})
    return folder


def test_weights_that_saw_the_test_films_are_refused(tmp_path: Path) -> None:
    start = write_run(tmp_path / "old", films("train", "tune", "test"))
    check_same_films(settings(start), films("train", "tune", "test"), tmp_path / "new")
    for data in ({"seed": 1}, {"_target_": "domainseg.data.sources.ct_ich.load"}):  # films of other settings
        config = yaml.safe_load((start / "config.yaml").read_text())
        config["data"] |= {"seed": 0}
        (start / "config.yaml").write_text(yaml.safe_dump(config))
        check_same_films(settings(start, **data), films("test", "train", "tune"), tmp_path / "new")
    for data in ({}, {"targets": "corrected.csv"}, {"split": "by_date"}, {"added_later": True}):
        with pytest.raises(RunError, match=r"learned from patients of 2 films that are tested here, first film_0"):
            check_same_films(settings(start, **data), films("test", "test", "train"), tmp_path / "new")


def test_pooled_films_elsewhere_are_the_same_films(tmp_path: Path) -> None:
    def pooled(root: str) -> dict[str, Any]:
        return {"root": root, "sources": {"nih": {"_target_": "nih", "root": f"{root}/nih", "partial": False}}}

    start = write_run(tmp_path / "old", films("train", "tune", "test"))
    (start / "config.yaml").write_text(yaml.safe_dump({"data": pooled("/old")}))
    moved = {**settings(start), "data": pooled("/new")}
    with pytest.raises(RunError, match="first film_0"):
        check_same_films(moved, films("test", "test", "train"), tmp_path / "new")
    moved["data"]["sources"]["nih"]["partial"] = True
    check_same_films(moved, films("test", "test", "train"), tmp_path / "new")


def test_films_of_the_same_names_elsewhere_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start = write_run(tmp_path / "old", films("train", "tune", "test"))
    check_same_films(settings(start, path="moved/films.csv"), films("train", "tune", "test"), tmp_path / "new")
    assert not caplog.text
    check_same_films(settings(start, path="moved/films.csv"), films("test", "test", "train"), tmp_path / "new")
    assert "learned from patients of 2 films that are tested here, first film_0" in caplog.text


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


def test_weights_that_saw_a_patient_in_another_film_are_refused(tmp_path: Path) -> None:
    """A table that has grown by a later film of a patient who was tuned on."""
    start = write_run(tmp_path / "old", films("train", "tune", "test"))
    grown = films("train", "tune", "test", "test")
    grown = grown.with_images(patient=["film_0", "film_1", "film_2", "film_1"], split=["train", "", "test", "test"])
    with pytest.raises(RunError, match="patients of 1 films that are tested here, first film_3"):
        check_same_films(settings(start), grown, tmp_path / "new")


def test_one_fold_of_a_run_has_not_seen_its_own_test_films(tmp_path: Path) -> None:
    parts = {f"split_fold{k}": [("test", "tune", "train")[(film - k) % 3] for film in range(3)] for k in range(3)}
    run = write_run(tmp_path / "old", films("", "", "").with_images(fold=["0", "1", "2"], **parts))
    for start in ("folds/0", "refit"):
        (run / start).mkdir(parents=True)
    check_same_films(settings(run / "folds/0"), films("test", "train", "tune"), tmp_path / "new")
    for start, tested in (("folds/0", films("train", "test", "tune")), ("refit", films("test", "train", "tune"))):
        with pytest.raises(RunError, match="that are tested here"):
            check_same_films(settings(run / start), tested, tmp_path / "new")


def test_films_that_a_probe_has_divided_are_the_same_films(tmp_path: Path) -> None:
    start = write_run(tmp_path / "old", films("train", "tune", "test"))
    asked = settings(start)
    asked["data"] = {"_target_": "domainseg.probes.trained.load", "source": asked["data"], "splits": "made.csv"}
    with pytest.raises(RunError, match="first film_0"):
        check_same_films(asked, films("test", "test", "train"), tmp_path / "new")

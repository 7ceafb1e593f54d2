"""Films that a bundle learned from are not judged, whatever seed and settings are typed later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from domainseg.data.manifest import Manifest
from domainseg.data.splits import divided
from domainseg.probes.common import ProbeError, all_films, check_output
from domainseg.probes.held_out import held_out, unseen
from domainseg.training.described import described

FRACTIONS = {"train": 0.6, "tune": 0.2, "test": 0.2}


@pytest.fixture
def cfg(tmp_path: Path) -> dict[str, Any]:
    """Settings of an audit of 90 films of 60 patients, two departments, a third of them positive."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "image": [f"i{k}" for k in range(90)],
            "path": "film.png",
            "patient": [f"p{k % 60}" for k in range(90)],
            "department": rng.choice(["emergency", "ward"], 90),
            "part": "whole",
            "label_fracture": (rng.random(90) < 0.3).astype(int),
        }
    )
    (tmp_path / "film.png").touch()
    table.to_csv(tmp_path / "films.csv", index=False)
    data = {"_target_": "domainseg.data.sources.manifest.load", "path": str(tmp_path / "films.csv")}
    return {"data": data | {"fractions": FRACTIONS}, "seed": 0}


def made_from(cfg: dict[str, Any], run: Path, seed: int, **division: Any) -> tuple[Manifest, dict[str, Any]]:
    """The films as a run divided them, and the bundle's record of it."""
    settings = {"data": cfg["data"] | {"fractions": FRACTIONS} | division}
    manifest = divided(all_films(cfg), settings["data"], seed)
    run.mkdir()
    environment = {"manifest": {"name": "films", "films": 90, "sha256": manifest.hash()}, "splits": {}}
    pd.Series(environment).to_json(run / "environment.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("domainseg.training.described.reading_in", lambda settings: None)
        patch.setattr("domainseg.training.described.envelope", lambda part, reading: {})
        return manifest, {"data": described(run, settings, manifest) | {"seed": seed}}


@pytest.mark.parametrize("division", [{}, {"cohort": {"department": ["emergency"]}}])
def test_the_bundles_own_films_are_divided_as_its_run_divided_them(
    cfg: dict[str, Any], tmp_path: Path, division: dict[str, Any]
) -> None:
    """Another seed or other shares in the audit's settings would put training films into the test."""
    own, record = made_from(cfg, tmp_path / "run", 5, **division)
    asked = cfg | {"data": cfg["data"] | {"fractions": {"train": 0.2, "tune": 0.2, "test": 0.6}}}
    naive = divided(all_films(asked), asked["data"], 0)
    assert set(naive.split("test").images["image"]) & set(own.split("train").images["image"])
    found, said = held_out(asked, record)
    assert list(found.images["image"]) == list(own.split("test").images["image"])
    assert "own run kept as test" in said


def test_of_all_films_those_are_judged_that_the_bundle_has_not_learned_from(
    cfg: dict[str, Any], tmp_path: Path
) -> None:
    own, record = made_from(cfg, tmp_path / "run", 5)
    found, said = unseen(cfg, record)
    assert list(found.images["image"]) == list(own.split("test").images["image"])
    assert "own run kept as test" in said
    other = cfg | {"data": cfg["data"] | {"cohort": {"department": ["emergency"]}}}
    part, said = unseen(other, record)
    assert list(part.images["image"]) == list(found.images.loc[found.images["department"] == "emergency", "image"])
    assert f"Of these, {len(part)} are in data.cohort." in said
    found, said = unseen(other, {"data": {"identity": "another"}})
    assert set(found.images["department"]) == {"emergency"}
    assert len(found) == (all_films(cfg).images["department"] == "emergency").sum()
    assert "on trust" in said


def test_a_column_that_was_added_later_changes_nothing(cfg: dict[str, Any], tmp_path: Path) -> None:
    """Metadata do not make other films of them."""
    own, record = made_from(cfg, tmp_path / "run", 5)
    table = pd.read_csv(cfg["data"]["path"]).assign(scanner="DX")
    table.to_csv(cfg["data"]["path"], index=False)
    found, _ = held_out(cfg, record)
    assert list(found.images["image"]) == list(own.split("test").images["image"])


def test_other_films_are_taken_on_trust_and_that_is_said(cfg: dict[str, Any], tmp_path: Path) -> None:
    """A film less is another collection."""
    _, record = made_from(cfg, tmp_path / "run", 5)
    table = pd.read_csv(cfg["data"]["path"]).iloc[1:]
    table.to_csv(cfg["data"]["path"], index=False)
    found, said = held_out(cfg, record)
    assert list(found.images["image"]) == list(divided(all_films(cfg), cfg["data"], 0).split("test").images["image"])
    assert "is not what the bundle was made from; that it learned from none of them is taken on trust" in said


def test_a_bundle_that_does_not_tell_its_films_claims_nothing_of_them(cfg: dict[str, Any], tmp_path: Path) -> None:
    """One made before bundles told, asked about its very own films."""
    _, record = made_from(cfg, tmp_path / "run", 5)
    del record["data"]["identity"]
    _, said = held_out(cfg, record)
    assert "may be what the bundle was made from" in said


def test_what_cannot_be_divided_again_is_refused(cfg: dict[str, Any], tmp_path: Path) -> None:
    """A cross-validated bundle has learned from all its films; a split column that came later divides otherwise."""
    _, record = made_from(cfg, tmp_path / "folds", 5, folds=4)
    with pytest.raises(ProbeError, match="cross-validated"):
        held_out(cfg, record)
    _, record = made_from(cfg, tmp_path / "run", 5)
    table = pd.read_csv(cfg["data"]["path"])
    table["split"] = np.where(table["patient"].isin([f"p{k}" for k in range(30)]), "test", "train")
    table.to_csv(cfg["data"]["path"], index=False)
    with pytest.raises(ProbeError, match="split column"):
        held_out(cfg, record)


def test_other_labels_do_not_make_other_films(cfg: dict[str, Any], tmp_path: Path) -> None:
    """A corrected label divides anew by chance; the run's own splits.csv says who was learned from."""
    own, record = made_from(cfg, tmp_path / "run", 5)
    table = pd.read_csv(cfg["data"]["path"])
    table["label_implant"] = np.arange(90) % 2
    table["label_fracture"] = 1 - table["label_fracture"]
    table.to_csv(cfg["data"]["path"], index=False)
    with pytest.raises(ProbeError, match=r"other labels .* splits\.csv"):
        held_out(cfg, record)
    table.merge(own.images[["image", "split"]]).to_csv(cfg["data"]["path"], index=False)
    found, said = held_out(cfg, record)
    assert list(found.images["image"]) == list(own.split("test").images["image"])
    assert "own run kept as test" in said


@pytest.mark.parametrize("name", ["config.yaml", "predictions.json"])
def test_no_probe_replaces_the_table_of_another_command(name: str, tmp_path: Path) -> None:
    check_output(tmp_path)
    (tmp_path / name).touch()
    with pytest.raises(ProbeError, match="whose table is not replaced"):
        check_output(tmp_path)

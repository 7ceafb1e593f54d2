"""Several sources as one manifest."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from domainseg.data.manifest import Manifest, ManifestError, build_manifest, truth_table
from domainseg.data.sources import pooled


def source(root, images: dict[str, list[object]], **labels: object) -> Manifest:
    table = pd.DataFrame(images)
    return build_manifest(table, pd.DataFrame({"image": table["image"], "part": "whole", **labels}), root, "one")


@pytest.fixture
def two(tmp_path):
    first = {"image": ["1", "2"], "path": ["a/1.png", "a/2.png"], "patient": ["p", "q"], "site": ["X", "X"]}
    second = {"image": ["2", "3"], "path": ["2.png", "3.png"], "patient": ["p", "p"], "modality": ["CR", "DX"]}
    return {
        "first": source(tmp_path / "one", first, label_mass=[1, 0]),
        "second": source(tmp_path / "two", second, label_covid=1),
    }


def test_columns_names_sites_and_paths(two, tmp_path):
    found = pooled.pool(two, {}, Path())
    assert found.images["image"].tolist() == ["1", "first/2", "second/2", "3"]
    assert found.images["site"].tolist() == ["X", "X", "second", "second"]
    assert found.images["modality"].tolist() == ["", "", "CR", "DX"]
    assert found.path("first/2") == tmp_path / "one/a/2.png"
    assert found.path("3") == tmp_path / "two/3.png"
    table = truth_table(found, ("whole",))
    assert table["label_mass"].isna().tolist() == [False, False, True, True]
    assert table["label_covid"].isna().tolist() == [True, True, False, False]


def test_what_is_known_of_all_films_of_a_source(two):
    table = truth_table(pooled.pool(two, {"first": {"label_covid": 0}}, Path()), ("whole",))
    assert table["label_covid"].tolist() == [0, 0, 1, 1]
    with pytest.raises(ManifestError, match="the source knows it"):
        pooled.pool(two, {"first": {"label_mass": 0}}, Path())
    with pytest.raises(ManifestError, match="0 or 1"):
        pooled.pool(two, {"first": {"label_covid": 2}}, Path())


def test_a_source_that_divides_itself_and_a_single_one_are_refused(two):
    divided = two["first"].with_images(split=["train", "test"])
    with pytest.raises(ManifestError, match="divides its films itself"):
        pooled.pool({**two, "first": divided}, {}, Path())


def test_wrong_settings_are_refused_by_name(tmp_path):
    nih = {"_target_": "domainseg.data.sources.nih_cxr14.load", "root": str(tmp_path)}
    with pytest.raises(ManifestError, match="two or more"):
        pooled.load({"nih": nih})
    with pytest.raises(ManifestError, match="third is none of the sources"):
        pooled.load({"one": nih, "two": nih}, known={"third": {"label_mass": 0}})
    with pytest.raises(ManifestError, match=r"data\.sources\.one.*'fractions'"):
        pooled.load({"one": {**nih, "fractions": {}}, "two": nih})
    with pytest.raises(ManifestError, match="not a folder of NIH"):
        pooled.load({"one": nih, "two": nih})


@pytest.mark.real_data
def test_in_nih_pooled_with_hannover_site_and_label_are_one(shared_data, monkeypatch, tmp_path):
    """As typed: data=pooled data.root=DIR, from another folder and with a relative path."""
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    from domainseg.config import plain
    from domainseg.overrides import conf_folder

    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        cfg = plain(compose("train", ["data=pooled", f"data.root={os.path.relpath(shared_data)}"]))
    assert cfg["data"]["sources"]["nih"]["root"] == str(tmp_path / os.path.relpath(shared_data) / "nih_cxr14")
    dividing = ("fractions", "cohort", "folds", "split", "date")
    found = instantiate({key: value for key, value in cfg["data"].items() if key not in dividing})
    table = truth_table(found, ("whole",)).merge(found.images[["image", "site", "view"]], on="image")
    counts = pd.crosstab(table["site"], table["label_covid"])
    assert counts.to_numpy().tolist() == [[0, 145], [410, 0]]  # Hannover, NIH: no film tells site and label apart
    assert not found.missing_files()
    views = pd.crosstab(table["site"], table["view"])
    assert views.loc["Hannover"].to_dict() == {"AP": 109, "PA": 36}
    assert table["label_effusion"].notna().sum() == 410

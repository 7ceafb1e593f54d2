"""FracAtlas as its SOURCE.md describes it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from domainseg.data.manifest import ManifestError, truth_table
from domainseg.data.sources import fracatlas
from domainseg.data.splits import assign_splits, clusters, fold_manifest

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def atlas(shared_data):
    return fracatlas.load(shared_data / "fracatlas")


@pytest.fixture(scope="module")
def films(atlas):
    return truth_table(atlas, ("whole",)).set_index("image")


def test_counts_are_those_of_the_source(atlas, films):
    hip = atlas.images.set_index("image")["region"] == "hip"
    assert len(atlas) == 392
    assert hip.sum() == 222
    assert films.loc[hip, "label_fracture"].sum() == 43
    assert films.loc[hip, "label_implant_filter"].sum() == 16
    assert sum(map(len, films["polygons"])) == 123
    assert (atlas.targets["x"].notna() & (atlas.targets["part"] != "whole")).sum() == 44


def test_views(films):
    assert films["label_view"].value_counts().to_dict() == {"hip_frontal": 203, "other": 170, "hip_other": 11, "": 8}
    known = films[films["label_view"] != ""]
    assert (known["label_view_filter"] == (known["label_view"] == "hip_frontal")).all()
    assert films.loc[films["label_view"] == "", "label_view_filter"].isna().all()


def test_turned_films_are_those_without_marks_and_a_few_more(atlas, films, shared_data):
    heads = pd.read_csv(shared_data / "fracatlas" / "femoral_heads.csv")
    unmarked = heads.loc[heads["image_left_x"].isna(), "image_id"]
    assert films.loc[unmarked, "label_turn"].tolist() == [3, 1]
    marked = heads.loc[heads["image_left_x"].notna(), "image_id"]
    assert (films.loc[marked, "label_turn"] == 0).all()
    turned = films[films["label_turn"].isin([1, 3])]
    assert len(turned) == 16
    assert (turned["label_view"] == "hip_frontal").all()
    assert (atlas.images.set_index("image").loc[turned.index, "landscape"] == "0").all()


def test_metal_and_fractures_of_a_film_are_not_copied_to_its_hips(atlas):
    hips = truth_table(atlas)
    film = truth_table(atlas, ("whole",)).set_index("image")
    for label in ("label_fracture", "label_implant_filter"):
        of_film = film.loc[hips["image"], label].to_numpy()
        assert hips[label].isna().to_numpy()[of_film == 1].all()
        assert (hips[label].to_numpy()[of_film == 0] == 0).all()


def test_neighbouring_numbers_stay_together(atlas):
    images = atlas.images
    number = images["image"].str[3:10].astype(int).to_numpy()
    group = clusters(images).to_numpy()
    order = np.argsort(number)
    close = np.diff(number[order]) <= 3
    assert ((group[order][1:] == group[order][:-1]) == close).all()


def test_boxes_hold_their_polygons_and_lie_in_the_film(atlas, shared_data):
    sizes = pd.read_csv(shared_data / "fracatlas" / "labels.csv").set_index("image_id")[["width", "height"]]
    rows = atlas.targets[atlas.targets["polygon"] != ""]
    count = sum(len(item["segmentation"]) for item in json.loads(annotations(shared_data)))
    assert len(rows) == count
    for image, box, polygon in rows[["image", "box", "polygon"]].itertuples(index=False):
        x, y, width, height = (float(number) for number in box.split(","))
        points = np.array(polygon.split(), float).reshape(-1, 2)
        assert np.abs(points.min(0) - [x, y]).max() < 3
        assert np.abs(points.max(0) - [x + width, y + height]).max() < 3
        assert (points >= -1).all()
        assert (points <= sizes.loc[image].to_numpy() + 1).all()


def annotations(shared_data):
    return (shared_data / "fracatlas" / "fracture_annotations.json").read_text()


def test_folds_share_out_fractures_and_metal(atlas, films):
    found = assign_splits(atlas, seed=0, fractions={"train": 0.6, "tune": 0.2, "test": 0.2}, folds=5)
    frontal = films["label_view_filter"] == 1
    for fold in range(5):
        test = fold_manifest(found, fold).split("test").images["image"]
        here = films.loc[test][frontal[test]]
        assert 36 <= len(here) <= 45
        assert 6 <= here["label_fracture"].sum() <= 9


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="not a FracAtlas folder"):
        fracatlas.load(tmp_path)

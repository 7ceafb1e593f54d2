"""The COVID-19 Image Repository of Hannover as its description says."""

from __future__ import annotations

import pytest

from domainseg.data.manifest import ManifestError, truth_table
from domainseg.data.sources import hannover
from domainseg.data.splits import assign_splits
from domainseg.imaging import read_film
from domainseg.imaging.chest import FINDINGS


@pytest.mark.real_data
def test_the_repository_is_as_its_description_says(shared_data):
    found = hannover.load(shared_data / "hannover_covid_cxr")
    images = found.images
    assert images["view"].value_counts().to_dict() == {"AP": 109, "PA": 36}
    assert images["patient"].nunique() == 45
    assert set(images["site"]) == {"Hannover"}
    assert set(images["portable"]) == {""}
    assert images["age"].isna().all()
    assert set(images["sex"]) <= {"F", "M", ""}
    table = truth_table(found, ("whole",))
    assert (table["label_covid"] == 1).all()
    assert table[[f"label_{name}" for name in FINDINGS]].isna().all(axis=None)
    divided = assign_splits(found, seed=0, fractions={"train": 0.6, "tune": 0.2, "test": 0.2}).images
    assert (divided.groupby("patient")["split"].nunique() == 1).all()
    assert max(read_film(found.path(images["image"][0])).shape) > 300


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="not the COVID-19 Image Repository"):
        hannover.load(tmp_path)

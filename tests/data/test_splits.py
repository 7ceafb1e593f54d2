"""Splits and folds: nobody on two sides, shares and labels as even as whole patients allow, nothing left to order."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from domainseg.data.manifest import ManifestError, build_manifest
from domainseg.data.splits import assign_splits, clusters, divided, fold_manifest, write_splits

FRACTIONS = {"train": 0.6, "tune": 0.15, "test": 0.25}
EMERGENCY = {"department": ["emergency"]}


def manifest(images=None, *, films=600, seed=0):
    if images is None:
        rng = np.random.default_rng(seed)
        patient = rng.integers(0, films // 2, films)
        images = pd.DataFrame(
            {
                "image": [f"i{number}" for number in range(films)],
                "patient": patient.astype(str),
                "department": rng.choice(["emergency", "ward", "clinic"], films, p=[0.6, 0.2, 0.2]),
                "fracture": rng.random(films) < 0.1,
            }
        )
    targets = pd.DataFrame({"image": images["image"], "part": "whole"})
    if "fracture" in images:
        targets["label_fracture"] = images["fracture"].astype(int)
        images = images.drop(columns="fracture")
    return build_manifest(images, targets, ".", "test")


def table(**columns):
    count = len(next(iter(columns.values())))
    return pd.DataFrame({"image": [f"i{number}" for number in range(count)], **columns})


def fractures(found, split):
    return found.split(split).targets["label_fracture"].mean()


def test_shares_and_labels_are_even():
    found = assign_splits(manifest(), seed=1, fractions=FRACTIONS)
    shares = found.images["split"].value_counts(normalize=True)
    for name, share in FRACTIONS.items():
        assert shares[name] == pytest.approx(share, abs=0.01)
        assert fractures(found, name) == pytest.approx(found.targets["label_fracture"].mean(), abs=0.01)


def test_no_patient_on_two_sides():
    found = assign_splits(manifest(), seed=1, fractions=FRACTIONS).images
    assert found.groupby("patient")["split"].nunique().max() == 1


def test_order_of_rows_does_not_matter_and_the_seed_does():
    base = manifest()
    shuffled = build_manifest(
        base.images.sample(frac=1, random_state=3), base.targets.sample(frac=1, random_state=4), ".", "test"
    )
    for folds in (None, 4):
        one, other, third = (
            assign_splits(films, seed=seed, fractions=FRACTIONS, folds=folds).images.set_index("image").sort_index()
            for films, seed in [(base, 1), (shuffled, 1), (base, 2)]
        )
        columns = ["split"] if folds is None else ["fold", *(f"split_fold{fold}" for fold in range(folds))]
        assert one[columns].equals(other[columns])
        assert not one[columns].equals(third[columns])


def test_clusters_are_connected_components():
    images = manifest(
        table(
            site=["A", "A", "B", "B", "A", "A", "A"],
            patient=["1", "1", "1", "2", "", "", "3"],
            group=["", "g", "", "g", "g", "h", "h"],
        )
    ).images
    found = clusters(images)
    assert found.groupby(found).groups.values().__len__() == 3
    assert found[0] == found[1] == found[3] == found[4]
    assert found[5] == found[6]
    assert found[2] not in (found[0], found[5])


def test_same_number_at_two_sites_is_two_patients():
    assert clusters(manifest(table(site=["A", "B"], patient=["7", "7"])).images).nunique() == 2


def test_a_film_of_nobody_is_refused():
    with pytest.raises(ManifestError, match=r"1 films have neither patient nor group.*: i1"):
        assign_splits(manifest(table(patient=["a", ""])), seed=0, fractions=FRACTIONS)


def test_a_given_split_is_kept_and_checked():
    images = table(patient=["a", "b", "c", "d"], split=["test", "train", "tune", ""])
    assert assign_splits(manifest(images), seed=0, fractions=FRACTIONS).images["split"].tolist() == [
        "test",
        "train",
        "tune",
        "",
    ]
    images["patient"] = ["a", "b", "a", "d"]
    with pytest.raises(ManifestError, match="1 patients stand on two sides of the split: patient /a in test and tune"):
        assign_splits(manifest(images), seed=0, fractions=FRACTIONS)
    for asked in ({"folds": 3}, {"by_date": True}):
        with pytest.raises(ManifestError, match="remove the split column"):
            assign_splits(manifest(images), seed=0, fractions=FRACTIONS, **asked)


def test_a_group_on_two_sides_is_named():
    images = table(patient=["a", "b"], group=["g", "g"], split=["test", "train"])
    with pytest.raises(ManifestError, match="group g in test and train"):
        assign_splits(manifest(images), seed=0, fractions=FRACTIONS)


def test_test_and_tune_hold_the_cohort_only(caplog):
    base = manifest()
    with caplog.at_level(logging.INFO, "domainseg"):
        found = assign_splits(base, seed=1, fractions=FRACTIONS, cohort=EMERGENCY).images
    held_out = found[found["split"].isin(["tune", "test"])]
    assert set(held_out["department"]) == {"emergency"}
    unused = found[found["split"] == ""]
    assert set(unused["patient"]) <= set(held_out["patient"])
    assert "emergency" not in set(unused["department"])
    assert f"{len(unused)} films" in caplog.text
    assert {"emergency", "ward", "clinic"} == set(found.loc[found["split"] == "train", "department"])
    of_patients = held_out.groupby("split")["patient"].nunique() / found["patient"].nunique()
    assert of_patients["test"] == pytest.approx(0.25, abs=0.02)
    assert of_patients["tune"] == pytest.approx(0.15, abs=0.02)


def test_a_cohort_holds_for_a_given_split_too():
    images = table(
        patient=list("abcd"),
        department=["emergency", "ward", "ward", "emergency"],
        split=["test", "tune", "train", "tune"],
    )
    found = assign_splits(manifest(images), seed=0, fractions=FRACTIONS, cohort=EMERGENCY)
    assert found.images["split"].tolist() == ["test", "", "train", "tune"]


def test_cohorts_that_cannot_be():
    with pytest.raises(ManifestError, match="no column 'ward'"):
        assign_splits(manifest(), seed=0, fractions=FRACTIONS, cohort={"ward": ["x"]})
    with pytest.raises(ManifestError, match="no film has"):
        assign_splits(manifest(), seed=0, fractions=FRACTIONS, cohort={"department": ["x"]})
    few = table(patient=list("abcdef"), department=["emergency"] + ["ward"] * 5)
    with pytest.raises(ManifestError, match="only 1 patients have a film of the cohort"):
        assign_splits(manifest(few), seed=0, fractions=FRACTIONS, cohort=EMERGENCY)


def test_a_cohort_that_is_too_small_is_held_out_as_a_whole(caplog):
    small = table(patient=[str(number) for number in range(100)], department=["emergency"] * 20 + ["ward"] * 80)
    with caplog.at_level(logging.WARNING, "domainseg"):
        found = assign_splits(manifest(small), seed=0, fractions=FRACTIONS, cohort=EMERGENCY).images
    assert found["split"][:20].value_counts().to_dict() == {"test": 12, "tune": 8}
    assert set(found["split"][20:]) == {"train"}
    assert "only 20 have a film of the cohort" in caplog.text


@pytest.mark.parametrize(
    "fractions", [{"train": 0.5, "tune": 0.2, "test": 0.2}, {"train": 1.0}, {"train": 1.2, "tune": -0.2, "test": 0.0}]
)
def test_shares_that_cannot_be(fractions):
    with pytest.raises(ManifestError, match=r"data\.fractions"):
        assign_splits(manifest(), seed=0, fractions=fractions)


def test_a_share_of_nothing_gets_nothing():
    found = assign_splits(manifest(), seed=0, fractions={"train": 0.5, "tune": 0.5, "test": 0.0})
    assert set(found.images["split"]) == {"train", "tune"}


def test_folds_test_everyone_once_and_tune_apart():
    base = manifest()
    found = assign_splits(base, seed=0, fractions=FRACTIONS, cohort=EMERGENCY, folds=5)
    tested = []
    for fold in range(5):
        part = fold_manifest(found, fold)
        assert part.images.groupby("patient")["split"].agg(lambda splits: len(set(splits) - {""})).max() == 1
        assert set(part.images.loc[part.images["split"].isin(["tune", "test"]), "department"]) == {"emergency"}
        assert fractures(part, "test") == pytest.approx(base.targets["label_fracture"].mean(), abs=0.03)
        assert len(part.split("tune")) == pytest.approx(len(part.split("test")), rel=0.2)
        tested += part.split("test").images["image"].tolist()
    assert sorted(tested) == sorted(base.images.loc[base.images["department"] == "emergency", "image"])
    with pytest.raises(ManifestError, match="no fold 5"):
        fold_manifest(found, 5)
    with pytest.raises(ManifestError, match="from 3 to"):
        assign_splits(base, seed=0, fractions=FRACTIONS, folds=2)


def test_written_splits_say_who_is_where(tmp_path):
    base = manifest(films=40)
    for number, found in enumerate(
        [
            assign_splits(base, seed=0, fractions=FRACTIONS, cohort=EMERGENCY),
            assign_splits(base, seed=0, fractions=FRACTIONS, folds=3),
        ]
    ):
        path = tmp_path / f"{number}.csv"
        write_splits(found, path)
        table = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("image")
        for name in table.columns:
            assert table[name].to_dict() == found.images.set_index("image")[name].to_dict(), name
        assert path.read_text().splitlines()[1].startswith("i0,")


def dated(films=400, seed=0):
    rng = np.random.default_rng(seed)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 365, films), unit="D")
    return pd.DataFrame(
        {
            "image": [f"i{number}" for number in range(films)],
            "patient": rng.integers(0, films // 2, films).astype(str),
            "department": rng.choice(["emergency", "ward"], films),
            "date": days.strftime("%Y-%m-%d"),
        }
    )


def test_by_date_tests_all_that_came_later_and_learns_from_none_of_their_patients():
    found = assign_splits(manifest(dated()), seed=0, fractions=FRACTIONS, by_date=True, date="2024-10-01").images
    tested = found["split"] == "test"
    assert (tested == (found["date"] >= "2024-10-01")).all()
    others = found[found["split"].isin(["train", "tune"])]
    assert not set(others["patient"]) & set(found.loc[tested, "patient"])
    assert others.groupby("patient")["split"].nunique().max() == 1
    share = (others["split"] == "tune").mean()
    assert share == pytest.approx(0.15 / 0.75, abs=0.05)
    unused = found[found["split"] == ""]
    assert set(unused["patient"]) <= set(found.loc[tested, "patient"])


def test_by_date_finds_the_date_of_the_share_of_test():
    found = assign_splits(manifest(dated()), seed=0, fractions=FRACTIONS, by_date=True).images
    tested = found["split"] == "test"
    assert tested.mean() == pytest.approx(0.25, abs=0.02)
    assert found.loc[~tested, "date"].max() < found.loc[tested, "date"].min()


def test_by_date_holds_to_the_cohort():
    films = manifest(dated())
    found = assign_splits(films, seed=0, fractions=FRACTIONS, by_date=True, cohort=EMERGENCY).images
    assert set(found.loc[found["split"].isin(["tune", "test"]), "department"]) == {"emergency"}


def test_by_date_says_what_it_cannot_divide():
    films = dated()
    with pytest.raises(ManifestError, match=r"before it.*dates run from 2024-01"):
        assign_splits(manifest(films), seed=0, fractions=FRACTIONS, by_date=True, date="2031-01-01")
    for odd in ("2024-6-1", "20240601", "June"):  # as texts these do not lie where they do as days
        with pytest.raises(ManifestError, match="no date as YYYY-MM-DD"):
            assign_splits(manifest(films), seed=0, fractions=FRACTIONS, by_date=True, date=odd)
    with pytest.raises(ManifestError, match=r"data.date=2024-06-01: divides nothing without data.split=by_date"):
        divided(manifest(films), {"fractions": FRACTIONS, "split": "by_patient", "date": "2024-06-01"}, 0)
    undated = dated()
    undated.loc[:1, "date"] = ""
    with pytest.raises(ManifestError, match="2 films have no date: i0, i1"):
        assign_splits(manifest(undated), seed=0, fractions=FRACTIONS, by_date=True)
    with pytest.raises(ManifestError, match="choose one"):
        assign_splits(manifest(dated()), seed=0, fractions=FRACTIONS, by_date=True, folds=3)

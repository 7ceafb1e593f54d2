"""The cross-site table against Table 3 of Zech et al. 2018, and what it makes of tables with slips."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from domainseg.evaluation import EvaluationError
from domainseg.files import read_json
from domainseg.probes import cross_site
from domainseg.probes.common import ProbeError, load_films
from domainseg.probes.cross_site import KINDS, kind_of


def _zech() -> ModuleType:
    """zech.py of this folder."""
    spec = spec_from_file_location("zech", Path(__file__).parent / "zech.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["zech"] = module
    spec.loader.exec_module(module)
    return module


zech = _zech()


def cfg(path: Path, **more: Any) -> dict[str, Any]:
    """The settings of the command."""
    return {"predictions": str(path), "columns": {}, "target": None, "data": None, "stage": {}, **more}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the probe makes of the synthetic tables, in their full size."""
    folder = tmp_path_factory.mktemp("zech")
    zech.table().to_parquet(folder / "predictions.parquet")
    cross_site.run(cfg(folder / "predictions.parquet"), folder)
    assert "AUC by site" in (folder / "cross_site.html").read_text()
    found: dict[str, Any] = read_json(folder / "cross_site.json")
    return found


def test_all_rows_of_table_3(record: dict[str, Any]) -> None:
    """15 rows of the right kind and size; AUC as published; 95 % sensitivity means ceil(0.95 positives)."""
    rows = {(row["trained_on"], row["test"]): row for row in record["rows"]}
    assert len(record["rows"]) == 15
    assert set(rows) == set(zech.TABLE)
    for key, (kind, auc, specificity, ppv, npv) in zech.TABLE.items():
        row, sites = rows[key], key[1].split("+")
        n, positive = (sum(zech.SIZES[site][k] for site in sites) for k in (0, 1))
        assert (row["kind"], row["n"], row["positive"]) == (kind, n, positive), key
        assert row["auc"]["value"] == pytest.approx(auc, abs=0.0015), key
        assert row["auc"]["low"] < row["auc"]["value"] < row["auc"]["high"]
        point = {name: found["value"] for name, found in row["on_test"].items()}
        assert point["sensitivity"] == np.ceil(0.95 * positive) / positive
        a, b, prevalence = point["sensitivity"], point["specificity"], positive / n
        assert point["ppv"] == pytest.approx(a * prevalence / (a * prevalence + (1 - b) * (1 - prevalence)))
        assert point["npv"] == pytest.approx(b * (1 - prevalence) / (b * (1 - prevalence) + (1 - a) * prevalence))
        assert point["accuracy"] == pytest.approx(a * prevalence + b * (1 - prevalence))
        # Within a site the synthetic curve is bent as published; of pooled ones only the area was given.
        assert point["specificity"] == pytest.approx(specificity, abs=0.015 if len(sites) == 1 else 0.09), key
        assert point["ppv"] == pytest.approx(ppv, abs=0.003 if len(sites) == 1 else 0.02), key
        assert point["npv"] == pytest.approx(npv, abs=0.004), key
        assert row["tune"]["sensitivity"]["value"] is None
        assert row["tune"]["sensitivity"]["method"] == "no frozen threshold"
    assert rows["NIH", "IU"]["on_test"]["sensitivity"]["value"] == 38 / 39


def test_site_alone_is_the_null(record: dict[str, Any]) -> None:
    """Ranking by site: 0.861 (0.855 to 0.866) in the abstract; the within-site AUCs stand beside the pooled one."""
    rows = {(row["trained_on"], row["test"]): row for row in record["rows"]}
    joint = rows["MSH+NIH", "MSH+NIH"]
    assert joint["site_alone"]["value"] == pytest.approx(0.861, abs=0.001)
    assert joint["site_alone"]["low"] == pytest.approx(0.855, abs=0.001)
    assert joint["site_alone"]["high"] == pytest.approx(0.866, abs=0.001)
    assert joint["within"]["NIH"]["value"] == pytest.approx(0.733, abs=0.001)
    assert joint["within"]["MSH"]["value"] == pytest.approx(0.805, abs=0.001)
    # The pair-weighted mean of the two.
    pairs = {site: k * (n - k) for site, (n, k) in zech.SIZES.items() if site != "IU"}
    mean = sum(pairs[site] * joint["within"][site]["value"] for site in pairs) / sum(pairs.values())
    assert joint["within_sites"]["value"] == pytest.approx(mean)
    assert joint["over_site"]["value"] == pytest.approx(joint["auc"]["value"] - joint["site_alone"]["value"])
    assert rows["NIH", "MSH+NIH"]["over_site"]["value"] < 0
    assert "within" not in rows["NIH", "NIH"]


def test_internal_was_better_in_three_of_five(record: dict[str, Any]) -> None:
    """The five natural comparisons of the paper, three of them worse elsewhere."""
    found = {(test["trained_on"], test["test"]): test["verdict"] for test in record["internal_external"]}
    assert found == {
        ("NIH", "MSH"): "worse elsewhere",
        ("NIH", "IU"): "no difference shown",
        ("MSH", "NIH"): "worse elsewhere",
        ("MSH", "IU"): "no difference shown",
        ("MSH+NIH", "IU"): "worse elsewhere",
    }
    assert len(record["models"]) == 3 * 5
    test = next(t for t in record["models"] if (t["a"], t["b"], t["test"]) == ("NIH", "MSH", "MSH"))
    assert test["value"] == pytest.approx(0.695 - 0.802, abs=0.001)
    assert test["verdict"] == "second better"


@pytest.mark.parametrize(
    ("train", "test", "kind"),
    [
        ("A", "A", "internal"),
        ("AB", "A", "subset"),
        ("A", "B", "external"),
        ("A", "AB", "superset"),
        ("AB", "BC", "overlapping"),
        ("AB", "AB", "internal"),
        ("AB", "CD", "external"),
    ],
)
def test_kinds(train: str, test: str, kind: str) -> None:
    """What a test set is to a model."""
    assert kind_of(frozenset(train), frozenset(test)) == kind
    assert kind in KINDS


def small() -> pd.DataFrame:
    """Two models on 60 cases of two sites, with thresholds."""
    rng = np.random.default_rng(1)
    label = np.tile([0, 0, 1], 20)
    parts = [
        pd.DataFrame(
            {
                "image": [f"i{k}" for k in range(60)],
                "site": ["A"] * 30 + ["B"] * 30,
                "label_x": label,
                "score_x": rng.normal(label, 1),
                "threshold_x": 0.4,
                "trained_on": name,
            }
        )
        for name in ("A", "A+B")
    ]
    return pd.concat(parts, ignore_index=True)


def test_frozen_threshold_is_used(tmp_path: Path) -> None:
    """At tune: sensitivity is a count at the frozen threshold."""
    table = small()
    table.to_csv(tmp_path / "p.csv", index=False)
    row = cross_site.run(cfg(tmp_path / "p.csv"), tmp_path)["rows"][0]
    first = table[(table["trained_on"] == "A") & (table["site"] == "A")]
    caught = first.loc[first["label_x"] == 1, "score_x"] >= 0.4
    assert row["kind"] == "internal"
    assert row["tune"]["sensitivity"]["value"] == caught.mean()
    assert row["tune"]["sensitivity"]["n"] == 10


def test_slips_are_put_right_and_said(tmp_path: Path) -> None:
    """Sites that differ by case or blanks are one, in the site column and in trained_on; the numbers do not change."""
    table = small()
    table.to_csv(tmp_path / "p.csv", index=False)
    plain = cross_site.run(cfg(tmp_path / "p.csv"), tmp_path)
    table.loc[3, "site"], table.loc[33, "site"] = " a", "b "
    table.loc[table["trained_on"] == "A+B", "trained_on"] = " b + a"
    pd.concat([table, table.iloc[:4]]).to_csv(tmp_path / "q.csv", index=False)
    found = cross_site.run(cfg(tmp_path / "q.csv"), tmp_path)
    assert found["rows"] == plain["rows"]
    assert len(found["said"]) >= 2


def test_folds_are_models_of_their_own(tmp_path: Path) -> None:
    """Cross-validated: cases are compared within the fold only, so a fold's own scale of scores changes nothing."""
    table = small().assign(fold=np.tile([0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1], 10))
    table.to_csv(tmp_path / "p.csv", index=False)
    plain = cross_site.run(cfg(tmp_path / "p.csv"), tmp_path)
    table.assign(score_x=table["score_x"] + 50 * table["fold"]).to_csv(tmp_path / "q.csv", index=False)
    moved = cross_site.run(cfg(tmp_path / "q.csv"), tmp_path)
    for one, other in zip(plain["rows"], moved["rows"], strict=True):
        for name in ("auc", "within", "within_sites", "site_alone", "over_site"):
            assert one.get(name) == other.get(name)
        assert one["on_test"] == other["on_test"]  # each fold's own threshold
    for name in ("models", "internal_external"):
        assert str(plain[name]) == str(moved[name])  # as text, since NaN is not NaN
        assert all(np.isfinite(test["p"]) for test in moved[name])
    auc = {(row["trained_on"], row["test"]): row["auc"]["value"] for row in plain["rows"]}
    for test in plain["internal_external"]:
        inside, outside = auc[test["trained_on"], test["trained_on"]], auc[test["trained_on"], test["test"]]
        assert test["value"] == pytest.approx(inside - outside)
    own = table[(table["trained_on"] == "A") & (table["site"] == "A")]
    folds = [part for _, part in own.groupby("fold")]
    pairs = [(part["label_x"] == 1).sum() * (part["label_x"] == 0).sum() for part in folds]
    aucs = [roc_auc_score(part["label_x"], part["score_x"]) for part in folds]
    assert moved["rows"][0]["auc"]["value"] == pytest.approx(np.average(aucs, weights=pairs))


def test_perfect_at_home_and_blind_elsewhere_is_worse_elsewhere(tmp_path: Path) -> None:
    table = small()
    table = table[table["trained_on"] == "A"]
    table.loc[table["site"] == "A", "score_x"] = table["label_x"]
    table.loc[table["site"] == "B", "score_x"] = np.random.default_rng(0).random(30)
    table.to_csv(tmp_path / "p.csv", index=False)
    found = cross_site.run(cfg(tmp_path / "p.csv"), tmp_path)
    assert [test["verdict"] for test in found["internal_external"]] == ["worse elsewhere"]


def test_too_few_is_no_verdict(tmp_path: Path) -> None:
    """A site with a handful of positives gets no verdict."""
    table = small()
    table = table[(table["site"] == "A") | (table["label_x"] == 0) | table["image"].isin(["i32", "i35"])]
    table.to_csv(tmp_path / "p.csv", index=False)
    found = cross_site.run(cfg(tmp_path / "p.csv"), tmp_path)
    assert [test["verdict"] for test in found["internal_external"]] == ["too few"]
    assert found["internal_external"][0]["p_holm"] != found["internal_external"][0]["p_holm"]


def spoilt(how: str) -> pd.DataFrame:
    """A table with one thing wrong."""
    table = small()
    match how:
        case "no trained_on":
            return table.drop(columns="trained_on")
        case "no site":
            return table.assign(site=table["site"].where(table.index != 5))
        case "two labels":
            table.loc[64, "label_x"] = 1 - table.loc[64, "label_x"]
        case "contradiction":
            return pd.concat([table, table.iloc[[0]].assign(score_x=9)])
        case "no score":
            return table.drop(columns="score_x")
        case "unnamed model":
            return table.assign(trained_on=table["trained_on"].where(table.index != 5))
        case "word":
            return table.assign(label_x=table["label_x"].astype(object).where(table.index != 5, "yes"))
    return table


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("no trained_on", "lacks trained_on"),
        ("no site", "site is empty in 1"),
        ("two labels", "i4: has one label"),
        ("contradiction", "stands there 2 times with different score_x"),
        ("no score", "score_x|score_<target>"),
        ("unnamed model", "trained_on: empty in 1 of 120"),
        ("word", "'yes' is not a number"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, how: str, told: str) -> None:
    """One error for people, never a wrong number."""
    spoilt(how).to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises((ProbeError, EvaluationError), match=told):
        cross_site.run(cfg(tmp_path / "p.csv"), tmp_path)


def test_one_class_only(tmp_path: Path) -> None:
    """Without positives there is no AUC, and no verdict."""
    small().assign(label_x=0).to_csv(tmp_path / "p.csv", index=False)
    found = cross_site.run(cfg(tmp_path / "p.csv"), tmp_path)
    assert all(np.isnan(row["auc"]["value"]) for row in found["rows"])
    assert found["internal_external"] == []


def test_unknown_test_site(tmp_path: Path) -> None:
    """A site that is not there is named."""
    small().to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(ProbeError, match="no test case is of C"):
        cross_site.run(cfg(tmp_path / "p.csv"), tmp_path, test=[["A", "C"]])


def test_models_are_trained_on_the_same_films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run for each set of sites; all tested on the same films, those of a site that nobody learned from too."""
    rows = [
        {"image": f"{site}{k}", "patient": f"p{k}", "site": site, "label_x": k % 2} for site in "ABC" for k in range(40)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "films.csv", index=False)
    source = {"_target_": "domainseg.data.sources.manifest.load", "path": str(tmp_path / "films.csv")}
    data = {**source, "check_files": False, "fractions": {"train": 0.5, "tune": 0.2, "test": 0.3}, "cohort": {}}
    seen: dict[str, pd.DataFrame] = {}

    def train(settings: dict[str, Any], output: Path) -> float:
        images = load_films(settings).images
        seen[output.name] = images.set_index("image")
        assert (settings["resume"], settings["export"]) == (True, False)
        test = images[images["split"] == "test"]
        label = test["image"].map({row["image"]: row["label_x"] for row in rows})
        table = test[["image", "patient", "site", "split"]].assign(label_x=label, score_x=label * 0.5)
        table.assign(patient=output.name + table["patient"]).to_parquet(output / "predictions.parquet")
        return 0.5

    monkeypatch.setitem(sys.modules, "domainseg.training.run", SimpleNamespace(train=train))  # without torch
    settings = cfg(tmp_path, predictions=None, data=data, stage={"any": {}}, target="x", seed=0, pipeline="toys")
    found = cross_site.run(settings, tmp_path / "out", train=[["A"], ["B", "A"]])
    assert list(seen) == ["A", "A+B"]
    test = {name: set(images.index[images["split"] == "test"]) for name, images in seen.items()}
    assert test["A"] == test["A+B"]
    assert {image for image in test["A"] if image[0] == "C"} == {f"C{k}" for k in range(40)}
    for name, images in seen.items():
        learned = images[images["split"].isin(["train", "tune"])]
        assert set(learned["site"]) == set(name.split("+"))
        assert not set(learned.index) & test["A"]
    kinds = [(row["trained_on"], row["test"], row["kind"]) for row in found["rows"]]
    assert ("A", "C", "external") in kinds
    assert ("A+B", "A+B", "internal") in kinds
    assert ("A", "A+B+C", "superset") in kinds
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert (table.groupby("image")["patient"].nunique() == 1).all()
    with pytest.raises(ProbeError, match="divides the films in another way"):
        cross_site.run(settings | {"seed": 1}, tmp_path / "out", train=[["A"]])
    with pytest.raises(ProbeError, match="no film is of Z; sites are A, B, C"):
        cross_site.run(settings, tmp_path / "out", train=[["Z"]])
    with pytest.raises(ProbeError, match=r"probe\.train is needed"):
        cross_site.run(settings, tmp_path / "out")

"""Engineered prevalence: what is drawn, what is trained on it, and the signature of a model that learns the site."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from domainseg.data.manifest import load_manifest
from domainseg.evaluation import roc
from domainseg.evaluation.tables import Rows
from domainseg.probes import prevalence
from domainseg.probes.common import ProbeError, load_films
from domainseg.probes.prevalence import Cohort, cohorts_of, draw, film_labels, films_elsewhere, trend

SITES = ("A", "B")


def films(folder: Path, n: int = 2600, seed: int = 0) -> dict[str, Any]:
    """A manifest of films (none of them there) of sites A, B and C with 20 % positives; two films a patient."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "image": [f"i{k}" for k in range(n)],
            "patient": [f"patient-{k // 2}" for k in range(n)],
            "site": np.repeat(rng.choice(["A", "B", "C"], n // 2), 2),
            "split": np.repeat(rng.choice(["train", "tune", "test"], n // 2, p=[0.5, 0.2, 0.3]), 2),
            "label_x": (rng.random(n) < 0.2).astype(int),
        }
    )
    folder.mkdir(exist_ok=True)
    table.to_csv(folder / "films.csv", index=False)
    source = {"_target_": "domainseg.data.sources.manifest.load", "path": str(folder / "films.csv")}
    return {**source, "check_files": False, "fractions": {"train": 0.6, "tune": 0.2, "test": 0.2}}


def cfg(data: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    """The settings of the command."""
    base = {"data": data, "predictions": None, "columns": {}, "target": "x", "stage": {}, "seed": 0}
    return base | more


def test_cohorts_are_as_asked(tmp_path: Path) -> None:
    """Same size, same share of positives, half from each site, ratios as asked; patients stay on their side."""
    record = prevalence.run(cfg(films(tmp_path)), tmp_path / "out", sites=SITES)
    assert set(record["drawn"]["counts"]) == {"balanced", "A mild", "A severe", "B mild", "B severe"}
    wanted = {"balanced": 1, "A mild": 5, "A severe": 10, "B mild": 1 / 5, "B severe": 1 / 10}
    manifest = load_manifest(tmp_path / "films.csv", check_files=False)
    truth = manifest.images.set_index("image").assign(label=film_labels(manifest, "x"))
    tested = pd.read_csv(tmp_path / "out" / "cohorts" / "tested.csv", index_col="image")["of_cohorts"].str.split("; ")
    held = set()
    for name, ratio in wanted.items():
        file = tmp_path / "out" / "cohorts" / f"{name.replace(' ', '_')}.csv"
        made = load_manifest(file, file.parent / "targets.csv", check_files=False).images
        assert "patient-" not in file.read_text()
        made = made.set_index("image")
        assert len(made) == len(truth)
        for part in ("train", "tune", "test"):
            own = made[made["split"] == part].index
            if part == "test":
                held.add(tuple(sorted(own)))
                own = tested.index[[name in cohorts for cohorts in tested]]
            assert (truth.loc[own, "split"] == part).all()
            site, label = truth.loc[own, "site"], truth.loc[own, "label"]
            assert len(own) == record["drawn"][part]
            assert (site == "A").sum() == (site == "B").sum() == len(own) / 2
            assert label.sum() == pytest.approx(0.05 * len(own), abs=1)
            a, b = label[site == "A"].sum(), label[site == "B"].sum()
            assert a == pytest.approx((a + b) * ratio / (1 + ratio), abs=1)
    assert len(held) == 1
    assert record["drawn"]["external"] == ((truth["site"] == "C") & (truth["split"] == "test")).sum()
    assert "are in cohorts/" in record["verdict"]


def test_largest_prevalence(tmp_path: Path) -> None:
    """Without a share asked for, the scarcer site's training positives are used up in the most uneven cohort."""
    record = prevalence.run(cfg(films(tmp_path)), tmp_path / "out", sites=SITES, prevalence=None)
    assert 0.12 < record["drawn"]["prevalence"] < 0.2
    manifest = load_manifest(tmp_path / "films.csv", check_files=False)
    truth = manifest.images.set_index("image").assign(label=film_labels(manifest, "x"))
    there = truth[(truth["split"] == "train") & (truth["label"] == 1)]["site"].value_counts()
    used = max(
        record["drawn"]["counts"]["A severe"]["train, A, positive"],
        record["drawn"]["counts"]["B severe"]["train, B, positive"],
    )
    assert used > 0.85 * min(there["A"], there["B"])


def models_on_sites(site_weight: dict[str, float], folder: Path) -> pd.DataFrame:
    """What models say that see the disease, and the site with a weight by cohort."""
    data = films(folder, 9_000, 1)
    manifest = load_manifest(data["path"], check_files=False)
    settings = cfg(data)
    cohorts = cohorts_of(SITES, (5, 10))
    elsewhere = films_elsewhere(settings, manifest, "x", SITES)
    splits, tested, _ = draw(manifest, "x", cohorts, 0.05, 0, elsewhere)
    images = manifest.images.set_index("image").assign(label=film_labels(manifest, "x"))
    rng = np.random.default_rng(2)
    parts = []
    noise = pd.Series(rng.normal(size=len(images)), images.index)
    # Elsewhere what stands for the site varies from film to film: it is noise there.
    place = images["site"].map({"A": 1.0, "B": -1.0}).fillna(pd.Series(rng.normal(size=len(images)), images.index))
    for name, split in splits.items():
        here = images[split == "test"]
        score = 1.2 * here["label"] + noise[here.index] + site_weight[name] * place[here.index]
        part = pd.DataFrame({"image": here.index, "site": here["site"], "label_x": here["label"], "score_x": score})
        part["patient"], part["cohort"] = here["patient"], name
        part["of_cohorts"] = [tested.get(image, "") for image in here.index]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def test_unknown_part_leaves_the_film_unknown(tmp_path: Path) -> None:
    """0 only where the film is known as a whole, or all parts are 0; a part that is not there need not be known."""
    rows = [
        ("both", "hip_left", 0, 1), ("both", "hip_right", 0, 1),
        ("half", "hip_left", 0, 1), ("half", "hip_right", None, 1),
        ("one", "hip_left", 1, 1), ("one", "hip_right", None, 1),
        ("alone", "hip_left", 0, 1), ("alone", "hip_right", None, 0),
        ("whole", "whole", 0, None), ("whole", "hip_left", None, 1),
        ("film", "whole", None, None), ("film", "hip_left", 0, 1), ("film", "hip_right", 0, 1),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["image", "part", "label_fracture", "label_localizer"])
    table.assign(patient=table["image"]).to_csv(tmp_path / "films.csv", index=False)
    found = film_labels(load_manifest(tmp_path / "films.csv", check_files=False), "fracture")
    assert found.dropna().to_dict() == {"both": 0, "one": 1, "alone": 0, "whole": 0, "film": 0}
    assert set(found.index) == {"both", "half", "one", "alone", "whole", "film"}


def test_folds_are_models_of_their_own() -> None:
    """Cross-validated: cases are compared within the fold only, in AUCs and trends."""
    rng = np.random.default_rng(4)
    cohorts = cohorts_of(SITES, (5, 10))
    table = pd.DataFrame({"cohort": np.repeat([cohort.name for cohort in cohorts], 120)})
    table["image"] = [f"i{k % 120}" for k in table.index]
    table["site"], table["fold"] = np.tile(["A", "B", "C"], 200), np.tile([0, 0, 0, 1, 1, 1, 1, 1], 75)
    table["label_x"] = [int(k % 120 % 7 < 3) for k in table.index]
    table["score_x"] = rng.normal(table["label_x"], 1)
    plain = prevalence.compared(table, "x", cohorts)
    moved = prevalence.compared(table.assign(score_x=table["score_x"] + 50 * table["fold"]), "x", cohorts)
    assert plain["cohorts"][0]["internal"]["method"].endswith("within 2 folds")
    # Only the scale differs: as text, since NaN is not NaN.
    assert str(moved) == str(plain)


WEIGHTS = {"balanced": 0.0, "A mild": 0.6, "A severe": 1.2, "B mild": -0.6, "B severe": -1.2}


def test_signature(tmp_path: Path) -> None:
    """Models that lean on the site as it tells of the label: up inside, down outside and in the balanced test."""
    models_on_sites(WEIGHTS, tmp_path).to_csv(tmp_path / "p.csv", index=False)
    found = prevalence.run(cfg(None, predictions=str(tmp_path / "p.csv")), tmp_path / "out", sites=SITES)
    by = {entry["where"]: entry for entry in found["trends"]}
    assert by["internal"]["low"] > 0
    assert by["external"]["high"] < 0
    assert by["balanced"]["high"] < 0
    assert found["verdict"].startswith("The signature of a model that learns the site")
    aucs = {entry["cohort"]: entry["internal"]["value"] for entry in found["cohorts"]}
    assert aucs["A severe"] > aucs["A mild"] > aucs["balanced"]
    assert "Engineered prevalence" in (tmp_path / "out" / "prevalence.html").read_text()


def test_no_signature_without_the_site(tmp_path: Path) -> None:
    """Models that see the disease alone show neither."""
    models_on_sites(dict.fromkeys(WEIGHTS, 0.0), tmp_path).to_csv(tmp_path / "p.csv", index=False)
    found = prevalence.run(cfg(None, predictions=str(tmp_path / "p.csv")), tmp_path / "out", sites=SITES)
    assert found["verdict"].startswith("Neither")
    by = {entry["where"]: entry for entry in found["trends"]}
    assert by["external"]["value"] == pytest.approx(0, abs=1e-12)  # the same scores in all models


def model(seed: int, n: int = 150, shared: np.random.Generator | None = None) -> Rows:
    """One model's test rows; with ``shared`` noise on the same patients as others."""
    rng = np.random.default_rng(seed)
    label = np.tile([1, 0, 0], n // 3)
    own = rng.normal(size=n)
    score = label + own if shared is None else label + shared.normal(size=n) * 0.8 + 0.6 * own
    names = [f"i{k}" if shared is not None else f"{seed}-{k}" for k in range(n)]
    nothing = np.full(n, np.nan)
    return Rows(pd.DataFrame(), label, score, nothing, np.ones(n, bool), nothing, np.array(names), np.zeros(n))


@pytest.mark.parametrize("paired", [True, False])
def test_trend_holds_its_level(paired: bool) -> None:
    """Without a trend, about 5 % of 200 sets of five models have p below 0.05, on the same or on other patients."""
    alarms = 0
    for trial in range(200):
        cohorts = cohorts_of(SITES, (5, 10))
        models = [
            (cohort, model(5 * trial + k, shared=np.random.default_rng([trial]) if paired else None))
            for k, cohort in enumerate(cohorts)
        ]
        alarms += trend(models)["p"] < 0.05
    assert 2 <= alarms <= 20


def test_slope_is_least_squares() -> None:
    """The slope over log2 of the ratio is that of a straight line through the AUCs."""
    models = [(cohort, model(k)) for k, cohort in enumerate(cohorts_of(SITES, (5, 10)))]
    aucs = [roc.auc(rows.label, rows.score)["value"] for _, rows in models]
    slope = np.polyfit([cohort.severity for cohort, _ in models], aucs, 1)[0]
    assert trend(models)["value"] == pytest.approx(slope)


def test_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a pipeline a model is trained on each cohort, all are judged on the same films, finished ones are kept."""
    begun: list[str] = []

    def train(settings: dict[str, Any], output: Path) -> float:
        assert settings["resume"]
        begun.append(output.name)
        images = load_films(settings).images
        test = images[images["split"] == "test"]
        assert (images["split"] == "train").any()
        assert "prevalence" not in str(settings.get("probe"))
        rng = np.random.default_rng(len(begun))
        label = test["image"].map(labels)
        table = test[["image", "patient", "site", "split"]].assign(
            label_x=label, score_x=label + rng.normal(size=len(test))
        )
        table.assign(patient=table["patient"] + output.name).to_parquet(output / "predictions.parquet")
        return 0.5

    data = films(tmp_path)
    labels = pd.read_csv(data["path"]).set_index("image")["label_x"]
    monkeypatch.setitem(sys.modules, "domainseg.training.run", SimpleNamespace(train=train))  # without torch
    settings = cfg(data, stage={"any": {}}, pipeline="toys", probe={"x": 1}, trainer={})
    found = prevalence.run(settings, tmp_path / "out", sites=SITES)
    assert begun == ["balanced", "A_mild", "B_mild", "A_severe", "B_severe"]
    assert {entry["external"]["n"] for entry in found["cohorts"]} == {found["drawn"]["external"]}
    assert {entry["internal"]["n"] for entry in found["cohorts"]} == {found["drawn"]["test"]}
    assert (tmp_path / "out" / "models" / "A_mild" / "config.yaml").is_file()
    again = prevalence.run(
        cfg(None, predictions=str(tmp_path / "out" / "predictions.csv")), tmp_path / "o", sites=SITES
    )
    assert [e["internal"]["value"] for e in again["cohorts"]] == pytest.approx(
        [e["internal"]["value"] for e in found["cohorts"]]
    )
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert (table.groupby("image")["patient"].nunique() == 1).all()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sites": ["A"]}, "two sites"),
        ({"sites": ["A", "Z"]}, "no film with a known label_x is of Z"),
        ({"sites": SITES, "ratios": [0.5]}, "numbers above 1"),
        ({"sites": SITES, "prevalence": 5}, "prevalence=5"),
        ({"sites": SITES, "ratios": [500]}, "too few films for these cohorts"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    """One error for people."""
    with pytest.raises(ProbeError, match=told):
        prevalence.run(cfg(films(tmp_path)), tmp_path / "out", **settings)


def test_more_that_is_wrong(tmp_path: Path) -> None:
    """Targets and cohorts that are not there."""
    with pytest.raises(ProbeError, match="no label_y; there are x"):
        prevalence.run(cfg(films(tmp_path), target="y"), tmp_path / "out", sites=SITES)
    table = pd.DataFrame({"image": ["a"], "site": "A", "cohort": "odd", "label_x": 1, "score_x": 0.5})
    table.to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(ProbeError, match="odd is none of balanced"):
        prevalence.run(cfg(None, predictions=str(tmp_path / "p.csv")), tmp_path / "out", sites=SITES)
    assert trend([(Cohort("balanced", "", 1.0), model(0))])["few"]

"""Label noise: the formula against simulation, and the verdict in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from domainseg.evaluation import roc
from domainseg.probes import label_noise
from domainseg.probes.common import ProbeError
from domainseg.probes.label_noise import even_errors, needed, observed


def cfg(path: Path | None = None) -> dict[str, Any]:
    """The settings of the command."""
    return {"predictions": None if path is None else str(path), "columns": {}, "target": None, "data": None}


@pytest.mark.parametrize(
    ("sensitivity", "specificity", "prevalence"), [(0.9, 0.9, 0.3), (0.8, 0.97, 0.1), (1, 0.7, 0.5)]
)
def test_formula_against_simulation(sensitivity: float, specificity: float, prevalence: float) -> None:
    """Labels that are wrong independently of the score lower the AUC as the formula says."""
    rng = np.random.default_rng(0)
    n = 400_000
    truth = rng.random(n) < prevalence
    score = rng.normal(1.3 * truth, 1)
    label = np.where(truth, rng.random(n) < sensitivity, rng.random(n) >= specificity)
    total = truth[label].mean() + (~truth[~label]).mean()
    assert roc_auc_score(label, score) == pytest.approx(observed(roc_auc_score(truth, score), total), abs=0.003)


def test_even_errors_invert() -> None:
    """Sensitivity = specificity = q at a true prevalence gives back q."""
    q, true = 0.9, 0.3
    seen = true * q + (1 - true) * (1 - q)
    total = true * q / seen + (1 - true) * q / (1 - seen)
    assert even_errors(total, seen) == pytest.approx(q)
    assert even_errors(2.1, 0.3) is None


def test_numbers(tmp_path: Path) -> None:
    """The gap of Zech's joint model: 0.931 inside, 0.815 at IU."""
    found = label_noise.run(cfg(), tmp_path, internal=0.931, external=0.815)
    assert found["needed"]["value"] == pytest.approx(1 + 0.315 / 0.431)
    assert "27 % of the positive labels wrong" in found["verdict"]
    assert "nothing else" not in found["verdict"]
    stated = label_noise.run(cfg(), tmp_path, internal=0.931, external=0.815, ppv=0.95, npv=0.95)
    assert stated["expected"]["value"] == pytest.approx(0.5 + 0.431 * 0.9)
    assert stated["share"] == pytest.approx(0.431 * 0.1 / (0.931 - 0.815))
    assert "37 % of the gap" in stated["verdict"]
    assert (
        "enough to explain all"
        in label_noise.run(cfg(), tmp_path, internal=0.9, external=0.85, ppv=0.8, npv=1)["verdict"]
    )
    assert "no gap" in label_noise.run(cfg(), tmp_path, internal=0.8, external=0.85)["verdict"]
    assert "No label noise" in label_noise.run(cfg(), tmp_path, internal=0.8, external=0.45)["verdict"]
    assert "Label noise" in (tmp_path / "label_noise.html").read_text()


def two_sites(flipped: float, n: int = 3000, seed: int = 3) -> pd.DataFrame:
    """One model at two sites, where B's labels are wrong in a share of the cases."""
    rng = np.random.default_rng(seed)
    truth = rng.random(2 * n) < 0.4
    wrong = (np.arange(2 * n) >= n) & (rng.random(2 * n) < flipped)
    return pd.DataFrame(
        {
            "image": [f"i{k}" for k in range(2 * n)],
            "site": np.repeat(["A", "B"], n),
            "label_x": (truth ^ wrong).astype(int),
            "score_x": rng.normal(2 * truth, 1),
        }
    )


def planted(flipped: float) -> tuple[float, float]:
    """PPV + NPV of the labels that ``two_sites`` plants at B, and the share of positive labels."""
    seen = 0.4 * (1 - flipped) + 0.6 * flipped
    return 0.4 * (1 - flipped) / seen + 0.6 * (1 - flipped) / (1 - seen), seen


def test_planted_noise_is_found(tmp_path: Path) -> None:
    """The verdict names labels as good as those planted."""
    two_sites(0.12).to_csv(tmp_path / "p.csv", index=False)
    found = label_noise.run(cfg(tmp_path / "p.csv"), tmp_path, internal=["a"], external=["B"])
    assert found["needed"]["value"] == pytest.approx(planted(0.12)[0], abs=0.1)
    assert found["needed_sensitivity_specificity"] == pytest.approx(0.88, abs=0.05)
    assert found["prevalence"] == pytest.approx(planted(0.12)[1], abs=0.02)


def test_folds_are_models_of_their_own(tmp_path: Path) -> None:
    """Cross-validated: cases are compared within the fold only."""
    table = two_sites(0.12, 300)
    table["fold"] = np.arange(len(table)) % 3
    aucs = {}
    for site, rows in table.groupby("site"):
        folds = [part for _, part in rows.groupby("fold")]
        pairs = [part["label_x"].sum() * (1 - part["label_x"]).sum() for part in folds]
        aucs[site] = np.average([roc_auc_score(part["label_x"], part["score_x"]) for part in folds], weights=pairs)
    table["score_x"] += 50 * table["fold"]
    table.to_csv(tmp_path / "p.csv", index=False)
    found = label_noise.run(cfg(tmp_path / "p.csv"), tmp_path, internal=["A"], external=["B"])
    assert (found["internal"]["value"], found["external"]["value"]) == pytest.approx((aucs["A"], aucs["B"]))


def test_interval_covers_the_truth() -> None:
    """In 95 of 100 tables, give or take 2 standard errors and a half."""
    hits = 0
    for seed in range(200):
        table = two_sites(0.12, 500, seed)
        a, b = (roc.auc(part["label_x"].to_numpy(), part["score_x"].to_numpy()) for _, part in table.groupby("site"))
        found = needed(a, b)
        hits += found["low"] < planted(0.12)[0] < found["high"]
    assert 182 <= hits <= 198


def test_an_auc_of_1_is_as_sure_as_its_interval() -> None:
    """At the lower bound of 0.7 the labels of 0.8 elsewhere would need no noise at all."""
    perfect = {**label_noise._given("internal", 1.0), "low": 0.7, "high": 1.0}
    external = {**label_noise._given("external", 0.8), "low": 0.75, "high": 0.85}
    found = needed(perfect, external)
    assert found["value"] == pytest.approx(1.6)
    assert found["high"] > 2
    draws = label_noise._drawn(perfect, np.random.default_rng(0))
    assert np.quantile(draws, 0.025) == pytest.approx(0.7, abs=0.02)
    none = {**perfect, "value": 0.0, "low": 0.0, "high": 0.3}
    assert np.quantile(label_noise._drawn(none, np.random.default_rng(0)), 0.975) == pytest.approx(0.3, abs=0.02)


def test_bare_numbers_have_no_interval() -> None:
    found = needed(label_noise._given("internal", 0.931), label_noise._given("external", 0.815))
    assert found["value"] == pytest.approx(1 + 0.315 / 0.431)
    assert np.isnan([found["low"], found["high"]]).all()


def test_too_few(tmp_path: Path) -> None:
    """A handful of cases gets no verdict."""
    table = two_sites(0.1, 12)
    table.to_csv(tmp_path / "p.csv", index=False)
    found = label_noise.run(cfg(tmp_path / "p.csv"), tmp_path, internal=["A"], external=["B"])
    assert found["verdict"] == "Too few cases for a verdict."


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"internal": 0.9, "external": 1.2}, "external=1.2"),
        ({"internal": 0.9, "external": ["B"]}, "two numbers, or sites"),
        ({"internal": 0.9, "external": 0.8, "ppv": 0.9}, "belong together"),
        ({"internal": 0.9, "external": 0.8, "ppv": 0.9, "npv": 90}, "npv=90"),
        ({"internal": ["A"], "external": ["C"]}, "site c; there are A, B"),
        ({"internal": ["A"], "external": ["D"]}, "site d"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    """One error for people."""
    two_sites(0.1, 50).to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(ProbeError, match=told):
        label_noise.run(cfg(tmp_path / "p.csv"), tmp_path, **settings)


def test_one_class(tmp_path: Path) -> None:
    """A site without positives has no AUC."""
    two_sites(0.1, 50).assign(label_x=0).to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(ProbeError, match="one class only among 50"):
        label_noise.run(cfg(tmp_path / "p.csv"), tmp_path, internal=["A"], external=["B"])

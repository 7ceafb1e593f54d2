"""The mean AUC of findings: DeLong's interval for one of them, the patient bootstrap's for several."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from domainseg.evaluation.findings import mean_auc
from domainseg.evaluation.metrics import evaluate
from domainseg.evaluation.roc import auc, weighted_auc
from domainseg.evaluation.tables import Rows, rows_of


def table(n: int = 400, shared: float = 1.0, seed: int = 0) -> pd.DataFrame:
    """Films of patients with one to three each; the findings go together as far as ``shared`` is large."""
    rng = np.random.default_rng(seed)
    patient = np.sort(rng.integers(0, n // 2, n))
    common = rng.normal(size=n // 2)[patient]
    found = {"image": [f"f{k}" for k in range(n)], "patient": patient, "site": "A", "split": "test"}
    for name in ("mass", "edema", "pneumonia"):
        z = shared * common + rng.normal(size=n)
        found[f"label_{name}"] = (z + rng.normal(size=n) > 1).astype(float)
        found[f"score_{name}"] = 1 / (1 + np.exp(-(z + shared * common)))
    out = pd.DataFrame(found)
    out.loc[::7, "label_edema"] = np.nan
    return out


def judged(films: pd.DataFrame, *names: str) -> dict[str, Rows]:
    return {name: rows_of(films, name).judged() for name in names}


def test_of_one_finding_it_is_delongs_and_obuchowskis() -> None:
    for films in (table(), table().drop(columns="patient")):
        (rows,) = judged(films, "mass").values()
        one, wanted = mean_auc({"mass": rows}), auc(rows.label, rows.score, rows.clusters)
        assert one["value"] == pytest.approx(wanted["value"])
        assert [one["low"], one["high"]] == pytest.approx([wanted["low"], wanted["high"]], abs=2e-3)
        assert (one["n"], one["n_clusters"]) == (wanted["n"], wanted["n_clusters"])


def test_of_several_it_is_that_of_the_patient_bootstrap() -> None:
    """Findings that go together count as one where they are, not as three."""
    rng = np.random.default_rng(5)
    for shared in (0.0, 2.0):
        films = table(shared=shared, seed=3)
        names = ("mass", "edema", "pneumonia")
        found = mean_auc(judged(films, *names))
        patients = films["patient"].to_numpy()
        drawn = np.stack([np.bincount(rng.integers(0, 200, 200), minlength=200)[patients] for _ in range(2000)])
        means = np.zeros(2000)
        for name in names:
            known = films[f"label_{name}"].notna().to_numpy()
            area = weighted_auc(
                films.loc[known, f"label_{name}"].to_numpy(), films.loc[known, f"score_{name}"].to_numpy()
            )
            means += area(drawn[:, known].astype(float)) / 3
        assert found["value"] == pytest.approx(means.mean(), abs=2e-3)
        wide = found["high"] - found["low"]
        assert wide == pytest.approx(np.subtract(*np.percentile(means, [97.5, 2.5])), rel=0.12)


def test_findings_of_one_class_are_left_out_and_told() -> None:
    films = table()
    films["label_edema"] = 0.0
    found = mean_auc(judged(films, "mass", "edema"))
    assert found["value"] == pytest.approx(mean_auc(judged(films, "mass"))["value"])
    assert found["method"].startswith("mean of 1,")
    assert np.isnan(mean_auc(judged(films, "edema"))["value"])


def test_metrics_hold_it_where_a_table_has_several_findings() -> None:
    metrics = evaluate(table(), resamples=20)["test"]
    areas = [metrics[name]["auc"]["value"] for name in ("mass", "edema", "pneumonia")]
    assert metrics["findings"]["intention"]["auc_mean"]["value"] == pytest.approx(np.mean(areas))
    assert "findings" not in evaluate(table(), ["mass"], resamples=20)["test"]

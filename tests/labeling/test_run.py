"""The label command on simulated reports whose truth is known: honest figures, given labels, privacy, the reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from domainseg.evaluation import roc
from domainseg.labeling.run import run
from domainseg.overrides import UsageError

from .conftest import NAME, Labelled, settings


def test_ours_beats_the_plain_reference_where_negation_matters(labelled: Labelled) -> None:
    for name in ("effusion", "nodule"):
        own = labelled.metrics["test"][name]
        assert own["difference"]["low"] > 0
        assert own["difference"]["p"] < 0.05
        assert own["auc"]["value"] > 0.97
        gap = own["auc"]["value"] - own["reference"]["auc"]["value"]
        assert own["difference"]["value"] == pytest.approx(gap)
    overall = labelled.metrics["test_mean_over_labels"]
    assert overall["difference"]["low"] > 0
    means = [labelled.metrics["test"][name]["auc"]["value"] for name in ("effusion", "nodule")]
    assert overall["auc"]["value"] == pytest.approx(np.mean(means))


def test_figures_are_those_of_the_held_out_rows_of_labels_csv(labelled: Labelled) -> None:
    given, own = labelled.given, labelled.metrics["test"]["effusion"]
    threshold = json.loads((labelled.folder / "models.json").read_text())["labels"]["effusion"]["decision"]["threshold"]
    held = given[(given["split"] == "test") & (given["source_effusion"] == "hand")]
    label, score = held["label_effusion"].to_numpy(int), held["probability_effusion"].to_numpy()
    assert own["auc"]["value"] == pytest.approx(roc_auc_score(label, score), abs=1e-4)
    assert own["auc"]["n"] == len(held)
    called = score >= threshold
    for name, right, among in (
        ("sensitivity", called, label == 1), ("specificity", ~called, label == 0),
        ("ppv", label == 1, called), ("npv", label == 0, ~called),
    ):  # fmt: skip
        assert own[name]["value"] == pytest.approx(right[among].mean())
        assert own[name]["n"] == among.sum()
        assert 0 <= own[name]["low"] <= own[name]["value"] <= own[name]["high"] <= 1
    metric = roc.auc(label, score, held["patient"].to_numpy(str))
    assert (own["auc"]["low"], own["auc"]["n_clusters"]) == (
        pytest.approx(metric["low"], abs=1e-3),
        metric["n_clusters"],
    )


def test_no_patient_is_on_two_sides(labelled: Labelled) -> None:
    given = labelled.given
    sides = given[given["split"].isin(["train", "test"])].groupby("patient")["split"].nunique()
    assert (sides == 1).all()
    assert given["split"].value_counts()["test"] == pytest.approx(240, abs=30)


def test_all_reports_get_labels_and_hand_labels_win(labelled: Labelled) -> None:
    given, truth = labelled.given, labelled.simulated.truth
    assert given["report"].tolist() == labelled.simulated.reports["report"].tolist()
    hand = labelled.hand["effusion"].replace("", np.nan).astype(float)
    known = hand.isin([0, 1]).to_numpy()
    assert (given["label_effusion"][:600][known] == hand[known]).all()
    assert set(given["source_effusion"][:600][known]) == {"hand"}
    doubt = (hand == -1).to_numpy()
    assert doubt.any()
    assert given["label_effusion"][:600][doubt].isna().all()
    new = given[600:799]
    assert set(new["source_effusion"].fillna("")) <= {"model", ""}
    assert roc_auc_score(truth["effusion"][600:799], new["probability_effusion"]) > 0.93
    by_model = new[new["source_effusion"] == "model"]
    right = by_model["label_effusion"] == truth["effusion"][by_model.index]
    assert len(by_model) > 150
    assert right.mean() > 0.93
    assert given["source_effusion"][799] == "no text"
    assert given.loc[799, ["probability_effusion", "label_effusion"]].isna().all()


def test_labels_with_too_few_cases_are_named_and_not_learned(labelled: Labelled) -> None:
    models = json.loads((labelled.folder / "models.json").read_text())
    assert set(models["skipped"]) == {"rare", "never"}
    assert models["skipped"]["never"].startswith("0 positive")
    assert labelled.given["probability_rare"].isna().all()
    assert labelled.given["label_never"][:600].eq(0).all()
    assert labelled.given["label_never"][600:].isna().all()
    page = (labelled.folder / "report.html").read_text()
    assert "Labels that were not learned" in page
    assert "never" in page


def test_no_name_and_no_text_in_page_models_and_metrics(labelled: Labelled) -> None:
    texts = labelled.simulated.reports["text"]
    for file in ("report.html", "models.json", "metrics.json"):
        content = (labelled.folder / file).read_text().lower()
        for secret in (NAME.lower(), "jankowska", "mrs ", "p00"):
            assert secret not in content, file
        assert not any(text.lower() in content for text in texts[:300] if len(text) > 40)
    weights = json.loads((labelled.folder / "models.json").read_text())["labels"]["effusion"]["weights"]
    assert max(weights, key=lambda name: weights[name]).startswith(("+", "rule: effusion positive"))
    assert not any(character.isdigit() for name in weights for character in name)


def test_the_same_settings_give_the_same_labels(labelled: Labelled, tmp_path: Path) -> None:
    folder = labelled.folder.parent
    cfg = settings(
        reports=str(folder / "reports.csv"), labels=str(folder / "labels.csv"), features=["ngrams", "context"],
        targets=["effusion", "nodule", "rare", "never"],
    )  # fmt: skip
    run(cfg, tmp_path)
    for file in ("labels.csv", "metrics.json"):
        assert (tmp_path / file).read_bytes() == (labelled.folder / file).read_bytes()


def test_rules_alone_and_against_hand_labels(labelled: Labelled, tmp_path: Path) -> None:
    reports = labelled.simulated.reports.assign(image=labelled.simulated.reports["report"] + ".png")
    reports.to_csv(tmp_path / "r.csv", index=False)
    labelled.simulated.labels.to_csv(tmp_path / "l.csv", index=False)
    cfg = settings(reports=str(tmp_path / "r.csv"), labels=str(tmp_path / "l.csv"), rules="only", unmentioned="0")
    metrics = run(cfg | {"targets": ["effusion", "Pneumothorax"]}, tmp_path / "out")
    given = pd.read_csv(tmp_path / "out/labels.csv")
    hand, status = labelled.simulated.labels["effusion"], given["status_effusion"]
    assert metrics["test"]["effusion"]["sensitivity"]["value"] == (status[hand == 1] == "positive").mean()
    assert metrics["test"]["effusion"]["specificity"]["value"] == (status[hand == 0] != "positive").mean()
    assert metrics["test"]["effusion"]["sensitivity"]["n"] == (hand == 1).sum()
    assert metrics["test"]["effusion"]["sensitivity"]["value"] > 0.95
    assert set(metrics["test"]) == {"effusion", "pneumothorax"}
    assert given["label_effusion"][status == "uncertain"].isna().all()
    assert (given["label_effusion"][status == "unmentioned"] == 0).all()
    assert (given["label_Pneumothorax"][given["status_Pneumothorax"] == "positive"] == 1).all()
    targets = pd.read_csv(tmp_path / "out/targets.csv")
    assert list(targets) == ["image", "part", "label_effusion", "label_Pneumothorax"]
    with pytest.raises(UsageError, match="no lexicon has rash"):
        run(cfg | {"targets": ["rash"]}, tmp_path / "out")


def test_each_film_of_a_report_gets_its_labels_and_no_text_gives_none(tmp_path: Path) -> None:
    rows = {"report": ["A1", "A1", "B"], "image": ["x", "y", "z"], "text": ["Small effusion."] * 2 + [" "]}
    pd.DataFrame(rows).to_csv(tmp_path / "r.csv", index=False)
    run(settings(reports=str(tmp_path / "r.csv"), labels=None, rules="only", unmentioned="0"), tmp_path / "out")
    given = pd.read_csv(tmp_path / "out/labels.csv")
    assert given["image"].tolist() == ["x", "y", "z"]
    assert given["label_effusion"].tolist()[:2] == [1, 1]
    assert given["label_effusion"].isna().tolist() == [False, False, True]
    assert given["source_effusion"].tolist() == ["rule", "rule", "no text"]
    assert pd.read_csv(tmp_path / "out/targets.csv")["image"].tolist() == ["x", "y", "z"]


def test_a_model_that_has_seen_no_silent_report_gives_it_no_zero(labelled: Labelled, tmp_path: Path) -> None:
    simulated = labelled.simulated
    speaks = simulated.reports["text"].str.contains("effusion|pleural fluid|hydropneumothorax", case=False)
    hand = simulated.labels[["report", "effusion"]].iloc[:600]
    simulated.reports.to_csv(tmp_path / "reports.csv", index=False)
    hand[speaks[:600]].assign(tearing=hand["effusion"]).to_csv(tmp_path / "labels.csv", index=False)
    cfg = settings(
        reports=str(tmp_path / "reports.csv"), labels=str(tmp_path / "labels.csv"), features=["context"], certainty=0
    )
    run(cfg, tmp_path / "out")
    given = pd.read_csv(tmp_path / "out/labels.csv")
    quiet = ~speaks & (given["label_tearing"] == 0)  # nobody knows what mentions that label: it keeps its zeros
    assert quiet.sum() > 100
    assert given["label_effusion"][quiet].isna().all()
    assert set(given["source_effusion"][quiet]) == {"not mentioned"}
    assert given["label_effusion"][speaks & (hand["effusion"].reindex(speaks.index) != -1)].notna().mean() > 0.9
    page = (tmp_path / "out/report.html").read_text()
    assert "of reports that never mention it, too few to learn what silence means" in page
    assert "No lexicon knows tearing" in page
    assert f">{given['label_effusion'].isna().sum()}</td>" in page


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("threshold", "best"),
        ("features", ["words"]),
        ("holdout", 0.99),
        ("folds", 1),
        ("uncertain", 2),
        ("rules", "off"),
    ],
)
def test_settings_that_are_none(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=key):
        run(settings(reports="r.csv", **{key: value}), Path("out"))

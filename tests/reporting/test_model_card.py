"""The card says what a stranger must know; each figure is looked for as it stands in the record and the metrics."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from domainseg.evaluation import evaluate
from domainseg.imaging.film import READER_VERSION
from domainseg.reporting.model_card import model_card


def stage(name: str, **chosen: Any) -> dict[str, Any]:
    """A stage's entry in bundle.json, as far as the card reads it."""
    known = {"value": 0.25, "rule": "keep_0.99", "chosen_on": "tune", "n_positive": 12, "n_negative": 90, "kept": 1.0}
    return {
        "name": name,
        "target": name,
        "batch": "dynamic",
        "preprocessing": [{"op": "fit", "size": 192}],
        "chosen": {**known, "specificity": 0.5, "reached": True, "provisional": True, **chosen},
        "bf16": None,
    }


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    """Of 60 hips, 20 of them fractured, at two sites; scores part them but for one pair."""
    label = np.arange(60) % 3 == 0
    score = np.where(label, 0.8, 0.2)
    score[0], score[1] = 0.1, 0.9
    table = pd.DataFrame(
        {
            "image": [f"i{k}" for k in range(60)],
            "patient": [f"p{k}" for k in range(60)],
            "site": np.where(np.arange(60) < 30, "North", "South"),
            "split": "test",
            "excluded_by": "",
            "label_fracture": label.astype(float),
            "score_fracture": score,
            "threshold_fracture": 0.5,
        }
    )
    return evaluate(table, resamples=20)


@pytest.fixture
def record() -> dict[str, Any]:
    """bundle.json of a cascade of two stages."""
    split = {"films": 40, "patients": 31, "sha256": "ab" * 32, "sites": {"North": 25, "South": 15}}
    label = {"question": "Is it broken?", "negative": "no fracture", "positive": "fracture"}
    found = {"pictures": 8, "logits": 2.5e-6}
    return {
        "schema": 1,
        "pipeline": "hip",
        "target": "fracture",
        "reader": READER_VERSION,
        "versions": {"trained": {"torch": "2.14.1"}, "exported": {"onnx": "1.23.2"}},
        "stages": [stage("view_filter", n_positive=77, provisional=False), stage("fracture")],
        "labels": {"view_filter": label, "fracture": label},
        "data": {
            "name": "some_films",
            "simulated": True,
            "films": 100,
            "seed": 3,
            "cohort": {"department": ["emergency"]},
            "splits": {"test": {**split, "labels": {"fracture": {"positive": 20, "negative": 40, "of": "parts"}}}},
            "exclusions": {
                "split": "test", "films": 40, "rows": 70, "scored": 60,
                "reasons": [{"stage": "view_filter", "reason": "other_body_part", "films": 9, "rows": 10}],
            },
        },
        "envelope": {
            "films": 50, "of": 60, "few": 5, "spacing": [0.14, 0.2],
            "size": {"shorter": [2000, 2100], "longer": [2500, 3000]},
            "metadata": {"modality": {"values": {"DX": 50}, "missing": 0}},
        },
        "parity": {
            "stages": {"view_filter": found, "fracture": found},
            "cascade": {"films": 8, "cases": 15, "excused": 0, "score": 1e-6, "head_px": 2e-5},
            "openvino": {"films": 8, "cases": 15, "excused": 0, "score": 4e-6, "head_px": 3e-5},
        },
    }  # fmt: skip


def rows(card: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    part = card.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_it_is_said_first_that_this_is_no_medical_device(record: dict[str, Any], metrics: dict[str, Any]) -> None:
    assert "**Not a medical device.**" in model_card(record, metrics).split("## ", 1)[0]


def test_tables_are_whole(record: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Every table has a head, a rule and rows of as many cells, and a blank line before it."""
    lines = model_card(record, metrics).splitlines()
    for k, line in enumerate(lines):
        if re.fullmatch(r"\|(---\|)+", line):
            assert lines[k - 2] == ""
            width = line.count("|")
            following = lines[k + 1 :]
            body = following[: next(n for n, row in enumerate(following) if not row.startswith("|"))]
            assert body
            assert all(row.count("|") == width for row in [lines[k - 1], *body])
    assert "{" not in "".join(lines)


def test_figures_are_those_of_the_metrics(record: dict[str, Any], metrics: dict[str, Any]) -> None:
    card = model_card(record, metrics)
    auc = metrics["test"]["fracture"]["intention"]["auc"]
    shown = {row[1]: row for row in rows(card, "Results") if row[0] == "Fracture"}
    assert shown["AUC"][2] == f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})"
    assert shown["AUC"][4:] == ["60", "60"]
    assert shown["Sensitivity"][2].startswith("0.950 (")  # 19 of 20
    sites = {row[1]: row for row in rows(card, "# Fracture by group, on intention".removeprefix("# "))}
    assert sites["North"][2:5] == ["30", "10", "30"]


def test_thresholds_say_rule_cases_and_what_is_provisional(record: dict[str, Any], metrics: dict[str, Any]) -> None:
    card = model_card(record, metrics)
    view, fracture = rows(card, "Thresholds")
    assert view == ["View filter", "0.2500", "keep 0.99", "tune", "77 / 90", "1.000", "frozen"]
    assert fracture[4:] == ["12 / 90", "1.000", "provisional"]
    limits = card.split("## Limits", 1)[1]
    assert "Fracture: the threshold is provisional" in limits
    assert "View filter: the threshold is provisional" not in limits


def test_data_are_called_what_they_are(record: dict[str, Any], metrics: dict[str, Any]) -> None:
    card = model_card(record, metrics)
    assert "Simulated films, not real ones" in card
    assert "department emergency." in card
    assert rows(card, "Data")[0] == ["test", "40", "31", "25", "15", "ab" * 6]
    assert rows(card, "Exclusions") == [["View filter", "other body part", "9", "10"]]
    assert ["Spacing, mm", "0.140 to 0.200"] in rows(card, "Films that it is for")
    real = copy.deepcopy(record)
    real["data"]["simulated"] = False
    assert "imulated" not in model_card(real, metrics)


def test_bf16_is_told_with_its_cases_or_not_at_all(record: dict[str, Any], metrics: dict[str, Any]) -> None:
    assert "bf16 has not been checked" in model_card(record, metrics)
    told = {"n": 380, "auc_change": -0.0004, "flipped": 0.0, "processor": "Acme 1", "films": 272}
    record["stages"][1]["bf16"], record["bf16"] = told, told
    card = model_card(record, metrics)
    assert "bf16 has not been checked" not in card
    assert "272 labelled films, Acme 1" in card
    assert "| Fracture | 380 | \N{MINUS SIGN}0.00040 | 0.00 % |" in card


def test_a_cross_validated_run_says_that_its_figures_are_of_other_networks(
    record: dict[str, Any], metrics: dict[str, Any]
) -> None:
    record["data"]["judged"] = "These figures are those of a cross-validation in 4 folds."
    assert record["data"]["judged"] in model_card(record, metrics).split("## Results", 1)[1].split("## Thresholds")[0]


def test_without_envelope_and_exclusions_the_card_says_so(record: dict[str, Any], metrics: dict[str, Any]) -> None:
    record["envelope"] = {}
    del record["data"]["exclusions"]
    card = model_card(record, metrics)
    assert "no film is flagged as unusual" in card
    assert "Not counted" in card


def test_names_from_tables_and_films_are_shown_and_not_formatted(
    record: dict[str, Any], metrics: dict[str, Any]
) -> None:
    evil = "A | B\n\n# <script>[x](http://y) `z` *w*"
    plain = model_card(record, metrics)
    record["data"]["splits"]["test"]["sites"] = {evil: 40}
    record["data"]["name"] = evil
    record["data"]["cohort"] = {"department": [evil]}
    record["envelope"]["metadata"]["modality"]["values"] = {evil: 50}
    card = model_card(record, metrics)
    shown = r"A / B # \<script\>\[x\](http://y) \`z\` \*w\*"
    assert card.count(shown) == 4
    assert "<script" not in card.replace(r"\<", "")
    for line in card.splitlines():
        if "Site A" in line:
            assert line.count("|") == 6
    assert len(card.splitlines()) == len(plain.splitlines())


def test_a_bundle_that_reads_exams_is_told_in_their_words(
    record: dict[str, Any], heads: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    for target, operation in (("head_filter", "projections"), ("hemorrhage", "slabs")):
        record["labels"][target] = {"question": f"{target}?", "negative": "none", "positive": target}
        settings = [{"op": operation, "size": 96, "slices": 5}, {"op": "window"}, {"op": "window"}]
        record["stages"].append(stage(target) | {"preprocessing": settings, "decision": {"kind": "x", "level": 0.35}})
        record["parity"]["stages"][target] = {"pictures": 8, "logits": 2.5e-6}
    for target in ("view_filter", "fracture"):
        del record["parity"]["stages"][target], record["labels"][target]
    record |= {"pipeline": "hemorrhage", "target": "hemorrhage", "stages": record["stages"][2:]}
    record["data"]["splits"]["test"]["labels"] = {"hemorrhage": {"positive": 9, "negative": 31, "of": "parts"}}
    record["data"]["exclusions"]["reasons"][0] |= {"stage": "head_filter", "reason": "no_head"}
    record["envelope"] |= {"volumes": 50, "slice_distance": [1, 5], "thickness": [1.25, 5], "slices": [28, 180]}
    record["envelope"]["hu"] = {"50": [28.0, 36.0]}
    del record["envelope"]["films"]
    metrics = evaluate(heads[0], ["head_filter", "hemorrhage", "subdural"], resamples=10, splits=["test"])
    card = model_card(record, metrics)
    assert re.search(r"\b(film|hip|fracture|implant|femoral)s?\b", card, re.IGNORECASE) is None
    assert "# Model card: hemorrhage\n" in card
    assert ["Hemorrhage", "hemorrhage?", "96 x 96, slabs of 5 slices in 2 windows", "dynamic"] in rows(
        card, "What it does"
    )
    assert "| Hemorrhage | test | 9 | 31 | exams |" in card
    assert ["Thickness of slices, mm", "1.25 to 5.00"] in rows(card, "Exams that it is for")
    assert ["HU, 50th percentile", "28 to 36"] in rows(card, "Exams that it is for")
    assert rows(card, "Exclusions") == [["Head filter", "no head CT that can be read for hemorrhage", "9", "10"]]
    subdural = metrics["test"]["subdural"]["intention"]["sensitivity"]
    assert rows(card, "By type, on intention")[1][:2] == ["Subdural", str(subdural["n"])]
    assert "| Hemorrhage | a candidate's voxels: probability from | 0.35 |" in card
    assert "but 0," not in card
    assert {len(row) for row in rows(card, "The same answers everywhere")} == {3}

"""The report of a head CT run: its figures are those of the tables, its words those of exams."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from domainseg.files import read_json, write_json
from domainseg.reporting import sections, sections_volume
from domainseg.reporting.content import Content, gather
from domainseg.reporting.evaluate import evaluate_command, evaluate_run
from domainseg.reporting.words import interval

Tables = tuple[pd.DataFrame, pd.DataFrame]


@pytest.fixture(scope="module")
def run(heads: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    heads[0][heads[0]["split"] == "test"].to_parquet(folder / "predictions.parquet")
    heads[1].to_parquet(folder / "lesions.parquet")
    settings = "pipeline: hemorrhage\ntarget: hemorrhage\nstages: [head_filter, hemorrhage]\n"
    (folder / "config.yaml").write_text(settings)
    threshold = {"value": 0.4, "rule": "sensitivity_0.95", "chosen_on": "tune", "n_positive": 15, "n_negative": 15}
    for stage, numbers in (("hemorrhage", {"types": {"epidural": {**threshold, "value": 0.125}}}), ("head_filter", {})):
        record = {**threshold, "kept": 1.0, "provisional": True, "numbers": numbers}
        write_json(folder / "stages" / stage / "threshold.json", record)
    evaluate_run(folder, resamples=20)
    return folder


def text_of(path: Path) -> str:
    return " ".join(re.sub("<[^>]*>", " ", path.read_text().split("<body>")[1]).split())


def test_the_report_speaks_of_exams_their_types_and_lesions(run: Path) -> None:
    text, metrics = text_of(run / "report.html"), read_json(run / "metrics.json")["test"]
    area = metrics["hemorrhage"]["intention"]["auc"]
    assert f"all {area['n']} eligible exams of {area['n_clusters']} patients" in text
    assert interval(area) in text
    for words in ("By type", "Lesions and volumes", "Falx calcification", "No hemorrhage", "Head filter", "Epidural"):
        assert words in text, words
    for words in ("film", "hip", "fracture", "implant"):
        assert re.search(rf"\b{words}s?\b", text, re.IGNORECASE) is None, words
    assert re.search(r"\bnan\b|None\b(?! of)|\binf\b", text) is None
    pictures = re.findall(r'alt="([^"]*)"', (run / "report.html").read_text())
    assert "Fraction of true lesions found against false lesions a scan" in pictures
    assert "Measured against true volume, and their difference against their mean" in pictures


def test_stages_stand_in_the_order_of_the_cascade_and_its_target_leads(run: Path) -> None:
    content = gather(run)
    assert [row["stage"] for row in content.thresholds] == ["head_filter", "hemorrhage"]
    rows = [(row["stage"], row["value"]) for row in sections.thresholds(content)]
    assert rows == [("Head filter", "0.4000"), ("Hemorrhage", "0.4000"), ("Hemorrhage, Epidural", "0.1250")]
    assert content.main == "hemorrhage"
    assert Content("x", {"test": {"hemorrhage": {}, "epidural": {}}}).main == "hemorrhage"
    assert Content("x", {"test": {"own": {}, "fracture": {}}}, config={"target": "own"}).main == "own"
    assert Content("x", {"test": {"view_filter": {}, "own": {}}}).main == "own"


def test_false_lesions_are_counted_by_what_they_were_taken_from(heads: Tables, run: Path) -> None:
    rows = {row["title"]: row for row in sections_volume.mimic_rows(gather(run))}
    exams, lesions = heads[0][heads[0]["split"] == "test"], heads[1]
    scored = set(exams.loc[exams["false_lesions"].notna(), "image"])
    wrong = lesions[
        (lesions["source"] == "predicted")
        & lesions["called"]
        & (lesions["matched"] == 0)
        & lesions["image"].isin(scored)
    ]
    counts = wrong["mimic"].value_counts()
    for name, count in counts.items():
        assert rows[str(name).replace("_", " ").capitalize()]["lesions"] == count
    assert sum(row["lesions"] for row in rows.values()) == exams["false_lesions"].sum()
    held = exams["image"].isin(scored) & exams["mimic"].str.split("+").map(lambda kinds: "motion" in kinds)
    assert rows["Motion"]["exams"] == held.sum()


def test_with_folds_lesions_are_counted_in_the_fold_that_tests_the_exam(run: Path) -> None:
    content = gather(run)
    assert content.table is not None
    assert content.lesions is not None
    of_one = sections_volume.mimic_rows(
        replace(content, table=content.table.assign(fold=0), lesions=content.lesions.assign(fold=0))
    )
    table = pd.concat([content.table.assign(fold=0), content.table.assign(fold=1, split="tune")])
    lesions = pd.concat([content.lesions.assign(fold=0), content.lesions.assign(fold=1)])
    assert sections_volume.mimic_rows(replace(content, table=table, lesions=lesions)) == of_one


def test_types_have_a_table_and_no_blocks_of_their_own(run: Path) -> None:
    content = gather(run)
    titles = [block["title"] for block in sections.key_figures(content)]
    assert sorted(titles) == ["Head filter", "Hemorrhage"]
    types = sections_volume.type_rows(content)
    assert types is not None
    assert [row["title"] for row in types["rows"]][:3] == ["Hemorrhage", "Intraparenchymal", "Subdural"]
    metrics = content.results["subdural"]["intention"]
    assert types["rows"][2]["n"] == metrics["sensitivity"]["n"]
    assert types["rows"][2]["cells"][0] == interval(metrics["auc"], 2)


def test_dice_of_fewer_exams_than_have_it_says_so(run: Path) -> None:
    """As where some have labels and no masks."""
    content = gather(run)
    content.results["subdural"]["intention"]["dice"]["n"] -= 2
    types = sections_volume.type_rows(content)
    assert types is not None
    row = types["rows"][2]
    assert row["cells"][3].endswith(f", n {row['n'] - 2}")
    assert ", n" not in row["cells"][0]


def test_evaluate_reads_the_lesions_beside_the_table(run: Path, tmp_path: Path) -> None:
    cfg = {"predictions": str(run / "predictions.parquet"), "targets": ["hemorrhage"], "resamples": 20}
    evaluate_command(cfg, tmp_path / "out")
    drawn = {path.stem for path in (tmp_path / "out" / "figures").iterdir()}
    assert {"froc", "volumes", "roc", "flow"} <= drawn


@pytest.mark.parametrize("gone", ["lesions.parquet", "predictions.parquet"])
def test_either_table_may_be_missing(run: Path, gone: str) -> None:
    kept = (run / gone).read_bytes()
    (run / gone).unlink()
    try:
        content = gather(run)
        assert sections_volume.mimic_rows(content) == []
        assert "froc" not in sections_volume.draw(content)
    finally:
        (run / gone).write_bytes(kept)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0.0], "holds 1 eligible exam; there is none of the class “hemorrhage”"),
        ([1.0, 1.0], "holds 2 eligible exams; there is none of the class “no hemorrhage”"),
        ([np.nan], "holds 0 eligible exams; there is none of the class “no hemorrhage” or “hemorrhage”"),
    ],
)
def test_a_split_without_one_of_the_classes_is_told(labels: list[float], said: str) -> None:
    from domainseg.evaluation import evaluate

    exams: dict[str, Any] = {"image": [str(k) for k in range(len(labels))], "label_hemorrhage": labels}
    table = pd.DataFrame({**exams, "score_hemorrhage": 0.3, "threshold_hemorrhage": 0.2, "patient": "p"})
    lines = sections.brief(Content("x", evaluate(table, resamples=10), table))
    assert said in lines[0]
    assert "nan" not in " ".join(lines)


def test_one_patient_is_one(heads: Tables) -> None:
    metrics = {"auc": {"value": 0.8, "low": 0.5, "high": 0.9, "n": 2, "n_clusters": 1, "method": "x"}}
    lines = sections.brief(Content("x", {"test": {"hemorrhage": {"intention": metrics}}}))
    assert "on all 2 eligible exams of 1 patient in the test split" in lines[0]


def test_printed_figures_stand_beside_ours_and_say_which_are_recalled(run: Path) -> None:
    content, text = gather(run), text_of(run / "report.html")
    metrics, blocks = content.results, sections_volume.published(content)
    rows = {(block["source"][:5], row["name"]): row for block in blocks for row in block["rows"]}
    assert rows["Chang", "Hemorrhage: PPV"]["ours"] == interval(metrics["hemorrhage"]["ppv"])
    dice = interval(metrics["hemorrhage"]["intention"]["dice"])
    assert rows["INSTA", "Hemorrhage: Dice"] == {"name": "Hemorrhage: Dice", "ours": dice, "printed": "0.6925"}
    for block in blocks:
        recalled = any(row["name"] == "Intraparenchymal: Dice" for row in block["rows"])
        assert ("recalled, not verified" in block["exams"]) == recalled
    assert "Beside printed figures" in text
    assert "recalled, not verified" in text

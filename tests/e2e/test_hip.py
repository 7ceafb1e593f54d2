"""The hip cascade from simulated DICOM files to a report, by the commands that a user types; a few steps a stage."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pydicom
import pytest
import yaml

from .conftest import command

pytestmark = pytest.mark.slow

SMALL = [
    *("data.n=30", "data.reduction=4", "data.workers=1", "trainer.threads=1", "trainer.precision=fp32"),
    *(f"stage.{name}.task.steps=2" for name in ("view_filter", "localizer", "implant_filter")),
    *("stage.fracture.task.patch.steps=2", "stage.fracture.task.tail.steps=2"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run in run/ and its films in films/."""
    folder = tmp_path_factory.mktemp("e2e")
    command("train", "+pipeline=hip", "output=run", "data.root=films", *SMALL, cwd=folder)
    return folder


def test_run_folder_holds_what_was_promised(folder: Path) -> None:
    run = folder / "run"
    for name in ("config.yaml", "environment.json", "predictions.parquet", "predictions.csv", "metrics.json"):
        assert (run / name).is_file(), name
    for stage in ("view_filter", "localizer", "implant_filter", "fracture"):
        assert any((run / "stages" / stage).iterdir()), stage
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["n"] == 30
    html = (run / "report.html").read_text()
    assert "<script src=" not in html
    assert "http://" not in html.replace("http://www.w3.org", "")


def test_the_bundle_of_the_run_answers_as_the_run_does(folder: Path) -> None:
    films = folder / "one"
    films.mkdir()
    source = sorted((folder / "films/images").iterdir())[0]
    (films / source.name).write_bytes(source.read_bytes())
    for name, model in (("by_run", "run=run"), ("by_bundle", "bundle=run/bundle")):
        command("predict", model, "input=one", f"output={name}", cwd=folder)
    tables = [pd.read_parquet(folder / name / "predictions.parquet") for name in ("by_run", "by_bundle")]
    both = [table[["image", "part", "excluded_by", "exclusion_reason"]] for table in tables]
    pd.testing.assert_frame_equal(*both)
    scores = [table.filter(regex="^score_").astype(float) for table in tables]
    pd.testing.assert_frame_equal(*scores, rtol=0, atol=1e-3)
    assert "Not a medical device" in (folder / "run/bundle/MODEL_CARD.md").read_text()


def test_no_case_is_dropped(folder: Path) -> None:
    table = pd.read_parquet(folder / "run/predictions.parquet")
    targets = pd.read_parquet(folder / "films/targets.parquet")
    parts = targets[(targets["label_localizer"] == 1) & targets["image"].isin(table["image"])]
    known = set(zip(parts["image"], parts["part"], strict=True))
    assert known <= set(zip(table["image"], table["part"], strict=True))
    assert not table.duplicated(["image", "part"]).any()
    assert table[["image", "part"]].equals(table[["image", "part"]].sort_values(["image", "part"]))
    scored = table["excluded_by"] == ""
    assert table.loc[scored, "score_fracture"].between(0, 1).all()
    assert (table.loc[~scored, "exclusion_reason"] != "").all()


def test_predict_reads_a_folder_and_says_what_it_could_not_read(folder: Path) -> None:
    films = folder / "some"
    films.mkdir()
    for film in sorted((folder / "films/images").iterdir())[:2]:
        (films / film.name).write_bytes(film.read_bytes())
    argv = ("run=run", "input=some", "threads=1")
    command("predict", *argv, "output=read", "overlays=true", cwd=folder)
    (films / "broken.dcm").write_bytes(b"not a film")
    command("predict", *argv, "output=unread", cwd=folder, code=3)
    table = pd.read_parquet(folder / "unread/predictions.parquet").set_index("image")
    assert table.loc["broken.dcm", "excluded_by"] == "read"
    before = pd.read_parquet(folder / "read/predictions.parquet")
    assert set(table.index) == {*before["image"], "broken.dcm"}
    assert len(list((folder / "read/overlays").iterdir())) == 2


def test_evaluate_finds_the_metrics_of_the_run(folder: Path) -> None:
    command("evaluate", "predictions=run/predictions.parquet", "output=again", cwd=folder)
    first, again = (json.loads((folder / name / "metrics.json").read_text()) for name in ("run", "again"))
    one, other = (found["test"]["view_filter"]["auc"]["value"] for found in (first, again))
    assert one == other or math.isclose(one, other)


def test_no_name_or_number_of_a_patient_leaves_the_films(folder: Path) -> None:
    """Planted in tags, in the manifest's patient column and in a column of its own; the key's folder holds none."""
    secrets = ("Mustermann", "4711-0815", "19391224")
    films = folder / "named"
    films.mkdir()
    source = sorted((folder / "films/images").iterdir())[0]
    data = pydicom.dcmread(source)
    data.PatientName, data.PatientID, data.PatientBirthDate = "Mustermann^Erika", "4711-0815", "19391224"
    data.save_as(films / "one.dcm")
    table = pd.DataFrame(
        {"image": ["a"], "path": ["one.dcm"], "patient": ["4711-0815"], "group": ["4711-0815"], "name": ["Mustermann"]}
    )
    table.to_csv(films / "images.csv", index=False)
    printed = command("predict", "run=run", "input=named/images.csv", "output=hidden", "overlays=true", cwd=folder)
    assert not [secret for secret in secrets if secret in printed]
    written = [path for path in (folder / "hidden").rglob("*") if path.is_file()]
    assert any(path.name == "predictions.csv" for path in written)
    for path in written:
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content], path
    assert pd.read_csv(folder / "hidden/predictions.csv")["patient"].notna().all()

"""Findings on simulated chest films, by the commands that a user types: train, predict by the bundle, evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from domainseg.imaging.chest import FINDINGS

from .conftest import command

pytestmark = pytest.mark.slow

SMALL = [
    *("data.n=40", "data.workers=1", "data.prevalence.pneumonia=0.5", "data.prevalence.effusion=0.5"),
    *("data.prevalence.hernia=0", "trainer.threads=1", "trainer.precision=fp32", "trainer.workers=0"),
    *("stage.findings.task.epochs=1", "stage.findings.network.bottleneck=15"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run in run/ and its films in films/."""
    folder = tmp_path_factory.mktemp("e2e")
    command("train", "+pipeline=chest", "+experiment=tiny", "output=run", "data.root=films", *SMALL, cwd=folder)
    return folder


def test_a_run_scores_what_it_has_learned_and_says_what_it_has_not(folder: Path) -> None:
    run = folder / "run"
    table = pd.read_parquet(run / "predictions.parquet")
    assert (table["part"] == "whole").all()
    assert not table["image"].duplicated().any()
    scored = {name for name in FINDINGS if f"score_{name}" in table}
    assert {"pneumonia", "effusion"} <= scored
    assert "hernia" not in scored
    train = pd.read_csv(run / "splits.csv").query("split == 'train'")["image"]
    labels = pd.read_parquet(folder / "films/targets.parquet").set_index("image").loc[train]
    assert scored == {name for name in FINDINGS if labels[f"label_{name}"].nunique() == 2}
    settings = json.loads((run / "stages/findings/stage.json").read_text())
    numbers = json.dumps(settings)
    assert '"base_rate"' in numbers
    log = (run / "train.log").read_text()
    assert "not learned and not scored" in log
    assert "weights from scratch" in log
    for page, text in (("report.html", "Zech 2018"), ("report.html", "maps.html"), ("maps.html", "P / base rate")):
        assert text in (run / page).read_text(), (page, text)
    assert "from scratch" in (run / "bundle/MODEL_CARD.md").read_text()


def test_the_bundle_answers_as_the_run_does_and_draws_its_maps(folder: Path) -> None:
    films = folder / "some"
    films.mkdir()
    before = pd.read_parquet(folder / "run/predictions.parquet").set_index("image")
    chosen = [path for path in sorted((folder / "films/images").iterdir()) if path.name in before.index][:2]
    for film in chosen or sorted((folder / "films/images").iterdir())[:2]:
        (films / film.name).write_bytes(film.read_bytes())
    (films / "broken.dcm").write_bytes(b"not a film")
    command("predict", "bundle=run/bundle", "input=some", "output=found", "overlays=true", cwd=folder, code=3)
    table = pd.read_parquet(folder / "found/predictions.parquet").set_index("image")
    assert table.loc["broken.dcm", ["part", "excluded_by"]].tolist() == ["whole", "read"]
    assert len(list((folder / "found/overlays").iterdir())) == 2
    scores = table.filter(regex="^score_")
    assert scores.drop("broken.dcm").notna().all().all()
    if chosen:
        names = [film.name for film in chosen]
        np.testing.assert_allclose(scores.loc[names], before.loc[names, scores.columns], atol=1e-4)


def test_evaluate_finds_the_metrics_of_the_run(folder: Path) -> None:
    command("evaluate", "predictions=run/predictions.parquet", "output=again", "resamples=50", cwd=folder)
    first, again = (json.loads((folder / name / "metrics.json").read_text())["test"] for name in ("run", "again"))
    assert first["findings"] == again["findings"]
    assert first["effusion"]["auc"] == again["effusion"]["auc"]

"""The demonstration's cells from simulated films to the page: a few steps on very coarse films."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from domainseg.cascade.stages import FractureDetector, ImplantFilter, Localizer, Stage, ViewFilter
from domainseg.config import plain
from domainseg.files import read_json
from domainseg.overrides import UsageError, compose, conf_folder, parse, rewrite
from domainseg.probes import caveats
from domainseg.probes.caveats_films import photographed
from domainseg.probes.caveats_models import Model, score_films
from domainseg.probes.common import ProbeError
from domainseg.training.stages import RunError

pytestmark = pytest.mark.slow

SMALL = (
    *("data.workers=1", "data.reduction=8", "trainer.threads=1", "trainer.precision=fp32", "trainer.loggers=[]"),
    *("probe.films.train=12", "probe.films.test=5", "probe.places=[outside]", "resamples=50"),
    *("probe.models.labels.task.steps=2", "probe.models.labels.task.batch_size=4"),
    *("stage.fracture.network.blocks=[1,1,1,1,1,1,1]", "stage.fracture.task.patch.steps=2"),
    *("stage.fracture.task.patch.batch_size=2", "stage.fracture.task.tail.steps=2", "rois=true"),
)


def settings(folder: Path, *typed: str) -> dict[str, Any]:
    """The command's configuration as typed."""
    paths = (f"data.root={folder / 'films'}", f"cache.folder={folder / 'cache'}", f"output={folder / 'out'}")
    overrides, _ = parse(rewrite(["+probe=caveats", *SMALL, *paths, *typed]), [conf_folder()])
    return plain(compose("audit", overrides, [conf_folder()]))


def run(cfg: dict[str, Any]) -> dict[str, Any]:
    """Run the probe as the command does."""
    probe = {key: value for key, value in cfg["probe"].items() if key != "_target_"}
    return caveats.run(cfg, Path(cfg["output"]), **probe)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of two whole-film models."""
    folder = tmp_path_factory.mktemp("caveats")
    run(settings(folder, "probe.chosen=[labels,whole_224]"))
    return folder


def test_each_cell_is_a_file_and_a_table_of_patients_at_every_site(folder: Path) -> None:
    record = read_json(folder / "out" / "caveats.json")
    assert [cell["model"] for cell in record["cells"]] == ["labels", "whole_224"]
    for cell in record["cells"]:
        table = pd.read_parquet(folder / f"out/cells/outside-{cell['model']}-0.parquet")
        assert table.groupby("image")["site"].agg(sorted).map(tuple).unique().tolist() == [("A", "B", "C")]
        assert table.groupby("image")["label_fracture"].nunique().eq(1).all()  # the same hips at every site
        assert cell["films"] == 5
        assert table["score_fracture"].between(0, 1).all()
        assert set(cell["auc"]) == {"inside", "absent", "reversed"}
    page = (folder / "out/caveats.html").read_text()
    assert "too few films to say" in page
    assert page.count("data:image/jpeg") == 3


def test_a_run_goes_on_with_the_cells_that_are_missing(folder: Path) -> None:
    scores = folder / "out/cells/outside-labels-0.parquet"
    written = scores.stat().st_mtime_ns
    before = read_json(folder / "out/caveats.json")["cells"]
    (folder / "out/cells/outside-whole_224-0.json").unlink()
    after = run(settings(folder, "probe.chosen=[labels,whole_224]"))["cells"]
    assert scores.stat().st_mtime_ns == written
    for one, other in zip(before, after, strict=True):
        assert one["auc"]["inside"]["value"] == other["auc"]["inside"]["value"]


def test_unknown_models_and_runs_without_filters_are_refused(folder: Path) -> None:
    with pytest.raises(ProbeError, match=r"nobody knows 'whole_512'; known are whole_224"):
        run(settings(folder, "probe.chosen=[whole_512]"))
    with pytest.raises(ProbeError, match=r"probe.places"):
        run(settings(folder, "probe.places=[beside]"))
    with pytest.raises(RunError, match="view_filter"):
        run({**settings(folder, "probe.chosen=[roi_224]"), "run": str(folder)})
    with pytest.raises(UsageError):
        settings(folder, "+experiment=no_such")


def constant(**outputs: Any) -> Any:
    """A network that answers every picture alike."""

    def answer(pictures: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return {name: np.stack([np.asarray(value, np.float32)] * len(pictures)) for name, value in outputs.items()}

    return answer


def stages(view: float) -> list[Stage]:
    """Filters that let everything through where ``view`` is high, and find hips at the same places on every film."""
    fit = [{"op": "fit", "size": 64}, {"op": "stretch"}]
    heads = {"presence": [9.0, 9.0], "center": [[0.25, 0.6], [0.75, 0.6]], "diameter": [-2.0, -2.0]}
    return [
        Stage("view_filter", fit, ViewFilter(), constant(view=[view, 0.0, 0.0], turn=[9.0, 0.0, 0.0, 0.0])),
        Stage("localizer", fit, Localizer(), constant(**heads)),
        Stage("implant_filter", fit, ImplantFilter(), constant(implant=-9.0)),
    ]


def test_the_cascade_scores_the_higher_hip_and_says_who_lost_a_film(folder: Path) -> None:
    cfg = settings(folder)
    films = photographed(cfg, cfg["probe"]["films"], "outside")["B"]
    model = Model("the cascade", "roi", 256, [{"op": "stretch"}], found=True, trained="roi_1024")
    answers = iter(range(100))

    def rising(pictures: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return {"fracture": np.float32([next(answers) for _ in pictures]), "location": np.zeros((len(pictures), 3))}

    network = Stage("fracture", [{"op": "fit", "size": 256}, {"op": "stretch"}], FractureDetector(), rising)
    kept = score_films(model, network, stages(view=9.0), films, "scoring")
    assert kept["score_fracture"].to_numpy() == pytest.approx(1 / (1 + np.exp(-np.arange(1.0, 2 * len(kept), 2))))
    lost = score_films(model, network, stages(view=-9.0), films, "scoring")
    assert lost["score_fracture"].isna().all()
    assert set(lost["excluded_by"]) == {"view_filter"}
    assert (lost["label_fracture"] == kept["label_fracture"]).all()

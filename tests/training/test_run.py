"""A cascade of toys from films to the table: what is trained, what is taken over, and what comes out."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from domainseg.cascade.stages import Frozen, ViewFilter
from domainseg.data.manifest import Manifest
from domainseg.files import read_json
from domainseg.training import builder
from domainseg.training.baselines import check_baselines
from domainseg.training.run import fit_cascade, train, train_cascade
from domainseg.training.stages import RunError

STAGES = ["view_filter", "localizer", "implant_filter", "fracture"]
Calls = list[tuple[str, list[str]]]


def run(cfg: dict[str, Any], films: Manifest, folder: Path) -> pd.DataFrame:
    """The prediction table of a run."""
    return train_cascade(cfg, films, folder, b"k" * 32)["predictions"]


def shas(folder: Path) -> dict[str, str]:
    """The checksum of each stage's weights, as written down."""
    return {name: read_json(folder / "stages" / name / "stage.json")["sha256"] for name in STAGES}


def weight(folder: Path, stage: str) -> float:
    """The one weight of a toy."""
    return float(torch.load(folder / "stages" / stage / "network.pt", weights_only=True)["weight"])


def test_toys_that_see_the_truth_find_it(toy_cfg: dict[str, Any], toy_films: Manifest, tmp_path: Path) -> None:
    """Thresholds chosen on tune, behind one another, leave a perfect cascade perfect, and no case is lost."""
    table = run(toy_cfg, toy_films, tmp_path / "run")
    targets = toy_films.targets
    held = toy_films.images.loc[toy_films.images["split"] != "train", "image"]
    parts = targets[targets["part"].isin(["hip_left", "hip_right"]) & targets["image"].isin(held)]
    known = parts.set_index(["image", "part"])
    rows = table.set_index(["image", "part"])
    assert not rows.index.duplicated().any()
    assert set(known.index) <= set(rows.index)
    assert set(table["image"]) == set(held)
    for key, truth in known.iterrows():
        row = rows.loc[key]
        assert row["excluded_by"] == ("implant_filter" if truth["label_implant_filter"] == 1 else "")
        if row["excluded_by"] == "":
            assert (row["score_fracture"] >= row["threshold_fracture"]) == (truth["label_fracture"] == 1)
            assert row["location"] == truth["label_location"]
            assert row["head_error_pct"] < 1
    none = rows.drop(index=known.index)
    assert set(none["excluded_by"]) == {"view_filter"}
    assert not set(toy_films.images["patient"]) & set(table["patient"])
    assert read_json(tmp_path / "run" / "cascade.json")["stages"] == STAGES


def test_finished_stages_are_not_trained_again(
    toy_cfg: dict[str, Any], toy_films: Manifest, tmp_path: Path, calls: Calls
) -> None:
    first = run(toy_cfg, toy_films, tmp_path / "run")
    before, times = (
        shas(tmp_path / "run"),
        [(tmp_path / "run/stages" / s / "network.pt").stat().st_mtime_ns for s in STAGES],
    )
    assert [name for name, _ in calls] == STAGES
    calls.clear()
    again = run(toy_cfg, toy_films, tmp_path / "run")
    assert calls == []
    assert shas(tmp_path / "run") == before
    assert [(tmp_path / "run/stages" / s / "network.pt").stat().st_mtime_ns for s in STAGES] == times
    pd.testing.assert_frame_equal(first, again)


def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(
    toy_cfg: dict[str, Any], toy_films: Manifest, tmp_path: Path, calls: Calls
) -> None:
    whole = run(toy_cfg, toy_films, tmp_path / "run")
    before, (_, samples) = shas(tmp_path / "run"), calls[-1]
    for name in ("implant_filter", "fracture"):
        (tmp_path / "run/stages" / name / "stage.json").unlink()
    calls.clear()
    resumed = run(toy_cfg, toy_films, tmp_path / "run")
    assert [name for name, _ in calls] == ["implant_filter", "fracture"]
    assert calls[-1][1] == samples
    assert shas(tmp_path / "run") == before
    pd.testing.assert_frame_equal(whole, resumed)


def test_one_stage_alone_needs_a_run_to_start_from(
    toy_cfg: dict[str, Any], toy_films: Manifest, tmp_path: Path, calls: Calls
) -> None:
    with pytest.raises(RunError, match=r"view_filter .* needs init_from"):
        run({**toy_cfg, "only": ["fracture"]}, toy_films, tmp_path / "run")
    assert calls == []


def test_one_stage_alone_takes_the_others_over(
    toy_cfg: dict[str, Any], toy_films: Manifest, tmp_path: Path, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    table = run(toy_cfg, toy_films, tmp_path / "old")
    calls.clear()
    cfg = {**toy_cfg, "only": ["fracture"], "init_from": str(tmp_path / "old")}
    again = run(cfg, toy_films, tmp_path / "new")
    assert "does not count" not in caplog.text
    assert [name for name, _ in calls] == ["fracture"]
    old, new = shas(tmp_path / "old"), shas(tmp_path / "new")
    assert [name for name in STAGES if old[name] == new[name]] == STAGES[:-1]
    assert weight(tmp_path / "new", "fracture") == pytest.approx(weight(tmp_path / "old", "fracture") + 1)
    pd.testing.assert_frame_equal(table, again)
    for name in STAGES[:-1]:
        records = [read_json(tmp_path / folder / "stages" / name / "stage.json") for folder in ("old", "new")]
        assert records[0]["frozen"] == records[1]["frozen"]
        assert "old" in records[1]["origin"]
        rules = [(tmp_path / folder / "stages" / name / "threshold.json").read_bytes() for folder in ("old", "new")]
        assert rules[0] == rules[1], "the bundle tells them"


def test_a_stage_that_is_taken_over_stays_what_it_was(
    toy_cfg: dict[str, Any], toy_films: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its weights were trained with its own preprocessing: other settings of this run are not written beside them."""
    run(toy_cfg, toy_films, tmp_path / "old")
    other = {**toy_cfg["stage"]["localizer"], "preprocessing": [{"op": "fit", "size": 96}]}
    other["decision"] = {**other["decision"], "size": 48}
    stages = {**toy_cfg["stage"], "localizer": other}
    cfg = {**toy_cfg, "only": ["fracture"], "init_from": str(tmp_path / "old"), "stage": stages}
    table = run(cfg, toy_films, tmp_path / "new")
    record = read_json(tmp_path / "new/stages/localizer/stage.json")
    assert record["settings"]["preprocessing"][0]["size"] == 160
    said = [record.getMessage() for record in caplog.records if "does not count" in record.getMessage()]
    assert said == ["localizer: taken over as it is; what this run says of its decision, preprocessing does not count"]
    pd.testing.assert_frame_equal(run(cfg, toy_films, tmp_path / "new"), table)


def test_a_stage_that_nobody_knows_is_refused(toy_cfg: dict[str, Any], toy_films: Manifest, tmp_path: Path) -> None:
    run(toy_cfg, toy_films, tmp_path / "old")
    cfg = {**toy_cfg, "only": ["fractur"], "init_from": str(tmp_path / "old")}
    with pytest.raises(RunError, match=r"fractur\b.*fracture"):
        run(cfg, toy_films, tmp_path / "new")


def test_what_would_fail_hours_later_is_refused_at_once(
    toy_cfg: dict[str, Any], toy_films: Manifest, tmp_path: Path
) -> None:
    toy_cfg["stage"]["fracture"]["rule"] = "sensitivity_0.9"
    with pytest.raises(RunError, match=r"stage\.fracture\.rule=sensitivity_0\.9: known are sensitivity_0\.95"):
        train(toy_cfg, tmp_path / "run")
    toy_cfg["stage"]["fracture"]["rule"] = "sensitivity_0.95"
    with pytest.raises(RunError, match="rois=jitered: known are jittered, true, cross_fitted"):
        train(toy_cfg | {"rois": "jitered"}, tmp_path / "run")
    layout = {"layout": {"columns": ["image", "hardware"]}}
    with pytest.raises(RunError, match=r"baselines\.layout\.columns: the images table has no column hardware"):
        check_baselines(toy_cfg | {"baselines": layout}, toy_films)
    for pipeline, first in (("chest", "findings.Findings"), ("hemorrhage", "head.HeadFilter")):
        stage = {"first": {"decision": {"_target_": f"domainseg.cascade.{first}"}}}
        cfg = toy_cfg | {"pipeline": pipeline, "stages": ["first"], "stage": stage, "baselines": layout}
        with pytest.raises(RunError, match=f"baselines: there are none for {pipeline}"):
            check_baselines(cfg, toy_films)
    assert not (tmp_path / "run").exists()


def test_an_empty_part_tells_how_many_patients_there_are(toy_films: Manifest, tmp_path: Path) -> None:
    """An export may name one patient for all: all films then stay together, in train."""
    films = toy_films.with_images(patient="anonymous", group="", split="train")
    of = rf"no film in the tune split: {len(films)} films of \d patients"
    with pytest.raises(RunError, match=of):
        fit_cascade({}, films, tmp_path)


def test_all_stages_may_start_from_another_run(
    toy_cfg: dict[str, Any], toy_films: Manifest, tmp_path: Path, calls: Calls
) -> None:
    run(toy_cfg, toy_films, tmp_path / "old")
    calls.clear()
    run({**toy_cfg, "init_from": str(tmp_path / "old")}, toy_films, tmp_path / "new")
    assert [name for name, _ in calls] == STAGES
    for name in STAGES:
        assert weight(tmp_path / "new", name) == pytest.approx(weight(tmp_path / "old", name) + 1)


def test_cross_fitted_heads_come_from_networks_that_did_not_see_the_film(
    toy_cfg: dict[str, Any], toy_films: Manifest, tmp_path: Path, calls: Calls
) -> None:
    """The localizer of each half errs one input pixel (two source pixels) its own way, which tells who spoke."""
    folder = tmp_path / "run"
    run({**toy_cfg, "rois": "cross_fitted"}, toy_films, folder)
    seen = {name: set(images) for name, images in calls if name.startswith("cross_fit_")}
    assert set(seen) == {"cross_fit_0", "cross_fit_1"}
    patient = toy_films.images.set_index("image")["patient"]
    assert not set(patient[list(seen["cross_fit_0"])]) & set(patient[list(seen["cross_fit_1"])])
    train = toy_films.split("train").targets
    hips = train[train["label_localizer"] == 1].set_index(["image", "part"])
    found = {
        (image, part): center
        for image, part, center, _ in read_json(folder / "stages/localizer/cross_fitted.json")["heads"]
    }
    turned = train.loc[train["label_turn"] == 1, "image"].tolist()  # the toy does not turn films
    found = {key: center for key, center in found.items() if key[0] not in turned}
    assert set(found) == {key for key in hips.index if key[0] not in turned}
    for (image, part), center in found.items():
        error = center[0] - hips.loc[(image, part), "x"]
        by = "cross_fit_0" if error > 0 else "cross_fit_1"
        assert abs(error) == pytest.approx(2, abs=0.5)
        assert image not in seen[by]
    calls.clear()
    (folder / "stages/fracture/stage.json").unlink()
    run({**toy_cfg, "rois": "cross_fitted"}, toy_films, folder)
    assert [name for name, _ in calls] == ["fracture"]


def test_what_was_left_out_is_written_down(toy_cfg: dict[str, Any], toy_films: Manifest, tmp_path: Path) -> None:
    """Of the hips that the implant filter stops none is trained on; how many they were stands in the record."""
    run(toy_cfg, toy_films, tmp_path / "run")
    record = read_json(tmp_path / "run/stages/fracture/stage.json")
    train = toy_films.split("train").targets
    hips = train[train["label_localizer"] == 1]
    counted = {
        f"{kind}_label_{label}": 2
        * int(((hips["label_implant_filter"] == metal) & (hips["label_fracture"] == label)).sum())
        for kind, metal in (("excluded_by_implant_filter", 1), ("used", 0))
        for label in (0, 1)
    }
    others = int((train["label_view_filter"] == 0).sum())
    assert {name: count for name, count in counted.items() if count} == {
        name: count for name, count in record["cohort"].items() if "view_filter" not in name
    }
    assert record["cohort"].get("excluded_by_view_filter_label_0", 0) in (0, others)
    assert record["samples"] == counted["used_label_0"] + counted["used_label_1"]
    threshold = read_json(tmp_path / "run/stages/fracture/threshold.json")
    assert threshold["rule"] == "sensitivity_0.95"
    assert threshold["provisional"]
    assert np.isfinite(threshold["value"])


def test_no_metal_on_tune_throws_no_hip_away(
    toy_cfg: dict[str, Any],
    toy_films: Manifest,
    tmp_path: Path,
    calls: Calls,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An implant filter that has learnt nothing scores every hip above a half: with no metal on tune to judge it by it
    passes all hips of tune, the fracture stage learns from those of train, and the log says so."""
    targets = toy_films.targets.copy()
    held = toy_films.images.loc[toy_films.images["split"] != "train", "image"]
    targets.loc[targets["image"].isin(held) & (targets["label_implant_filter"] == 1), "label_implant_filter"] = 0
    films = replace(toy_films, targets=targets)
    toys = sys.modules["toy_networks"]
    monkeypatch.setattr(toys.Metal, "forward", lambda self, x: {"implant": 0.1 + x.flatten(1).mean(1)})
    table = run(toy_cfg, films, tmp_path / "run")
    tune = table[(table["split"] == "tune") & table["score_implant_filter"].notna()]
    assert len(tune) > 0
    assert (tune["score_implant_filter"] > 0.5).all()
    assert set(tune["excluded_by"]) == {""}
    assert len(calls[-1][1]) > 0
    chosen = read_json(tmp_path / "run/stages/implant_filter/threshold.json")
    assert (chosen["n_positive"], chosen["n_negative"], chosen["kept"]) == (0, len(tune), None)
    assert chosen["provisional"]
    assert not chosen["reached"]
    assert f"WARNING implant_filter: 0 scored positive and {len(tune)} scored negative cases on tune" in caplog.text


def test_a_stage_without_samples_tells_who_took_them(
    toy_cfg: dict[str, Any], toy_films: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter whose threshold lies below every score takes all hips of train away, two ROIs each: counted."""
    train = toy_films.images.loc[toy_films.images["split"] == "train", "image"]
    hips = int((toy_films.targets["image"].isin(train) & (toy_films.targets["label_localizer"] == 1)).sum())
    monkeypatch.setattr(builder, "freeze", lambda *_: (Frozen(threshold=-1.0, rule="catch_0.99"), {}))
    monkeypatch.setattr(ViewFilter, "decide", lambda self, case, *_: [case])
    with pytest.raises(
        RunError, match=rf"fracture: no training sample; {2 * hips} hip ROIs excluded by implant_filter"
    ):
        run(toy_cfg, toy_films, tmp_path / "run")

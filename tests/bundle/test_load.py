"""A loaded bundle answers for one film as its networks' arithmetic says, and loads no more than it needs."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import domainseg
from domainseg.bundle.load import load_bundle
from domainseg.bundle.schema import BundleError
from domainseg.imaging import Film, ImageReadError

from .conftest import FRACTURE_BIAS, FRACTURE_WEIGHT

Change = Callable[[Callable[[dict[str, Any]], Any]], Path]


def grey(level: float) -> Film:
    return Film(pixels=np.full((120, 160), level, np.float32), spacing=(0.2, 0.2))


def test_rows_hold_scores_thresholds_and_what_they_came_from(bundle: Path) -> None:
    loaded = load_bundle(bundle, threads=1)
    left, right = loaded.predict(grey(0.5), "one")
    assert (left["image"], left["part"], right["part"]) == ("one", "hip_left", "hip_right")
    for row in (left, right):
        assert row["excluded_by"] == row["exclusion_reason"] == ""
        assert row["outside"] == "not_measured"  # this bundle has no envelope
        logit = FRACTURE_BIAS + FRACTURE_WEIGHT * 0.5
        assert row["score_fracture"] == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)
        assert {row[f"threshold_{name}"] for name in ("view_filter", "localizer", "implant_filter")} == {0.5}
        assert row["bundle_sha256"] == loaded.sha256
    # Film and input have their middle in common, and the input's 64 pixels span the film's longer side of 160.
    assert left["head_x"] == pytest.approx((0.3 + 0.02 * 0.3) * 160 - 0.5, rel=0.02)


def test_frozen_numbers_of_the_record_decide(change_record: Change) -> None:
    folder = change_record(lambda record: record["stages"][0]["frozen"].update(slope=-1.0))
    (row,) = load_bundle(folder, threads=1).predict(grey(0.5))
    assert (row["excluded_by"], row["exclusion_reason"]) == ("view_filter", "not_frontal_hip")
    assert math.isnan(row["score_fracture"])


def test_settings_of_the_record_reach_the_decision(change_record: Change, bundle: Path) -> None:
    folder = change_record(lambda record: record["stages"][1]["decision"].update(roi_heads=6.8))
    widths = [
        np.hypot(row["roi_x2"] - row["roi_x1"], row["roi_y2"] - row["roi_y1"])
        for path in (bundle, folder)
        for row in load_bundle(path, threads=1).predict(grey(0.5))[:1]
    ]
    assert widths[1] == pytest.approx(2 * widths[0])
    with pytest.raises(BundleError, match="localizer knows no such setting: wings"):
        load_bundle(
            change_record(
                lambda record: record["stages"][1].update(decision={"kind": "localizer", "version": 1, "wings": 2})
            )
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record["stages"][3]["outputs"].pop("location"), "fracture: .*location"),
        (
            lambda record: record["stages"][2].update(decision={"kind": "whole_film", "version": 1}),
            "implant_filter: .*fracture",
        ),
        (lambda record: record.update(target="pneumonia"), "target: pneumonia is decided by no stage"),
    ],
)
def test_a_stage_that_cannot_decide_is_refused_on_load(change_record: Change, change: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        load_bundle(change_record(change))


def test_a_path_is_read_and_named_by_its_file(bundle: Path, films: Path) -> None:
    rows = load_bundle(bundle, threads=1).predict(films / "ward/film0.dcm")
    assert {row["image"] for row in rows} == {"film0.dcm"}
    assert {row["spacing"] for row in rows} == {0.2}
    with pytest.raises(ImageReadError, match=r"broken\.dcm"):
        load_bundle(bundle, threads=1).predict(films / "broken.dcm")


def test_films_outside_the_envelope_are_flagged(bundle: Path, films: Path, make_bundle: Any, tmp_path: Path) -> None:
    from domainseg.bundle.envelope import measure
    from domainseg.imaging import read_film

    from .conftest import RECORD

    film = read_film(films / "ward/film4.dcm")
    make_bundle(tmp_path / "b", record={**RECORD, "envelope": measure([film] * 6)})
    loaded = load_bundle(tmp_path / "b", threads=1)
    assert {row["outside"] for row in loaded.predict(film)} == {""}
    other = Film(pixels=film.pixels, spacing=(2.0, 2.0), metadata=film.metadata)
    assert {row["outside"] for row in loaded.predict(other)} == {"spacing"}


def test_an_envelope_that_cannot_be_used_is_refused_on_load(change_record: Change) -> None:
    with pytest.raises(BundleError, match="envelope"):
        load_bundle(change_record(lambda record: record.update(envelope={"films": 5})))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"backend": "tensorrt"}, "backend=tensorrt: known are onnxruntime, openvino"),
        ({"precision": "int8"}, "precision=int8: known are fp32, bf16"),
        ({"precision": "bf16"}, "precision=bf16 needs backend=openvino"),
        ({"precision": "bf16", "backend": "openvino"}, "has not passed the check of bf16"),
    ],
)
def test_what_the_bundle_cannot_do_is_refused_by_name(bundle: Path, asked: dict[str, str], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        load_bundle(bundle, **asked)


def test_only_checked_stages_compute_in_bf16(change_record: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    from domainseg.bundle import load

    told: dict[str, str] = {}
    real = load.open_network

    def spy(model: bytes, stage: Any, batch_name: Any, **settings: Any) -> Any:
        told[stage["name"]] = settings["precision"]
        return real(model, stage, batch_name, **{**settings, "precision": "fp32"})

    monkeypatch.setattr(load, "open_network", spy)
    good = {"n": 500, "flipped": 0.001, "auc_change": 0.0001, "passed": True}
    for wrong in (
        {**good, "passed": False},
        {**good, "n": 99},
        {**good, "flipped": 0.003},
        {**good, "auc_change": -0.003},
        {"n": 500, "passed": True},
        {**good, "flipped": "0"},
    ):
        for stage, whole in ((wrong, good), (good, wrong), (good, None)):
            refused = change_record(lambda r, s=stage, w=whole: (r["stages"][3].update(bf16=s), r.update(bf16=w)))  # type: ignore[misc]
            with pytest.raises(BundleError, match="has not passed the check of bf16"):
                load_bundle(refused, backend="openvino", precision="bf16")
    folder = change_record(lambda r: (r["stages"][3].update(bf16={**good, "auc_change": None}), r.update(bf16=good)))
    load_bundle(folder, backend="openvino", precision="bf16")
    assert told == {"view_filter": "fp32", "localizer": "fp32", "implant_filter": "fp32", "fracture": "bf16"}


def python(code: str, *argv: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_package_loads_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import domainseg; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    assert python(code) == "domainseg"


def test_names_of_the_package_load_what_they_name(bundle: Path, films: Path) -> None:
    """One film needs none of the libraries that take long to import."""
    code = (
        "import sys, domainseg; rows = domainseg.load_bundle(sys.argv[1]).predict(sys.argv[2]); "
        "slow = {'torch', 'pandas', 'scipy', 'pandera', 'matplotlib', 'sklearn', 'onnx', 'hydra', 'rich'}; "
        "print(len(rows), sorted(slow & set(sys.modules)))"
    )
    assert python(code, str(bundle), str(films / "ward/film2.dcm")) == "2 []"
    assert domainseg.read_film(films / "ward/film2.dcm").shape == (100, 100)
    with pytest.raises(AttributeError, match="no attribute 'load_model'"):
        _ = domainseg.load_model

"""A toy run as a bundle: what it holds, that it answers as torch does, and when it is refused."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import numpy_helper

from domainseg.bundle.load import load_bundle
from domainseg.bundle.schema import BundleError
from domainseg.cascade.stages import FractureDetector, Localizer, ViewFilter
from domainseg.data.manifest import Manifest
from domainseg.data.splits import assign_splits
from domainseg.files import read_json
from domainseg.imaging import read_film
from domainseg.networks import LocalizerRegression
from domainseg.reporting.evaluate import evaluate_run
from domainseg.training import export as exporting
from domainseg.training import run as running
from domainseg.training.environment import write_environment
from domainseg.training.export import ExportError, deliver, export, rounded
from domainseg.training.onnx_model import OnnxModel, to_onnx
from domainseg.training.parity import ParityError, check_cascade, check_stage
from domainseg.training.predict import run_model
from domainseg.training.run import train_cascade
from domainseg.training.stages import RunError, load_cascade

STAGES = ["view_filter", "localizer", "implant_filter", "fracture"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the module's one run lies once it is made."""
    return tmp_path_factory.mktemp("trained") / "run"


@pytest.fixture
def run(toy_cfg: dict[str, Any], toy_films: Manifest, trained: Path, tmp_path: Path) -> Path:
    """The folder of a finished toy run, a copy for each test."""
    toy_cfg |= {"resume": False, "data": {"_target_": "toys.load", "folds": None}}
    if not trained.is_dir():
        write_environment(toy_cfg, toy_films, trained)
        train_cascade(toy_cfg, toy_films, trained, b"k" * 32)
        (trained / "config.yaml").write_text(yaml.safe_dump(toy_cfg))
        evaluate_run(trained, resamples=20)
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_the_bundle_of_a_run_answers_as_its_table_does_and_says_what_it_holds(
    run: Path, toy_cfg: dict[str, Any], toy_films: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    deliver(toy_cfg, run, toy_films)
    said = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert {record.name.partition(".")[0] for record in said} == {
        "domainseg"
    }  # the exporter's own remarks are not shown
    bundle = load_bundle(run / "bundle", threads=1)
    table = {(row["image"], row["part"]): row for row in _table(run)}
    scored = 0
    for image in ("f13", "f15", "f16"):
        answered = bundle.predict(toy_films.path(image), image)
        assert {row["part"] for row in answered} == {part for name, part in table if name == image}
        for row in answered:
            wanted = table[image, row["part"]]
            assert row["excluded_by"] == wanted["excluded_by"]
            if not row["excluded_by"]:
                scored += 1
                assert row["score_fracture"] == pytest.approx(wanted["score_fracture"], abs=1e-4)
                assert row["location"] == wanted["location"]
    assert scored
    record = bundle.record
    assert [stage["name"] for stage in record["stages"]] == STAGES
    assert [stage["batch"] for stage in record["stages"]] == ["dynamic"] * 4
    decision = {"kind": "localizer", "version": 1, "roi_heads": 3.4, "lateral": 0.45, "distal": 0.75}
    assert record["stages"][1]["decision"] == decision
    frozen = read_json(run / "stages/fracture/stage.json")["frozen"]
    assert record["stages"][3]["frozen"] == frozen
    splits = toy_films.images["split"].value_counts()
    assert {name: split["films"] for name, split in record["data"]["splits"].items()} == dict(splits)
    broken = toy_films.split("test").targets["label_fracture"].sum()
    assert record["data"]["splits"]["test"]["labels"]["fracture"]["positive"] == broken
    assert record["envelope"]["films"] == record["envelope"]["of"] == splits["train"]
    assert record["envelope"]["size"] == {"shorter": [240, 240], "longer": [320, 320]}
    assert record["parity"]["cascade"]["films"] == 8
    assert (run / "bundle/metrics.json").read_bytes() == (run / "metrics.json").read_bytes()
    patients = set(toy_films.images["patient"])
    assert not [name for name in patients if f'"{name}"' in (run / "bundle/bundle.json").read_text()]


def test_the_same_run_gives_the_same_bytes(run: Path, toy_cfg: dict[str, Any], toy_films: Manifest) -> None:
    sums = []
    for _ in range(2):
        deliver(toy_cfg, run, toy_films)
        sums.append((run / "bundle/SHA256SUMS").read_bytes())
    assert sums[0] == sums[1]
    for line in sums[0].decode().splitlines():
        digest, name = line.split("  ")
        data = (run / "bundle" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest
        assert str(Path(exporting.__file__).parents[2]).encode() not in data  # no path of this machine


def test_a_run_whose_films_are_gone_is_exported_on_others(
    run: Path, toy_films: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = {"run": str(run), "input": None, "films": 2, "check": None, "threads": None}
    monkeypatch.setattr(exporting, "load_data", _gone)
    with pytest.raises(ExportError, match=r"not there.*input="):
        export(cfg, tmp_path / "bundle")
    export(cfg | {"input": str(toy_films.path("f16"))}, tmp_path / "bundle")
    record = load_bundle(tmp_path / "bundle").record
    assert record["envelope"] == {}
    assert record["parity"]["cascade"]["films"] == 1
    assert "not been measured" in (tmp_path / "bundle/MODEL_CARD.md").read_text()


def test_other_films_than_those_of_the_run_are_refused(
    run: Path, toy_films: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = {"run": str(run), "input": None, "films": 2, "check": None, "threads": None}
    monkeypatch.setattr(exporting, "load_data", lambda settings: toy_films.split("test"))
    with pytest.raises(ExportError, match="have changed"):
        export(cfg, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_folds_need_a_refit(run: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["data"]["folds"] = 3
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    cfg = {"run": str(run), "input": None, "films": 2, "check": None, "threads": None}
    with pytest.raises(ExportError, match="refit=true"):
        export(cfg, tmp_path / "bundle")


def test_what_cannot_be_exported_is_refused_before_films_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "load_data", _gone)
    cfg = {"run": str(tmp_path / "run"), "input": None, "films": 2, "check": None, "threads": None}
    run = tmp_path / "run"
    with pytest.raises(ExportError, match="no such folder"):
        export(cfg, tmp_path / "b")
    run.mkdir()
    with pytest.raises(ExportError, match="not the folder of a run"):
        export(cfg, tmp_path / "b")
    (run / "config.yaml").write_text("{}")
    with pytest.raises(ExportError, match=rf"not finished.*resume=true output={run}"):
        export(cfg, tmp_path / "b")
    (run / "metrics.json").write_text("{}")
    with pytest.raises(BundleError, match="holds something else than a bundle"):
        export(cfg, run)
    for name in ("SHA256SUMS", "bundle.json"):
        (run / name).write_text("")
    with pytest.raises(ExportError, match=rf"is a bundle already.*bundle={run}"):
        export(cfg, tmp_path / "b")
    with pytest.raises(RunError, match=rf"is a bundle; give it as bundle={run}"):
        run_model({"run": str(run), "accelerator": "cpu"})
    assert not (tmp_path / "b").exists()


# ---------------------------------------------------------------- parity


def test_a_perturbed_file_is_refused_with_stage_and_numbers(
    run: Path, toy_cfg: dict[str, Any], toy_films: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fracture logit is 1000 times a share: a changed constant moves it by far more than 1e-4."""
    honest = to_onnx

    def tampered(network: torch.nn.Module, size: int) -> OnnxModel:
        model = honest(network, size)
        return replace(model, data=perturbed(model.data, 1000.0, 1001.0)) if size == 128 else model

    monkeypatch.setattr(exporting, "to_onnx", tampered)
    with pytest.raises(ParityError, match=r"(stage|film) .*differs|answers otherwise"):
        deliver(toy_cfg, run, toy_films)
    assert not (run / "bundle").exists()


def perturbed(data: bytes, old: float, new: float) -> bytes:
    """An ONNX file with one of its constants changed."""
    model = onnx.load_from_string(data)
    changed = 0
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and (values == np.float32(old)).any():
            tensor.CopyFrom(numpy_helper.from_array(np.where(values == old, np.float32(new), values), tensor.name))
            changed += 1
    assert changed
    return bytes(model.SerializeToString())


class Shifted:
    """A stage's network whose answers are moved a little."""

    def __init__(self, network: Any, **by: float) -> None:
        self.network, self.by = network, by

    def __call__(self, pictures: Any) -> dict[str, Any]:
        return {name: value + np.float32(self.by.get(name, 0)) for name, value in self.network(pictures).items()}


@pytest.mark.parametrize(("name", "by", "said"), [("fracture", 2e-4, "its logit"), ("map", 2e-3, "map")])
def test_a_stage_past_its_limit_is_named(run: Path, toy_films: Manifest, name: str, by: float, said: str) -> None:
    stage = load_cascade(run, "cpu")[3]
    model = to_onnx(stage.network.module, 128)  # type: ignore[attr-defined]
    pictures = [np.random.default_rng(k).random((1, 128, 128), np.float32) for k in range(3)]
    found = check_stage(stage, model, pictures)
    assert found["pictures"] == 3
    assert found["logits"] < 1e-4
    check_stage(replace(stage, network=Shifted(stage.network, **{name: by / 4})), model, pictures)
    with pytest.raises(ParityError, match=rf"stage fracture: .*{said}"):
        check_stage(replace(stage, network=Shifted(stage.network, **{name: by})), model, pictures)


def test_a_moved_head_is_refused(run: Path, toy_films: Manifest) -> None:
    """Centres in 0..1 of 160 pixels: 0.05 px are 3.1e-4, far less than the logits' limit would let through."""
    stages = load_cascade(run, "cpu")
    film = [("f16", read_film(toy_films.path("f16")))]
    assert check_cascade(stages, stages, film)["head_px"] == 0
    moved = replace(stages[1], network=Shifted(stages[1].network, center=1e-3))
    with pytest.raises(ParityError, match="femoral heads"):
        check_cascade(stages, [stages[0], moved, *stages[2:]], film)


def test_a_score_that_flips_no_call_is_refused_all_the_same(run: Path, toy_films: Manifest) -> None:
    """OpenVINO is held against torch by the cascade alone."""
    stages = load_cascade(run, "cpu")
    film = [("f16", read_film(toy_films.path("f16")))]
    last = replace(stages[3], frozen=replace(stages[3].frozen, threshold=0.0))
    near = [*stages[:3], replace(last, network=Shifted(last.network, fracture=1e-4))]
    assert check_cascade([*stages[:3], last], near, film)["score"] < 1e-3
    wrong = [*stages[:3], replace(last, network=Shifted(last.network, fracture=2.0))]
    with pytest.raises(ParityError, match="scores"):
        check_cascade([*stages[:3], last], wrong, film)


def test_a_flipped_case_is_refused_unless_its_score_lies_at_the_threshold(run: Path, toy_films: Manifest) -> None:
    stages = load_cascade(run, "cpu")
    film = [("f16", read_film(toy_films.path("f16")))]
    last = stages[3]
    other = [*stages[:3], replace(last, network=Shifted(last.network, fracture=30.0))]
    with pytest.raises(ParityError, match=r"film f16: .*location"):
        check_cascade(stages, other, film)
    # Both hips' logits pulled to where the score is a hair below or above the threshold.
    frozen = replace(last.frozen, slope=1e-6, intercept=0.0, threshold=0.5)
    assert isinstance(last.decision, FractureDetector)
    near = [*stages[:3], replace(last, frozen=frozen)]
    far = [*stages[:3], replace(last, frozen=frozen, network=Shifted(last.network, fracture=30.0))]
    assert check_cascade(near, far, film)["excused"] == 1


def test_a_score_at_one_threshold_excuses_no_other_difference(run: Path, toy_films: Manifest) -> None:
    """Every implant score lies at its threshold; the film turned otherwise is refused all the same."""
    stages = load_cascade(run, "cpu")
    film = [("f16", read_film(toy_films.path("f16")))]
    first, implant, last = stages[0], stages[2], stages[3]
    frozen = replace(implant.frozen, slope=1e-6, intercept=0.0, threshold=0.50001)
    near = [*stages[:2], replace(implant, frozen=frozen), last]
    turned = replace(first, network=Turned(first.network))
    with pytest.raises(ParityError, match=r"film f16: .*(turns|hips found)"):
        check_cascade(near, [turned, *near[1:]], film)
    called = replace(last, network=Shifted(last.network, fracture=30.0))
    with pytest.raises(ParityError, match=r"film f16: .*location"):
        check_cascade(near, [*near[:3], called], film)


class Turned(Shifted):
    """A view filter that takes the film's next quarter turn for upright."""

    def __call__(self, pictures: Any) -> dict[str, Any]:
        answers = super().__call__(pictures)
        return {**answers, "turn": np.roll(answers["turn"], 2, axis=1)}


def test_answers_that_are_no_numbers_do_not_agree(run: Path) -> None:
    stage = load_cascade(run, "cpu")[3]
    model = to_onnx(stage.network.module, 128)  # type: ignore[attr-defined]
    model = replace(model, data=perturbed(model.data, 1000.0, np.nan))
    pictures = [np.random.default_rng(k).random((1, 128, 128), np.float32) for k in range(2)]
    with pytest.raises(ParityError, match="stage fracture"):
        check_stage(replace(stage, network=Shifted(stage.network, fracture=np.nan)), model, pictures)


# ---------------------------------------------------------------- ONNX


def test_a_network_that_holds_the_batch_in_a_reshape_is_dynamic_all_the_same() -> None:
    torch.manual_seed(0)
    network = LocalizerRegression(size=64).eval()
    model = to_onnx(network, 64)
    found = check_stage(_stage("localizer", network, Localizer()), model, _noise(5))
    assert (found["batch"], model.batch) == (4, "dynamic")


class OneAtATime(torch.nn.Module):
    """A network that takes one picture."""

    batch = 1

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        level = x.mean((2, 3))
        return {"view": level.repeat(1, 3), "turn": level.repeat(1, 4)}


def test_a_network_may_say_that_it_takes_one_picture() -> None:
    model = to_onnx(OneAtATime(), 64)
    assert model.batch == 1
    sides = onnx.load_from_string(model.data).graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_value for side in sides] == [1, 1, 64, 64]
    assert check_stage(_stage("view_filter", OneAtATime(), ViewFilter()), model, _noise(2))["batch"] == 1


class Impossible(torch.nn.Module):
    """A network whose path depends on its input."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"implant": x.sum((1, 2, 3)) if bool(x.sum() > 0) else x.mean((1, 2, 3))}


def test_a_network_that_does_not_export_is_named() -> None:
    with pytest.raises(ExportError, match="Impossible: does not export"):
        to_onnx(Impossible(), 32)


def test_figures_are_written_with_two_digits() -> None:
    assert rounded({"a": [1.23456e-6, 3], "b": "x"}) == {"a": [1.2e-6, 3], "b": "x"}


def _stage(name: str, network: torch.nn.Module, decision: Any) -> Any:
    from domainseg.cascade.stages import Stage
    from domainseg.training.runner import TorchNetwork

    return Stage(name, [{"op": "fit", "size": 64}], decision, TorchNetwork(network))


def _noise(count: int) -> list[Any]:
    return [np.random.default_rng(k).random((1, 64, 64), np.float32) for k in range(count)]


def _gone(settings: Any) -> Manifest:
    raise FileNotFoundError("films.csv: gone")


def _table(run: Path) -> list[dict[str, Any]]:
    import pandas as pd

    rows: list[dict[str, Any]] = json.loads(pd.read_parquet(run / "predictions.parquet").to_json(orient="records"))
    return rows


# ---------------------------------------------------------------- refit


def test_a_cross_validated_run_delivers_one_more_cascade_and_says_so(
    toy_cfg: dict[str, Any], toy_films: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fractions = {"train": 0.6, "tune": 0.2, "test": 0.2}
    films = assign_splits(toy_films.with_images(split=[""] * len(toy_films)), seed=0, fractions=fractions, folds=3)
    monkeypatch.setattr(running, "load_data", lambda cfg: films)
    toy_cfg |= {"data": {"folds": 3, "_target_": "toys.load"}, "export": True, "refit": True, "resume": False}
    running.train(toy_cfg, tmp_path)
    record = load_bundle(tmp_path / "bundle").record
    first = films.images.loc[films.images["fold"] == "0"]
    splits = record["data"]["splits"]
    assert {name: split["films"] for name, split in splits.items()} == {"train": 22 - len(first), "tune": len(first)}
    assert record["stages"][3]["chosen"] == read_json(tmp_path / "refit/stages/fracture/threshold.json")
    card = (tmp_path / "bundle/MODEL_CARD.md").read_text()
    assert "cross-validation in 3 folds" in card
    assert "not been tested themselves" in card


def test_refit_without_folds_is_refused(toy_cfg: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"data\.folds"):
        running.train(toy_cfg | {"data": {"folds": None}, "refit": True}, tmp_path)

"""inspect, verify and diff: what people are shown, and exit codes for scripts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from domainseg.bundle.__main__ import main

from .conftest import models, resum
from .test_runtime import bomb

Change = Callable[[Callable[[dict[str, Any]], Any]], Path]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_inspect_shows_stages_thresholds_and_figures(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle)]) == 0
    shown = capsys.readouterr().out
    for text in (
        "view_filter",
        "64 x 64",
        "none chosen (provisional)",
        "0.5000",
        "not checked",
        "toys, fracture",
        "0.9",
    ):
        assert text in shown


def test_verify_runs_each_network(bundle: Path, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle)]) == 0
    assert "4 networks load and answer as declared" in capsys.readouterr().out
    model = onnx.load_from_string(models()["fracture"])
    for tensor in model.graph.initializer:
        if tensor.name == "fracture_bias":
            tensor.CopyFrom(numpy_helper.from_array(np.array([np.nan], np.float32), tensor.name))
    (own / "stages/fracture.onnx").write_bytes(model.SerializeToString())
    assert main(["verify", str(own)]) == 2
    assert "fracture.onnx is damaged" in capsys.readouterr().err
    resum(own)
    assert main(["verify", str(own)]) == 2
    assert "output fracture is not finite" in capsys.readouterr().err


def test_verify_tells_of_a_network_that_cannot_be_run(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its file is as declared; what it asks the runtime for is not to be had."""
    (own / "stages/implant_filter.onnx").write_bytes(bomb())
    resum(own)
    assert main(["verify", str(own)]) == 2
    assert "stage implant_filter: cannot be run" in capsys.readouterr().err


def test_alike_bundles_have_no_difference(
    bundle: Path, change_record: Change, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", str(bundle), str(bundle)]) == 0
    assert capsys.readouterr().out == "no difference\n"
    assert main(["diff", str(bundle), str(change_record(lambda record: record.update(created="later")))]) == 0
    assert "no difference but the date" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("edit", "shown"),
    [
        (lambda r: r["stages"][3]["frozen"].update(threshold=0.25), "fracture: frozen.threshold 0.5 0.25"),
        (lambda r: r["stages"][3]["frozen"].update(slope=0.5), "fracture: frozen.slope 1 0.5"),
        (
            lambda r: r["stages"][0]["preprocessing"].append({"op": "stretch", "version": 1}),
            "view_filter: preprocessing",
        ),
        (lambda r: r["envelope"].update(films=9), "envelope.films absent 9"),
        (lambda r: r["data"].update(films=5), "data.films 3 5"),
        (lambda r: r["stages"].reverse(), "stages view_filter, localizer, implant_filter, fracture fracture,"),
    ],
)
def test_a_difference_is_told_with_both_values(
    bundle: Path, change_record: Change, edit: Callable[[dict[str, Any]], Any], shown: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(["diff", str(bundle), str(change_record(edit))]) == 1
    assert shown in " ".join(capsys.readouterr().out.split())


def test_changed_weights_are_told_with_how_far_they_moved(
    bundle: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load_from_string(models()["fracture"])
    for tensor in model.graph.initializer:
        if tensor.name == "fracture_weight":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.125), tensor.name))
    (own / "stages/fracture.onnx").write_bytes(model.SerializeToString())
    resum(own)
    assert main(["diff", str(bundle), str(own)]) == 1
    assert "fracture: weights 5 tensors 1 differ, by up to 0.125" in " ".join(capsys.readouterr().out.split())


def test_what_cannot_be_used_ends_with_2(
    bundle: Path, tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(own / "stages")
    for argv in (["inspect", str(tmp_path)], ["verify", str(own)], ["diff", str(bundle), str(tmp_path / "none")]):
        assert main(argv) == 2
        assert "error: " in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["repair", str(bundle)])
    assert stopped.value.code == 2

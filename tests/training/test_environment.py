"""What a resumed run checks: refused where stages would see other pictures, told by name where sums may differ."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from domainseg.data.manifest import Manifest
from domainseg.files import read_json
from domainseg.training import environment
from domainseg.training.environment import write_environment
from domainseg.training.stages import RunError


@pytest.fixture
def begun(toy_cfg: dict[str, Any], toy_films: Manifest, tmp_path: Path) -> dict[str, Any]:
    """The configuration of a run that has begun in tmp_path, as its resumption gets it."""
    write_environment(toy_cfg | {"resume": False}, toy_films, tmp_path, processes=1)
    return toy_cfg | {"resume": True}


def test_an_unchanged_run_goes_on_without_a_word(
    begun: dict[str, Any], toy_films: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = read_json(tmp_path / "environment.json")
    begun["trainer"] |= {"workers": 2, "checkpoint_every": 7}  # change no result
    write_environment(begun, toy_films, tmp_path)
    assert not caplog.records
    assert read_json(tmp_path / "environment.json") == before | {"resumed": [{}]}


def test_another_reader_or_operation_is_refused_by_name(
    begun: dict[str, Any], toy_films: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (tmp_path / "environment.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(environment, "READER_VERSION", "99")
        with pytest.raises(RunError, match=r"reader has version 99.*began with .*domainseg \d"):
            write_environment(begun, toy_films, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(environment, "OPERATIONS", {"stretch": (77, None)})
        with pytest.raises(RunError, match="stretch has version 77"):
            write_environment(begun, toy_films, tmp_path)
    assert (tmp_path / "environment.json").read_bytes() == before


def test_an_operation_that_came_later_changes_nothing(
    begun: dict[str, Any], toy_films: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run began without it, so none of its stages uses it."""
    monkeypatch.setattr(environment, "OPERATIONS", {**environment.OPERATIONS, "sharpen": (1, None)})
    write_environment(begun, toy_films, tmp_path)
    assert read_json(tmp_path / "environment.json")["resumed"] == [{}]


def test_other_packages_and_arithmetic_are_told_and_written_down(
    begun: dict[str, Any],
    toy_films: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real = environment._version
    monkeypatch.setattr(environment, "_version", lambda name: "0.0.7" if name == "torch" else real(name))
    begun["trainer"] |= {"precision": "bf16", "sync_batchnorm": True}
    with caplog.at_level(logging.WARNING, "domainseg"):
        write_environment(begun, toy_films, tmp_path)
    assert "versions.torch 0.0.7 instead of" in caplog.text
    assert "trainer.precision bf16 instead of fp32" in caplog.text
    (changes,) = read_json(tmp_path / "environment.json")["resumed"]
    assert set(changes) == {"versions.torch", "trainer.precision", "trainer.sync_batchnorm"}
    assert changes["trainer.precision"] == ["fp32", "bf16"]

"""The simulated source: made once, reused, finished when half done; the simulation is replaced by a few empty files."""

from __future__ import annotations

import pandas as pd
import pytest

from domainseg import phantom
from domainseg.data.manifest import ManifestError
from domainseg.data.sources import phantom_pelvis


@pytest.fixture
def simulations(monkeypatch, tmp_path):
    done = []

    def simulate(cfg, output):
        done.append(dict(cfg))
        (output / "phantom.json").write_text("{}")
        images = [f"film{number}" for number in range(cfg["n"])]
        for image in images:
            (output / f"{image}.dcm").write_bytes(b"")
        if len(done) == 1 and cfg.get("site") == "interrupted":
            raise KeyboardInterrupt
        paths = [f"{image}.dcm" for image in images]
        pd.DataFrame({"image": images, "path": paths}).to_parquet(output / "images.parquet")
        pd.DataFrame({"image": images, "part": "whole"}).to_parquet(output / "targets.parquet")

    monkeypatch.setattr(phantom, "simulate", simulate)
    monkeypatch.chdir(tmp_path)
    return done


def test_the_same_settings_are_simulated_once(simulations, tmp_path):
    first = phantom_pelvis.load(3, 0, site="A")
    again = phantom_pelvis.load(3, 0, site="A", workers=1)
    assert simulations == [{"n": 3, "seed": 0, "site": "A", "kind": "pelvis", "workers": None}]
    assert first.hash() == again.hash()
    assert first.name == "phantom_pelvis"
    phantom_pelvis.load(3, 1, site="A")
    phantom_pelvis.load(3, 0, site="B")
    assert len(simulations) == 3
    folders = list((tmp_path / "outputs" / "data").iterdir())
    assert len(folders) == 3
    assert all(folder.name.startswith("phantom_pelvis-") for folder in folders)


def test_another_version_of_the_phantom_simulates_anew(simulations, monkeypatch):
    phantom_pelvis.load(2, 0)
    monkeypatch.setattr(phantom, "VERSION", "another")
    phantom_pelvis.load(2, 0)
    assert len(simulations) == 2


def test_an_interrupted_simulation_goes_on(simulations, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        phantom_pelvis.load(2, 0, site="interrupted")
    assert len(phantom_pelvis.load(2, 0, site="interrupted")) == 2
    assert len(list((tmp_path / "outputs" / "data").iterdir())) == 1
    phantom_pelvis.load(2, 0, site="interrupted")
    assert len(simulations) == 2


def test_a_named_folder_is_used_and_never_mixed(simulations, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    phantom_pelvis.load(2, 0, root=folder)
    phantom_pelvis.load(2, 0, root=folder)
    assert len(simulations) == 1
    with pytest.raises(ManifestError, match="other settings"):
        phantom_pelvis.load(2, 1, root=folder)
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_bytes(b"")
    with pytest.raises(ManifestError, match="neither empty nor"):
        phantom_pelvis.load(2, 0, root=other)
    assert [path.name for path in other.iterdir()] == ["cat.jpg"]

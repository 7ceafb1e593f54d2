"""The simulated chest films as a source; what simulated sources have in common is tested with phantom_pelvis."""

from __future__ import annotations

from domainseg.data.manifest import truth_table
from domainseg.data.sources import phantom_chest
from domainseg.data.splits import assign_splits
from domainseg.imaging.chest import FINDINGS


def test_films_are_simulated_once_and_can_be_divided(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = phantom_chest.load(14, 0, workers=1, reduction=8)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")}
    again = phantom_chest.load(14, 0, workers=1, reduction=8)
    assert first.name == "phantom_chest"
    assert first.hash() == again.hash()
    assert len(stamps) == 14
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")}
    table = truth_table(first, ("whole",))
    assert table[[f"label_{name}" for name in FINDINGS]].notna().all(axis=None)
    divided = assign_splits(first, seed=0, fractions={"train": 0.6, "tune": 0.15, "test": 0.25}).images
    assert {"train", "test"} <= set(divided["split"])
    assert (divided.groupby("patient")["split"].nunique() == 1).all()

"""The simulated heads as a source, as the default data of the hemorrhage pipeline are made."""

from __future__ import annotations

from domainseg import phantom
from domainseg.data.sources import phantom_head


def test_exams_are_made_once_and_in_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manifest = phantom_head.load(3, 0, workers=1, reduction=3.5, other=0.0, kind="head")
    assert len(manifest) == 3
    assert manifest.name == "phantom_head"
    assert manifest.missing_files() == []
    assert {"head", "whole"} == set(manifest.targets["part"])
    monkeypatch.setattr(phantom, "simulate", None)  # not called again
    again = phantom_head.load(3, 0, workers=1, reduction=3.5, other=0.0)
    assert again.hash() == manifest.hash()
    assert [path.name.rpartition("-")[0] for path in (tmp_path / "outputs" / "data").iterdir()] == ["phantom_head"]

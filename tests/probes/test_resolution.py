"""Resolution: what is taken from a film; a detector of fine detail needs it, one of brightness does not."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from domainseg.imaging import Film
from domainseg.probes import resolution
from domainseg.probes.common import ProbeError
from domainseg.probes.resolution import reduced
from domainseg.reporting.words import interval


def test_detail_goes_and_brightness_stays() -> None:
    """A checkerboard of single pixels becomes grey; a film with few pixels is left alone; what is not valid stays 0."""
    board = (np.indices((120, 90)).sum(axis=0) % 2).astype(np.float32)
    valid = np.ones(board.shape, bool)
    valid[:, :9] = False
    film = Film(pixels=np.where(valid, board, 0).astype(np.float32), valid=valid)
    found = reduced(film, 40)
    assert found is not None
    assert found.shape == film.shape
    assert found.pixels[:, 20:].std() < 0.05
    assert found.pixels[:, 20:].mean() == pytest.approx(0.5, abs=0.02)
    assert not found.pixels[:, :9].any()
    assert reduced(film, 120) is None


@pytest.mark.parametrize("edges", [True, False])
def test_a_detector_of_detail_needs_pixels(toy_bundle: ModuleType, tmp_path: Path, edges: bool) -> None:
    """Positives are finely grained and of the same mean, or brighter: only the former are lost at 16 pixels."""
    rng = np.random.default_rng(0)
    pixels, labels = {}, {}
    for k in range(12):
        grey = 110 + 200 * cv2.GaussianBlur(rng.normal(size=toy_bundle.SHAPE), (0, 0), 10) * edges
        labels[f"f{k}"] = (k % 2, (k + 1) % 2)
        for where, label in zip((toy_bundle.LEFT, toy_bundle.RIGHT), labels[f"f{k}"], strict=True):
            if label:
                grey[where] += rng.normal(0, 25, grey[where].shape) if edges else 40
        pixels[f"f{k}"] = np.clip(grey, 0, 255).astype(np.uint8)
    data = toy_bundle.films(tmp_path / "films", pixels, labels)
    bundle = toy_bundle.write(tmp_path / "toys", edges=edges)
    found = resolution.run(toy_bundle.cfg(bundle, data), tmp_path / "out", sizes=[16, 1024], films="all")
    coarse, same = found["effects"]
    assert found["n"] == 24
    assert found["auc"]["value"] > 0.95
    assert (coarse["films"], same["films"]) == (12, 0)
    assert same["difference"]["value"] == 0
    if edges:
        assert coarse["difference"]["high"] < 0
        assert coarse["scored_both"]["after"]["value"] < 0.9
        assert f"lower by {interval(coarse['difference'])} at 16 px" in found["verdict"]
        assert coarse["positive"]["high"] < 0
    else:
        assert coarse["auc"]["value"] > 0.95
        assert "No loss is shown" in found["verdict"]
        assert f"up to {max(0.0, -coarse['difference']['low']):.3f} is not excluded" in found["verdict"]
    assert "Resolution" in (tmp_path / "out" / "resolution.html").read_text()


def test_a_verdict_is_corrected_and_names_the_sizes_that_are_lower() -> None:
    def effect(size: int, value: float, low: float, high: float, p: float) -> dict[str, Any]:
        gap = {"value": value, "low": low, "high": high}
        return {"name": str(size), "films": 9, "lost": 1, "p_difference": p, "difference": gap}

    whole = {"auc": {"value": 0.9, "low": 0.8, "high": 0.95}, "n": 99, "few": False}
    some = [
        effect(32, 0.01, -0.05, 0.07, 0.7),
        effect(64, -0.2, -0.3, -0.1, 1e-4),
        effect(128, -0.03, -0.06, -1e-3, 0.04),
    ]
    said = resolution._verdict({**whole, "effects": some})
    assert "64 px (1 cases lost)" in said
    assert "128" not in said, "0.04 is 0.08 after Holm"
    assert "32" not in said


def test_what_is_wrong_is_named(toy_bundle: ModuleType, tmp_path: Path) -> None:
    """One error for people."""
    labels = {f"f{k}": (0, 0) for k in range(2)}
    data = toy_bundle.films(tmp_path / "films", {name: np.full((90, 90), 99, np.uint8) for name in labels}, labels)
    bundle = toy_bundle.write(tmp_path / "toys")
    with pytest.raises(ProbeError, match="8 or more"):
        resolution.run(toy_bundle.cfg(bundle, data), tmp_path / "out", sizes=[0])
    with pytest.raises(ProbeError, match="bundle=DIR is needed"):
        resolution.run(toy_bundle.cfg(None, data), tmp_path / "out", sizes=[32])
    with pytest.raises(ProbeError, match="films are needed"):
        resolution.run(toy_bundle.cfg(bundle, None), tmp_path / "out", sizes=[32])
    with pytest.raises(ProbeError, match="known are test, all"):
        resolution.run(toy_bundle.cfg(bundle, data), tmp_path / "out", sizes=[32], films="train")
    with pytest.raises(ProbeError, match="one class only among 4"):
        resolution.run(toy_bundle.cfg(bundle, data), tmp_path / "out", sizes=[32], films="all")

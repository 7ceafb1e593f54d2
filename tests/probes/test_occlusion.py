"""Occlusion: where the parts of a film are, how they are filled, and what a detector needs of them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pandas as pd
import pytest

from domainseg.imaging import Film
from domainseg.probes import occlusion
from domainseg.probes.common import ProbeError
from domainseg.probes.occlusion import PARTS, bright_things, filled, mask_of, rois_of

ROI = np.array([[20, 30], [60, 30], [60, 80], [20, 80]], float)


def test_parts_lie_where_they_should() -> None:
    """ROI and outside divide the film; border and corners leave the ROI alone; without a ROI nobody can tell."""
    film = Film(pixels=np.full((100, 100), 0.4, np.float32))
    roi, outside = (mask_of(film, [ROI], part) for part in ("roi", "outside"))
    assert roi is not None
    assert outside is not None
    assert (roi ^ outside).all()
    assert roi[30:81, 20:61].all()
    assert roi.sum() == 41 * 51
    border, corners = (mask_of(film, [ROI], part) for part in ("border", "corners"))
    assert border is not None
    assert corners is not None
    assert border[5, 50]
    assert not border[50, 50]
    assert corners[5, 5]
    assert not corners[50, 5]
    assert corners.sum() == 4 * 20 * 20
    assert not (border & roi).any()
    assert mask_of(film, [], "roi") is None
    assert mask_of(film, [], "outside") is None


def test_markers_and_metal() -> None:
    """A lead letter outside the ROI is a marker, a plate is metal, and a white frame and a thin cortex are neither."""
    pixels = np.full((400, 400), 0.35, np.float32)
    pixels[:, :12] = 1.0  # frame
    pixels[40:55, 330:340] = 0.99  # letter
    pixels[150:260, 150:170] = 0.97  # plate, in the ROI
    pixels[150:350, 250:252] = 0.96  # cortex, in the ROI
    roi = np.zeros(pixels.shape, bool)
    roi[140:360, 140:260] = True
    markers, metal = bright_things(Film(pixels=pixels), roi)
    assert markers[40:55, 330:340].all()
    assert metal[150:260, 150:170].all()
    assert not metal[:, 240:].any()
    assert not (markers | metal)[:, :12].any()
    assert markers.mean() < 0.01


def test_filling_has_no_edges() -> None:
    """A flat film stays flat, a slope is bridged, and what was not masked is as before."""
    mask = np.zeros((200, 150), bool)
    mask[60:120, 50:100] = True
    flat = np.full(mask.shape, 0.3, np.float32)
    assert filled(np.where(mask, 1, flat).astype(np.float32), mask) == pytest.approx(flat, abs=1e-3)
    slope = np.broadcast_to(np.linspace(0, 1, 150, dtype=np.float32), mask.shape)
    found = filled(np.where(mask, 0, slope).astype(np.float32), mask)
    assert np.abs(found - slope)[mask].max() < 0.2
    assert (found[~mask] == slope[~mask]).all()


def test_the_part_that_a_detector_looks_at(toy_bundle: ModuleType, tmp_path: Path) -> None:
    """Broken hips are brighter, outside of them nothing tells: without the ROI nothing is left."""
    rng = np.random.default_rng(0)
    pixels, labels = {}, {}
    for k in range(14):
        grey = rng.normal(100, 3, toy_bundle.SHAPE)
        labels[f"f{k}"] = (k % 2, (k + 1) % 2)
        for where, label in zip((toy_bundle.LEFT, toy_bundle.RIGHT), labels[f"f{k}"], strict=True):
            blob = np.zeros(toy_bundle.SHAPE)
            blob[where] = 60 * label
            grey += cv2.GaussianBlur(blob, (0, 0), 2)
        pixels[f"f{k}"] = np.clip(grey, 0, 255).astype(np.uint8)
    data = toy_bundle.films(tmp_path / "films", pixels, labels)
    bundle = toy_bundle.write(tmp_path / "toys")
    found = occlusion.run(toy_bundle.cfg(bundle, data), tmp_path / "out", parts=list(PARTS), films="all")
    by = {effect["name"]: effect for effect in found["effects"]}
    assert found["auc"]["value"] > 0.95
    assert by["outside"]["scored_both"]["difference"]["value"] == pytest.approx(0, abs=0.05)
    assert by["roi"]["positive"]["high"] < 0
    assert by["roi"]["positive"]["value"] < by["outside"]["positive"]["value"]
    assert by["markers"]["films"] == by["metal"]["films"] == 0
    assert any(line.startswith("No film had this part: small bright things") for line in found["verdict"])
    assert (tmp_path / "out" / "occlusion.html").read_text().count("<figure>") == 4
    # ROIs of another table
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert set(rois_of(table)) == set(labels)
    assert len(rois_of(table)["f0"]) == 2
    settings = toy_bundle.cfg(bundle, data) | {"predictions": str(tmp_path / "out" / "predictions.csv")}
    again = occlusion.run(settings, tmp_path / "again", parts=["roi"], films="all")
    assert again["effects"][0]["auc"] == by["roi"]["auc"]


def test_what_is_wrong_is_named(toy_bundle: ModuleType, tmp_path: Path) -> None:
    """One error for people."""
    with pytest.raises(ProbeError, match="nose is unknown; known are outside"):
        occlusion.run(toy_bundle.cfg(None, None), tmp_path, parts=["nose"])
    with pytest.raises(ProbeError, match="lacks roi_x1"):
        rois_of(pd.DataFrame({"image": ["a"]}))
